"""Nodes on a simulated network: a DiscoCore each, a relay, a look at their own address, and traffic like QUIC's."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from tom_connect.addr import RelayUrl, SocketAddr
from tom_connect.holepunch.core import DiscoCore, Observed
from tom_connect.holepunch.events import PathDoubted, PathEvent, PathRestored, PathSelected
from tom_connect.holepunch.path import Path, RelayPath
from tom_connect.holepunch.paths import RemotePaths
from tom_connect.keys import NodeId, SecretKey
from tom_connect.testing.fakenet import FakeNet, Host
from tom_connect.testing.fakerelay import FakeRelay, RelayClient

PORT = 4433
STUN_PORT = 3478
QUIC_SIZE = 1200
NOTICED = 0.08
"""Seconds until a host notices that its own network is another one, as netlink and a little patience take."""
REFRESH = 22.0
"""Seconds between looks at our own address (`netreport`)."""
GIVES_UP = 90.0
"""Seconds of silence after which the connection is over."""
LONGEST_PROBE = 3.0
WINDOW = 16
DATA, ACK = 0, 1


class Stun:
    """A server that tells senders how it sees them."""

    def __init__(self, net: FakeNet) -> None:
        self.host = net.host("stun")
        self.socket = self.host.socket(self._received, STUN_PORT)

    def _received(self, _data: bytes, source: SocketAddr) -> None:
        self.socket.send(b"\x00" + str(source).encode(), source)


class Node:
    """One endpoint on one host."""

    def __init__(
        self, host: Host, *, relays: Iterable[FakeRelay] = (), stun: Stun | None = None, disco: bool = True
    ) -> None:
        self.net = host.net
        self.host = host
        self.stun = stun
        self.disco = disco
        self.secret = SecretKey(host.name.encode().ljust(32, b"."))
        self.id = self.secret.node_id
        self.core = DiscoCore(self.secret, random=self.net.rng.randbytes)
        self.core.openers = []
        self.flows: dict[NodeId, Flow] = {}
        self.reflexive: dict[str, SocketAddr] = {}
        """Where we are seen: by the STUN server in each family, and by the peer that said something last."""
        self.events: list[PathEvent] = []
        self.offers = 0
        """How often it had other candidates to tell of."""
        self.sent: Counter[str] = Counter()
        """Packets by what they are: disco, quic, relayed disco, relayed quic."""
        self.socket = host.socket(self._datagram, PORT)
        self.timer = host.timer(self._tick)
        self.urls = [relay.url for relay in relays]
        self.clients: dict[RelayUrl, RelayClient] = {}
        for relay in relays:
            self.clients[relay.url] = relay.client(host, self.id, self._relayed(relay.url))
        self._told_local: list[SocketAddr] = []
        self._refresh = host.timer(self.look)
        self.look()

    # --- addresses --------------------------------------------------------------------------------------------

    def local(self) -> list[SocketAddr]:
        return [SocketAddr(ip, PORT) for ip in (self.host.v4, self.host.v6) if ip is not None]

    def look(self) -> None:
        """What netreport does at bind, on change, for a lost direct path, and every 20 s or so, before NATs forget."""
        if self.local() != self._told_local:
            self._told_local = self.local()
            self._offer()
        # Idle hours are not worth the packets here: whoever begins to send, looks first.
        if any(flow.in_use() for flow in self.flows.values()):
            self._refresh.set(self.host.now() + REFRESH)
        if self.stun is not None:
            for dest in (self.stun.host.addr(STUN_PORT), self.stun.host.addr6(STUN_PORT)):
                self.socket.send(b"\x00", dest)

    def _offer(self) -> None:
        self.offers += 1
        self.core.set_own_candidates([*self.local(), *self.reflexive.values()], self.host.now(), self.urls)
        self.pump()

    def _seen_at(self, addr: SocketAddr, by: str) -> None:
        if addr not in self.local() and self.reflexive.get(by) != addr:
            known = addr in self.reflexive.values()
            self.reflexive[by] = addr
            if not known:
                self._offer()

    def network_changed(self) -> None:
        """What the network watch does, now."""
        self.reflexive.clear()
        self.core.network_changed(self.host.now())
        for client in self.clients.values():
            client.network_changed()
        self.look()

    def noticed(self) -> None:
        """The same, when the system has told us."""
        self.net.at(self.net.now + NOTICED, lambda: None if self.host.asleep else self.network_changed())

    # --- peers ------------------------------------------------------------------------------------------------

    def connect(self, peer: Node, addrs: Iterable[SocketAddr] = (), *, given: bool = False) -> Flow:
        """Hold a peer that is at all our relays, and at the addresses that discovery found."""
        remote = self.core.acquire(peer.id, self.host.now())
        flow = self.flows[peer.id] = Flow(self, peer, remote)
        self.core.add_relays(remote, peer.urls, "dht", self.host.now(), trusted=True)
        self.core.add_candidates(remote, addrs, "dht", self.host.now(), trusted=given)
        self.pump()
        return flow

    # --- I/O --------------------------------------------------------------------------------------------------

    def _datagram(self, data: bytes, source: SocketAddr) -> None:
        if data[0] == 0:
            addr = SocketAddr.parse(data[1:].decode())
            self._seen_at(addr, "STUN 6" if ":" in addr.host else "STUN")
        else:
            self.receive(data, source)

    def _relayed(self, url: RelayUrl):  # type: ignore[no-untyped-def]
        return lambda sender, data: self.receive(data, RelayPath(url, sender))

    def receive(self, data: bytes, source: Path) -> None:
        if data[0] == 0x40:
            flow = self.flows.get(NodeId(data[1:33]))
            if flow is not None:
                flow.received(data[33], int.from_bytes(data[34:42], "big"), source)
        elif self.disco:
            self.core.receive(data, source, self.host.now())
        self.pump()

    def carry(self, path: Path, data: bytes) -> None:
        what = "quic" if data[0] == 0x40 else "disco"
        if isinstance(path, RelayPath):
            self.sent["relayed " + what] += 1
            client = self.clients.get(path.url)
            if client is not None:
                client.send(path.node_id, data)
        else:
            self.sent[what] += 1
            self.socket.send(data, path)

    def _tick(self) -> None:
        self.core.tick(self.host.now())
        self.pump()

    def pump(self) -> None:
        core = self.core
        while core.outbox or core.events or core.openers:
            openers, core.openers = core.openers or [], []
            for addr, data, ttl in openers if self.disco else ():
                self.sent["opener"] += 1
                self.socket.send(data, addr, ttl=ttl)
            outbox, core.outbox = core.outbox, []
            for path, data in outbox if self.disco else ():
                self.carry(path, data)
            events, core.events = core.events, []
            for event in events:
                if isinstance(event, Observed):
                    self._seen_at(event.addr, "a peer")
                else:
                    self.events.append(event)
                    flow = self.flows.get(event.node_id)
                    if flow is not None:
                        flow.path_event(event)
                    if isinstance(event, PathSelected) and event.lost_direct:
                        self.look()
        self.timer.set(core.next_due())


class Flow:
    """What one end of a QUIC connection does to the network: data, acknowledgments, probes with back-off.

    While `busy` it sends `interval` apart.
    """

    def __init__(self, node: Node, peer: Node, remote: RemotePaths) -> None:
        self.node = node
        self.peer = peer
        self.remote = remote
        self.over = False
        self.arrivals: list[float] = []
        """When new data came, in the time of the world."""
        self._seq = 0
        self._waiting = 0
        self._unacked: dict[int, float] = {}
        self._rtt = 0.1
        self._probes = 0
        self._silent_since: float | None = None
        self._busy_until = -1.0
        self._interval = 0.0
        self._app = node.host.timer(self._produce)
        self._pto = node.host.timer(self._probe)

    # --- the application --------------------------------------------------------------------------------------

    def busy(self, seconds: float, interval: float) -> None:
        """Send for so many seconds."""
        self._busy_until = self.node.host.now() + seconds
        self._interval = interval
        self.node.look()
        self._app.set(self.node.host.now())

    def in_use(self) -> bool:
        """Whether the application sends, or something is not acknowledged."""
        return not self.over and (bool(self._unacked) or self.node.host.now() < self._busy_until)

    def waits(self) -> float:
        """Seconds since something was sent that is not acknowledged, with no acknowledgment of anything since."""
        since = self._silent_since
        return 0.0 if since is None else self.node.host.now() - since

    def waiting_for_answer(self) -> bool:
        """Whether something is sent and not acknowledged."""
        return bool(self._unacked) and not self.over

    def end(self) -> None:
        """Close the connection."""
        self.over = True
        self._app.set(None)
        self._pto.set(None)
        self.node.core.release(self.remote, self.node.host.now())

    def _produce(self) -> None:
        now = self.node.host.now()
        if now < self._busy_until and not self.over:
            self._waiting = min(self._waiting + 1, WINDOW)
            self._app.set(now + self._interval)
            self._flush()

    # --- QUIC -------------------------------------------------------------------------------------------------

    def _flush(self) -> None:
        while self._waiting and len(self._unacked) < WINDOW:
            self._waiting -= 1
            self._send_data()
        self.node.pump()

    def _send_data(self) -> None:
        now = self.node.host.now()
        self._seq += 1
        self._unacked[self._seq] = now
        if self._silent_since is None:
            self._silent_since = now
        self._send(DATA, self._seq)
        self._arm()

    def _send(self, kind: int, seq: int) -> None:
        remote = self.remote
        packet = b"\x40" + self.node.id.raw + bytes([kind]) + seq.to_bytes(8, "big")
        for state in remote.targets:
            if state.credit is not None:
                if state.credit < QUIC_SIZE:
                    continue
                state.credit -= QUIC_SIZE
            self.node.carry(state.path, packet)
        remote.sent(self.node.host.now(), asks=bool(self._unacked))

    def _arm(self) -> None:
        if not self._unacked or self.over:
            self._pto.set(None)
            return
        wait = 3 * self._rtt + 0.025
        for _ in range(self._probes):
            wait = max(wait, min(wait * 2, LONGEST_PROBE))
        self._pto.set(max(self._unacked.values()) + wait)

    def _probe(self) -> None:
        now = self.node.host.now()
        if self._silent_since is not None and now - self._silent_since > GIVES_UP:
            self.end()
            return
        self._probes += 1
        self._repeat()

    def _repeat(self) -> None:
        """Send the oldest again, as new packets."""
        for seq in list(self._unacked)[:2]:
            del self._unacked[seq]
            self._send_data()
        self.node.pump()

    def received(self, kind: int, seq: int, source: Path) -> None:
        if self.over:
            return
        now = self.node.host.now()
        self.remote.quic_heard(source, now, QUIC_SIZE)
        if kind == DATA:
            self.arrivals.append(self.node.net.now)
            self._send(ACK, seq)
            return
        sent = self._unacked.pop(seq, None)
        if sent is not None:
            self._rtt += (now - sent - self._rtt) / 8
            self._probes = 0
            self._silent_since = now if self._unacked else None
            lost = [old for old, at in self._unacked.items() if at < sent - self._rtt / 8 and old < seq - 3]
            for old in lost:
                del self._unacked[old]
                self._waiting += 1
            self._arm()
            self._flush()

    def path_event(self, event: PathEvent) -> None:
        """As `Link` does: a path that is back or new zeroes the back-off."""
        moved = isinstance(event, PathSelected) and event.old not in (None, event.path)
        if moved or isinstance(event, PathRestored | PathDoubted):
            if not isinstance(event, PathDoubted):
                self._probes = 0
            self._repeat()
            self._arm()
