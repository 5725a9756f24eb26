"""1-RTT packets of STREAM frames in a tight loop; aioquic's own code writes everything else.

What it does per packet is what aioquic does in `_write_application`, `_write_stream_frame`, `get_frame`,
`start_packet`, `_end_packet`, `encrypt_packet` and `_flush_builder`, less what those do for frames that are not there.
"""

from __future__ import annotations

import math
from collections import deque
from typing import Any

from aioquic import tls
from aioquic.quic.connection import QuicConnection, QuicConnectionState, QuicNetworkPath
from aioquic.quic.packet import QuicPacketType
from aioquic.quic.packet_builder import QuicPacketBuilder, QuicPacketBuilderStop, QuicSentPacket
from aioquic.quic.stream import QuicStream

from tom_connect.quic.fastpath import ACTIVE

ONE_RTT = tls.Epoch.ONE_RTT
SHORT_HEADER = QuicPacketType.ONE_RTT
TAG = 16
MIN_FRAME_ROOM = 32  # no further STREAM frame is begun in less: its header would outweigh its data
STREAM_WITH_LENGTH = 0x0A
OFFSET_BIT = 0x04
FIN_BIT = 0x01
_NO_FRAMES: list[dict[str, Any]] = []  # shared by all packets, as nothing adds to it while qlog is off


def varint(value: int) -> bytes:
    """A QUIC variable-length integer (RFC 9000 section 16)."""
    if value < 0x40:
        return bytes((value,))
    if value < 0x4000:
        return (value | 0x4000).to_bytes(2, "big")
    if value < 0x40000000:
        return (value | 0x80000000).to_bytes(4, "big")
    return (value | 0xC000000000000000).to_bytes(8, "big")


class _Run:
    """What one stream has to send, read once and written back once, however many packets it fills."""

    __slots__ = ("base", "delivered", "fin_at", "highest", "limit", "pos", "prefix", "start", "stop", "stream", "view")

    def __init__(self, stream: QuicStream) -> None:
        sender = stream.sender
        pending = sender._pending[0]
        self.stream = stream
        self.start = self.pos = pending.start
        self.stop = pending.stop
        self.limit = stream.max_stream_data_remote
        self.highest = sender.highest_offset
        self.fin_at = sender._buffer_fin
        self.base = sender._buffer_start
        self.prefix = varint(stream.stream_id or 0)
        self.delivered = sender.on_data_delivery
        self.view = memoryview(sender._buffer)

    def close(self) -> None:
        """Write back what was sent."""
        self.view.release()
        sender = self.stream.sender
        if self.pos > self.start:
            sender._pending.subtract(self.start, self.pos)
            sender.highest_offset = self.highest
            if self.pos == self.fin_at:
                sender._pending_eof = False
            if not len(sender._pending) and not sender._pending_eof:
                sender.buffer_is_empty = True

    def next_range(self) -> _Run | None:
        """Close this range; the next one of the same stream, as after a loss, or None."""
        self.close()
        return _Run(self.stream) if len(self.stream.sender._pending) else None


class FastSend(QuicConnection):
    """Sends stream data quickly. Attribute: `fast_packets_sent`, to see that it runs."""

    fast_send = ACTIVE.send
    fast_packets_sent = 0

    def _limits_to_write(self) -> bool:
        """Whether a MAX_DATA, MAX_STREAM_DATA or MAX_STREAMS frame may be due; here by aioquic's own rules."""
        limits = (self._local_max_data, self._local_max_streams_bidi, self._local_max_streams_uni)
        data = self._local_max_data
        return (
            any(limit.value != limit.sent for limit in limits)
            or data.used * 2 > data.value
            or any(
                stream.max_stream_data_local_sent != stream.max_stream_data_local
                or (stream.max_stream_data_local and stream.receiver.highest_offset * 2 > stream.max_stream_data_local)
                for stream in self._streams.values()
            )
        )

    def _control_due(self, network_path: QuicNetworkPath) -> bool:
        return bool(
            self._handshake_done_pending
            or network_path.remote_challenges
            or self._retire_connection_ids
            or self._streams_blocked_pending
            or self._ping_pending
            or self._probe_pending
            or self._datagrams_pending
            or not self._crypto_streams[ONE_RTT].sender.buffer_is_empty
            or self._cryptos[ONE_RTT]._update_key_requested
            or self._limits_to_write()
            or any(not connection_id.was_sent for connection_id in self._host_cids)
        )

    def _sendable(self) -> list[QuicStream] | None:
        """The streams with data to send, in order of service; None if aioquic must look at one of them."""
        found = []
        for stream in self._streams_queue:
            sender = stream.sender
            if stream.receiver.stop_pending or sender.reset_pending or stream.is_finished:
                return None
            if not sender.buffer_is_empty and not stream.is_blocked:
                if not len(sender._pending):
                    return None  # a FIN on its own
                found.append(stream)
        return found

    def _write_application(self, builder: QuicPacketBuilder, network_path: QuicNetworkPath, now: float) -> None:
        if (
            not self.fast_send
            or not self._handshake_confirmed
            or self._quic_logger is not None
            or self._state is not QuicConnectionState.CONNECTED
            or not network_path.is_validated
            or builder.max_flight_bytes is None
            or builder._packet is not None
            or builder._datagrams
            or not (streams := self._sendable())
        ):
            super()._write_application(builder, network_path, now)
            return
        size = builder._buffer_capacity
        ack_at = self._spaces[ONE_RTT].ack_at
        if (ack_at is not None and ack_at <= now) or self._control_due(network_path):
            if sum(len(stream.sender._pending[0]) for stream in streams) < size:
                super()._write_application(builder, network_path, now)
                return
            # One packet of aioquic's carries ACK and control frames, and stream data in the room that they leave.
            self._one_stock_packet(builder, network_path, now, size)
            if self._control_due(network_path) or not (streams := self._sendable()):
                super()._write_application(builder, network_path, now)
                return
        self._write_streams(builder, streams, now, size)

    def _one_stock_packet(
        self, builder: QuicPacketBuilder, network_path: QuicNetworkPath, now: float, size: int
    ) -> None:
        builder.max_total_bytes = size
        try:
            super()._write_application(builder, network_path, now)
        except QuicPacketBuilderStop:
            pass
        finally:
            builder.max_total_bytes = None
            if builder._packet is not None:
                builder._end_packet()
            builder._buffer_capacity = size
            builder._datagram_init = True

    def _write_streams(self, builder: QuicPacketBuilder, streams: list[QuicStream], now: float, size: int) -> None:
        pacer = self._loss._pacer
        packet_time = pacer.packet_time
        budget = 1 << 30
        if packet_time is not None:
            pacer.update_bucket(now=now)
            if pacer.bucket_time <= 0:
                self._pacing_at = now + packet_time
                return
            budget = math.ceil(pacer.bucket_time / packet_time)
        queue = deque(_Run(stream) for stream in streams)
        try:
            packets = self._fill_packets(builder, queue, now, size, budget)
        finally:
            for run in queue:
                run.close()
        if not packets:
            return
        self._protect(builder, packets)
        if packet_time is not None:
            pacer.bucket_time = max(0.0, pacer.bucket_time - len(packets) * packet_time)
            if len(packets) >= budget and any(not stream.sender.buffer_is_empty for stream in streams):
                self._pacing_at = now + packet_time
        if len(self._streams_queue) > 1:
            # Served streams go to the end; the one whose turn is next stays before those served after it.
            served = {run.stream for run in queue} | set(streams)
            turn = [run.stream for run in queue]
            turn += [stream for stream in streams if stream not in turn]
            self._streams_queue = [stream for stream in self._streams_queue if stream not in served] + turn
        self.fast_packets_sent += len(packets)

    def _fill_packets(
        self, builder: QuicPacketBuilder, queue: deque[_Run], now: float, size: int, budget: int
    ) -> list[tuple[QuicSentPacket, bytes]]:
        """Packets with sealed payloads, and the state of the streams behind them."""
        crypto = self._cryptos[ONE_RTT]
        aead: Any = crypto.send.aead
        seal, iv = aead._aead.encrypt, aead._iv
        cid = self._peer_cid.cid
        head = bytes((0x40 | self._spin_bit << 5 | crypto.key_phase << 2 | 1,)) + cid
        overhead = len(head) + 2 + TAG
        flight = (builder.max_flight_bytes or 0) - builder._flight_bytes
        credit = self._remote_max_data - self._remote_max_data_used
        number = builder._packet_number
        packets: list[tuple[QuicSentPacket, bytes]] = []
        while queue and len(packets) < budget:
            room = size - overhead
            if flight < size:
                # A full packet later is better than a piece of one now, but for a piece that is all there is.
                room = flight - overhead
                if room < MIN_FRAME_ROOM or queue[0].stop - queue[0].pos + MIN_FRAME_ROOM > room:
                    break
            parts: list[bytes | memoryview] = []
            handlers: list[Any] = []
            for _ in range(len(queue)):
                run = queue[0]
                pos = run.pos
                offset = varint(pos) if pos else b""
                length = room - 3 - len(run.prefix) - len(offset)
                if length <= 0:
                    break
                stop = min(run.stop, pos + length, run.limit, run.highest + credit)
                if stop > pos:
                    fin = stop == run.fin_at
                    kind = STREAM_WITH_LENGTH | (OFFSET_BIT if pos else 0) | fin
                    length = stop - pos
                    parts += (
                        bytes((kind,)) + run.prefix + offset + (length | 0x4000).to_bytes(2, "big"),
                        run.view[pos - run.base : stop - run.base],
                    )
                    handlers.append((run.delivered, (pos, stop, fin)))
                    room -= 3 + len(run.prefix) + len(offset) + length
                    run.pos = stop
                    if stop > run.highest:
                        credit -= stop - run.highest
                        self._remote_max_data_used += stop - run.highest
                        run.highest = stop
                    if stop < run.stop and room < MIN_FRAME_ROOM:
                        break  # the packet is full; the stream goes on in the next
                queue.popleft()
                if stop >= run.stop:
                    if (again := run.next_range()) is not None:
                        queue.append(again)
                else:
                    run.close()  # flow control holds it
                if room < MIN_FRAME_ROOM:
                    break
            if not parts:
                break
            sealed = seal(
                (iv ^ number).to_bytes(12, "big"), b"".join(parts), head + (number & 0xFFFF).to_bytes(2, "big")
            )
            sent_bytes = len(head) + 2 + len(sealed)
            flight -= sent_bytes
            packets.append(
                (
                    QuicSentPacket(
                        ONE_RTT, True, True, False, number, SHORT_HEADER, now, sent_bytes, handlers, _NO_FRAMES
                    ),
                    sealed,
                )
            )
            number += 1
            if len(queue) > 1:
                queue.rotate(-1)
        return packets

    def _protect(self, builder: QuicPacketBuilder, packets: list[tuple[QuicSentPacket, bytes]]) -> None:
        """Apply header protection (RFC 9001 section 5.4) to all packets at once and hand them to the builder."""
        crypto = self._cryptos[ONE_RTT]
        hp: Any = crypto.send.hp
        samples = [sealed[2:18] for _, sealed in packets]
        if hp._is_chacha20:
            masks = b"".join(hp._mask(sample) + bytes(11) for sample in samples)
        else:
            masks = hp._encryptor.update(b"".join(samples))
        first = 0x40 | self._spin_bit << 5 | crypto.key_phase << 2 | 1
        cid = self._peer_cid.cid
        at = 0
        total = 0
        datagrams = builder._datagrams
        done = builder._packets
        for packet, sealed in packets:
            number = (packet.packet_number & 0xFFFF) ^ (masks[at + 1] << 8 | masks[at + 2])
            datagrams.append(b"".join((bytes((first ^ (masks[at] & 0x1F),)), cid, number.to_bytes(2, "big"), sealed)))
            done.append(packet)
            total += packet.sent_bytes
            at += 16
        builder._flight_bytes += total
        builder._total_bytes += total
        builder._packet_number += len(packets)

    def _flush_builder(
        self, builder: QuicPacketBuilder, network_path: QuicNetworkPath, peer_cid: bytes, now: float
    ) -> list[tuple[bytes, Any]]:
        if not self.fast_send or not self._handshake_confirmed or self._quic_logger is not None:
            return super()._flush_builder(builder, network_path, peer_cid, now)
        datagrams, packets = builder.flush()
        if not datagrams:
            return []
        self._packet_number = builder.packet_number
        loss = self._loss
        space = self._spaces[ONE_RTT]
        sent = space.sent_packets
        count = loss._cc.on_packet_sent
        eliciting = 0
        for packet in packets:
            packet.sent_time = now
            sent[packet.packet_number] = packet
            if packet.in_flight:
                count(packet=packet)
            if packet.is_ack_eliciting:
                eliciting += 1
        if eliciting:
            space.ack_eliciting_in_flight += eliciting
            loss._time_of_last_sent_ack_eliciting_packet = now
            if not self._ack_eliciting_sent_since_receipt:
                # Restart the idle timer (RFC 9000 section 10.1).
                self._close_at = now + self._idle_timeout()
                self._ack_eliciting_sent_since_receipt = True
        network_path.bytes_sent += sum(map(len, datagrams))
        address = network_path.addr
        return [(datagram, address) for datagram in datagrams]
