"""The client of QUIC address discovery: asks a relay over QUIC at which address it sees us; sans-IO."""

from __future__ import annotations

import ssl
from collections import deque
from typing import Final

import attrs
from aioquic.quic import events
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.packet import QuicProtocolVersion

from tom_connect.addr import SocketAddr
from tom_connect.exceptions import NetworkError
from tom_connect.netreport.observed import (
    ALPN,
    CLOSE_CODE,
    CLOSE_REASON,
    ObservedAddress,
    ObservingConnection,
    Role,
)

KEEP_ALIVE: Final = 25.0
"""Seconds between two PINGs while watching: within the 30 s for which both sides keep a silent connection."""
IDLE_TIMEOUT: Final = 30.0
INITIAL_RTT: Final = 0.111
"""Seconds; a probe, and the closing of a connection to nobody, then come after a third of a second."""
MAX_REPORTS: Final = 16
"""Reports that wait to be taken; a server that tells more drops its oldest."""


class QadError(NetworkError):
    """A relay told no address. Attribute `code`: QUIC's or its own error code, None where it was silent."""

    def __init__(self, message: str, code: int | None = None) -> None:
        super().__init__(message)
        self.code = code


@attrs.frozen
class QadReport:
    """What a relay saw: our address, and the round-trip time to it in seconds, None if there is no sample."""

    server: SocketAddr
    addr: SocketAddr
    rtt: float | None


def system_authorities() -> tuple[str | None, str | None]:
    """The file and the folder of authorities that the system trusts; certifi's file where OpenSSL knows of none."""
    paths = ssl.get_default_verify_paths()
    if paths.cafile or paths.capath:
        return paths.cafile, paths.capath
    import certifi

    return certifi.where(), None


class QadClient:
    """Asks `server` for our address over one QUIC connection; bytes and `now` in seconds in, bytes and reports out.

    `start`; then send what `send` gives to `server` after each call, and `receive` what comes from there;
    `get_timer` says when `handle_timer` is due; look at `next_report`, `error` and `done` after each call. Without
    `watch` the first report ends it; with `watch` it stays, and reports each change, until `close`.

    `server_name`: the host name or IP address in the relay's certificate, which is checked against `cadata` (PEM) or,
    without it, the authorities that certifi knows, and with `system` against both `cadata` and those that the system
    trusts; not at all where `verify` is False. `timeout`: seconds for the first report.
    """

    def __init__(
        self,
        server: SocketAddr,
        *,
        server_name: str,
        cadata: bytes | None = None,
        system: bool = False,
        verify: bool = True,
        watch: bool = False,
        timeout: float = 10.0,
    ) -> None:
        self.server = server
        self.error: QadError | None = None
        self._watch = watch
        self._timeout = timeout
        self._deadline: float | None = None
        self._ping_at: float | None = None
        self._reports: deque[QadReport] = deque(maxlen=MAX_REPORTS)
        self._told: SocketAddr | None = None
        self._closing = False
        cafile, capath = system_authorities() if system and verify else (None, None)
        configuration = QuicConfiguration(
            alpn_protocols=[ALPN],
            cadata=cadata,
            cafile=cafile,
            capath=capath,
            idle_timeout=IDLE_TIMEOUT,
            initial_rtt=INITIAL_RTT,
            is_client=True,
            server_name=server_name,
            supported_versions=[QuicProtocolVersion.VERSION_1],
            verify_mode=ssl.CERT_REQUIRED if verify else ssl.CERT_NONE,
        )
        self._quic = ObservingConnection(role=Role.WANTS, configuration=configuration)

    @property
    def connection_ids(self) -> tuple[bytes, ...]:
        """The ids on packets that are for this client, where it shares a socket; none begins with a digit."""
        return (self._quic.host_cid,)

    @property
    def told(self) -> SocketAddr | None:
        """The address that the server told last, None before the first."""
        return self._told

    @property
    def done(self) -> bool:
        """Whether nothing more is to be sent or waited for."""
        return self._quic.over and (self._closing or self.error is not None)

    def start(self, now: float) -> None:
        """Begin the handshake."""
        self._deadline = now + self._timeout
        self._quic.connect(self.server, now)

    def receive(self, data: bytes, source: SocketAddr, now: float) -> None:
        """Take a datagram; what is not from the server is left alone. Never raises."""
        if source != self.server:
            return
        self._quic.take(data, source, now)
        self._take_events(now)

    def send(self, now: float) -> list[bytes]:
        """The datagrams to send to `server` now."""
        datagrams = [data for data, _ in self._quic.datagrams_to_send(now)]
        self._take_events(now)
        return datagrams

    def get_timer(self) -> float | None:
        """When `handle_timer` is due, None when all is done."""
        if self.done:
            return None
        times = (self._quic.get_timer(), self._deadline, self._ping_at)
        return min((at for at in times if at is not None), default=None)

    def handle_timer(self, now: float) -> None:
        """Do what was due by `now`; then call `send`."""
        at = self._quic.get_timer()
        if at is not None and now >= at:
            self._quic.handle_timer(now)
        if self._deadline is not None and now >= self._deadline:
            self._fail(QadError(f"the relay at {self.server} told no address within {self._timeout:g} s"))
            self._finish()
        if self._ping_at is not None and now >= self._ping_at:
            self._ping_at = now + KEEP_ALIVE
            self._quic.send_ping(0)
        self._take_events(now)

    def ping_by(self, at: float) -> None:
        """Send something by then, on which the server tells a changed address."""
        if self._ping_at is not None:
            self._ping_at = min(self._ping_at, at)

    def next_report(self) -> QadReport | None:
        """The next report, oldest first, or None."""
        return self._reports.popleft() if self._reports else None

    def close(self) -> None:
        """Say that we have heard enough; then call `send`."""
        self._finish()

    def _finish(self) -> None:
        self._deadline = self._ping_at = None
        if not self._closing:
            self._closing = True
            self._quic.close(CLOSE_CODE, None, CLOSE_REASON)

    def _fail(self, error: QadError) -> None:
        self._deadline = self._ping_at = None
        if self.error is None and not self._closing:
            self.error = error

    def _take_events(self, now: float) -> None:
        while (event := self._quic.next_event()) is not None:
            if isinstance(event, ObservedAddress):
                self._observed(event, now)
            elif isinstance(event, events.HandshakeCompleted) and not self._quic.will_be_told:
                self._fail(QadError(f"the relay at {self.server} tells no addresses"))
                self._finish()
        ended = self._quic.termination
        if ended is not None:
            reason = ended.reason_phrase or "no reason given"
            self._fail(QadError(f"the relay at {self.server} was lost: {reason}", ended.error_code))

    def _observed(self, event: ObservedAddress, now: float) -> None:
        ip = event.addr.ip
        if ip.is_unspecified or ip.is_multicast or event.addr.port == 0:
            return
        if event.addr == self._told:
            # Told again because the server did not hear that we know.
            return
        self._told = event.addr
        self._reports.append(QadReport(self.server, event.addr, self._quic.rtt))
        self._deadline = None
        if not self._watch:
            self._finish()
        elif self._ping_at is None:
            self._ping_at = now + KEEP_ALIVE
