"""Look-ups among nodes of which many don't know BEP 44: they lead on, and hold nothing."""

from __future__ import annotations

import pytest

from tom_dht_mainline.core import Address, DhtConfig, Mode
from tom_dht_mainline.core.krpc import METHOD_UNKNOWN, build_error, parse

from .fakenet import FakeNet, Host, swarm
from .test_network import new_item

pytestmark = pytest.mark.simulated

CLIENT = DhtConfig(mode=Mode.CLIENT)
SHARE = 0.3
ROUNDS = 20


def refuse_items(net: FakeNet, hosts: list[Host]) -> None:
    """Have hosts answer error 204 to get and put, as programs do that are older than BEP 44."""
    old = {host.address for host in hosts}

    def tap(data: bytes, source: Address, destination: Address) -> bytes | None:
        if destination in old and (b"1:q3:get1:" in data or b"1:q3:put" in data):
            message = parse(data)
            error = build_error(message.tid, METHOD_UNKNOWN, b"Method Unknown", bytes(6), b"LT\0\0")
            net.inject(error, destination, source, net.link.rtt)
            return None
        return data

    net.tap = tap


def newcomer(net: FakeNet, routers: list[Host]) -> Host:
    """A client that has just begun to join."""
    host = net.add(CLIENT)
    host.core.bootstrap([router.address for router in routers], net.now)
    net.flush(host)
    return host


def test_records_reach_as_many_nodes_as_elsewhere() -> None:
    """With 3 of 10 nodes without BEP 44 puts of newcomers go to the nearest of the others, where newcomers look."""
    net = FakeNet(31)
    hosts = swarm(net, 60, settle=60)
    old = hosts[2 : 2 + round(SHARE * len(hosts))]
    refuse_items(net, old)
    able = [host.core.node_id() for host in hosts if host not in old]
    right = stored = 0
    for _ in range(ROUNDS):
        item = new_item(net)
        writer, reader = newcomer(net, hosts[:2]), newcomer(net, hosts[:2])
        put = writer.core.put(item, net.now)
        net.finish(writer, put)
        target = int.from_bytes(item.target)
        nearest = sorted(able, key=lambda node_id: int.from_bytes(node_id) ^ target)[:8]
        right += len(set(nearest) & {contact.node_id for contact in put.closest})
        stored += put.acknowledged
        get = reader.core.get_mutable(item.public_key, net.now)
        net.finish(reader, get)
        assert get.item == item
    assert stored >= 7 * ROUNDS
    assert right >= 5 * ROUNDS
