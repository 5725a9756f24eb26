"""A connection to one node: streams, datagrams, and what there is to know about its paths."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import attrs
from aioquic.quic import events as quic_events

from tom_connect.abc import PathInfo
from tom_connect.exceptions import (
    ConnectionClosedError,
    DatagramTooLargeError,
    LocalError,
    StreamResetError,
    StreamStoppedError,
)
from tom_connect.keys import NodeId
from tom_connect.streams import BiStream, RecvStream, SendStream, check_code, octets

if TYPE_CHECKING:
    from tom_connect.holepunch.events import PathEvent
    from tom_connect.quic.link import Link

MAX_QUEUED_DATAGRAMS = 1024
"""Received datagrams that wait for `read_datagram`; the oldest are dropped, as a full socket buffer would."""
LOOK_PAST = 8
"""Finished streams not yet acknowledged that are looked past, each turn, in search of those that are."""
MAX_QUEUED_PATH_EVENTS = 256
"""Path events that wait for a slow reader; the oldest are dropped."""


@attrs.frozen
class ConnectionStats:
    """What a connection has done so far.

    Bytes are of UDP payload; `rtt` in seconds; `congestion_window` in bytes; `mtu`, the largest UDP payload used now.
    `path_switches`, `path_doubts`, `path_outages`: how often traffic to the node changed its path, the path in use went
    silent or was doubted for another reason, and no path answered. `why_relayed`: why no direct path is used now, a
    word such as `punching` or `no_candidates`; None if one is.
    """

    bytes_sent: int
    bytes_received: int
    packets_sent: int
    packets_received: int
    packets_lost: int
    rtt: float
    congestion_window: int
    mtu: int
    datagrams_dropped: int
    path: PathInfo | None
    path_switches: int = 0
    path_doubts: int = 0
    path_outages: int = 0
    why_relayed: str | None = None


class Connection:
    """A QUIC connection with a node whose key is proven. Made by `Endpoint.connect` and `Incoming.accept`.

    `async with connection:` closes it with code 0 at the end, after finished streams have arrived (not if it raised).
    """

    def __init__(self, link: Link) -> None:
        self._link = link
        self._engine = link.engine
        self._recv: dict[int, RecvStream] = {}
        self._send: dict[int, SendStream] = {}
        self._incoming_bi: deque[BiStream] = deque()
        self._incoming_uni: deque[RecvStream] = deque()
        self._datagrams: deque[bytes] = deque()
        self._datagrams_dropped = 0
        self._waiters: dict[str, deque[asyncio.Future[None]]] = {}
        self._sending: set[SendStream] = set()
        self._finishing: deque[int] = deque()
        self._error: Exception | None = None
        self._closed: asyncio.Future[Exception] = asyncio.get_running_loop().create_future()
        self._handlers: dict[type, Callable[[Any], None]] = {
            quic_events.StreamDataReceived: self._on_stream_data,
            quic_events.DatagramFrameReceived: self._on_datagram,
            quic_events.StreamReset: self._on_stream_reset,
            quic_events.StopSendingReceived: self._on_stop_sending,
        }
        link.attach(self)

    # Facts

    @property
    def remote_node_id(self) -> NodeId:
        """The peer's proven key."""
        return self._link.peer

    @property
    def alpn(self) -> str:
        """The application protocol that both sides agreed on."""
        return self._link.alpn

    @property
    def rtt(self) -> float:
        """The smoothed round-trip time, seconds (RFC 9002 section 5.3)."""
        return self._engine.rtt or 0.0

    @property
    def is_client(self) -> bool:
        """Whether this side dialed."""
        return self._link.is_client

    @property
    def early_data_accepted(self) -> bool:
        """Whether the peer took what was sent before the handshake ended (0-RTT)."""
        return self._engine.early_data_accepted

    def paths(self) -> list[PathInfo]:
        """Every path known to the peer; the active one carries traffic now."""
        return self._link.paths()

    def path_events(self) -> PathEvents:
        """What happens to the paths from now on, until the connection ends. A slow reader misses the oldest events."""
        return PathEvents(self)

    def stats(self) -> ConnectionStats:
        """Counters and estimates as of now."""
        counters = self._engine.stats
        active = next((path for path in self.paths() if path.active), None)
        paths = self._link.path_counts()
        return ConnectionStats(
            bytes_sent=counters.bytes_sent,
            bytes_received=counters.bytes_received,
            packets_sent=counters.packets_sent,
            packets_received=counters.packets_received,
            packets_lost=counters.packets_lost,
            rtt=counters.rtt,
            congestion_window=counters.cwnd,
            mtu=self._engine.mtu,
            datagrams_dropped=self._datagrams_dropped + counters.datagrams_dropped,
            path=active,
            path_switches=paths.switches,
            path_doubts=paths.doubts,
            path_outages=paths.outages,
            why_relayed=paths.why_relayed,
        )

    # Streams

    async def open_bi(self) -> BiStream:
        """Open a bidirectional stream; waits while the peer allows no more of them.

        The peer learns of the stream with the first bytes written. Raises ConnectionError if the connection ended.
        """
        stream_id = await self._open(uni=False)
        stream = BiStream(self, stream_id)
        self._recv[stream_id] = self._send[stream_id] = stream
        return stream

    async def open_uni(self) -> SendStream:
        """Open a stream that only this side writes; otherwise as `open_bi`."""
        stream_id = await self._open(uni=True)
        stream = SendStream(self, stream_id)
        self._send[stream_id] = stream
        return stream

    async def accept_bi(self) -> BiStream:
        """The next bidirectional stream that the peer opened; raises ConnectionError once the connection ended."""
        while not self._incoming_bi:
            await self._wait("bi")
        stream = self._incoming_bi.popleft()
        self._engine.stream_accepted(stream.stream_id)
        return stream

    async def accept_uni(self) -> RecvStream:
        """The next stream that only the peer writes; otherwise as `accept_bi`."""
        while not self._incoming_uni:
            await self._wait("uni")
        stream = self._incoming_uni.popleft()
        self._engine.stream_accepted(stream.stream_id)
        return stream

    async def _open(self, *, uni: bool) -> int:
        while not self._engine.can_open(uni):
            await self._wait("open")
        self._check_open()
        return self._engine.open_stream(uni=uni)

    # Datagrams

    @property
    def max_datagram_size(self) -> int:
        """Bytes that a datagram may have now, 0 if the peer takes none; it can shrink when the path changes."""
        return self._engine.max_datagram_payload

    def send_datagram(self, data: bytes | bytearray | memoryview) -> None:
        """Send a datagram, unreliably and unordered (RFC 9221).

        Raises DatagramTooLargeError if it does not fit now, LocalError if the peer takes none, ConnectionError if the
        connection ended. When many are queued the oldest is dropped.
        """
        self._check_open()
        data = octets(data)
        limit = self.max_datagram_size
        if limit == 0:
            raise LocalError("the peer does not take datagrams")
        if len(data) > limit:
            raise DatagramTooLargeError(len(data), limit)
        self._engine.send_datagram(data)
        self._link.flush_soon()

    async def read_datagram(self) -> bytes:
        """The next datagram; raises ConnectionError once the connection ended."""
        while not self._datagrams:
            await self._wait("datagram")
        return self._datagrams.popleft()

    # The end

    async def close(self, code: int = 0, reason: str = "") -> None:
        """Tell the peer that it's over, with an application error code and text; streams end abruptly.

        Returns when the message has left. Doing it again does nothing. Raises ValueError for a code that is not 0 to
        2**62 - 1.
        """
        check_code(code)
        if not isinstance(reason, str):
            raise TypeError(f"reason must be a str, not {type(reason).__name__}")
        if self._error is None:
            self._link.close(code, reason)
            self._end(ConnectionClosedError(code, reason, by_peer=False, is_application=True))

    async def flush(self) -> None:
        """Wait until the peer's QUIC has all of what was written on streams that were finished, or has gone."""
        while self._finishing and self._error is None:
            self._forget_finished(len(self._finishing))
            if self._finishing:
                await self._wait("flush")

    async def closed(self) -> Exception:
        """Wait for the end of the connection and return what ended it."""
        return await asyncio.shield(self._closed)

    @property
    def is_closed(self) -> bool:
        """Whether the connection has ended."""
        return self._error is not None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        if exc is None:
            await self.flush()
        await self.close()

    def __repr__(self) -> str:
        state = "closed" if self._error is not None else "open"
        return f"<Connection with {self._link.peer.short()} over {self._link.alpn!r}, {state}>"

    def _check_open(self) -> None:
        if self._error is not None:
            raise self._error

    async def _wait(self, what: str) -> None:
        self._check_open()
        waiter = asyncio.get_running_loop().create_future()
        queue = self._waiters.setdefault(what, deque())
        queue.append(waiter)
        try:
            await waiter
        finally:
            if waiter in queue:
                queue.remove(waiter)

    def _notify(self, what: str) -> None:
        # Everybody wakes and looks again: a waiter that was cancelled in the same moment must not swallow the news.
        for waiter in self._waiters.get(what, ()):
            if not waiter.done():
                waiter.set_result(None)

    # What the driver tells (LinkOwner)

    def link_event(self, event: quic_events.QuicEvent) -> None:
        """Take one event of the QUIC engine."""
        handler = self._handlers.get(type(event))
        if handler is not None:
            handler(event)

    def link_moved(self) -> None:
        """Something was sent, acknowledged or granted: look after those who wait for it."""
        for stream in tuple(self._sending):
            stream._sending_moved()
        if self._finishing:
            self._forget_finished(LOOK_PAST)
        if self._waiters.get("open"):
            self._notify("open")

    def link_closed(self, error: Exception) -> None:
        """The connection has ended."""
        self._end(error)

    def _forget_finished(self, patience: int) -> None:
        # Streams end roughly in the order in which they were finished. Looking on past a few that have not would cost
        # more than the packet, with thousands of streams at once.
        for _ in range(len(self._finishing)):
            stream_id = self._finishing.popleft()
            if self._engine.send_finished(stream_id):
                self._send.pop(stream_id, None)
                continue
            self._finishing.append(stream_id)
            patience -= 1
            if patience <= 0:
                break
        if not self._finishing:
            self._notify("flush")

    def _end(self, error: Exception) -> None:
        if self._error is not None:
            return
        self._error = error
        for recv in self._recv.values():
            recv._fail(error)
        for send in {*self._send.values(), *self._sending}:
            send._fail_sending(error)
        self._recv.clear()
        self._send.clear()
        self._finishing.clear()
        for what in tuple(self._waiters):
            self._notify(what)
        self._closed.set_result(error)

    # Events

    def _on_stream_data(self, event: quic_events.StreamDataReceived) -> None:
        stream = self._recv.get(event.stream_id)
        if stream is None:
            stream = self._accept(event.stream_id)
            if stream is None:
                self._engine.consumed(event.stream_id, len(event.data))
                return
        stream._feed(event.data, event.end_stream)
        if event.end_stream:
            self._recv.pop(event.stream_id, None)

    def _on_stream_reset(self, event: quic_events.StreamReset) -> None:
        stream = self._recv.get(event.stream_id) or self._accept(event.stream_id)
        if stream is not None:
            stream._fail(StreamResetError(event.error_code))
            self._recv.pop(event.stream_id, None)

    def _on_stop_sending(self, event: quic_events.StopSendingReceived) -> None:
        stream = self._send.get(event.stream_id)
        if stream is None and event.stream_id & 1 == self._link.is_client:
            self._accept(event.stream_id)
            stream = self._send.get(event.stream_id)
        if stream is not None:
            stream._fail_sending(StreamStoppedError(event.error_code))

    def _on_datagram(self, event: quic_events.DatagramFrameReceived) -> None:
        if len(self._datagrams) >= MAX_QUEUED_DATAGRAMS:
            self._datagrams.popleft()
            self._datagrams_dropped += 1
        self._datagrams.append(event.data)
        self._notify("datagram")

    def _accept(self, stream_id: int) -> RecvStream | None:
        """Make the stream object of a stream that the peer opened; None for one of ours that is gone already."""
        if stream_id & 1 != self._link.is_client:
            return None
        if stream_id & 2:
            recv = RecvStream(self, stream_id)
            self._incoming_uni.append(recv)
            self._notify("uni")
            self._recv[stream_id] = recv
            return recv
        stream = BiStream(self, stream_id)
        self._recv[stream_id] = self._send[stream_id] = stream
        self._incoming_bi.append(stream)
        self._notify("bi")
        return stream

    # What streams need (StreamCarrier)

    def stream_write(self, stream_id: int, data: bytes, end: bool) -> None:
        """See `StreamCarrier`."""
        self._engine.send_stream_data(stream_id, data, end)
        if end:
            self._finishing.append(stream_id)
        self._link.flush_soon()

    def stream_backlog(self, stream_id: int) -> int:
        """See `StreamCarrier`."""
        return self._engine.unsent(stream_id)

    def stream_sent(self, stream_id: int) -> bool:
        """See `StreamCarrier`."""
        return self._engine.send_finished(stream_id)

    def stream_reset(self, stream_id: int, code: int) -> None:
        """See `StreamCarrier`."""
        if self._error is None:
            self._engine.reset_stream(stream_id, code)
            self._finishing.append(stream_id)
            self._link.flush_soon()

    def stream_stop(self, stream_id: int, code: int) -> None:
        """See `StreamCarrier`."""
        if self._error is None:
            self._engine.stop_stream(stream_id, code)
            self._link.flush_soon()

    def stream_consumed(self, stream_id: int, size: int) -> None:
        """See `StreamCarrier`."""
        if self._error is None:
            self._engine.consumed(stream_id, size)
            if self._engine.limits_due:
                self._link.flush_soon()

    def watch_sending(self, stream: SendStream) -> None:
        """See `StreamCarrier`."""
        self._sending.add(stream)

    def unwatch_sending(self, stream: SendStream) -> None:
        """See `StreamCarrier`."""
        self._sending.discard(stream)

    def extra_info(self, name: str) -> Any:
        """See `StreamCarrier`."""
        facts: dict[str, Callable[[], Any]] = {
            "peername": lambda: str(self.remote_node_id),
            "node_id": lambda: self.remote_node_id,
            "alpn": lambda: self.alpn,
            "connection": lambda: self,
        }
        return facts[name]() if name in facts else None


class PathEvents(AsyncIterator["PathEvent"]):
    """The path events of a connection since it was made; `close()` it, or use it with `with`, to stop listening."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._events: deque[PathEvent] = deque(maxlen=MAX_QUEUED_PATH_EVENTS)
        self._closed = False
        connection._link.add_path_listener(self._listen)

    def close(self) -> None:
        """Stop listening; iteration ends after what was heard."""
        self._closed = True
        self._connection._link.remove_path_listener(self._listen)
        self._connection._notify("path")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self.close()

    async def __anext__(self) -> PathEvent:
        while not self._events:
            if self._closed or self._connection.is_closed:
                raise StopAsyncIteration
            await self._connection._wait("path")
        return self._events.popleft()

    def _listen(self, event: PathEvent) -> None:
        self._events.append(event)
        self._connection._notify("path")
