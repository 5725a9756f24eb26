"""Polling for what is announced, and announcing while a get of the same target runs."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tom_dht_mainline.core import (
    Address,
    DhtConfig,
    DhtUsageError,
    Family,
    FamilySnapshot,
    Mode,
    MutableItem,
    PeersNamed,
    Snapshot,
    ValueFound,
)
from tom_dht_mainline.core.address import pack_address
from tom_dht_mainline.core.bencode import encode
from tom_dht_mainline.core.krpc import build_reply, parse
from tom_dht_mainline.core.rendezvous import mailbox

from .fakenet import FakeNet, Host, swarm

pytestmark = pytest.mark.simulated

HASH = bytes(range(20))
CLIENT = DhtConfig(mode=Mode.CLIENT)


def client(net: FakeNet, hosts: list[Host]) -> Host:
    """A client that has joined."""
    host = net.add(CLIENT)
    host.core.bootstrap([hosts[0].address, hosts[1].address], net.now)
    net.flush(host)
    net.run(10.0)
    return host


def test_an_announcement_is_found_by_the_next_poll_or_so() -> None:
    """Whoever announces to the nearest nodes is named within two polls, whichever node's turn it is."""
    net = FakeNet(1)
    hosts = swarm(net, 40, settle=20.0)
    callee, caller = client(net, hosts), client(net, hosts)
    watch = callee.core.watch_mailbox(HASH, 1.1, net.now)
    net.flush(callee)
    net.run(30.0)
    assert watch.nodes == mailbox.WIDTH
    operation = caller.core.announce_peer(HASH, 7, net.now)
    net.finish(caller, operation)
    announced = net.now
    net.run_until(lambda: any(isinstance(e, PeersNamed) for _, e in callee.events), 5.0)
    assert net.now - announced < 2.5
    assert next(e.peers for _, e in callee.events if isinstance(e, PeersNamed)) == (caller.address,)


def test_polling_goes_on_when_nodes_die_and_ends_with_its_operation() -> None:
    """Silent nodes are left out and others are looked for; after `cancel` not a packet is sent for it."""
    net = FakeNet(2)
    hosts = swarm(net, 40, settle=20.0)
    callee = client(net, hosts)
    watch = callee.core.watch_mailbox(HASH, 0.5, net.now)
    net.flush(callee)
    net.run(20.0)
    (run,) = [r for op, r in callee.core._context.running.items() if op is watch]
    for node in list(run._nodes)[:6]:  # type: ignore[attr-defined]
        net.kill(net.hosts[node.address])
    net.run(60.0)
    alive = [net.hosts[node.address].alive for node in run._nodes]  # type: ignore[attr-defined]
    assert len(alive) >= mailbox.FEWEST and all(alive)
    callee.core.cancel(watch, net.now)
    sent = watch.queries_sent
    net.flush(callee)
    net.run(60.0)
    assert watch.finished and watch.queries_sent == sent


def test_all_nodes_can_be_asked_at_once() -> None:
    """When somebody calls it matters who else says so."""
    net = FakeNet(3)
    hosts = swarm(net, 40, settle=20.0)
    callee, caller = client(net, hosts), client(net, hosts)
    watch = callee.core.watch_mailbox(HASH, 60.0, net.now)
    net.flush(callee)
    net.run(30.0)
    net.finish(caller, caller.core.announce_peer(HASH, 7, net.now))
    callee.core.poll_all(watch, net.now)
    net.flush(callee)
    net.run(2.0)
    assert len({e.node for _, e in callee.events if isinstance(e, PeersNamed)}) >= 6


def polls(net: FakeNet, host: Host, seconds: float) -> list[tuple[float, Address]]:
    """When a host asks whom who has announced, for so long."""
    asked: list[tuple[float, Address]] = []
    before = net.tap

    def tap(data: bytes, source: Address, destination: Address) -> bytes | None:
        if source == host.address and (message := parse(data)).kind == "q" and message.method == b"get_peers":
            asked.append((net.now, destination))
        return data if before is None else before(data, source, destination)

    net.tap = tap
    net.run(seconds)
    net.tap = before
    return asked


def test_nodes_that_come_later_and_are_nearer_are_polled_too() -> None:
    """Who calls announces to those that are nearest then: they are looked for again although all known ones answer."""
    net = FakeNet(12)
    hosts = swarm(net, 30, settle=20.0)
    callee = client(net, hosts)
    callee.core.watch_mailbox(HASH, 1.1, net.now)
    net.flush(callee)
    net.run(25.0)
    nearer = Snapshot({Family.IPV4: FamilySnapshot(HASH[:-1] + b"\xff", None)})
    newcomer = net.add(DhtConfig(mode=Mode.SERVER), snapshot=nearer)
    net.finish(newcomer, newcomer.core.bootstrap([host.address for host in hosts[:3]], net.now))
    assert newcomer.address in {node for _, node in polls(net, callee, mailbox.LOOKS[2] + 30.0)}


def test_another_node_at_the_address_is_polled_no_more() -> None:
    """What answers with another id is not the node that was looked up: it names nobody, and is left out."""
    net = FakeNet(13)
    callee = client(net, swarm(net, 30, settle=20.0))
    callee.core.watch_mailbox(HASH, 0.5, net.now)
    net.flush(callee)
    net.run(25.0)
    taken = polls(net, callee, 2.0)[-1][1]

    def tap(data: bytes, source: Address, destination: Address) -> bytes | None:
        if (source, destination) != (callee.address, taken):
            return data
        message = parse(data)
        body = encode({b"id": b"another node's id...", b"values": [pack_address(("198.18.0.1", 7))]})
        net.inject(build_reply(message.tid, body, pack_address(source), b"EVIL"), destination, source, 0.02)
        return None

    net.tap = tap
    assert [node for _, node in polls(net, callee, 30.0)].count(taken) == 1
    assert not any(isinstance(event, PeersNamed) for _, event in callee.events)


def test_nobody_can_tell_when_the_next_poll_comes() -> None:
    """The pauses are up to a tenth longer or shorter, each by chance, or a little longer after a look-up."""
    net = FakeNet(11)
    callee = client(net, swarm(net, 40, settle=20.0))
    callee.core.watch_mailbox(HASH, 1.1, net.now)
    net.flush(callee)
    net.run(25.0)
    times = [at for at, _ in polls(net, callee, 50.0)]
    pauses = [after - before for before, after in itertools.pairwise(times)]
    assert len(pauses) > 35 and len({round(pause, 2) for pause in pauses}) > 10
    assert min(pauses) >= 0.9 * 1.1 - 1e-6 and max(pauses) <= 1.1 * 1.15 * 1.1 + 1e-6


def test_an_announce_while_a_get_runs_uses_its_tokens() -> None:
    """What has answered the get is announced to at once: no node is asked for a token a second time."""
    net = FakeNet(4)
    hosts = swarm(net, 40, settle=20.0)
    # With other keys the nearest node may not have been asked when the first value comes: then there is nothing to use.
    key = Ed25519PrivateKey.from_private_bytes(bytes([2]) * 32)
    item = MutableItem.sign(key, b"record", 1)
    net.finish(hosts[5], hosts[5].core.put(item, net.now))
    caller = client(net, hosts)
    getting = caller.core.get_mutable(item.public_key, net.now)
    net.flush(caller)
    net.run_until(lambda: any(isinstance(e, ValueFound) for _, e in caller.events), 5.0)
    assert not getting.finished
    before = caller.core.counters.queries_out["get_peers"]
    operation = caller.core.announce_peer(item.target, 7, net.now)
    immediate = caller.core.counters.queries_out["announce_peer"]
    net.finish(caller, operation)
    assert immediate >= 1
    assert operation.acknowledged >= 6
    assert caller.core.counters.queries_out["get_peers"] - before < 8


@pytest.mark.parametrize("interval", [0.0, -1.0, float("nan")])
def test_an_interval_that_is_none_is_refused(interval: float) -> None:
    """A slip must not become a flood."""
    net = FakeNet(5)
    host = net.add(CLIENT)
    with pytest.raises(DhtUsageError):
        host.core.watch_mailbox(HASH, interval, net.now)


class Sybils:
    """Eight nodes nearer to an infohash than anybody, whom all others know: they drop what is stored and name each
    other alone."""

    def __init__(self, net: FakeNet, hosts: list[Host], target: bytes, told: dict[bytes, Any] | None = None) -> None:
        """`told`: what they answer besides, to who asks for an item."""
        self.asked = 0
        self._told = told or {}
        near = int.from_bytes(target, "big")
        self.contacts = {net.new_address(): (near ^ n).to_bytes(20, "big") for n in range(1, 9)}
        for address, node_id in self.contacts.items():
            for host in hosts:
                (state, *_) = host.core._context.families.values()
                state.table.responded(node_id, address, node_id + pack_address(address), net.now)
        self._named = b"".join(node_id + pack_address(address) for address, node_id in self.contacts.items())
        self._net = net
        net.tap = self._tap

    def _tap(self, data: bytes, source: Address, destination: Address) -> bytes | None:
        node_id = self.contacts.get(destination)
        if node_id is None:
            return data
        message = parse(data)
        if message.kind == "q":
            self.asked += 1
            told = self._told if message.method == b"get" else {}
            body = encode({b"id": node_id, b"nodes": self._named, b"token": b"any"} | told)
            self._net.inject(build_reply(message.tid, body, pack_address(source), b"EVIL"), destination, source, 0.02)
        return None


def test_a_call_is_found_past_nodes_that_are_made_up_around_the_mailbox() -> None:
    """The nearest 8 swallow the call and hide all others: both ends ask beside the target, and meet at honest nodes."""
    net = FakeNet(9)
    hosts = swarm(net, 60, settle=20.0)
    sybils = Sybils(net, hosts, HASH)
    callee = client(net, hosts)
    watch = callee.core.watch_mailbox(HASH, 1.1, net.now)
    net.flush(callee)
    net.run(10.0)
    assert watch.nodes >= 2 * mailbox.WIDTH
    caller = client(net, hosts)
    operation = caller.core.announce_peer(HASH, 7, net.now)
    net.finish(caller, operation)
    assert {contact.address for contact in operation.closest} >= set(sybils.contacts)
    net.run_until(lambda: any(isinstance(e, PeersNamed) for _, e in callee.events), 20.0)
    assert next(e.peers for _, e in callee.events if isinstance(e, PeersNamed)) == (caller.address,)


def test_those_past_a_crowd_are_polled_by_turns_with_it() -> None:
    """Who holds the nearest 8 nodes delays a call by a poll: of two in a row one goes beyond them."""
    net = FakeNet(9)
    hosts = swarm(net, 60, settle=20.0)
    sybils = Sybils(net, hosts, HASH)
    callee = client(net, hosts)
    callee.core.watch_mailbox(HASH, 0.5, net.now)
    net.flush(callee)
    net.run(25.0)
    made_up = [destination in sybils.contacts for _, destination in polls(net, callee, 20.0)]
    assert len(made_up) > 30 and all(one != other for one, other in itertools.pairwise(made_up))


def test_an_item_is_found_past_nodes_that_are_made_up_around_it() -> None:
    """The nearest 8 say that they store an item and have nothing: it lies on honest nodes too, and a get finds it."""
    net = FakeNet(10)
    hosts = swarm(net, 60, settle=20.0)
    item = MutableItem.sign(Ed25519PrivateKey.generate(), b"here", 1)
    Sybils(net, hosts, item.target)
    writer, reader = client(net, hosts), client(net, hosts)
    net.finish(writer, writer.core.put(item, net.now))
    get = reader.core.get_mutable(item.public_key, net.now)
    net.finish(reader, get)
    assert get.item == item


def told_by(item: MutableItem) -> dict[bytes, Any]:
    """An item as nodes tell it."""
    return {b"k": item.public_key, b"seq": item.seq, b"sig": item.signature, b"v": item.value}


@pytest.mark.parametrize("lies", [False, True], ids=["replayed", "forged"])
def test_who_has_just_started_is_not_content_with_what_a_crowd_replays(lies: bool) -> None:
    """The nearest 8 replay an old item, or forge one: a node that knows nobody yet finds the new one in half a second.

    How many nodes there are is known to it from the look-ups that it began together, before any of them has ended.
    """
    net = FakeNet(11)
    hosts = swarm(net, 60, settle=20.0)
    key = Ed25519PrivateKey.from_private_bytes(bytes([7]) * 32)
    old, new = MutableItem.sign(key, b"there", 1), MutableItem.sign(key, b"here", 2)
    net.finish(hosts[5], hosts[5].core.put(new, net.now))
    Sybils(net, hosts, new.target, told_by(old) | ({b"sig": bytes(64)} if lies else {}))
    reader = net.add(CLIENT)
    reader.core.bootstrap([hosts[0].address, hosts[1].address], net.now)
    began = net.now
    get = reader.core.get_mutable(new.public_key, net.now)
    net.flush(reader)
    net.run_until(lambda: get.item == new, 5.0)
    assert net.now - began < 0.5


def test_look_ups_at_one_place_look_beside_its_crowd_together() -> None:
    """A call to a mailbox near a record that was just found asks the crowd, and those beside it, hardly again."""
    net = FakeNet(12)
    hosts = swarm(net, 60, settle=20.0)
    item = MutableItem.sign(Ed25519PrivateKey.from_private_bytes(bytes([8]) * 32), b"here", 1)
    sybils = Sybils(net, hosts, item.target)
    writer, reader = client(net, hosts), client(net, hosts)
    net.finish(writer, writer.core.put(item, net.now))
    sent = reader.core.counters.queries_out
    net.finish(reader, reader.core.get_mutable(item.public_key, net.now))
    first, asked = sent["find_node"], sybils.asked
    announced = reader.core.announce_peer(item.target[:12] + bytes(8), 7, net.now)
    net.finish(reader, announced)
    honest = {contact.address for contact in announced.closest} - set(sybils.contacts)
    assert len(honest) >= mailbox.WIDTH
    assert sent["find_node"] - first <= 2
    assert sybils.asked - asked <= 2 * len(sybils.contacts)


def test_nodes_that_swallow_what_is_announced_are_polled_less() -> None:
    """They are half of those polled, and don't name us, who are announced too: they get a quarter of the polls."""
    net = FakeNet(13)
    hosts = swarm(net, 60, settle=20.0)
    sybils = Sybils(net, hosts, HASH)
    callee = client(net, hosts)
    watch = callee.core.watch_mailbox(HASH, 1.0, net.now)
    callee.core.announce_peer(HASH, 7, net.now)
    net.flush(callee)
    net.run(80.0)
    (run,) = [r for op, r in callee.core._context.running.items() if op is watch]
    polled = {node.address for node in run._nodes}  # type: ignore[attr-defined]
    assert len(polled & set(sybils.contacts)) >= mailbox.WIDTH - 1
    asked, sent = sybils.asked, watch.queries_sent
    net.run(100.0)
    assert watch.queries_sent - sent >= 80
    assert 4 <= sybils.asked - asked <= (watch.queries_sent - sent) * 0.3
