"""Joining through nodes that we are connected to otherwise, and what a client answers to them."""

from __future__ import annotations

import random

from tom_dht_mainline.core import DhtConfig, Family, FamilySnapshot, Mode, Snapshot
from tom_dht_mainline.core.external import ExternalAddress
from tom_dht_mainline.core.krpc import build_query, parse

from .fakenet import FakeNet, Host, swarm

CLIENT = DhtConfig(mode=Mode.CLIENT)


def joined_client(net: FakeNet) -> Host:
    """A client that knows a swarm."""
    routers = swarm(net, 20, settle=20)
    host = net.add(CLIENT)
    net.finish(host, host.core.bootstrap([router.address for router in routers[:3]], net.now))
    return host


def test_a_node_joins_through_a_peer() -> None:
    """One that knows nobody asks a peer which is a client itself, joins, and keeps the peer neither as node nor as hop.

    The peer, a client, answers because we are its neighbour.
    """
    net = FakeNet(21)
    peer = joined_client(net)
    fresh = net.add(CLIENT)
    peer.core.set_neighbours([fresh.address])
    net.finish(fresh, fresh.core.bootstrap((), net.now, through=[peer.address]))
    assert fresh.core.knows_nodes()
    saved = fresh.core.snapshot(net.now).families[Family.IPV4].nodes
    assert saved and peer.address not in {(ip, port) for _, ip, port in saved}
    before = peer.received
    net.finish(fresh, fresh.core.find_node(random.Random(1).randbytes(20), net.now))
    assert peer.received == before


def test_a_client_answers_strangers_nothing() -> None:
    """Without being told of a neighbour a client is silent, and a neighbour gets nodes and nothing else."""
    net = FakeNet(22)
    peer = joined_client(net)
    asker = net.new_address()
    answers: list[bytes] = []
    net.tap = lambda data, source, destination: answers.append(data) if destination == asker else data

    def ask(method: bytes) -> list[bytes]:
        answers.clear()
        args = {b"id": b"q" * 20, b"target": b"t" * 20, b"info_hash": b"t" * 20}
        net.inject(build_query(b"tidx", method, args, read_only=True, version=b"TM\0\1"), asker, peer.address)
        net.run(1.0)
        return list(answers)

    assert ask(b"find_node") == []
    peer.core.set_neighbours([asker])
    (answer,) = ask(b"find_node")
    assert parse(answer).read_only and parse(answer).body[b"nodes"]
    assert len(ask(b"ping")) == 1
    for method in (b"get_peers", b"get", b"announce_peer", b"put", b"nonsense"):
        assert ask(method) == []
    assert not peer.core.serving


def test_neighbours_prove_no_reachability() -> None:
    """Their queries come through the NAT as those of nobody else: an adaptive client stays a client."""
    net = FakeNet(23)
    host = net.add(DhtConfig())
    neighbours = [net.new_address() for _ in range(3)]
    host.core.set_neighbours(neighbours)
    for address in neighbours:
        query = build_query(b"tidx", b"ping", {b"id": b"q" * 20}, read_only=True, version=b"TM\0\1")
        net.inject(query, address, host.address)
    net.run(1.0)
    assert not host.core.serving


def test_a_restored_address_is_told_once_it_is_seen_again() -> None:
    """What was saved is no news before votes say it; then it is, although it is the same as before."""
    saved = ("203.0.113.5", 4433)
    external = ExternalAddress()
    external.address = saved
    told = [external.vote((f"20.{number}.0.1", 6881), saved, number % 3, 1.0, by_address=False) for number in range(6)]
    assert told == [False, False, False, True, False, False]
    core_saved = Snapshot({Family.IPV4: FamilySnapshot(b"i" * 20, saved)})
    host = FakeNet(24).add(CLIENT, snapshot=core_saved)
    assert host.core.external_address() == saved and host.core.node_id() == b"i" * 20
