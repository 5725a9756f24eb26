"""Answers STUN binding requests on UDP (RFC 8489 section 12)."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence

import attrs

from tom_connect.addr import SocketAddr
from tom_connect.netreport.stun import (
    UNKNOWN_ATTRIBUTE,
    BindingRequest,
    StunError,
    binding_error,
    binding_success,
)
from tom_relay.errors import RelayServerError
from tom_relay.stun.sockets import Listener, open_listeners
from tom_relay.stun.sources import SourceRates, source_key

DEFAULT_PORT = 3478
"""The UDP port of STUN (RFC 8489 section 18.6)."""


@attrs.frozen(kw_only=True)
class StunLimits:
    """What one source and all may ask for. Rates: answers a second; bursts: answers at once.

    A source is an IPv4 address or an IPv6 /64, the smallest networks that one host has to itself; `sources` of them
    are remembered.
    """

    # A node asks about once in 30 s, and many may share a carrier's address.
    rate_per_source: float = 20.0
    burst_per_source: float = 40.0
    sources: int = 16_384
    # Sources can be forged at will, so the sum has a bound too; the relay shares the event loop.
    rate: float = 2000.0
    burst: float = 4000.0


def answer(data: bytes, source: SocketAddr, software: str | None = None) -> bytes:
    """The answer to one datagram; raises StunError where it deserves none.

    An answer has what section 6.3.1 demands and no more: 1.6 times a bare request over IPv4, 2.2 times over IPv6.
    `software` is added where the answer does not grow beyond the request.
    """
    return _reply(BindingRequest.decode(data), len(data), source, software)


def _reply(request: BindingRequest, size: int, source: SocketAddr, software: str | None) -> bytes:
    if request.unknown:
        return binding_error(
            request.transaction_id, UNKNOWN_ATTRIBUTE, unknown=request.unknown, fingerprint=request.fingerprint
        )
    reply = binding_success(request.transaction_id, source, fingerprint=request.fingerprint)
    if software is not None and len(reply) + 4 + len(software) <= size:
        named = binding_success(request.transaction_id, source, software=software, fingerprint=request.fingerprint)
        if len(named) <= size:
            return named
    return reply


class StunServer:
    """A STUN binding server: `async with StunServer(bind=[SocketAddr("0.0.0.0", 3478)]) as server`.

    `bind`: UDP addresses, port 0 for a free one; on a host with several addresses of a family name them instead of the
    wildcard, or answers may leave from another one than was asked. Each has a second port, the next one or any that is
    free, for requests that want their answer from there (RFC 5780 section 7.2): so a client learns whom its NAT lets
    in. `software`: the SOFTWARE attribute of answers, left
    out where the answer would grow larger than the request. `counters` counts: "answered", "unknown attribute"
    (answered with an error), and what was dropped: "not stun", "too large", "malformed", "fingerprint", "not binding",
    "source rate", "rate", "send buffer full".
    """

    def __init__(
        self, *, bind: Sequence[SocketAddr], software: str | None = None, limits: StunLimits | None = None
    ) -> None:
        self.counters: Counter[str] = Counter()
        self._bind = tuple(bind)
        self._software = software
        limits = limits or StunLimits()
        self._sources = SourceRates(limits.rate_per_source, limits.burst_per_source, limits.sources)
        self._all = SourceRates(limits.rate, limits.burst, 1)
        self._listeners: tuple[Listener, ...] = ()
        self._others: dict[Listener, Listener] = {}
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def other_addrs(self) -> tuple[SocketAddr, ...]:
        """Their second ports, in the same order."""
        return tuple(self._others[listener].addr for listener in self._listeners)

    @property
    def addrs(self) -> tuple[SocketAddr, ...]:
        """The addresses that are served now, in the order of `bind`."""
        return tuple(listener.addr for listener in self._listeners)

    async def start(self) -> None:
        """Open the sockets; raises RelayServerError where one can't be bound, and leaves none open then."""
        self._loop = asyncio.get_running_loop()
        self._listeners = await open_listeners(self._bind, self._received, self.counters, purpose="STUN")
        try:
            for listener in self._listeners:
                other = await self._open_other(listener.addr)
                self._others |= {listener: other, other: listener}
        except BaseException:
            await self.aclose()
            raise

    async def _open_other(self, addr: SocketAddr) -> Listener:
        following = SocketAddr(addr.host, addr.port + 1 if addr.port < 65_535 else 0)
        try:
            found = await open_listeners([following], self._received, self.counters, purpose="STUN")
        except RelayServerError:
            found = await open_listeners([SocketAddr(addr.host, 0)], self._received, self.counters, purpose="STUN")
        return found[0]

    async def aclose(self) -> None:
        """Close the sockets; may be called again, and before `start`."""
        listeners = {*self._listeners, *self._others}
        self._listeners, self._others = (), {}
        for listener in listeners:
            await listener.aclose()

    async def __aenter__(self) -> StunServer:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def _received(self, listener: Listener, data: bytes, source: SocketAddr) -> None:
        assert self._loop is not None
        if source.port == 0:
            self.counters["malformed"] += 1
            return
        try:
            request = BindingRequest.decode(data)
        except StunError as exc:
            self.counters[exc.kind] += 1
            return
        reply = _reply(request, len(data), source, self._software)
        now = self._loop.time()
        if not self._sources.take(source_key(source.host), now):
            self.counters["source rate"] += 1
        elif not self._all.take(b"", now):
            self.counters["rate"] += 1
        else:
            self.counters["answered" if reply[0:2] == b"\x01\x01" else "unknown attribute"] += 1
            (self._others.get(listener, listener) if request.change_port else listener).send(reply, source)
