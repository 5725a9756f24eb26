"""Nodes behind simulated NATs that dial each other through a simulated relay: disco in earnest, QUIC as its packets."""

from __future__ import annotations

from math import inf

import attrs

from tom_connect.addr import SocketAddr
from tom_connect.holepunch.core import DiscoCore, Observed
from tom_connect.holepunch.disco import Mapping
from tom_connect.holepunch.events import PathEvent, PathSelected
from tom_connect.holepunch.path import Path, RelayPath, ViaSocket
from tom_connect.holepunch.paths import RemotePaths
from tom_connect.keys import NodeId, SecretKey
from tom_connect.testing.fakenet import TTL, FakeNet, FakeSocket, Host, Link, Nat, Router
from tom_connect.testing.fakerelay import FakeRelay

QUIC_SIZE = 1200
INITIAL, HANDSHAKE, FINISHED, DONE, DATA = range(0x40, 0x45)
MIRROR_PORT = 3478


class Mirror:
    """Tells senders where they are seen, as STUN servers do."""

    def __init__(self, net: FakeNet, name: str) -> None:
        self.host = net.host(name)
        self._socket = self.host.socket(self._asked, MIRROR_PORT)
        self.addr = self.host.addr(MIRROR_PORT)

    def _asked(self, _data: bytes, source: SocketAddr) -> None:
        self._socket.send(f"{source.host} {source.port}".encode(), source)


@attrs.define
class World:
    """The network with a relay and two mirrors in it."""

    net: FakeNet
    relay: FakeRelay
    mirrors: tuple[Mirror, Mirror]
    attests: bool = True

    @classmethod
    def make(cls, seed: int = 1) -> World:
        net = FakeNet(seed)
        return cls(net, FakeRelay(net), (Mirror(net, "mirror1"), Mirror(net, "mirror2")))

    def home(self, name: str, nat: Nat | None, link: Link | None = None) -> Router | None:
        """A router of that kind, None for the open internet."""
        return None if nat is None else self.net.router(name, nat, link=link)

    def node(self, name: str, router: Router | None, **options: object) -> PunchNode:
        """A node that has been there for a second: it knows its reflexive address and is at the relay."""
        node = PunchNode(self, name, self.net.host(name, router), **options)  # type: ignore[arg-type]
        node.ask_mirrors()
        self.net.advance(1.0)
        node.offer()
        return node


class PunchNode:
    """A node on a host. `opens`: whether it can limit the TTL; `knows_nat`: whether it finds out how its NAT maps."""

    def __init__(self, world: World, name: str, host: Host, *, opens: bool = True, knows_nat: bool = True) -> None:
        self.world = world
        self.net = world.net
        self.host = host
        self.secret = SecretKey(name.encode().ljust(32, b"."))
        self.core = DiscoCore(self.secret, random=self.net.rng.randbytes)
        if opens:
            self.core.openers = []
        self.core.ports_link.sockets = self
        self.core.ports_link.attest = self._ask_relay
        self.knows_nat = knows_nat
        self.further: dict[int, FakeSocket] = {}
        self.max_sockets = 1000
        self.socket = host.socket(self._arrived)
        self._seen: dict[SocketAddr, SocketAddr] = {}
        self.relay = world.relay.client(host, self.id, self._relayed)
        self.remotes: dict[NodeId, RemotePaths] = {}
        self.events: list[PathEvent] = []
        self.observed: list[Observed] = []
        self.connected_at: dict[NodeId, float] = {}
        self.quic_got: list[float] = []
        self.accepting = True
        self._timer = host.timer(self._due)

    @property
    def id(self) -> NodeId:
        return self.secret.node_id

    @property
    def now(self) -> float:
        return self.host.now()

    # --- what an endpoint does --------------------------------------------------------------------------------

    def ask_mirrors(self) -> None:
        """Find out where the mirrors see us."""
        self._seen.clear()
        for _ in range(8):
            for mirror in self.world.mirrors:
                self.socket.send(b"?", mirror.addr)

    @property
    def seen_at(self) -> list[SocketAddr]:
        """Where the mirrors see us, one after the other."""
        return [self._seen[mirror.addr] for mirror in self.world.mirrors if mirror.addr in self._seen]

    def offer(self) -> None:
        """Tell the core where we are, as the network report found it."""
        own = self.seen_at[:1]
        if self.host.v4 is not None:
            own.append(self.host.addr(self.socket.port))
        if self.host.v6 is not None:
            own.append(self.host.addr6(self.socket.port))
        self.core.set_own_candidates(own, self.now, (self.world.relay.url,))
        if self.knows_nat and self.seen_at:
            same = len(set(self.seen_at)) == 1
            mapping = Mapping.INDEPENDENT if same else Mapping.DEPENDENT
            self.core.set_own_nat(mapping, self.seen_at[0], self.now)
        self.pump()

    def dial(self, peer: PunchNode, *, record: bool = True) -> RemotePaths:
        """Dial through the relay. `record`: the peer's published address is known too."""
        remote = self.remotes[peer.id] = self.core.acquire(peer.id, self.now)
        self.core.add_relays(remote, [self.world.relay.url], "dht", self.now, trusted=False)
        if record:
            self.core.add_candidates(remote, peer.seen_at[:1], "dht", self.now, trusted=False)
        self.pump()
        self._quic(INITIAL, RelayPath(self.world.relay.url, peer.id))
        return remote

    def talk(self, peer: PunchNode, seconds: float) -> None:
        """Send a packet of the application now and then, as both ends of a connection do."""
        self.net.every(0.1, self.net.now + seconds, lambda: self.send_quic(peer))
        self.net.every(0.1, self.net.now + seconds, lambda: peer.send_quic(self))

    def send_quic(self, peer: PunchNode) -> None:
        remote = self.remotes.get(peer.id)
        if remote is None or peer.id not in self.connected_at:
            return
        for state in remote.targets:
            self._quic(DATA, state.path)
        remote.sent(self.now)
        self.pump()

    def _quic(self, kind: int, path: Path) -> None:
        self.carry(path, bytes((kind,)) + self.id.raw)

    def _got_quic(self, kind: int, peer: NodeId, source: Path) -> None:
        if kind == INITIAL and self.accepting:
            self._quic(HANDSHAKE, source)
        elif kind == HANDSHAKE:
            self._quic(FINISHED, source)
        elif kind == FINISHED:
            self.remotes[peer] = self.core.acquire(peer, self.now)
            self.remotes[peer].handshake_done(source, self.now)
            self.connected_at[peer] = self.net.now
            self._quic(DONE, source)
        elif kind == DONE:
            self.remotes[peer].handshake_done(source, self.now)
            self.connected_at[peer] = self.net.now
        elif kind == DATA and peer in self.remotes:
            self.quic_got.append(self.net.now)
            self.remotes[peer].quic_heard(source, self.now, QUIC_SIZE)

    # --- plumbing ---------------------------------------------------------------------------------------------

    def carry(self, path: Path, data: bytes, ttl: int = TTL) -> None:
        if isinstance(path, RelayPath):
            self.relay.send(path.node_id, data)
        else:
            outlet = self.outlet(path)
            if outlet is not None:
                outlet.send(data, SocketAddr(path.host, path.port), ttl=ttl)

    def outlet(self, path: SocketAddr) -> FakeSocket | None:
        return self.further.get(path.via) if isinstance(path, ViaSocket) else self.socket

    def open(self, via: int) -> bool:
        if len(self.further) >= self.max_sockets:
            return False
        self.further[via] = self.host.socket(lambda data, source: self.receive(data, ViaSocket.of(source, via)))
        return True

    def close(self, via: int) -> None:
        self.further.pop(via).close()

    def _ask_relay(self, path: RelayPath) -> None:
        """A relay tells from which IP address its client's connection comes; here after the time of a round trip."""
        client = self.world.relay.members.get(path.node_id)
        if client is None or not self.world.attests:
            return
        outer = [router.wan for router in client.host.routers() if router.wan is not None]
        ip = outer[-1] if outer else client.host.v4
        if ip is not None:
            self.net.at(self.net.now + 0.04, lambda: self._attested(path.node_id, ip))

    def _attested(self, node_id: NodeId, ip: str) -> None:
        self.core.attested(node_id, ip, self.now)
        self.pump()

    def _relayed(self, sender: NodeId, data: bytes) -> None:
        self.receive(data, RelayPath(self.world.relay.url, sender))

    def _arrived(self, data: bytes, source: SocketAddr) -> None:
        if source.port == MIRROR_PORT:
            host, port = data.decode().split()
            self._seen[source] = SocketAddr(host, int(port))
        else:
            self.receive(data, source)

    def receive(self, data: bytes, source: Path) -> None:
        if data[0] & 0x40:
            self._got_quic(data[0], NodeId(data[1:33]), source)
        else:
            self.core.receive(data, source, self.now)
        self.pump()

    def _due(self) -> None:
        self.core.tick(self.now)
        self.pump()

    def pump(self) -> None:
        core = self.core
        while core.outbox or core.events or core.openers:
            if core.openers:
                openers, core.openers = core.openers, []
                for addr, data, ttl in openers:
                    self.carry(addr, data, ttl)
            outbox, core.outbox = core.outbox, []
            for path, data in outbox:
                self.carry(path, data)
            events, core.events = core.events, []
            for event in events:
                (self.observed if isinstance(event, Observed) else self.events).append(event)  # type: ignore[arg-type]
        due = core.next_due()
        self._timer.set(due if due is None else max(due, self.now))

    # --- what tests ask ---------------------------------------------------------------------------------------

    def kind(self, peer: PunchNode) -> str:
        """The kind of path that carries traffic."""
        active = self.remotes[peer.id].active
        return "none" if active is None else "direct" if active.direct else "relay"

    def direct_at(self, peer: PunchNode) -> float:
        """When traffic first went directly, infinite if never."""
        selected = (e for e in self.events if isinstance(e, PathSelected) and e.node_id == peer.id)
        return min((e.at for e in selected if not isinstance(e.path, RelayPath)), default=inf)
