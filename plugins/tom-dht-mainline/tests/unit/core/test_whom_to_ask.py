"""Whom a look-up asks: two nodes first where all are near, and not those that never answer."""

from __future__ import annotations

from collections import Counter

import pytest

from tom_dht_mainline.core import Address, DhtConfig, Family, FindNodeOperation, Mode, MutableItem, PutOperation

from .fakenet import FakeNet, Host, Link, swarm
from .test_network import join, new_item

pytestmark = pytest.mark.simulated


def _warm_get(net: FakeNet, hosts: list[Host]) -> tuple[int, float]:
    """Packets of a get by a node that knows the RTTs of all, and seconds to its first value."""
    item = new_item(net)
    net.finish(hosts[1], hosts[1].core.put(item, net.now))
    reader = join(net, hosts[:4])
    for host in hosts:
        net.finish(reader, reader.core.ping(host.address, net.now))
    get = reader.core.get_mutable(item.public_key, net.now)
    net.finish(reader, get)
    assert get.item == item
    assert get.first_result_at is not None
    return get.queries_sent, get.first_result_at - get.started_at


def test_where_all_are_near_a_get_asks_two_nodes_first() -> None:
    """On one network the value of the two nearest nodes spares half the queries; far away all are asked at once."""
    net = FakeNet(5, Link(rtt=0.001, sigma=0.1))
    packets, first = _warm_get(net, swarm(net, 30, settle=30))
    assert packets <= DhtConfig().get_confirmations
    assert first < 0.002
    net = FakeNet(5, Link(rtt=0.05, sigma=0.1))
    packets, first = _warm_get(net, swarm(net, 30, settle=30))
    assert packets == DhtConfig().get_burst
    assert first < 0.06


def test_near_nodes_that_have_gone_hold_a_get_up_for_milliseconds() -> None:
    """When the two nodes that a get on one network asks first are dead, the others are asked 5 ms later."""
    net = FakeNet(6, Link(rtt=0.001, sigma=0.1))
    hosts = swarm(net, 30, settle=30)
    item = new_item(net)
    put = hosts[1].core.put(item, net.now)
    net.finish(hosts[1], put)
    reader = join(net, hosts[:4])
    for host in hosts:
        net.finish(reader, reader.core.ping(host.address, net.now))
    for contact in put.closest[:2]:
        net.kill(net.hosts[contact.address])
    get = reader.core.get_mutable(item.public_key, net.now)
    net.finish(reader, get)
    assert get.item == item
    assert get.first_result_at is not None
    assert 0.005 < get.first_result_at - get.started_at < 0.01


def test_nodes_that_stay_silent_are_left_out_though_others_name_them() -> None:
    """Dead nodes near a target, named by all others, get few of a newcomer's queries; back again, they are found."""
    net = FakeNet(7)
    hosts = swarm(net, 30, settle=30)
    item = new_item(net)
    dead = [net.hosts[contact.address] for contact in _put(net, hosts[1], item).closest[:3]]
    for host in dead:
        net.kill(host)
    reader = join(net, [host for host in hosts[:8] if host.alive])
    asked: Counter[str] = Counter()

    def tap(data: bytes, source: Address, destination: Address) -> bytes:
        asked[destination[0]] += source == reader.address and not net.hosts[destination].alive
        return data

    net.tap = tap
    for _ in range(8):
        net.finish(reader, reader.core.find_node(item.target, net.now))
    assert sum(asked.values()) <= 2 * len(dead)
    for host in dead:
        host.alive = True
    net.run(700)
    found = reader.core.find_node(item.target, net.now)
    net.finish(reader, found)
    assert {host.address for host in dead} <= {contact.address for contact in found.closest[:4]}


def test_an_outage_of_our_own_marks_nobody_as_silent() -> None:
    """After ten seconds in which nothing came through, the first get finds its item."""
    net = FakeNet(8)
    hosts = swarm(net, 30, settle=30)
    item = new_item(net)
    _put(net, hosts[1], item)
    reader = join(net, hosts[:4])
    net.tap = lambda data, source, destination: None
    for _ in range(5):
        net.finish(reader, reader.core.get_mutable(item.public_key, net.now))
        net.run(2)
    net.tap = None
    get = reader.core.get_mutable(item.public_key, net.now)
    net.finish(reader, get)
    assert get.item == item


@pytest.mark.parametrize("loses", [False, True], ids=["late", "lost"])
def test_a_second_of_silence_hides_no_item(loses: bool) -> None:
    """Where all answers of the first second come late, or not at all, a get finds its item nevertheless."""
    net = FakeNet(9)
    hosts = swarm(net, 30, settle=30)
    item = new_item(net)
    _put(net, hosts[1], item)
    reader = join(net, hosts[:4])
    until = net.now + 1.0

    def tap(data: bytes, source: Address, destination: Address) -> bytes | None:
        if net.now >= until or reader.address not in (source, destination):
            return data
        if not loses:
            net.inject(data, source, destination, until - net.now)
        return None

    net.tap = tap
    get = reader.core.get_mutable(item.public_key, net.now)
    net.finish(reader, get)
    assert get.item == item
    assert get.ended_at is not None and get.ended_at - get.started_at < 3.0


def _with_silent(seed: int, late: float | None) -> tuple[FakeNet, list[Host], Host, list[Host], MutableItem]:
    """A net whose nodes nearest to an item were silent to a newcomer, or answered seconds later; now they are well."""
    net = FakeNet(seed)
    hosts = swarm(net, 30, settle=30)
    item = new_item(net)
    nearest = sorted(hosts, key=lambda host: int.from_bytes(host.core.node_id(Family.IPV4), "big") ^ _number(item))[:8]
    busy = {host.address for host in nearest}
    newcomer = net.add(DhtConfig(mode=Mode.CLIENT))

    def tap(data: bytes, source: Address, destination: Address) -> bytes | None:
        if source not in busy or destination != newcomer.address:
            return data
        if late is not None:
            net.inject(data, source, destination, late)
        return None

    net.tap = tap
    net.finish(newcomer, newcomer.core.bootstrap([h.address for h in hosts if h.address not in busy][:4], net.now))
    for _ in range(8):
        net.finish(newcomer, newcomer.core.find_node(item.target, net.now))
    net.run(10)
    net.tap = None
    return net, hosts, newcomer, nearest, item


def _number(item: MutableItem) -> int:
    return int.from_bytes(item.target, "big")


def test_an_item_is_found_at_nodes_that_were_silent_before() -> None:
    """What only nodes hold that a newcomer has given up for silent is found all the same: they are asked in the end."""
    net, hosts, newcomer, nearest, item = _with_silent(10, None)
    put = _put(net, hosts[-1], item)
    assert {contact.address for contact in put.closest[:8]} == {host.address for host in nearest}
    get = newcomer.core.get_mutable(item.public_key, net.now)
    net.finish(newcomer, get)
    assert get.item == item


def test_an_item_goes_to_nodes_that_were_silent_before() -> None:
    """A newcomer's put reaches the nodes nearest to its target although it has given them up: readers look there."""
    net, _hosts, newcomer, nearest, item = _with_silent(11, None)
    put = _put(net, newcomer, item)
    assert {host.address for host in nearest} <= {contact.address for contact in put.closest}
    assert put.acknowledged >= 8 + DhtConfig().quorum
    reader = join(net, nearest)
    get = reader.core.get_mutable(item.public_key, net.now)
    net.finish(reader, get)
    assert get.item == item


def test_who_is_announced_is_found_at_nodes_that_were_silent_before() -> None:
    """A volunteer whom only nodes name that a newcomer has given up for silent is found by its next look-up."""
    net, hosts, newcomer, nearest, item = _with_silent(13, None)
    announced = hosts[-1].core.announce_peer(item.target, 7, net.now)
    net.finish(hosts[-1], announced)
    assert {contact.address for contact in announced.closest[:8]} == {host.address for host in nearest}
    found = newcomer.core.get_peers(item.target, net.now)
    net.finish(newcomer, found)
    assert found.peers == [hosts[-1].address]
    assert found.ended_at is not None and found.ended_at - found.started_at < 3.0


class _Dead:
    """A net in which the 3 nodes nearest to `target` have died, as `reader` knows; counts what it sends them now."""

    def __init__(self, seed: int, *, named: bool) -> None:
        self.net = net = FakeNet(seed)
        self.hosts = hosts = swarm(net, 30, settle=30)
        self.target = new_item(net).target
        if named:
            net.finish(hosts[-1], hosts[-1].core.announce_peer(self.target, 7, net.now))
        self.asked = {contact.address: 0 for contact in _find(net, hosts[1], self.target).closest[:3]}
        for address in self.asked:
            net.kill(net.hosts[address])
        self.reader = join(net, [host for host in hosts[:8] if host.alive])
        for _ in range(4):
            _find(net, self.reader, self.target)
        net.tap = self._tap

    def _tap(self, data: bytes, source: Address, destination: Address) -> bytes:
        if source == self.reader.address and destination in self.asked:
            self.asked[destination] += 1
        return data


def test_dead_nodes_near_a_topic_cost_one_packet_each_where_nobody_is_found() -> None:
    """Silent nodes are asked once more, and once only, before a look-up says that nobody is announced."""
    dead = _Dead(14, named=False)
    found = dead.reader.core.get_peers(dead.target, dead.net.now)
    dead.net.finish(dead.reader, found)
    assert found.peers == []
    assert list(dead.asked.values()) == [1, 1, 1]


def test_dead_nodes_near_a_topic_cost_nothing_where_somebody_is_found() -> None:
    """Three silent nodes of eight are not asked again where others have named somebody."""
    dead = _Dead(14, named=True)
    found = dead.reader.core.get_peers(dead.target, dead.net.now)
    dead.net.finish(dead.reader, found)
    assert found.peers == [dead.hosts[-1].address]
    assert list(dead.asked.values()) == [0, 0, 0]


def test_dead_nodes_near_a_mailbox_cost_nothing() -> None:
    """Three silent nodes of eight are not asked again by who polls, as they aren't by callers."""
    dead = _Dead(14, named=False)
    watch = dead.reader.core.watch_mailbox(dead.target, 1.1, dead.net.now)
    dead.net.flush(dead.reader)
    dead.net.run(5.0)
    assert watch.nodes == 8
    assert list(dead.asked.values()) == [0, 0, 0]


def test_a_mailbox_is_polled_at_nodes_that_were_silent_before() -> None:
    """Where all the nearest were silent a callee polls them again: callers announce themselves there."""
    net, _hosts, newcomer, nearest, item = _with_silent(15, None)
    watch = newcomer.core.watch_mailbox(item.target, 1.1, net.now)
    net.flush(newcomer)
    asked: Counter[Address] = Counter()
    net.run(3.0)

    def tap(data: bytes, source: Address, destination: Address) -> bytes:
        asked[destination] += source == newcomer.address and b"9:get_peers" in data
        return data

    net.tap = tap
    net.run(20.0)
    assert watch.nodes == 8
    assert {host.address for host in nearest} <= {address for address, times in asked.items() if times}


def test_who_answers_much_too_late_is_slow_and_not_gone() -> None:
    """Nodes whose answers come after they were forgotten are not left out of the next look-up."""
    net, _hosts, newcomer, nearest, item = _with_silent(12, 4.5)
    found = newcomer.core.find_node(item.target, net.now)
    net.finish(newcomer, found)
    assert {host.address for host in nearest} == {contact.address for contact in found.closest[:8]}


def _find(net: FakeNet, host: Host, target: bytes) -> FindNodeOperation:
    found = host.core.find_node(target, net.now)
    net.finish(host, found)
    return found


def _put(net: FakeNet, host: Host, item: MutableItem) -> PutOperation:
    put = host.core.put(item, net.now)
    net.finish(host, put)
    return put
