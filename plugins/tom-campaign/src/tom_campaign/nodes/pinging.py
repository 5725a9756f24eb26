"""Messages at a steady pace, and their answers."""

from __future__ import annotations

import asyncio
import contextlib
import struct
from collections.abc import Awaitable, Callable
from typing import Any, Final

import attrs

from tom_campaign.core.control import Ping, Window
from tom_campaign.core.records import PathSpan
from tom_campaign.core.statistics import Rolling, kept_samples, rtt_statistics
from tom_campaign.core.summing import Measured
from tom_campaign.nodes.acceptor import ECHO
from tom_campaign.nodes.session import Session, path_kind
from tom_connect import BiStream, Connection, TomError

_SEQ: Final = struct.Struct(">Q")
MAX_SAMPLES: Final = 100_000
"""Round trips that are kept for the figures of one measurement; later ones are counted alone."""
_TURN: Final = 64
"""Messages that are sent without letting others run, where the pace is faster than the loop."""


@attrs.define(eq=False)
class Pinging:
    """One measurement; `run` it once. `on_window` gets the figures of each window, if the request wants any."""

    session: Session
    ask: Ping
    on_window: Callable[[Window], None]
    _waiting: dict[int, float] = attrs.Factory(dict)
    _rtts: list[float] = attrs.Factory(list)
    _sent: int = 0
    _received: int = 0
    _last_heard: float = 0.0
    _gap: float = 0.0
    _stream: BiStream | None = None
    _readers: set[asyncio.Task[None]] = attrs.Factory(set)
    _all_answered: asyncio.Event = attrs.Factory(asyncio.Event)
    _listening: asyncio.Event = attrs.Factory(asyncio.Event)
    _rolling: Rolling | None = None
    _told_until: float = 0.0

    async def run(self) -> Measured:
        """Send, and wait for the answers; never raises a TomError."""
        loop = asyncio.get_running_loop()
        before = self.session.reconnections
        try:
            await self.session.opened(self.ask.timeout)
        except TomError as exc:
            return Measured(sent=self.ask.count, received=0, discovery_source=self.session.source, error=str(exc))
        began = loop.time()
        try:
            async with self.session.kept(self.ask.timeout, self._connected):
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self.ask.timeout):
                        await self._listening.wait()
                began = self._last_heard = loop.time()
                if self.ask.every:
                    self._rolling = Rolling(self.ask.every, began)
                await self._send_all(began)
                self._note_gap()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self.ask.timeout if self._waiting else 0):
                        await self._all_answered.wait()
                if self._waiting:
                    self._note_gap()
                self._tell_window(loop.time() + self.ask.every)
        finally:
            for reader in self._readers:
                reader.cancel()
            await asyncio.gather(*self._readers, return_exceptions=True)
        stats = None if self.session.connection is None else self.session.connection.stats()
        return Measured(
            sent=self._sent,
            received=self._received,
            rtt=rtt_statistics(self._rtts),
            samples_ms=kept_samples(self._rtts),
            reconnections=self.session.reconnections - before,
            path_kind=path_kind(self.session.connection),
            why_relayed=stats.why_relayed if stats is not None else None,
            longest_gap_ms=round(self._gap * 1000, 3),
            paths=tuple(
                PathSpan(at_s=round(max(0.0, at - began), 3), path_kind=kind) for at, kind in self.session.spans
            ),
            discovery_source=self.session.source,
            error=None if self._received == self._sent else self.session.error,
        )

    async def _send_all(self, began: float) -> None:
        loop = asyncio.get_running_loop()
        for number in range(self.ask.count):
            due = began + number * self.ask.interval
            if (wait := due - loop.time()) > 0:
                await asyncio.sleep(wait)
            elif number % _TURN == 0:
                await asyncio.sleep(0)
            self._send(number)
            self._expire(loop.time())
            self._tell_window(loop.time())

    def _send(self, number: int) -> None:
        self._sent += 1
        now = asyncio.get_running_loop().time()
        connection = self.session.connection
        message = _SEQ.pack(number).ljust(self.ask.size, b"\0")
        try:
            if connection is None or connection.is_closed:
                self._count(None)
                return
            if not self.ask.reliable:
                connection.send_datagram(message)
            elif self._stream is not None:
                self._stream.write(message)
            else:
                self._count(None)
                return
        except TomError:
            self._count(None)
            return
        self._waiting[number] = now
        self._all_answered.clear()

    def _connected(self, connection: Connection) -> None:
        """A connection is there: read what comes on it."""
        for number in tuple(self._waiting):  # of the one before it nothing comes any more
            del self._waiting[number]
            self._count(None)
        self._stream = None
        work = self._read_stream if self.ask.reliable else self._read_datagrams
        reader = asyncio.create_task(self._reading(work, connection), name="reading answers")
        self._readers.add(reader)
        reader.add_done_callback(self._readers.discard)

    async def _reading(self, work: Callable[[Connection], Awaitable[Any]], connection: Connection) -> None:
        # A connection or stream that ends is daily business here: the session makes another one.
        with contextlib.suppress(TomError, asyncio.IncompleteReadError):
            await work(connection)

    async def _read_datagrams(self, connection: Connection) -> None:
        self._listening.set()
        while True:
            self._answered(await connection.read_datagram())

    async def _read_stream(self, connection: Connection) -> None:
        stream = await connection.open_bi()
        stream.write(ECHO)
        self._stream = stream
        self._listening.set()
        try:
            while True:
                self._answered(await stream.readexactly(self.ask.size))
        finally:
            if self._stream is stream:
                self._stream = None
            with contextlib.suppress(TomError):
                stream.reset(0)
                stream.stop(0)

    def _answered(self, message: bytes) -> None:
        if len(message) != self.ask.size:
            return
        (number,) = _SEQ.unpack_from(message)
        sent_at = self._waiting.pop(number, None)
        if sent_at is None:  # given up already, or of an earlier measurement
            return
        now = asyncio.get_running_loop().time()
        self._note_gap()
        self._last_heard = now
        self._count((now - sent_at) * 1000)

    def _note_gap(self) -> None:
        self._gap = max(self._gap, asyncio.get_running_loop().time() - self._last_heard)

    def _expire(self, now: float) -> None:
        while self._waiting:
            number, sent_at = next(iter(self._waiting.items()))
            if now - sent_at < self.ask.timeout:
                return
            del self._waiting[number]
            self._count(None)

    def _count(self, rtt_ms: float | None) -> None:
        if rtt_ms is not None:
            self._received += 1
            if len(self._rtts) < MAX_SAMPLES:
                self._rtts.append(rtt_ms)
        if self._rolling is not None:
            self._rolling.add(rtt_ms)
        if not self._waiting:
            self._all_answered.set()

    def _tell_window(self, now: float) -> None:
        rolling = self._rolling
        if rolling is None or (window := rolling.take(now)) is None:
            return
        if not window.sent:
            return
        elapsed = min(now, asyncio.get_running_loop().time()) - rolling.began
        length, self._told_until = elapsed - self._told_until, elapsed
        self.on_window(
            Window(
                elapsed_s=round(elapsed, 3),
                window_s=round(length, 3),
                sent=window.sent,
                received=window.received,
                total_sent=rolling.total_sent,
                total_received=rolling.total_received,
                reconnections=self.session.reconnections,
                path_kind=path_kind(self.session.connection),
                rtt=rtt_statistics(window.rtts_ms),
                discovery_source=self.session.source,
            )
        )
