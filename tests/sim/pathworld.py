"""A small world for path tests: nodes with a DiscoCore each, links that lose and delay, a clock that is turned."""

from __future__ import annotations

import heapq
import itertools
import random
from collections import Counter
from collections.abc import Callable

import attrs

from tom_connect.addr import RelayUrl, SocketAddr
from tom_connect.holepunch.core import DiscoCore, Observed
from tom_connect.holepunch.events import PathEvent
from tom_connect.holepunch.path import Path, RelayPath
from tom_connect.holepunch.paths import RemotePaths
from tom_connect.keys import NodeId, SecretKey

RELAY = RelayUrl.parse("https://relay.test/")
QUIC_SIZE = 1200


@attrs.define
class Link:
    """One way of travelling: by family, or by relay. Delays are one-way seconds."""

    delay: float = 0.010
    jitter: float = 0.0
    loss: float = 0.0
    duplicate: float = 0.0
    up: bool = True


class Node:
    """A node at some addresses, at most one a family."""

    def __init__(self, world: World, name: str, *addrs: str, allow_local: bool = False, disco: bool = True) -> None:
        self.world = world
        self.name = name
        self.secret = SecretKey(name.encode().ljust(32, b"."))
        self.core = DiscoCore(self.secret, allow_local=allow_local, random=world.rng.randbytes)
        self.addrs = {addr.family: addr for addr in map(SocketAddr.parse, addrs)}
        self.events: list[PathEvent] = []
        self.observed: list[Observed] = []
        self.quic_got: list[float] = []
        self.quic_copies: Counter[Path] = Counter()
        self.disco = disco
        self.remotes: dict[NodeId, RemotePaths] = {}

    @property
    def id(self) -> NodeId:
        return self.secret.node_id

    def relay(self) -> RelayPath:
        return RelayPath(RELAY, self.id)

    def hold(self, peer: Node) -> RemotePaths:
        remote = self.remotes[peer.id] = self.core.acquire(peer.id, self.world.now)
        self.pump()
        return remote

    def tell(self, peer: Node, *addrs: str, trusted: bool = False, source: str = "dht") -> None:
        found = [SocketAddr.parse(addr) for addr in addrs] or list(peer.addrs.values())
        self.core.add_candidates(self.remotes[peer.id], found, source, self.world.now, trusted=trusted)
        self.pump()

    def send_quic(self, peer: Node, *, asks: bool = True, keeps: bool = False) -> None:
        """One packet as the magic socket would send it; the peer's QUIC answers each with an acknowledgment."""
        remote = self.remotes[peer.id]
        for state in remote.targets:
            if state.credit is not None:
                if state.credit < QUIC_SIZE:
                    continue
                state.credit -= QUIC_SIZE
            self.quic_copies[state.path] += 1
            self.world.carry(self, state.path, b"\x40" + self.id.raw)
        remote.sent(self.world.now, asks=asks, keeps=keeps)

    def pump(self) -> None:
        while self.core.outbox or self.core.events:
            outbox, self.core.outbox = self.core.outbox, []
            for path, data in outbox if self.disco else ():
                self.world.carry(self, path, data)
            events, self.core.events = self.core.events, []
            for event in events:
                (self.observed if isinstance(event, Observed) else self.events).append(event)  # type: ignore[arg-type]

    def receive(self, data: bytes, source: Path) -> None:
        now = self.world.now
        if data[0] == 0x40:
            self.quic_got.append(now)
            remote = self.remotes.get(NodeId(data[1:33]))
            if remote is not None:
                remote.quic_heard(source, now, QUIC_SIZE)
        elif self.disco:
            self.core.receive(data, source, now)
        self.pump()

    def of(self, kind: type[PathEvent]) -> list[PathEvent]:
        return [event for event in self.events if isinstance(event, kind)]


class World:
    """Carries datagrams between nodes; everything random comes from one seed."""

    def __init__(self, seed: int = 1) -> None:
        self.rng = random.Random(seed)
        self.now = 1000.0
        self.nodes: list[Node] = []
        self.v4, self.v6, self.relay = Link(), Link(), Link(delay=0.030)
        self.sent: Counter[Path] = Counter()
        self.disco_sent = 0
        self.sizes: Counter[int] = Counter()
        self.answers: dict[int, int] = {}
        self._queue: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()

    def node(self, name: str, *addrs: str, **options: bool) -> Node:
        node = Node(self, name, *addrs, **options)
        self.nodes.append(node)
        return node

    def at(self, when: float, action: Callable[[], None]) -> None:
        heapq.heappush(self._queue, (when, next(self._order), action))

    def every(self, interval: float, until: float, action: Callable[[], None]) -> None:
        def again() -> None:
            action()
            if self.now + interval < until:
                self.at(self.now + interval, again)

        self.at(self.now, again)

    def traffic(self, a: Node, b: Node, seconds: float, interval: float = 0.02) -> None:
        """Both send, as two ends of a connection do."""
        self.every(interval, self.now + seconds, lambda: a.send_quic(b))
        self.every(interval, self.now + seconds, lambda: b.send_quic(a))

    def keep_alive(self, a: Node, b: Node) -> None:
        """A connection's keep-alive and what acknowledges it."""
        a.send_quic(b, keeps=True)
        self.at(self.now + 0.05, lambda: b.send_quic(a, asks=False))

    def carry(self, sender: Node, path: Path, data: bytes) -> None:
        self.sent[path] += 1
        if data[0] != 0x40:
            self.disco_sent += 1
            self.sizes[len(data)] += 1
        source: Path
        if isinstance(path, RelayPath):
            link, source = self.relay, RelayPath(path.url, sender.id)
        else:
            own = sender.addrs.get(path.family)
            if own is None:
                return
            link, source = (self.v6 if ":" in path.host else self.v4), own
        copies = 1 + (self.rng.random() < link.duplicate)
        for _ in range(copies):
            if link.up and self.rng.random() >= link.loss:
                delay = link.delay + self.rng.random() * link.jitter
                self.at(self.now + delay, lambda: self._arrive(path, source, data, link))

    def _arrive(self, path: Path, source: Path, data: bytes, link: Link) -> None:
        if not link.up:
            return
        for node in self.nodes:
            there = path == node.relay() if isinstance(path, RelayPath) else path in node.addrs.values()
            if there:
                node.receive(data, source)

    def run(self, seconds: float) -> None:
        """Turn the clock."""
        end = self.now + seconds
        steps = 0
        while True:
            steps += 1
            assert steps < 2_000_000, "the protocol does not come to rest"
            due = [due for node in self.nodes if (due := node.core.next_due()) is not None]
            times = [*due, *([self._queue[0][0]] if self._queue else [])]
            when = min(times, default=end)
            if when > end:
                break
            self.now = max(self.now, when)
            while self._queue and self._queue[0][0] <= self.now:
                heapq.heappop(self._queue)[2]()
            for node in self.nodes:
                node_due = node.core.next_due()
                if node_due is not None and node_due <= self.now:
                    node.core.tick(self.now)
                    node.pump()
            if when >= end:
                break
        self.now = end


def pair(world: World, **options: bool) -> tuple[Node, Node]:
    """Two nodes with an IPv4 and an IPv6 address each, that hold each other."""
    a = world.node("a", "192.0.2.1:1000", "[2001:db8::1]:1000", **options)
    b = world.node("b", "198.51.100.2:2000", "[2001:db8::2]:2000", **options)
    a.hold(b)
    b.hold(a)
    return a, b
