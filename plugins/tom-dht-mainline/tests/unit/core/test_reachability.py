"""Where a node is and whether others can reach it: votes, ids by address, and the way from client to server."""

from __future__ import annotations

import pytest

from tom_dht_mainline.core import DhtConfig, ExternalAddressChanged, Family, Mode, ModeChanged, NodeIdChanged
from tom_dht_mainline.core.nodeid import matches_ip

from .fakenet import FakeNet, Host, swarm

pytestmark = pytest.mark.simulated

CLIENT = DhtConfig(mode=Mode.CLIENT)


def join(net: FakeNet, routers: list[Host], config: DhtConfig = CLIENT, settle: float = 40.0) -> Host:
    host = net.add(config)
    operation = host.core.bootstrap([router.address for router in routers], net.now)
    net.finish(host, operation)
    net.run(settle)
    return host


def test_the_id_follows_the_address() -> None:
    """Nodes of separate searches agree where we are; then, once, we take an id for it (BEP 42) and keep our table."""
    net = FakeNet(13)
    hosts = swarm(net, 30, settle=30)
    for host in hosts:
        assert host.core.external_address() == host.address
        assert matches_ip(host.core.node_id(), host.address[0])
        assert sum(isinstance(event, NodeIdChanged) for _, event in host.events) == 1
        assert sum(isinstance(event, ExternalAddressChanged) for _, event in host.events) == 1


def test_liars_cannot_change_the_id() -> None:
    """One network's worth of liars, or one search's worth of votes, leave id and address alone."""
    net = FakeNet(14)
    hosts = swarm(net, 20, settle=20)
    victim = hosts[7]
    before = victim.core.node_id(), victim.core.external_address()
    liars = {host.address for host in hosts[1:5]}

    def tap(data: bytes, source: tuple[str, int], destination: tuple[str, int]) -> bytes:
        if source in liars and destination == victim.address and b"2:ip6:" in data:
            at = data.index(b"2:ip6:") + 6
            return data[:at] + bytes((6, 6, 6, 6, 0, 80)) + data[at + 6 :]
        return data

    net.tap = tap
    net.run(1800.0)
    assert (victim.core.node_id(), victim.core.external_address()) == before


def test_client_until_reachable_then_server() -> None:
    """An adaptive node answers nothing until its own ping comes back from outside; then it serves and is listed."""
    net = FakeNet(15)
    hosts = swarm(net, 30, settle=30)
    host = net.add(DhtConfig())
    assert not host.core.serving
    host.core.bootstrap([h.address for h in hosts[:4]], net.now)
    net.flush(host)
    net.run(300.0)
    assert host.core.serving
    assert any(isinstance(event, ModeChanged) and event.serving for _, event in host.events)
    finder = join(net, hosts[:4])
    search = finder.core.find_node(host.core.node_id(), net.now)
    net.finish(finder, search)
    assert host.address in [contact.address for contact in search.closest]


def test_client_behind_a_nat_stays_client() -> None:
    """Where what comes unasked, own pings included, is dropped on the way in, a node stays a client with ro=1."""
    net = FakeNet(16)
    hosts = swarm(net, 30, settle=30)
    host = net.add(DhtConfig())

    def tap(data: bytes, source: tuple[str, int], destination: tuple[str, int]) -> bytes | None:
        return None if destination == host.address and b"1:y1:q" in data else data

    net.tap = tap
    host.core.bootstrap([h.address for h in hosts[:4]], net.now)
    net.flush(host)
    net.run(300.0)
    assert not host.core.serving
    assert all(h.core._context.families[Family.IPV4].table.find(host.address) is None for h in hosts)


def test_a_firewall_that_lets_own_pings_through_is_found_out() -> None:
    """A node whose own ping proves nothing, as no stranger ever reaches it, is a client again after half an hour."""
    net = FakeNet(17)
    hosts = swarm(net, 30, settle=30)
    host = net.add(DhtConfig())

    def tap(data: bytes, source: tuple[str, int], destination: tuple[str, int]) -> bytes | None:
        if destination == host.address and b"1:y1:q" in data and source != host.address:
            return None
        return data

    net.tap = tap
    host.core.bootstrap([h.address for h in hosts[:4]], net.now)
    net.flush(host)
    net.run(300.0)
    assert host.core.serving
    net.run(1800.0)
    assert not host.core.serving


def test_network_change() -> None:
    """After a move to another address the node notices, takes a new id and goes on."""
    net = FakeNet(27)
    hosts = swarm(net, 30, settle=30)
    host = join(net, hosts[:4])
    old, moved = host.address, net.new_address()
    del net.hosts[old]
    net.hosts[moved] = host
    host.address = moved
    host.armed = float("inf")
    host.core.network_changed(net.now)
    net.flush(host)
    assert host.core.external_address() is None
    net.run(60)
    assert host.core.external_address() == moved
    assert matches_ip(host.core.node_id(), moved[0])
