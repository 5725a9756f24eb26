"""Which protocol a datagram belongs to, and the queues that keep one protocol from starving the others.

QUIC sets the bit 0x40 of every first byte, STUN begins with 0 to 3, disco has 4 to 15 (RFC 7983 leaves it free).
KRPC, a bencoded dictionary, begins with `d` and a digit; our own connection ids never begin with a digit, so that no
QUIC packet to us does (`d` is a possible first byte of a short header, and the connection id follows it).
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, deque
from collections.abc import Callable, Sequence
from typing import Final

from tom_connect.abc import DatagramProtocol
from tom_connect.addr import SocketAddr

QUEUE: Final = 512
"""Datagrams that wait for one protocol; further ones are dropped. At 0.1 ms each they are 50 ms of work."""
BATCH: Final = 16
SLICE: Final = 0.002
"""Seconds that a protocol may work in one turn of the loop."""
SHARE: Final = 0.25
"""The part of the time that a protocol gets while QUIC is busy."""
BUSY: Final = 0.05
"""Seconds after a QUIC datagram in which QUIC counts as busy."""

_QUIC_BIT = 0x40
_KRPC = 0x64
_DIGIT = range(0x30, 0x3A)


class ProtocolQueue:
    """The bounded queue of one datagram protocol, emptied in slices of the loop's time."""

    def __init__(
        self,
        protocol: DatagramProtocol,
        loop: asyncio.AbstractEventLoop,
        *,
        clock: Callable[[], float],
        busy: Callable[[float], bool],
        counters: Counter[str],
        logger: logging.Logger,
    ) -> None:
        self.protocol = protocol
        self._name = protocol.name or type(protocol).__name__
        self._loop = loop
        self._clock = clock
        self._busy = busy
        self._counters = counters
        self._logger = logger
        self._waiting: deque[tuple[bytes, SocketAddr]] = deque()
        self._handle: asyncio.Handle | None = None
        self._not_before = 0.0
        self._failed = False
        self._closed = False

    def push(self, data: bytes, source: SocketAddr) -> None:
        """Queue a datagram, or drop and count it."""
        if len(self._waiting) >= QUEUE:
            self._counters[f"{self._name}: queue full"] += 1
            return
        self._waiting.append((data, source))
        if self._handle is None and not self._closed:
            self._schedule(self._clock())

    def _schedule(self, now: float) -> None:
        if now >= self._not_before:
            self._handle = self._loop.call_soon(self._run)
        else:
            self._handle = self._loop.call_later(self._not_before - now, self._run)

    def _run(self) -> None:
        self._handle = None
        waiting = self._waiting
        started = now = self._clock()
        while waiting and now - started < SLICE and not self._closed:
            batch = [waiting.popleft() for _ in range(min(BATCH, len(waiting)))]
            try:
                self.protocol.datagrams_received(batch)
            except Exception:
                self._counters[f"{self._name}: failed"] += 1
                if not self._failed:
                    self._failed = True
                    self._logger.exception("datagram protocol %s failed; further failures are only counted", self._name)
            now = self._clock()
        if self._busy(now):
            self._not_before = now + (now - started) * (1 / SHARE - 1)
        if waiting and not self._closed and self._handle is None:
            self._schedule(now)

    def close(self) -> None:
        """Drop what waits and never call the protocol again."""
        self._closed = True
        self._waiting.clear()
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None


class Demux:
    """Sorts what arrives: QUIC in whole batches, disco one by one, the rest into the queues of those who claim it."""

    def __init__(
        self,
        *,
        quic: Callable[[SocketAddr, Sequence[bytes], float], None],
        disco: Callable[[bytes, SocketAddr, float], None],
        counters: Counter[str],
    ) -> None:
        self._quic = quic
        self._disco = disco
        self._counters = counters
        self._queues: tuple[ProtocolQueue, ...] = ()
        self._last_quic = float("-inf")

    def busy(self, now: float) -> bool:
        """Whether QUIC datagrams came lately."""
        return now - self._last_quic < BUSY

    def add(self, queue: ProtocolQueue) -> None:
        """Let a protocol claim; those of higher priority are asked first."""
        self._queues = tuple(sorted((*self._queues, queue), key=lambda q: -q.protocol.priority))

    def remove(self, protocol: DatagramProtocol) -> None:
        """Let go of a protocol and its queue."""
        for queue in self._queues:
            if queue.protocol is protocol:
                queue.close()
        self._queues = tuple(queue for queue in self._queues if queue.protocol is not protocol)

    def close(self) -> None:
        """Let go of every protocol."""
        for queue in self._queues:
            queue.close()
        self._queues = ()

    def received(self, source: SocketAddr, datagrams: list[bytes], now: float) -> None:
        """Take a batch from one source."""
        for data in datagrams:
            if not data or not (first := data[0]) & _QUIC_BIT or first == _KRPC:
                self._mixed(source, datagrams, now)
                return
        self._last_quic = now
        self._quic(source, datagrams, now)

    def _mixed(self, source: SocketAddr, datagrams: list[bytes], now: float) -> None:
        quic: list[bytes] = []
        for data in datagrams:
            if not data:
                self._counters["empty datagram"] += 1
                continue
            first = data[0]
            if first & _QUIC_BIT:
                if first != _KRPC or len(data) < 2 or data[1] not in _DIGIT:
                    quic.append(data)
                else:
                    self._offer(data, source)
            elif 4 <= first <= 15:
                self._disco(data, source, now)
            else:
                self._offer(data, source)
        if quic:
            self._last_quic = now
            self._quic(source, quic, now)

    def _offer(self, data: bytes, source: SocketAddr) -> None:
        head = data[:8]
        for queue in self._queues:
            try:
                claimed = queue.protocol.claims(head)
            except Exception:
                self._counters[f"{queue.protocol.name or type(queue.protocol).__name__}: failed"] += 1
                continue
            if claimed:
                queue.push(data, source)
                return
        self._counters["claimed by no protocol"] += 1
