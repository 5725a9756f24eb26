"""A put returns at its quorum; what is missing then is made good behind it."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tom_dht_mainline.core import Family, Finished, MutableItem, PutOutcome, Stored

from .fakenet import FakeNet, swarm

pytestmark = pytest.mark.simulated


def test_silent_nodes_are_replaced_behind_the_quorum() -> None:
    """Two of the nearest nodes take no put: six acknowledge within a round trip or two, others make it eight."""
    net = FakeNet(41)
    hosts = swarm(net, 60, settle=30)
    item = MutableItem.sign(Ed25519PrivateKey.from_private_bytes(bytes(32)), b"value", 1)
    target = int.from_bytes(item.target, "big")
    writer, *others = hosts
    near = sorted(others, key=lambda host: int.from_bytes(host.core.node_id(Family.IPV4), "big") ^ target)
    silent = {host.address for host in near[1:3]}
    lost: set[tuple[str, int]] = set()

    def tap(data: bytes, source: tuple[str, int], destination: tuple[str, int]) -> bytes | None:
        if destination in silent and b"1:q3:put" in data:
            lost.add(destination)
            return None
        return data

    net.tap = tap
    put = writer.core.put(item, net.now)
    net.finish(writer, put)

    assert lost == silent
    (stored_at, stored), (ended_at, ended) = net.events_of(writer, put)
    assert isinstance(stored, Stored)
    assert isinstance(ended, Finished)
    assert stored.acknowledged == 6
    assert stored_at - put.started_at < 1.0
    assert ended_at > stored_at
    assert put.outcome is PutOutcome.STORED
    assert put.acknowledged >= 8
    holders = [host for host in hosts if host.core._server.items.get(item.target, net.now) == item]
    assert len(holders) >= 8
    assert not silent & {host.address for host in holders}
