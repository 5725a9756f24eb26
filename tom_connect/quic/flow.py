"""Flow control that follows what the application has read (RFC 9000 section 4).

aioquic doubles every window as soon as half of it has arrived, read or not, so a slow reader would buffer without
bound, and it lets the peer open a stream for each one that closed, accepted or not. Here MAX_STREAM_DATA and
MAX_DATA grow with `consumed` alone and MAX_STREAMS with `stream_accepted`. Windows grow up to a limit while the
application keeps up with the network.
"""

from __future__ import annotations

import attrs
from aioquic._buffer import Buffer
from aioquic.quic import events
from aioquic.quic.connection import Limit, QuicReceiveContext
from aioquic.quic.packet import QuicFrameType
from aioquic.quic.packet_builder import QuicDeliveryState, QuicPacketBuilder
from aioquic.quic.recovery import QuicPacketSpace
from aioquic.quic.stream import QuicStream

from tom_connect.quic.fastreceive import FastReceive, StreamChunks
from tom_connect.quic.settings import TransportSettings

UPDATE_SHARE = 4  # a new limit is sent when a quarter of the window was read: rare enough to cost nothing


@attrs.define
class Window:
    """A receive window in bytes that doubles, up to `limit`, when it is used up within two round trips."""

    size: int
    limit: int
    raised_at: float = 0.0

    def due(self, consumed: int, advertised: int) -> bool:
        """Whether enough was read since the last update to send another."""
        return consumed + self.size - advertised >= self.size // UPDATE_SHARE

    def tune(self, rtt: float, now: float) -> None:
        """Grow if the updates come so fast that the window, not the reader, holds the sender back."""
        if self.size < self.limit and now - self.raised_at < 2 * rtt / UPDATE_SHARE:
            self.size = min(2 * self.size, self.limit)
        self.raised_at = now


class StreamLimit(Limit):
    """How many streams the peer may open: a place is free again when its stream is closed and was accepted."""

    def __init__(self, frame_type: int, name: str, value: int) -> None:
        self._window = value
        self._closed = 0
        self.accepted = 0
        super().__init__(frame_type, name, value)

    @property
    def value(self) -> int:
        """Streams that the peer may have opened in total; aioquic adds one for each that closes."""
        return self._window + min(self._closed, self.accepted)

    @value.setter
    def value(self, value: int) -> None:
        self._closed += value - self.value


def _stream_limit_due(limit: Limit) -> bool:
    """Told in batches: when the peer has fewer streams left to open than the news would give it."""
    value = limit.value
    return value != limit.sent and limit.sent - limit.used < value - limit.sent


@attrs.define
class _Reading:
    """One stream's bytes: handed to the application and not consumed yet, and consumed."""

    window: Window
    unread: int = 0
    consumed: int = 0


class FlowControlled(FastReceive):
    """A QUIC connection whose windows the application opens."""

    def _set_up_flow(self, settings: TransportSettings) -> None:
        self._flow = settings
        self._clock = 0.0  # the newest `now` that we were given
        self._data_window = Window(settings.max_data, settings.max_data_limit)
        self._data_consumed = 0
        self._reading: dict[int, _Reading] = {}
        self._stopped: dict[int, int] = {}  # stream -> bytes whose credit was given back
        self._limits_due: set[QuicStream] = set()
        self._local_max_streams_bidi = StreamLimit(
            QuicFrameType.MAX_STREAMS_BIDI, "max_streams_bidi", settings.max_streams_bidi
        )
        self._local_max_streams_uni = StreamLimit(
            QuicFrameType.MAX_STREAMS_UNI, "max_streams_uni", settings.max_streams_uni
        )

    def next_event(self) -> events.QuicEvent | None:
        """The next event, or None. Stream data counts as unread from here until `consumed`."""
        event = super().next_event()
        if type(event) is events.StreamDataReceived:
            stream_id = event.stream_id
            reading = self._reading.get(stream_id)
            if event.data:
                if reading is None:
                    reading = self._reading[stream_id] = _Reading(
                        Window(self._flow.max_stream_data, self._flow.max_stream_data_limit)
                    )
                reading.unread += len(event.data)
            elif event.end_stream and reading is not None and not reading.unread:
                del self._reading[stream_id]
        return event

    def consumed(self, stream_id: int, n: int) -> None:
        """The application has taken `n` bytes of the stream; only this extends what the peer may send.

        More than was handed out counts as what was handed out, so a caller may also drop what it holds of a
        stream that was reset.
        """
        reading = self._reading.get(stream_id)
        if reading is None or n <= 0:
            return
        n = min(n, reading.unread)
        reading.unread -= n
        reading.consumed += n
        self._data_consumed += n
        stream = self._streams.get(stream_id)
        if stream is None or stream.receiver.is_finished:
            if not reading.unread:
                del self._reading[stream_id]
            return
        window = reading.window
        if stream_id not in self._stopped and window.due(reading.consumed, stream.max_stream_data_local):
            window.tune(self._rtt_for_windows(), self._clock)
            stream.max_stream_data_local = reading.consumed + window.size
            self._limits_due.add(stream)

    def stream_accepted(self, stream_id: int) -> None:
        """The application has taken, or will never see, a stream that the peer opened; once for each stream."""
        limit = self._stream_limit(stream_id)
        if isinstance(limit, StreamLimit):
            limit.accepted += 1

    def stop_stream(self, stream_id: int, error_code: int) -> None:
        """Ask the peer to stop sending; what still arrives is dropped here. Nothing happens if the stream has ended."""
        stream = self._streams.get(stream_id)
        if stream is None or stream.receiver.is_finished:
            self._forget(stream_id)
            return
        super().stop_stream(stream_id, error_code)
        if stream_id not in self._stopped:
            reading = self._reading.get(stream_id)
            self._stopped[stream_id] = reading.consumed if reading is not None else 0
        self._drop_events(stream_id)
        self._release(stream_id, stream.receiver.highest_offset)

    @property
    def limits_due(self) -> bool:
        """Whether the peer is to be told of a new limit, so that a packet is worth sending."""
        data = self._local_max_data
        return bool(
            self._limits_due
            or data.sent != data.value
            or self._data_window.due(self._data_consumed, data.value)
            or _stream_limit_due(self._local_max_streams_bidi)
            or _stream_limit_due(self._local_max_streams_uni)
        )

    def _limits_to_write(self) -> bool:
        return self.limits_due

    def _rtt_for_windows(self) -> float:
        return self._loss._rtt_smoothed or self._flow.initial_rtt

    def _release(self, stream_id: int, upto: int) -> None:
        """Give back the connection's credit for a stream's first `upto` bytes, whoever has them."""
        reading = self._reading.pop(stream_id, None)
        known = self._stopped.get(stream_id)
        counted = max(reading.consumed if reading is not None else 0, known or 0)
        if upto > counted:
            self._data_consumed += upto - counted
        if known is not None:
            self._stopped[stream_id] = max(upto, counted)

    def _drop_events(self, stream_id: int) -> None:
        """Data that nobody will read must not come to be counted as unread."""
        kept = [
            event
            for event in self._events
            if not (isinstance(event, events.StreamDataReceived | StreamChunks) and event.stream_id == stream_id)
        ]
        self._events.clear()
        self._events.extend(kept)

    def _forget(self, stream_id: int) -> None:
        reading = self._reading.pop(stream_id, None)
        if reading is not None:
            self._data_consumed += reading.unread

    def _handle_reset_stream_frame(self, context: QuicReceiveContext, frame_type: int, buf: Buffer) -> None:
        at = buf.tell()
        stream_id = buf.pull_uint_var()
        buf.seek(at)
        before = self._streams.get(stream_id)
        was_finished = before is not None and before.receiver.is_finished
        super()._handle_reset_stream_frame(context, frame_type, buf)
        stream = self._streams.get(stream_id)
        if stream is not None and not was_finished:
            self._drop_events(stream_id)
            self._release(stream_id, stream.receiver.highest_offset)
            self._stopped.pop(stream_id, None)

    def _handle_stream_frame(self, context: QuicReceiveContext, frame_type: int, buf: Buffer) -> None:
        if not self._stopped:
            super()._handle_stream_frame(context, frame_type, buf)
            return
        at = buf.tell()
        stream_id = buf.pull_uint_var()
        buf.seek(at)
        count = len(self._events)
        super()._handle_stream_frame(context, frame_type, buf)
        stream = self._streams.get(stream_id)
        if stream_id not in self._stopped or stream is None:
            return
        self._release(stream_id, stream.receiver.highest_offset)
        if len(self._events) > count:
            event = self._events[-1]
            if isinstance(event, events.StreamDataReceived):
                # The application no longer reads, but wants to know that the stream has ended.
                self._events.pop()
                if event.end_stream:
                    self._events.append(events.StreamDataReceived(data=b"", end_stream=True, stream_id=stream_id))
        if stream.receiver.is_finished:
            self._stopped.pop(stream_id, None)

    def _write_connection_limits(self, builder: QuicPacketBuilder, space: QuicPacketSpace) -> None:
        limit = self._local_max_data
        window = self._data_window
        if window.due(self._data_consumed, limit.value):
            window.tune(self._rtt_for_windows(), self._clock)
            limit.value = self._data_consumed + window.size
        if limit.value != limit.sent:
            self._write_limit(builder, limit)
        for streams in (self._local_max_streams_bidi, self._local_max_streams_uni):
            if _stream_limit_due(streams):
                self._write_limit(builder, streams)

    def _write_limit(self, builder: QuicPacketBuilder, limit: Limit) -> None:
        value = limit.value
        buf = builder.start_frame(
            limit.frame_type, capacity=9, handler=self._on_connection_limit_delivery, handler_args=(limit,)
        )
        buf.push_uint_var(value)
        limit.sent = value

    def _write_stream_limits(self, builder: QuicPacketBuilder, space: QuicPacketSpace, stream: QuicStream) -> None:
        if stream not in self._limits_due:
            return
        value = stream.max_stream_data_local
        if stream.max_stream_data_local_sent != value and not stream.receiver.is_finished:
            buf = builder.start_frame(
                QuicFrameType.MAX_STREAM_DATA,
                capacity=17,
                handler=self._on_max_stream_data_delivery,
                handler_args=(stream,),
            )
            buf.push_uint_var(stream.stream_id or 0)
            buf.push_uint_var(value)
            stream.max_stream_data_local_sent = value
        self._limits_due.discard(stream)

    def _on_max_stream_data_delivery(self, delivery: QuicDeliveryState, stream: QuicStream) -> None:
        super()._on_max_stream_data_delivery(delivery, stream)
        if delivery != QuicDeliveryState.ACKED and stream.stream_id in self._streams:
            self._limits_due.add(stream)
