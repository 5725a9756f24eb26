"""A prober behind a NAT and servers that tell addresses, over a bad network on a virtual clock."""

from __future__ import annotations

import heapq
import itertools
import random
from collections.abc import Callable

from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.packet import QuicProtocolVersion

from tests.unit.netreport.quicpair import CERTIFICATE, KEY, PEM, SERVER
from tom_connect.abc import ProbeServer
from tom_connect.addr import RelayUrl, SocketAddr
from tom_connect.netreport.observations import Kind, Observations
from tom_connect.netreport.observed import ALPN, ObservingConnection, Role
from tom_connect.netreport.prober import Prober, Target
from tom_connect.netreport.stun import BindingRequest, StunError, binding_success

INSIDE = SocketAddr("192.168.1.5", 4000)
PUBLIC = "203.0.113.1"


def cone(_dest: SocketAddr) -> SocketAddr:
    """One mapping for all."""
    return SocketAddr(PUBLIC, 40000)


def symmetric(dest: SocketAddr) -> SocketAddr:
    """A mapping for each destination."""
    return SocketAddr(PUBLIC, 10000 + (int(dest.ip) * 31 + dest.port) % 50000)


def stun(name: str, number: int, *, certain: bool = True, other: int | None = None) -> Target:
    """A STUN server of a relay of its own. `other`: its second port."""
    server = ProbeServer(
        RelayUrl.parse(f"https://{name}.test/"), f"{name}.test", certain=certain, stun_other_port=other
    )
    return Target(Kind.STUN, server, SocketAddr(f"192.0.2.{number}", 3478))


def qad(*, host: str = SERVER.host, ca: bytes | None = PEM, verify: bool = True) -> Target:
    """The QAD server, as a relay of `host` names it."""
    server = ProbeServer(RelayUrl.parse(f"https://{host}/"), host, stun_port=None, qad_ca=ca, qad_verify=verify)
    return Target(Kind.QAD, server, SERVER)


class World:
    """`mapping(dest)`: the NAT; `lies`: what a server says instead of the truth; `down`: servers that are silent."""

    def __init__(self, seed: int = 0, *, mapping: Callable[[SocketAddr], SocketAddr] = cone, loss: float = 0.0) -> None:
        self.now = 1000.0
        self.rng = random.Random(seed)
        self.mapping = mapping
        self.loss = loss
        self.hairpin = False
        self.port_filter = True
        self.in_use = True
        self.lies: dict[SocketAddr, SocketAddr] = {}
        self.down: set[SocketAddr] = set()
        self.sent: list[tuple[float, SocketAddr]] = []
        self.qad: dict[bytes, ObservingConnection] = {}
        self.observations = Observations()
        self.prober = Prober(
            self.observations,
            in_use=lambda: self.in_use,
            random_bytes=self.rng.randbytes,
            uniform=self.rng.uniform,
        )
        self._contacted: set[SocketAddr] = set()
        self._flying: list[tuple[float, int, bytes, SocketAddr]] = []
        self._order = itertools.count()

    def run(self, seconds: float) -> None:
        """Let time pass."""
        end = self.now + seconds
        self._flush()
        while True:
            due = self.prober.get_timer()
            timers = [timer for quic in self.qad.values() if (timer := quic.get_timer()) is not None]
            at = min(due if due is not None else end, self._flying[0][0] if self._flying else end, *timers, end)
            if at >= end:
                break
            self.now = max(self.now, at)
            if self._flying and self._flying[0][0] <= self.now:
                _, _, data, source = heapq.heappop(self._flying)
                if source == SERVER:
                    dcid = data[6 : 6 + data[5]] if data[0] & 0x80 else data[1:9]
                    self.prober.receive_quic(dcid, data, source, self.now)
                else:
                    self.prober.receive(data, source, self.now)
            elif due is not None and due <= self.now:
                self.prober.handle_timer(self.now)
            for quic in self.qad.values():
                if (timer := quic.get_timer()) is not None and timer <= self.now:
                    quic.handle_timer(self.now)
            self._flush()
            self._answer()
        self.now = end

    def _flush(self) -> None:
        for data, dest in self.prober.take_outbox():
            self.sent.append((self.now, dest))
            self._contacted.add(dest)
            if self.rng.random() < self.loss:
                continue
            source = self.mapping(dest)
            if dest.host == PUBLIC:
                if self.hairpin:
                    self._deliver(data, source)
            elif dest in self.down:
                continue
            elif dest == SERVER:
                self._take(data, source)
            else:
                try:
                    request = BindingRequest.decode(data)
                except StunError:
                    continue
                told = self.lies.get(dest, source)
                origin = SocketAddr(dest.host, dest.port + 1) if request.change_port else dest
                known = origin in self._contacted
                if self.rng.random() >= self.loss and (known or not self.port_filter):
                    self._deliver(binding_success(request.transaction_id, told), origin)

    def _take(self, data: bytes, source: SocketAddr) -> None:
        dcid = data[6 : 6 + data[5]] if data[0] & 0x80 else data[1:9]
        quic = self.qad.get(dcid)
        if quic is None and data[0] & 0x80:
            configuration = QuicConfiguration(
                alpn_protocols=[ALPN],
                certificate=CERTIFICATE,
                is_client=False,
                private_key=KEY,
                supported_versions=[QuicProtocolVersion.VERSION_1],
            )
            quic = ObservingConnection(
                role=Role.SENDS, configuration=configuration, original_destination_connection_id=dcid
            )
            self.qad[dcid] = self.qad[quic.host_cid] = quic
        if quic is not None:
            quic.take(data, source, self.now)
        self._answer()

    def _answer(self) -> None:
        for quic in dict.fromkeys(self.qad.values()):
            if quic.peer is not None:
                for data, addr in quic.datagrams_to_send(self.now):
                    # What goes to a mapping that the NAT has forgotten is lost.
                    if addr == self.mapping(SERVER) and SERVER not in self.down and self.rng.random() >= self.loss:
                        self._deliver(data, SERVER)

    def _deliver(self, data: bytes, source: SocketAddr) -> None:
        delay = 0.02 + 0.06 * self.rng.random()
        heapq.heappush(self._flying, (self.now + delay, next(self._order), data, source))
