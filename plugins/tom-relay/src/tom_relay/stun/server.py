"""Answers STUN binding requests on UDP."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import attrs

from tom_connect.addr import SocketAddr

DEFAULT_PORT = 3478
"""The UDP port of STUN (RFC 8489 section 18.6)."""


@attrs.frozen(kw_only=True)
class StunLimits:
    """What one source and all may ask for. Rates: answers a second; bursts: answers at once.

    A source is an IPv4 address or an IPv6 /64, the smallest networks that one host has to itself.
    """

    rate_per_source: float = 20.0
    burst_per_source: float = 40.0
    sources: int = 16_384


class StunServer:
    """A STUN binding server: `async with StunServer(bind=[SocketAddr("0.0.0.0", 3478)]) as server`.

    `bind`: UDP addresses, port 0 for a free one. `software`: the SOFTWARE attribute of answers, left out where the
    answer would grow larger than the request. `counters` counts answers and drops by reason.
    """

    def __init__(
        self, *, bind: Sequence[SocketAddr], software: str | None = None, limits: StunLimits | None = None
    ) -> None:
        self.counters: Counter[str] = Counter()

    @property
    def addrs(self) -> tuple[SocketAddr, ...]:
        """The addresses that are served now, in the order of `bind`."""
        raise NotImplementedError

    async def start(self) -> None:
        """Open the sockets; raises RelayServerError where one can't be bound, and leaves none open then."""
        raise NotImplementedError

    async def aclose(self) -> None:
        """Close the sockets; may be called again, and before `start`."""
        raise NotImplementedError

    async def __aenter__(self) -> StunServer:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()
