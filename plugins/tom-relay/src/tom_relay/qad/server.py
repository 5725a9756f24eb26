"""Tells each QUIC client the address at which it is seen, on UDP."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections import Counter
from collections.abc import Callable, Sequence

import attrs
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.packet import QuicProtocolVersion

from tom_connect.addr import SocketAddr
from tom_connect.netreport.observed import ALPN, CLOSE_CODE, CLOSE_REASON, ObservingConnection, Role
from tom_relay.qad.certificate import ServerCertificate
from tom_relay.qad.initial import MIN_INITIAL, FirstPacket, RetryTokens, destination_cid
from tom_relay.stun.sockets import Listener, open_listeners
from tom_relay.stun.sources import SourceRates, source_key

logger = logging.getLogger(__name__)

DEFAULT_PORT = 7842
"""The UDP port of QUIC address discovery at iroh's relays."""

RETRY_SHARE = 4
"""Above a quarter of the connections allowed, in all or to a source, newcomers must prove their address by a Retry."""


@attrs.frozen(kw_only=True)
class QadLimits:
    """Bounds of the server; times in seconds, rates a second, bursts at once.

    A source is an IPv4 address or an IPv6 /64. Above a quarter of `connections`, or of `connections_per_source`,
    newcomers must prove their address by a Retry.
    """

    connections: int = 1024
    # Many nodes may share a carrier's address.
    connections_per_source: int = 32
    # Three lost flights of about a second each.
    handshake_timeout: float = 5.0
    # QUIC's common default; iroh's clients send a PING within it where they stay.
    idle_timeout: float = 30.0
    # Who stays longer comes again: a certificate that was replaced is then out of use.
    lifetime: float = 3600.0
    # A handshake costs the event loop, which the relay shares, about 1.5 ms.
    rate: float = 100.0
    burst: float = 200.0
    rate_per_source: float = 5.0
    burst_per_source: float = 20.0
    sources: int = 16_384
    # A connection that carries nothing has nothing to say more often.
    packets: float = 20.0
    packets_burst: float = 100.0


@attrs.define(eq=False)
class _Client:
    quic: ObservingConnection
    listener: Listener
    source: bytes
    cids: tuple[bytes, ...]
    deadline: float
    """When it is dropped whatever it does: first the end of the handshake's time, then of its lifetime."""
    packets: SourceRates
    confirmed: bool = False
    reports: int = 0
    faults: int = 0
    timer: asyncio.TimerHandle | None = None


class QadServer:
    """A QUIC address discovery server: `async with QadServer(bind=..., certificate=...) as server`.

    `bind`: UDP addresses, port 0 for a free one; on a host with several addresses of a family name them instead of the
    wildcard, or answers may leave from another one than was asked. `counters` counts "accepted" connections, those
    whose handshake is "confirmed", "reports", "retries", "version negotiations", and what was dropped by its reason.
    """

    def __init__(
        self, *, bind: Sequence[SocketAddr], certificate: ServerCertificate, limits: QadLimits | None = None
    ) -> None:
        self.counters: Counter[str] = Counter()
        self._bind = tuple(bind)
        self._limits = limits = limits or QadLimits()
        self._retry = RetryTokens()
        self._rate = SourceRates(limits.rate, limits.burst, 1)
        self._source_rate = SourceRates(limits.rate_per_source, limits.burst_per_source, limits.sources)
        # Stateless answers, which cost little, have the same rate and one of their own.
        self._stateless = SourceRates(10 * limits.rate, 10 * limits.burst, 1)
        self._listeners: tuple[Listener, ...] = ()
        self._clients: set[_Client] = set()
        self._by_cid: dict[bytes, _Client] = {}
        self._by_source: Counter[bytes] = Counter()
        self._loop: asyncio.AbstractEventLoop | None = None
        self.set_certificate(certificate)

    @property
    def addrs(self) -> tuple[SocketAddr, ...]:
        """The addresses that are served now, in the order of `bind`."""
        return tuple(listener.addr for listener in self._listeners)

    @property
    def connections(self) -> int:
        """How many connections there are now, half-open ones included."""
        return len(self._clients)

    def set_certificate(self, certificate: ServerCertificate) -> None:
        """Serve new connections with another certificate; those that exist stay."""
        self._configuration = QuicConfiguration(
            alpn_protocols=[ALPN],
            certificate=certificate.certificate,
            certificate_chain=list(certificate.chain),
            idle_timeout=self._limits.idle_timeout,
            is_client=False,
            max_data=0,
            max_stream_data=0,
            private_key=certificate.private_key,
            supported_versions=[QuicProtocolVersion.VERSION_1],
            verify_mode=ssl.CERT_NONE,
        )

    async def start(self) -> None:
        """Open the sockets; raises RelayServerError where one can't be bound, and leaves none open then."""
        self._loop = asyncio.get_running_loop()
        self._listeners = await open_listeners(
            self._bind, self._received, self.counters, purpose="QUIC address discovery"
        )

    async def aclose(self) -> None:
        """Close every connection and the sockets; may be called again, and before `start`."""
        for client in tuple(self._clients):
            self._guarded(client, self._now(), self._end)
        listeners, self._listeners = self._listeners, ()
        for listener in listeners:
            await listener.aclose()

    async def __aenter__(self) -> QadServer:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    # Datagrams

    def _now(self) -> float:
        assert self._loop is not None
        return self._loop.time()

    def _received(self, listener: Listener, data: bytes, source: SocketAddr) -> None:
        if source.port == 0:
            self._refuse("malformed")
            return
        now = self._now()
        client = self._by_cid.get(destination_cid(data))
        if client is None:
            client = self._first(listener, data, source, now)
            if client is None:
                return
        elif not client.packets.take(b"", now):
            self._refuse("packet rate")
            return
        client.listener = listener
        client.quic.take(data, source, now)
        self._guarded(client, now, self._pump)

    def _first(self, listener: Listener, data: bytes, source: SocketAddr, now: float) -> _Client | None:
        if len(data) < MIN_INITIAL or not data[0] & 0x80:
            return self._refuse("unknown connection id" if data and not data[0] & 0x80 else "too small")
        packet = FirstPacket.parse(data)
        if packet is None:
            return self._refuse("malformed")
        limits = self._limits
        if not packet.supported:
            if not self._stateless.take(b"", now):
                return self._refuse("rate")
            self.counters["version negotiations"] += 1
            listener.send(packet.version_negotiation(), source)
            return None
        original = self._retry.original(packet, source, now)
        key = source_key(source.host)
        # Whoever forges sources takes a quarter of the places, of all or of the one that is forged, and no more.
        if original is None and (
            len(self._clients) * RETRY_SHARE >= limits.connections
            or self._by_source[key] * RETRY_SHARE >= limits.connections_per_source
        ):
            if not self._stateless.take(b"", now):
                return self._refuse("rate")
            self.counters["retries"] += 1
            listener.send(self._retry.retry(packet, source, now), source)
            return None
        if len(self._clients) >= limits.connections:
            return self._refuse("too many connections")
        if self._by_source[key] >= limits.connections_per_source:
            return self._refuse("too many connections of a source")
        if not self._source_rate.take(key, now):
            return self._refuse("source rate")
        if not self._rate.take(b"", now):
            return self._refuse("rate")
        return self._accept(listener, packet, original, key, now)

    def _accept(
        self, listener: Listener, packet: FirstPacket, original: bytes | None, source: bytes, now: float
    ) -> _Client:
        limits = self._limits
        quic = ObservingConnection(
            role=Role.SENDS,
            configuration=self._configuration,
            original_destination_connection_id=packet.dcid if original is None else original,
            retry_source_connection_id=None if original is None else packet.dcid,
        )
        client = _Client(
            quic=quic,
            listener=listener,
            source=source,
            cids=(packet.dcid, quic.host_cid),
            deadline=now + limits.handshake_timeout,
            packets=SourceRates(limits.packets, limits.packets_burst, 1),
        )
        self._clients.add(client)
        self._by_source[source] += 1
        for cid in client.cids:
            self._by_cid[cid] = client
        self.counters["accepted"] += 1
        return client

    def _refuse(self, reason: str) -> _Client | None:
        self.counters[reason] += 1
        return None

    # Connections

    def _guarded(self, client: _Client, now: float, work: Callable[[_Client, float], None]) -> None:
        try:
            work(client, now)
        except Exception:
            # A fault of aioquic's or ours; the other connections have no part in it.
            logger.debug("fault in a connection of address discovery", exc_info=True)
            self.counters["faults"] += 1
            self._drop(client)

    def _pump(self, client: _Client, now: float) -> None:
        quic = client.quic
        self._send(client)
        while quic.next_event() is not None:
            pass
        if quic.confirmed and not client.confirmed:
            client.confirmed = True
            client.deadline = now + self._limits.lifetime
            self.counters["confirmed"] += 1
        if quic.reports_sent != client.reports:
            self.counters["reports"] += quic.reports_sent - client.reports
            client.reports = quic.reports_sent
        if quic.faults != client.faults:
            self.counters["faults"] += quic.faults - client.faults
            client.faults = quic.faults
        if quic.over:
            # The peer's end, or ours, which was sent: a client that misses it times out.
            self._drop(client)
        else:
            self._arm(client, now)

    def _send(self, client: _Client) -> None:
        for data, addr in client.quic.datagrams_to_send(self._now()):
            client.listener.send(data, addr)

    def _arm(self, client: _Client, now: float) -> None:
        at = client.quic.get_timer()
        at = client.deadline if at is None else min(at, client.deadline)
        if client.timer is not None:
            if client.timer.when() <= at:
                return
            client.timer.cancel()
        assert self._loop is not None
        client.timer = self._loop.call_at(at, self._due, client)

    def _due(self, client: _Client) -> None:
        client.timer = None
        self._guarded(client, self._now(), self._work_due)

    def _work_due(self, client: _Client, now: float) -> None:
        quic = client.quic
        if now >= client.deadline:
            self.counters["lifetime over" if client.confirmed else "handshake timed out"] += 1
            self._end(client, now)
            return
        at = quic.get_timer()
        if at is not None and at <= now:
            quic.handle_timer(now)
            if quic.over:
                self.counters["idle"] += 1
        self._pump(client, now)

    def _end(self, client: _Client, now: float) -> None:
        # Half-open ones go without a word: their address is not proven.
        if client.confirmed and not client.quic.terminating:
            client.quic.close(CLOSE_CODE, None, CLOSE_REASON)
            self._send(client)
        self._drop(client)

    def _drop(self, client: _Client) -> None:
        if client not in self._clients:
            return
        self._clients.discard(client)
        if client.timer is not None:
            client.timer.cancel()
        for cid in client.cids:
            if self._by_cid.get(cid) is client:
                del self._by_cid[cid]
        self._by_source[client.source] -= 1
        if not self._by_source[client.source]:
            del self._by_source[client.source]
