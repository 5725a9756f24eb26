"""Received 1-RTT packets in a short path; a packet of one in-order STREAM frame in a shorter one.

Packets that a short path can't take are given to aioquic as they came. What it does per packet is what aioquic does in
`receive_datagram`, `decrypt_packet`, `_payload_received`, `_handle_stream_frame` and `handle_frame`.
"""

from __future__ import annotations

from typing import Any

from aioquic import tls
from aioquic.quic.connection import END_STATES, QuicConnectionError, QuicConnectionState, QuicReceiveContext
from aioquic.quic.events import QuicEvent, StreamDataReceived
from aioquic.quic.recovery import MAX_ACK_RANGES, QuicPacketSpace
from cryptography.exceptions import InvalidTag

from tom_connect.quic.fastpath import ACTIVE
from tom_connect.quic.fastsend import ONE_RTT, FastSend

CID = 8  # bytes of our connection ids
_SAMPLE_AT = 1 + CID + 4
_SHORTEST = _SAMPLE_AT + 16
MAX_JOINED = 65_536  # bytes of stream data in one event; more would only be copied once more
_NOTHING: dict[int, int] = {}


class StreamChunks(QuicEvent):
    """In-order data of one stream from packets that came together; the application gets it in one piece."""

    __slots__ = ("parts", "size", "stream_id")

    def __init__(self, stream_id: int, part: bytes, size: int) -> None:
        self.stream_id = stream_id
        self.parts = [part]
        self.size = size


class FastReceive(FastSend):
    """Receives stream data quickly.

    Attributes: `fast_packets_received`, to see that it runs; `authentic_packets`, packets that decrypted and were
    no duplicates.
    """

    fast_receive = ACTIVE.receive
    fast_packets_received = 0
    authentic_packets = 0
    _heard_at: float | None = None
    _stopped: dict[int, int] = _NOTHING
    _idle_set_at = -1.0
    _one_rtt: tuple[Any, Any, QuicPacketSpace, Any] | None = None

    def receive_datagram(self, data: bytes, addr: Any, now: float) -> None:
        """Take one datagram."""
        if not (self.fast_receive and self._receive_fast(data, addr, now)):
            super().receive_datagram(data, addr, now)

    def _find_one_rtt(self) -> tuple[Any, Any, QuicPacketSpace, Any]:
        # Looking up by an enum's member costs as much as a whole step of what follows.
        recv = self._cryptos[ONE_RTT].recv
        hp: Any = recv.hp  # outlives updates of the other keys (RFC 9001 section 6)
        mask_of = hp._mask if hp._is_chacha20 else hp._encryptor.update
        self._one_rtt = (recv, mask_of, self._spaces[ONE_RTT], self._cryptos[tls.Epoch.ZERO_RTT].recv)
        return self._one_rtt

    def _receive_fast(self, data: bytes, addr: Any, now: float) -> bool:
        """Take a 1-RTT packet on the path and connection id in use; False, with nothing changed, for any other."""
        if (
            len(data) < _SHORTEST
            or data[0] & 0xC0 != 0x40
            or not self._handshake_confirmed
            or self._state is not QuicConnectionState.CONNECTED
            or self._close_pending
            or self._quic_logger is not None
        ):
            return False
        cid = data[1 : 1 + CID]
        # Where a client begins to use another id a server follows it, which aioquic does.
        if cid != self.host_cid and not (self._is_client and any(cid == known.cid for known in self._host_cids)):
            return False
        path = self._network_paths[0]
        if path.addr != addr or not path.is_validated:
            return False
        recv, mask_of, space, zero_rtt = self._one_rtt or self._find_one_rtt()
        aead = recv.aead
        if aead is None or zero_rtt.aead is not None:
            return False
        mask = mask_of(data[_SAMPLE_AT:_SHORTEST])
        first = data[0] ^ (mask[0] & 0x1F)
        if first & 0x18 or (first >> 2) & 1 != recv.key_phase:
            return False
        if first & 3 == 1:
            length, coded = 2, (data[1 + CID] ^ mask[1]) << 8 | data[2 + CID] ^ mask[2]
        else:
            length = (first & 3) + 1
            coded = int.from_bytes(data[1 + CID : 1 + CID + length], "big") ^ int.from_bytes(
                mask[1 : 1 + length], "big"
            )
        start = 1 + CID + length
        number = _packet_number(coded, length * 8, space.expected_packet_number)
        header = bytes((first,)) + cid + coded.to_bytes(length, "big")
        try:
            plain: bytes = aead._aead.decrypt((aead._iv ^ number).to_bytes(12, "big"), data[start:], header)
        except InvalidTag:
            return True
        window = space.received_packets
        if number < window._lower or number in window._received:
            return True
        if plain and plain[0] & 0xF8 == 0x08 and self._take_stream_frame(plain):
            self.authentic_packets += 1
            self._heard_at = now
            eliciting = True
        else:
            context = QuicReceiveContext(ONE_RTT, cid, path, None, now, None)
            try:
                eliciting, _ = self._payload_received(context, plain)
            except QuicConnectionError as error:
                self._logger.warning(error)
                self.close(error.error_code, error.frame_type, error.reason_phrase)
            if self._state in END_STATES or self._close_pending:
                return True
        self.fast_packets_received += 1
        self._note_packet(space, number, first, eliciting, now)
        return True

    def _take_stream_frame(self, plain: bytes) -> bool:
        """Take the frame if it is all that the packet holds, in order and of a stream that we know."""
        kind = plain[0]
        try:
            stream_id, at = plain[1], 2
            if stream_id >= 0x40:
                stream_id, at = _varint(plain, 1)
            offset = 0
            if kind & 4:
                offset, at = _varint(plain, at)
            if kind & 2:
                length, at = _varint(plain, at)
                if at + length != len(plain):
                    return False
        except IndexError:
            return False
        stream = self._streams.get(stream_id)
        if stream is None or kind & 1 or stream_id in self._stopped:
            return False
        receiver = stream.receiver
        size = len(plain) - at
        end = offset + size
        if (
            not size
            or receiver.is_finished
            or receiver._final_size is not None
            or offset != receiver._buffer_start
            or receiver._buffer
            or end > stream.max_stream_data_local
        ):
            return False
        new = end - receiver.highest_offset
        limit = self._local_max_data
        if new > 0:
            if limit.used + new > limit.value:
                return False
            limit.used += new
            receiver.highest_offset = end
        receiver._buffer_start = end
        events = self._events
        last = events[-1] if events else None
        if type(last) is StreamChunks and last.stream_id == stream_id and last.size < MAX_JOINED:
            last.parts.append(plain[at:])
            last.size += size
        else:
            events.append(StreamChunks(stream_id, plain[at:], size))
        return True

    def next_event(self) -> QuicEvent | None:
        """The next event, or None."""
        try:
            event = self._events.popleft()
        except IndexError:
            return None
        if type(event) is StreamChunks:
            parts = event.parts
            return StreamDataReceived(parts[0] if len(parts) == 1 else b"".join(parts), False, event.stream_id)
        return event

    def _note_packet(self, space: QuicPacketSpace, number: int, first: int, eliciting: bool, now: float) -> None:
        if number > space.expected_packet_number:
            space.expected_packet_number = number + 1
        if number > self._spin_highest_pn:
            spin = bool(first & 0x20)
            self._spin_bit = not spin if self._is_client else spin
            self._spin_highest_pn = number
        if now != self._idle_set_at or self._ack_eliciting_sent_since_receipt:
            self._close_at = now + self._idle_timeout()
            self._idle_set_at = now
            self._ack_eliciting_sent_since_receipt = False
        if number > space.largest_received_packet:
            space.largest_received_packet = number
            space.largest_received_time = now
        ranges: list[range] = space.ack_queue._RangeSet__ranges  # type: ignore[attr-defined]
        if ranges and ranges[-1].stop == number:
            ranges[-1] = range(ranges[-1].start, number + 1)
        else:
            space.ack_queue.add(number)
            if len(ranges) > MAX_ACK_RANGES:
                space.ack_queue.shift()
        space.received_packets.add(number)
        if eliciting and space.ack_at is None:
            space.ack_at = now + self._ack_delay


def _packet_number(coded: int, bits: int, expected: int) -> int:
    """RFC 9000 appendix A.3."""
    window = 1 << bits
    number = (expected & -window) | coded
    if number <= expected - window // 2 and number < (1 << 62) - window:
        return number + window
    if number > expected + window // 2 and number >= window:
        return number - window
    return number


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """A variable-length integer (RFC 9000 section 16) and where it ends; IndexError if the data ends in it."""
    first = data[at]
    if first < 0x40:
        return first, at + 1
    end = at + (1 << (first >> 6))
    if end > len(data):
        raise IndexError
    return int.from_bytes(data[at:end], "big") & ((1 << (8 * (end - at) - 2)) - 1), end
