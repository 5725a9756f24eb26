"""QUIC streams that read and write like asyncio's StreamReader and StreamWriter.

Flow control follows the application: the peer may send more only as what arrived is read, so a slow reader stops a
fast sender within the flow window and neither side's memory grows without bound (RFC 9000 section 4).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from types import TracebackType
from typing import Any, Protocol, Self

from tom_connect.exceptions import LocalError

HIGH_WATER = 512 * 1024
"""Bytes written and not yet sent above which `drain()` waits: two round trips of 20 ms at 100 Mbit/s."""
LOW_WATER = 256 * 1024
READ_LIMIT = 64 * 1024
"""How far `readuntil` searches, bytes; the same as asyncio's."""


MAX_CODE = (1 << 62) - 1
"""The largest error code: a QUIC variable-length integer (RFC 9000 section 16)."""


def octets(data: object) -> bytes:
    """What was given as bytes; raises TypeError for anything else, also for a number, of which bytes() makes zeros."""
    if isinstance(data, bytes):
        return data
    if isinstance(data, (bytearray, memoryview)):
        return bytes(data)
    raise TypeError(f"bytes, bytearray or memoryview expected, not {type(data).__name__}")


def check_code(code: object) -> None:
    """Raise TypeError or ValueError unless `code` can be an application error code."""
    if not isinstance(code, int) or isinstance(code, bool):
        raise TypeError(f"an error code is an int, not {type(code).__name__}")
    if not 0 <= code <= MAX_CODE:
        raise ValueError(f"an error code is 0 to 2**62 - 1, not {code}")


class StreamCarrier(Protocol):
    """What streams need of their connection."""

    def stream_write(self, stream_id: int, data: bytes, end: bool) -> None:
        """Queue bytes and, with `end`, the end of the stream."""

    def stream_backlog(self, stream_id: int) -> int:
        """Bytes queued and not yet sent."""

    def stream_sent(self, stream_id: int) -> bool:
        """Whether the peer has acknowledged everything, the end included."""

    def stream_reset(self, stream_id: int, code: int) -> None:
        """Abandon the sending side."""

    def stream_stop(self, stream_id: int, code: int) -> None:
        """Ask the peer to stop sending."""

    def stream_consumed(self, stream_id: int, size: int) -> None:
        """The application has read `size` bytes."""

    def watch_sending(self, stream: SendStream) -> None:
        """Call `stream._sending_moved()` whenever something was sent or acknowledged."""

    def unwatch_sending(self, stream: SendStream) -> None:
        """Undo `watch_sending`."""

    def extra_info(self, name: str) -> Any:
        """Facts of the connection, for code that knows asyncio's transports."""


class RecvStream:
    """The receiving side of a stream; iterating over it gives chunks as they come."""

    def __init__(self, carrier: StreamCarrier, stream_id: int) -> None:
        self.stream_id = stream_id
        self._carrier = carrier
        self._buffer = bytearray()
        self._credited = 0  # bytes at the buffer's front for which the peer already got credit
        self._eof = False
        self._error: BaseException | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._stopped = False

    # What the connection tells.

    def _feed(self, data: bytes, end: bool) -> None:
        if self._stopped:
            self._carrier.stream_consumed(self.stream_id, len(data))
        else:
            self._buffer += data
        self._eof = self._eof or end
        self._wake()

    def _fail(self, error: BaseException) -> None:
        if self._error is None and not self._eof:
            self._error = error
            self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    # What the application does.

    async def read(self, n: int = -1) -> bytes:
        """Up to `n` bytes as soon as there are any, b"" at the end; with -1 everything up to the end.

        Raises StreamResetError if the peer reset the stream, ConnectionError if the connection ended before it did.
        """
        if n == 0:
            return b""
        if n < 0:
            while not self._eof:
                self._credit(len(self._buffer))
                await self._more()
            return self._take(len(self._buffer))
        while not self._buffer and not self._eof:
            await self._more()
        return self._take(min(n, len(self._buffer)))

    async def readexactly(self, n: int) -> bytes:
        """Exactly `n` bytes; raises asyncio.IncompleteReadError if the stream ends first, else as `read`."""
        if n < 0:
            raise ValueError("readexactly size can not be less than zero")
        while len(self._buffer) < n:
            if self._eof:
                raise asyncio.IncompleteReadError(self._take(len(self._buffer)), n)
            self._credit(len(self._buffer))
            await self._more()
        return self._take(n)

    async def readuntil(self, separator: bytes = b"\n") -> bytes:
        """Bytes up to and with `separator`.

        Raises asyncio.IncompleteReadError if the stream ends first, asyncio.LimitOverrunError if the separator is not
        found within 64 KiB (what was received stays readable), else as `read`.
        """
        if not separator:
            raise ValueError("Separator should be at least one-byte string")
        start = 0
        while (index := self._buffer.find(separator, start)) < 0:
            start = max(0, len(self._buffer) - len(separator) + 1)
            if start > READ_LIMIT:
                raise asyncio.LimitOverrunError("Separator is not found, and chunk exceed the limit", start)
            if self._eof:
                raise asyncio.IncompleteReadError(self._take(len(self._buffer)), None)
            await self._more()
        if index > READ_LIMIT:
            raise asyncio.LimitOverrunError("Separator is found, but chunk is longer than limit", index)
        return self._take(index + len(separator))

    async def readline(self) -> bytes:
        """One line with its end, or what there is before the end of the stream."""
        try:
            return await self.readuntil(b"\n")
        except asyncio.IncompleteReadError as exc:
            return exc.partial

    def at_eof(self) -> bool:
        """Whether everything was received and read."""
        return self._eof and not self._buffer

    def stop(self, code: int = 0) -> None:
        """Tell the peer that we read no more; what was and will be received is thrown away."""
        check_code(code)
        if self._stopped:
            return
        self._stopped = True
        if not self._eof and self._error is None:
            self._carrier.stream_stop(self.stream_id, code)
        self._take(len(self._buffer))
        self._fail(LocalError("this side stopped reading the stream"))

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while chunk := await self.read(READ_LIMIT):
            yield chunk

    async def _more(self) -> None:
        """Wait for data, the end or a failure; raises the failure once the buffer can't grow any more."""
        if self._error is not None:
            raise self._error
        if self._waiter is not None:
            raise LocalError("another task is already reading this stream")
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _credit(self, upto: int) -> None:
        # A read larger than the flow window would wait for ever if credit came only with its last byte.
        if upto > self._credited:
            self._carrier.stream_consumed(self.stream_id, upto - self._credited)
            self._credited = upto

    def _take(self, n: int) -> bytes:
        if n == len(self._buffer):
            data = bytes(self._buffer)
            self._buffer.clear()
        else:
            data = bytes(memoryview(self._buffer)[:n])
            del self._buffer[:n]
        if n > self._credited:
            self._carrier.stream_consumed(self.stream_id, n - self._credited)
        self._credited = max(0, self._credited - n)
        return data


class SendStream:
    """The sending side of a stream."""

    def __init__(self, carrier: StreamCarrier, stream_id: int) -> None:
        self.stream_id = stream_id
        self._carrier = carrier
        self._finished = False
        self._send_error: BaseException | None = None
        self._moved: asyncio.Future[None] | None = None
        self._move_waiters = 0

    # What the connection tells.

    def _fail_sending(self, error: BaseException) -> None:
        if self._send_error is None:
            self._send_error = error
            self._sending_moved()

    def _sending_moved(self) -> None:
        if self._moved is not None and not self._moved.done():
            self._moved.set_result(None)

    # What the application does.

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Queue bytes; they leave soon, on their own. Follow up with `await drain()`.

        Raises StreamStoppedError, ConnectionError or LocalError (after `finish`) if they can't leave.
        """
        data = octets(data)
        self._check_open()
        if data:
            self._carrier.stream_write(self.stream_id, data, False)

    def writelines(self, lines: Iterable[bytes]) -> None:
        """Queue several pieces."""
        self.write(b"".join(lines))

    async def drain(self) -> None:
        """Wait until little enough is queued (512 KiB) to write more; raises as `write`."""
        if self._send_error is not None:
            raise self._send_error
        if self._carrier.stream_backlog(self.stream_id) > HIGH_WATER:
            await self._wait_sending(lambda: self._carrier.stream_backlog(self.stream_id) <= LOW_WATER)

    def finish(self) -> None:
        """Say that nothing more will be written; what is queued still leaves. Doing it again does nothing."""
        if not self._finished:
            self._finished = True
            if self._send_error is None:
                self._carrier.stream_write(self.stream_id, b"", True)

    write_eof = finish
    close = finish

    def can_write_eof(self) -> bool:
        """True: a QUIC stream has an end of its own."""
        return True

    def is_closing(self) -> bool:
        """Whether `finish` or `reset` was called, or the stream failed."""
        return self._finished or self._send_error is not None

    def reset(self, code: int = 0) -> None:
        """Abandon what is queued and tell the peer that the stream ended abruptly."""
        check_code(code)
        if self._send_error is None and not (self._finished and self._carrier.stream_sent(self.stream_id)):
            self._carrier.stream_reset(self.stream_id, code)
            self._fail_sending(LocalError("this side reset the stream"))
        self._finished = True

    async def wait_closed(self) -> None:
        """Wait until the peer's QUIC has acknowledged everything up to the end given by `finish`; raises as `write`.

        It says nothing about the peer's application: for that, let it answer.
        """
        if not self._finished:
            raise LocalError("call finish() before wait_closed()")
        await self._wait_sending(lambda: self._carrier.stream_sent(self.stream_id))

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """`peername` and others, for code written for asyncio's StreamWriter."""
        value = self._carrier.extra_info(name)
        return default if value is None else value

    async def _wait_sending(self, done: Any) -> None:
        self._carrier.watch_sending(self)
        self._move_waiters += 1
        try:
            while not done():
                if self._send_error is not None:
                    raise self._send_error
                if self._moved is None or self._moved.done():
                    self._moved = asyncio.get_running_loop().create_future()
                # Shielded because several waiters share the future.
                await asyncio.shield(self._moved)
        finally:
            self._move_waiters -= 1
            if not self._move_waiters:
                self._carrier.unwatch_sending(self)

    def _check_open(self) -> None:
        if self._send_error is not None:
            raise self._send_error
        if self._finished:
            raise LocalError("the stream was finished: nothing more can be written")


class BiStream(RecvStream, SendStream):
    """Both sides of a bidirectional stream.

    `async with stream:` finishes it at the end, or resets and stops it with code 0 if the block raised.
    """

    def __init__(self, carrier: StreamCarrier, stream_id: int) -> None:
        RecvStream.__init__(self, carrier, stream_id)
        SendStream.__init__(self, carrier, stream_id)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        if exc is None:
            self.finish()
        else:
            self.reset()
            self.stop()


__all__ = ["BiStream", "RecvStream", "SendStream", "StreamCarrier"]
