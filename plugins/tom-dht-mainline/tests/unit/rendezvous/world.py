"""Nodes behind simulated NATs and a DHT on one virtual clock: the protocol's parts joined as an endpoint joins them."""

from __future__ import annotations

import random
from collections.abc import Callable

import attrs

from tom_connect.addr import NodeAddr, SocketAddr
from tom_connect.holepunch.core import DiscoCore, Observed
from tom_connect.holepunch.disco import KNOCK, Mapping
from tom_connect.holepunch.events import PathProven
from tom_connect.holepunch.path import RelayPath
from tom_connect.holepunch.puncher import OPENING_TTLS
from tom_connect.keys import NodeId, SecretKey
from tom_connect.record import SignedRecord, sign_record
from tom_connect.rendezvous.knocks import Knocks
from tom_connect.testing.fakenet import TTL, FakeNet, Link, Router
from tom_dht_mainline.core import (
    DhtConfig,
    DhtCore,
    Family,
    Mode,
    MutableItem,
    PeersNamed,
    ValueFound,
    mutable_target,
)
from tom_dht_mainline.core.bencode import encode
from tom_dht_mainline.core.rendezvous.callee import Callee
from tom_dht_mainline.core.rendezvous.invitation import SALT, Filtering, Invitation, decode_invitation

LAB = ("198.18.0.0/15",)
POLL = 1.1


class DhtHost:
    """A host with a DHT core on one port."""

    def __init__(self, net: FakeNet, name: str, router: Router | None, mode: Mode, link: Link) -> None:
        self.net = net
        self.host = net.host(name, router, link=link)
        self.core = DhtCore(
            DhtConfig(mode=mode, trusted_networks=LAB, ipv6=False),
            rng=random.Random(net.rng.random()),
            now=net.now,
            is_excluded=self.excluded,
        )
        self.socket = self.host.socket(self._arrived, 4433)
        self.timer = net.timer(self._due)
        self.sent = 0
        self.flush()

    def excluded(self, address: tuple[str, int]) -> bool:
        """Whether a peer must not be asked."""
        return False

    def _arrived(self, data: bytes, source: SocketAddr) -> None:
        if data[:1] == b"d":
            self.core.receive(data, (source.host, source.port), self.net.now)
            self.flush()
        else:
            self.other(data, source)

    def other(self, data: bytes, source: SocketAddr) -> None:
        """Take what is not of the DHT."""

    def _due(self) -> None:
        self.core.handle_timer(self.net.now)
        self.flush()

    def flush(self) -> None:
        """Send what the core wants sent, handle its events, set its timer."""
        for data, (host, port) in self.core.datagrams_to_send():
            self.sent += 1
            self.socket.send(data, SocketAddr(host, port))
        events = self.core.events()
        self.timer.set(self.core.next_timer())
        for event in events:
            self.happened(event)

    def happened(self, event: object) -> None:
        """Take an event of the core."""


class Peer(DhtHost):
    """A node as an endpoint is one: DHT and disco on one socket. `calls`: whether it looks for calls."""

    def __init__(self, world: World, name: str, router: Router | None, *, calls: bool) -> None:
        self.secret = SecretKey(name.encode().ljust(32, b"."))
        self.disco = DiscoCore(self.secret, random=world.net.rng.randbytes)
        self.disco.openers = []
        self.punched: set[tuple[str, int]] = set()
        super().__init__(world.net, name, router, Mode.CLIENT, world.link)
        self.world = world
        self.callee = Callee(mutable_target(self.id.raw), world.net.rng.randbytes)
        self.knocks = Knocks()
        self.knock_timer = self.net.timer(self._knock)
        self.disco_timer = self.net.timer(self._tick)
        self.proven: list[tuple[float, SocketAddr]] = []
        self._gets: dict[object, Callable[[MutableItem], None]] = {}
        self._wants_calls = calls
        self.core.bootstrap([(addr.host, addr.port) for addr in world.bootstrap], self.net.now)
        self.flush()

    @property
    def id(self) -> NodeId:
        return self.secret.node_id

    @property
    def seen_at(self) -> SocketAddr | None:
        """Where the DHT sees us, None as long as it is not known or nobody could use it."""
        address = self.core.external_address(Family.IPV4)
        return SocketAddr(*address) if address is not None and address[1] else None

    def excluded(self, address: tuple[str, int]) -> bool:
        return address in self.punched

    # --- being called -----------------------------------------------------------------------------------------

    def publish(self, *, clock: float = 0.0) -> None:
        """Put the record and the invitation, as of a clock that is so many seconds wrong; poll from now on."""
        seq = int((1_800_000_000 + self.net.now + clock) * 1e6)
        addrs = [self.seen_at] if self.seen_at is not None else []
        if addrs:
            record = sign_record(self.secret, NodeAddr(self.id, (), addrs), seq)
            item = MutableItem(self.id.raw, encode(record.dns_packet), seq, record.signature)
            self.core.put(item, self.net.now)
        mapped = self.core.external_address(Family.IPV4)
        invitation = Invitation(
            mailbox=self.callee.mailbox,
            interval=POLL,
            nodes=8,
            key=bytes(32),
            filtering=Filtering.OPEN if self.host.router is None else Filtering.FILTERED,
            ports_differ=mapped is not None and mapped[1] == 0,
        )
        self.core.put(MutableItem.sign(self.secret.private_key, invitation.encode(), seq, SALT), self.net.now)
        if self._wants_calls:
            self.core.watch_mailbox(self.callee.mailbox, POLL, self.net.now)
        self.flush()

    def happened(self, event: object) -> None:
        if isinstance(event, PeersNamed):
            own = [(self.seen_at.host, self.seen_at.port)] if self.seen_at is not None else []
            for caller in self.callee.named(event.node, event.peers, own, self.net.now):
                self.punched.update(caller.addrs)
                self.knocks.called([SocketAddr(*address) for address in caller.addrs], self.net.now)
                self._knock()
            if self.callee.crowded(event.node, event.peers, self.net.now):
                self.core.cancel(event.operation, self.net.now)
                self.publish()
        elif isinstance(event, ValueFound) and isinstance(event.item, MutableItem):
            then = self._gets.get(event.operation)
            if then is not None:
                then(event.item)

    def _knock(self) -> None:
        for knock in self.knocks.take(self.net.now):
            self.socket.send(KNOCK, knock.addr, ttl=OPENING_TTLS[0] if knock.opener else TTL)
        self.knock_timer.set(self.knocks.due)

    # --- calling ----------------------------------------------------------------------------------------------

    def call(self, node_id: NodeId) -> None:
        """Dial a node of which nothing but the key is known."""
        mapped = self.core.external_address(Family.IPV4)
        if mapped is not None:
            mapping = Mapping.INDEPENDENT if mapped[1] else Mapping.DEPENDENT
            self.disco.set_own_nat(mapping, SocketAddr(*mapped), self.net.now)
        remote = self.disco.acquire(node_id, self.net.now)
        self.disco.meetings.begin(remote, self.net.now)
        target = mutable_target(node_id.raw)
        announced: list[bytes] = []

        def announce(mailbox: bytes) -> None:
            if mailbox not in announced:
                announced.append(mailbox)
                self.core.announce_peer(mailbox, 4433, self.net.now)

        def found(item: MutableItem) -> None:
            assert isinstance(item.value, bytes)
            addrs = self.world.read(node_id, item)
            self.punched.update((addr.host, addr.port) for addr in addrs)
            self.disco.add_candidates(remote, addrs, "dht", self.net.now, trusted=False)
            self.disco.meetings.opened(node_id, self.net.now)
            self.pump()
            announce(target)

        def invited(item: MutableItem) -> None:
            invitation = decode_invitation(item.value)
            filtered = invitation.filtering is Filtering.FILTERED
            self.disco.meetings.learned(node_id, self.net.now, filtered=filtered)
            self.pump()
            if invitation.ports_differ or invitation.mailbox != target:
                announce(invitation.mailbox)

        self._gets[self.core.get_mutable(node_id.raw, self.net.now)] = found
        self._gets[self.core.get_mutable(node_id.raw, self.net.now, salt=SALT)] = invited
        self.flush()
        self.pump()

    def other(self, data: bytes, source: SocketAddr) -> None:
        self.disco.receive(data, source, self.net.now)
        self.pump()

    def _tick(self) -> None:
        self.disco.tick(self.net.now)
        self.pump()

    def pump(self) -> None:
        """Carry out what the disco core wants."""
        openers, self.disco.openers = self.disco.openers or [], []
        for addr, packet, ttl in openers:
            self.socket.send(packet, addr, ttl=ttl)
        outbox, self.disco.outbox = self.disco.outbox, []
        for path, packet in outbox:
            assert not isinstance(path, RelayPath)
            self.socket.send(packet, path)
        events, self.disco.events = self.disco.events, []
        for event in events:
            if not isinstance(event, Observed) and isinstance(event, PathProven):
                assert isinstance(event.path, SocketAddr)
                self.proven.append((self.net.now, event.path))
        self.disco_timer.set(self.disco.next_due())


@attrs.define
class World:
    """A DHT of `size` nodes on the open internet, with 50 ms between any two ends of it."""

    net: FakeNet
    link: Link
    nodes: list[DhtHost]

    @classmethod
    def make(cls, seed: int, *, size: int = 20, loss: float = 0.0) -> World:
        net = FakeNet(seed)
        link = Link(delay=0.0125, loss=loss)
        nodes = [DhtHost(net, f"dht{n}", None, Mode.SERVER, link) for n in range(size)]
        for node in nodes:
            known = [(other.host.addr(4433).host, 4433) for other in nodes[:3] if other is not node]
            node.core.bootstrap(known, net.now)
            node.flush()
        net.advance(15.0)
        return cls(net, link, nodes)

    @property
    def bootstrap(self) -> list[SocketAddr]:
        return [node.host.addr(4433) for node in self.nodes[:2]]

    def read(self, node_id: NodeId, item: MutableItem) -> list[SocketAddr]:
        """The addresses of a record."""
        assert isinstance(item.value, bytes)
        return list(SignedRecord(node_id, item.signature, item.seq, item.value).addr.direct_addrs)

    def until(self, done: Callable[[], bool], limit: float) -> bool:
        """Let time pass until `done()`; whether it came within `limit` seconds."""
        end = self.net.now + limit
        while not done() and self.net.now < end:
            self.net.advance(0.02)
        return done()
