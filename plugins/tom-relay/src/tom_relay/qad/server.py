"""Tells each QUIC client the address at which it is seen, on UDP."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import attrs

from tom_connect.addr import SocketAddr
from tom_relay.qad.certificate import ServerCertificate

DEFAULT_PORT = 7842
"""The UDP port of QUIC address discovery at iroh's relays."""


@attrs.frozen(kw_only=True)
class QadLimits:
    """Bounds of the server; times in seconds, rates a second.

    A source is an IPv4 address or an IPv6 /64. Above a quarter of `connections` newcomers must prove their address by
    a Retry.
    """

    connections: int = 1024
    connections_per_source: int = 32
    handshake_timeout: float = 5.0
    idle_timeout: float = 30.0
    lifetime: float = 3600.0
    rate: float = 200.0
    burst: float = 400.0


class QadServer:
    """A QUIC address discovery server: `async with QadServer(bind=..., certificate=...) as server`.

    `bind`: UDP addresses, port 0 for a free one. `counters` counts reports, connections and drops by reason.
    """

    def __init__(
        self, *, bind: Sequence[SocketAddr], certificate: ServerCertificate, limits: QadLimits | None = None
    ) -> None:
        self.counters: Counter[str] = Counter()

    @property
    def addrs(self) -> tuple[SocketAddr, ...]:
        """The addresses that are served now, in the order of `bind`."""
        raise NotImplementedError

    @property
    def connections(self) -> int:
        """How many connections there are now, half-open ones included."""
        raise NotImplementedError

    def set_certificate(self, certificate: ServerCertificate) -> None:
        """Serve new connections with another certificate; those that exist stay."""
        raise NotImplementedError

    async def start(self) -> None:
        """Open the sockets; raises RelayServerError where one can't be bound, and leaves none open then."""
        raise NotImplementedError

    async def aclose(self) -> None:
        """Close every connection and the sockets; may be called again, and before `start`."""
        raise NotImplementedError

    async def __aenter__(self) -> QadServer:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()
