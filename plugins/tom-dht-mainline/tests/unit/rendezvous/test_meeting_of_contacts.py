"""Contacts behind simulated NATs meet at places of their own, and nobody near their node ids sees anything of it."""

from __future__ import annotations

import attrs
import pytest

from tom_connect.addr import NodeAddr
from tom_connect.keys import NodeId, SecretKey
from tom_connect.record import SignedRecord
from tom_connect.signing import NodeSigner
from tom_connect.testing.fakenet import Nat, Router
from tom_dht_mainline.contacts import PRICE
from tom_dht_mainline.core import Family, MutableItem, mutable_target
from tom_dht_mainline.core.rendezvous.callee import Callee
from tom_dht_mainline.core.rendezvous.contacts import PURPOSE, Kind, day_of, days_of, place
from tom_dht_mainline.core.rendezvous.invitation import SALT, Filtering, Invitation, decode_invitation

from .world import POLL, Peer, World

pytestmark = pytest.mark.simulated

TRAP = attrs.evolve(Nat.MODERATE, tracks_unsolicited=True)
MIDNIGHT = 1_800_057_600.0
"""Seconds since 1970 at which a day begins."""


class Contact(Peer):
    """A node that tells its contacts alone where it is and how to call it. `clock`: its time of day at the start."""

    def __init__(self, world: World, name: str, router: Router | None, *, calls: bool, clock: float) -> None:
        super().__init__(world, name, router, calls=calls)
        self.clock = clock - world.net.now
        self.callee = Callee(world.net.rng.randbytes(20), world.net.rng.randbytes)

    def shared(self, other: NodeId) -> bytes:
        return NodeSigner(self.secret).shared_secret(other, PURPOSE)

    def publish_for(self, *others: NodeId) -> None:
        """Leave record and invitation for each; poll from now on."""
        wall = self.clock + self.net.now
        assert self.seen_at is not None
        addr = NodeAddr(self.id, (), [self.seen_at])
        record = NodeSigner(self.secret).sign_record(addr, int(wall * 1e6))
        invitation = Invitation(
            mailbox=self.callee.mailbox,
            interval=self.interval(len(others)),
            nodes=8,
            key=bytes(32),
            filtering=Filtering.OPEN if self.host.router is None else Filtering.FILTERED,
        )
        contents = {Kind.RECORD: record.relay_payload(), Kind.INVITATION: invitation.encode()}
        for other in others:
            for kind, content in contents.items():
                for day in days_of(wall):
                    here = place(self.shared(other), kind, self.id.raw, day)
                    item = here.item(content, int(wall * 1e6), self.net.rng.randbytes(12))
                    self.core.put(item, self.net.now)
        if self._wants_calls:
            self.core.watch_mailbox(self.callee.mailbox, self.interval(len(others)), self.net.now)
        self.flush()

    @staticmethod
    def interval(contacts: int) -> float:
        """Seconds between two polls of a node that looks for calls of contacts alone."""
        return POLL * (1 + contacts / PRICE)

    def call_contact(self, node_id: NodeId) -> None:
        """Dial a contact."""
        mapped = self.core.external_address(Family.IPV4)
        assert mapped is not None
        remote = self.disco.acquire(node_id, self.net.now)
        self.disco.meetings.begin(remote, self.net.now)
        today = day_of(self.clock + self.net.now)
        places = {kind: place(self.shared(node_id), kind, node_id.raw, today) for kind in Kind}
        opened, mailboxes = False, list[bytes]()

        def announce() -> None:
            while opened and mailboxes:
                self.core.announce_peer(mailboxes.pop(), 4433, self.net.now)

        def found(item: MutableItem) -> None:
            nonlocal opened
            record = SignedRecord.from_relay_payload(node_id, places[Kind.RECORD].open(item.value))
            addrs = list(record.addr.direct_addrs)
            self.punched.update((addr.host, addr.port) for addr in addrs)
            self.disco.add_candidates(remote, addrs, "dht", self.net.now, trusted=False)
            self.disco.meetings.opened(node_id, self.net.now)
            self.pump()
            opened = True
            announce()

        def invited(item: MutableItem) -> None:
            invitation = decode_invitation(places[Kind.INVITATION].open(item.value))
            filtered = invitation.filtering is Filtering.FILTERED
            self.disco.meetings.learned(node_id, self.net.now, filtered=filtered)
            self.pump()
            mailboxes.append(invitation.mailbox)
            announce()

        for kind, then in ((Kind.RECORD, found), (Kind.INVITATION, invited)):
            self._gets[self.core.get_mutable(places[kind].public_key, self.net.now)] = then
        self.flush()
        self.pump()


def pair(seed: int, caller: Nat | None, callee: Nat | None, wrong: float = 0.0) -> tuple[World, Contact, Contact]:
    """A caller, and a callee that has been reachable for some seconds; `wrong`: how far the caller's clock is ahead."""
    world = World.make(seed)
    nodes = []
    for name, kind, clock in (("caller", caller, MIDNIGHT + wrong), ("callee", callee, MIDNIGHT)):
        router = None if kind is None else world.net.router(f"{name}-router", kind)
        nodes.append(Contact(world, name, router, calls=name == "callee", clock=clock))
    world.net.advance(10.0)
    here, there = nodes
    there.publish_for(here.id)
    world.net.advance(5.0)
    return world, here, there


@pytest.mark.parametrize("wrong", [-7000.0, 0.0, 7000.0], ids=["behind", "right", "ahead"])
@pytest.mark.parametrize("kind", [None, Nat.MODERATE, TRAP], ids=["none", "moderate", "trap"])
def test_contacts_meet_whatever_their_clocks_say(kind: Nat | None, wrong: float) -> None:
    """At midnight, with a caller's clock up to two hours wrong; it takes a look-up more, since mailboxes are drawn."""
    world, here, there = pair(1, TRAP if kind is TRAP else Nat.MODERATE, kind, wrong)
    began = world.net.now
    here.call_contact(there.id)
    assert world.until(lambda: bool(here.proven), 20.0)
    assert here.proven[0][0] - began < 2 * POLL + 2.5


def test_nobody_sees_whom_it_concerns() -> None:
    """No DHT node was ever asked for, or holds, anything under a target that can be told from a node id."""
    world, here, there = pair(2, Nat.MODERATE, Nat.MODERATE)
    named = {mutable_target(node.raw, salt) for node in (here.id, there.id) for salt in (b"", SALT)}
    seen: set[bytes] = set()
    for node in world.nodes:
        receive = node.core.receive

        def listen(data: bytes, address: tuple[str, int], now: float, receive: object = receive) -> None:
            seen.update(target for target in named if target in data)
            assert here.id.raw not in data and there.id.raw not in data
            receive(data, address, now)  # type: ignore[operator]

        node.core.receive = listen  # type: ignore[method-assign]
    here.publish_for(there.id)
    here.call_contact(there.id)
    assert world.until(lambda: bool(here.proven), 20.0)
    there.publish_for(here.id)
    world.net.advance(30.0)
    assert not seen


def test_eight_contacts_cost_at_most_60_packets_a_minute() -> None:
    """Polls, look-ups, and what is left for each of them every hour, over two hours around midnight."""
    world, _, there = pair(3, Nat.MODERATE, Nat.MODERATE)
    others = [SecretKey(bytes([number]) * 32).node_id for number in range(8)]
    for operation in [op for op in there.core._context.running if hasattr(op, "interval")]:
        there.core.cancel(operation, world.net.now)
    there.publish_for(*others)
    before = there.core.counters.queries_out.copy()
    there._wants_calls = False
    for _ in range(2):
        world.net.advance(3600.0)
        there.publish_for(*others)
    sent = there.core.counters.queries_out - before
    # The DHT's own upkeep, which everybody has, is find_node and ping.
    asked = sum(count for kind, count in sent.items() if kind not in ("find_node", "ping"))
    assert 40 * 120 < asked <= 60 * 120
