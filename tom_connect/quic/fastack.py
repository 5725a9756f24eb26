"""Acknowledgements in a tight loop, and a pacer whose bursts suit a fast path."""

from __future__ import annotations

from typing import Any

from aioquic.quic.packet_builder import QuicDeliveryState
from aioquic.quic.rangeset import RangeSet
from aioquic.quic.recovery import QuicPacketPacer, QuicPacketRecovery, QuicPacketSpace
from aioquic.quic.stream import QuicStreamSender

from tom_connect.quic.fastpath import ACTIVE

BURST_TIME = 0.002  # seconds of sending at the paced rate that may go out at once: an event loop wakes no finer
MIN_BURST = 10  # packets, as the initial window (RFC 9002 section 7.2)
MAX_BURST = 64  # packets of one GSO send
_ACKED = QuicDeliveryState.ACKED
_DATA_DELIVERY = QuicStreamSender.on_data_delivery


class FastPacer(QuicPacketPacer):
    """Paces in bursts of what the rate sends in 2 ms, 10 to 64 packets; aioquic stops at 16."""

    fast = ACTIVE.pacer

    def update_rate(self, congestion_window: int, smoothed_rtt: float) -> None:
        """Follow the congestion window, bytes, and the RTT, seconds."""
        super().update_rate(congestion_window, smoothed_rtt)
        if self.fast and self.packet_time is not None:
            burst = min(max(BURST_TIME / self.packet_time, MIN_BURST), MAX_BURST)
            # Never more than a quarter of the window at once, nor less than two packets.
            quarter = congestion_window / (4 * self._max_datagram_size)
            self.bucket_max = max(2.0, min(burst, quarter)) * self.packet_time
            self.bucket_time = min(self.bucket_time, self.bucket_max)


class FastRecovery(QuicPacketRecovery):
    """Takes acknowledged packets off without listing all in flight, and joins what they carried of a stream."""

    fast_ack = ACTIVE.ack
    fast_acks = 0

    def __init__(self, *, max_datagram_size: int, **rest: Any) -> None:
        super().__init__(max_datagram_size=max_datagram_size, **rest)
        self._pacer = FastPacer(max_datagram_size=max_datagram_size)

    def on_ack_received(self, *, ack_rangeset: RangeSet, ack_delay: float, now: float, space: QuicPacketSpace) -> None:
        """Process an ACK frame (RFC 9002 appendix A.7)."""
        sent = space.sent_packets
        if not self.fast_ack or self._quic_logger is not None or not sent:
            super().on_ack_received(ack_rangeset=ack_rangeset, ack_delay=ack_delay, now=now, space=space)
            return
        oldest = next(iter(sent))
        numbers = [range(max(r.start, oldest), r.stop) for r in ack_rangeset if r.stop > oldest]
        if sum(map(len, numbers)) > 2 * len(sent):
            # Mostly acknowledged before, or never sent: aioquic's search costs less than asking for each.
            super().on_ack_received(ack_rangeset=ack_rangeset, ack_delay=ack_delay, now=now, space=space)
            return
        self.fast_acks += 1
        largest_acked = ack_rangeset[-1].stop - 1
        if largest_acked > space.largest_acked_packet:
            space.largest_acked_packet = largest_acked
        self._take_acked(numbers, ack_delay, largest_acked, now, space)

    def _take_acked(
        self, numbers: list[range], ack_delay: float, largest_acked: int, now: float, space: QuicPacketSpace
    ) -> None:
        take = space.sent_packets.pop
        grow = self._cc.on_packet_acked
        eliciting = 0
        newest = None
        large = False
        base = 1200
        sender: Any = None
        start = stop = 0
        for run in numbers:
            for number in run:
                packet = take(number, None)
                if packet is None:
                    continue
                newest = packet
                if packet.is_ack_eliciting:
                    eliciting += 1
                if packet.in_flight:
                    grow(packet=packet, now=now)
                    if packet.sent_bytes > base:
                        large = True
                for handler, args in packet.delivery_handlers:
                    if getattr(handler, "__func__", None) is _DATA_DELIVERY:
                        owner, (begin, end, fin) = handler.__self__, args  # type: ignore[attr-defined]
                        if owner is sender and begin == stop and not fin:
                            stop = end
                            continue
                        if sender is not None:
                            sender.on_data_delivery(_ACKED, start, stop, False)
                            sender = None
                        if not fin:
                            sender, start, stop = owner, begin, end
                            continue
                    handler(_ACKED, *args)
        if sender is not None:
            sender.on_data_delivery(_ACKED, start, stop, False)
        if newest is None:
            return
        space.ack_eliciting_in_flight -= eliciting
        if large:
            self._on_large_acked()
        if newest.packet_number == largest_acked and eliciting:
            self._sample_rtt(now, now - (newest.sent_time or 0.0), ack_delay)
        self._detect_loss(now=now, space=space)
        # RFC 9002 section 6.2.1: a client keeps backing off until it knows that the server has validated it.
        if self.peer_completed_address_validation:
            self._pto_count = 0

    def _on_large_acked(self) -> None:
        """A packet larger than 1200 bytes was acknowledged."""

    def _sample_rtt(self, now: float, sample: float, ack_delay: float) -> None:
        """RFC 9002 section 5, as aioquic does it."""
        ack_delay = min(ack_delay, self.max_ack_delay)
        self._rtt_latest = max(sample, 0.001)
        self._rtt_min = min(self._rtt_min, self._rtt_latest)
        if self._rtt_latest > self._rtt_min + ack_delay:
            self._rtt_latest -= ack_delay
        if not self._rtt_initialized:
            self._rtt_first_sample_time = now
            self._rtt_initialized = True
            self._rtt_variance = sample / 2
            self._rtt_smoothed = sample
        else:
            self._rtt_variance = 3 / 4 * self._rtt_variance + 1 / 4 * abs(self._rtt_min - self._rtt_latest)
            self._rtt_smoothed = 7 / 8 * self._rtt_smoothed + 1 / 8 * self._rtt_latest
        self._cc.on_rtt_measurement(now=now, rtt=sample)
        self._pacer.update_rate(congestion_window=self._cc.congestion_window, smoothed_rtt=self._rtt_smoothed)
