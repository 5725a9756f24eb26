"""Loss recovery of one connection: aioquic's, with a bounded back-off, changes of path and the path MTU's view."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

from aioquic.quic.congestion.base import create_congestion_control
from aioquic.quic.packet_builder import QuicSentPacket
from aioquic.quic.rangeset import RangeSet
from aioquic.quic.recovery import QuicPacketSpace

from tom_connect.quic.fastack import FastPacer, FastRecovery
from tom_connect.quic.pmtu import PathMtu
from tom_connect.quic.settings import BASE_MTU

MAX_PROBE_INTERVAL = 3.0
"""Seconds between probes at most. RFC 9002 section 6.2.1 doubles without bound, so that a path that comes back
after half a minute would wait as long again."""


class Recovery(FastRecovery):
    """Loss detection and congestion control that outlive a change of the path below.

    Attributes: `packets_lost`; `timeouts`, probe time-outs since the last acknowledgement.
    """

    def __init__(
        self,
        *,
        congestion_control_algorithm: str,
        max_datagram_size: int,
        pmtu: PathMtu,
        on_mtu_fall: Callable[[], None],
        **rest: Any,
    ) -> None:
        super().__init__(
            congestion_control_algorithm=congestion_control_algorithm,
            max_datagram_size=max_datagram_size,
            **rest,
        )
        self.packets_lost = 0
        self.timeouts = 0
        self._algorithm = congestion_control_algorithm
        self._pmtu = pmtu
        self._on_mtu_fall = on_mtu_fall
        self._path_since = -math.inf

    def set_max_datagram_size(self, size: int) -> None:
        """Follow the path MTU, bytes of UDP payload."""
        cc: Any = self._cc
        cc._max_datagram_size = size
        if hasattr(cc, "additive_increase_factor"):
            cc.additive_increase_factor = size
        self._pacer._max_datagram_size = size

    def path_changed(self, now: float, max_datagram_size: int) -> None:
        """Start afresh on another path: what the old one could carry says nothing about the new one.

        Packets still in flight keep counting until they are acknowledged or lost, but neither grow nor shrink the
        new window, and give no RTT sample.
        """
        self._fresh_window(now, max_datagram_size)
        self._pacer = FastPacer(max_datagram_size=max_datagram_size)
        self._pacer.evaluation_time = now
        self._path_since = now
        self._forget_rtt()
        self.timeouts = 0
        self._pto_count = 0

    def path_restored(self, now: float) -> None:
        """Forget the back-off of an outage and probe at once.

        What was lost in the outage is no congestion. The window begins afresh, to grow quickly to half of what the
        path carried before.
        """
        half = self._cc.congestion_window // 2
        self._fresh_window(now, self._pacer._max_datagram_size)
        self._cc.ssthresh = max(half, self._cc.congestion_window)
        self._rtt_first_sample_time = now  # persistent congestion counts from here
        self.timeouts = 0
        self._pto_count = 0
        self.reschedule_data(now=now)

    def probe_now(self, now: float, *, forget_backoff: bool) -> None:
        """Send the oldest data again at once; the window stays as it is."""
        if forget_backoff:
            self._pto_count = 0
        self.reschedule_data(now=now)

    def _fresh_window(self, now: float, max_datagram_size: int) -> None:
        in_flight = self._cc.bytes_in_flight
        cc: Any = create_congestion_control(self._algorithm, max_datagram_size=max_datagram_size)
        cc.bytes_in_flight = in_flight
        cc._congestion_recovery_start_time = now
        self._cc = cc

    def _forget_rtt(self) -> None:
        self._rtt_initialized = False
        self._rtt_latest = 0.0
        self._rtt_min = math.inf
        self._rtt_smoothed = 0.0
        self._rtt_variance = 0.0
        self._rtt_first_sample_time = 0.0
        self._pacer.packet_time = None

    def on_ack_received(self, *, ack_rangeset: RangeSet, ack_delay: float, now: float, space: QuicPacketSpace) -> None:
        """Process an ACK frame (RFC 9002 appendix A.7)."""
        before = len(space.sent_packets)
        largest = space.sent_packets.get(ack_rangeset.bounds().stop - 1)
        super().on_ack_received(ack_rangeset=ack_rangeset, ack_delay=ack_delay, now=now, space=space)
        if len(space.sent_packets) < before:
            self.timeouts = 0
        if largest is not None and largest.sent_time is not None and largest.sent_time < self._path_since:
            self._forget_rtt()  # the sample was of the old path, or of both

    def _on_large_acked(self) -> None:
        self._pmtu.large_acked()

    def on_loss_detection_timeout(self, *, now: float) -> None:
        """Handle the loss or probe timer (RFC 9002 appendix A.9)."""
        probing = self._get_loss_space() is None
        super().on_loss_detection_timeout(now=now)
        if not probing:
            return
        self.timeouts += 1
        interval = self.get_probe_timeout()
        while self._pto_count > 1 and interval * 2**self._pto_count > MAX_PROBE_INTERVAL:
            self._pto_count -= 1
        if self._pmtu.timed_out(self.timeouts, now):
            self._on_mtu_fall()

    def _on_packets_lost(
        self,
        *,
        congestion_event: bool = True,
        now: float,
        packets: Iterable[QuicSentPacket],
        persistent_congestion: bool = False,
        space: QuicPacketSpace,
    ) -> None:
        packets = list(packets)
        if not packets:
            return
        self.packets_lost += len(packets)
        super()._on_packets_lost(
            congestion_event=congestion_event,
            now=now,
            packets=packets,
            persistent_congestion=persistent_congestion,
            space=space,
        )
        if not congestion_event:
            return  # a probe time-out is not yet a loss
        newest = max(
            (packet.sent_time or 0.0 for packet in packets if packet.in_flight and packet.sent_bytes > BASE_MTU),
            default=-math.inf,
        )
        # What was lost with an old path says nothing about this one.
        if newest >= self._path_since and newest > -math.inf and self._pmtu.large_lost(newest, now):
            self._on_mtu_fall()
