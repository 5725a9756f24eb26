"""Acknowledgements in a tight loop, and a pacer whose bursts suit a fast path."""

from __future__ import annotations

from aioquic.quic.recovery import QuicPacketPacer, QuicPacketRecovery


class FastPacer(QuicPacketPacer):
    """Pacer."""


class FastRecovery(QuicPacketRecovery):
    """Recovery."""
