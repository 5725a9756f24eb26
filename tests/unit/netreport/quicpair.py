"""A QUIC address discovery client and a server connection, joined by a network that a test turns as it likes."""

from __future__ import annotations

import datetime
import ipaddress
from collections.abc import Callable
from typing import Any

from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.packet import QuicProtocolVersion
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tom_connect.addr import SocketAddr
from tom_connect.netreport.observed import ALPN, ObservingConnection, Role
from tom_connect.netreport.qad import QadClient

SERVER = SocketAddr("192.0.2.9", 7842)
US = SocketAddr("198.51.100.1", 40000)
ELSEWHERE = SocketAddr("2001:db8::5", 50000)


def _certificate() -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "relay")])
    now = datetime.datetime.now(datetime.UTC)
    day = datetime.timedelta(days=1)
    names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(SERVER.host))])
    builder = x509.CertificateBuilder(name, name, key.public_key(), 1, now - day, now + day).add_extension(names, False)
    return builder.sign(key, hashes.SHA256()), key


CERTIFICATE, KEY = _certificate()
PEM = CERTIFICATE.public_bytes(serialization.Encoding.PEM)


class Pair:
    """`client` asks; `server` is made with its first packet. `now`: virtual seconds; `delay`: one way.

    `lose` says of each datagram (from the client?, its number) whether it gets lost.
    """

    def __init__(
        self,
        *,
        role: Role = Role.SENDS,
        delay: float = 0.01,
        lose: Callable[[bool, int], bool] = lambda *_: False,
        alpn: str = ALPN,
        **client: Any,
    ) -> None:
        self.now = 0.0
        self.us = US
        self.delay = delay
        self.lose = lose
        self.role = role
        self.alpn = alpn
        self.client = QadClient(SERVER, **{"server_name": SERVER.host, "cadata": PEM, **client})
        self.server: ObservingConnection | None = None
        self.sent = 0
        self.flying: list[tuple[float, int, bool, bytes, SocketAddr]] = []

    def _accept(self, data: bytes) -> ObservingConnection:
        configuration = QuicConfiguration(
            alpn_protocols=[self.alpn],
            certificate=CERTIFICATE,
            is_client=False,
            private_key=KEY,
            supported_versions=[QuicProtocolVersion.VERSION_1],
        )
        dcid = data[6 : 6 + data[5]]
        return ObservingConnection(role=self.role, configuration=configuration, original_destination_connection_id=dcid)

    def _fly(self, from_client: bool, data: bytes, addr: SocketAddr) -> None:
        self.sent += 1
        if not self.lose(from_client, self.sent):
            self.flying.append((self.now + self.delay, self.sent, from_client, data, addr))

    def flush(self) -> None:
        """Let both sides send."""
        for data in self.client.send(self.now):
            self._fly(True, data, self.us)
        if self.server is not None and self.server.peer is not None:
            for data, addr in self.server.datagrams_to_send(self.now):
                self._fly(False, data, addr)
            while self.server.next_event() is not None:
                pass

    def run(self, until: Callable[[], bool], seconds: float = 60.0) -> bool:
        """Turn until a condition holds; whether it did within so many virtual seconds and 5,000 turns."""
        end = self.now + seconds
        for _ in range(5000):
            self.flush()
            if until():
                return True
            timers = [self.client.get_timer(), self.server.get_timer() if self.server is not None else None]
            at = min([t for t in timers if t is not None] + [entry[0] for entry in self.flying], default=None)
            if at is None or at > end:
                self.now = end
                return False
            self.now = max(self.now, at)
            self._deliver()
            if (timer := self.client.get_timer()) is not None and timer <= self.now:
                self.client.handle_timer(self.now)
            if self.server is not None and (timer := self.server.get_timer()) is not None and timer <= self.now:
                self.server.handle_timer(self.now)
        return False

    def _deliver(self) -> None:
        due = sorted(entry for entry in self.flying if entry[0] <= self.now)
        self.flying = [entry for entry in self.flying if entry[0] > self.now]
        for _, _, from_client, data, addr in due:
            if not from_client:
                # What goes to an address that we have left is lost.
                if addr == self.us:
                    self.client.receive(data, SERVER, self.now)
                continue
            if self.server is None:
                self.server = self._accept(data)
            self.server.take(data, addr, self.now)
