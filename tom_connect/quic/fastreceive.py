"""Received packets of one in-order STREAM frame in a short path."""

from __future__ import annotations

from aioquic.quic.connection import QuicConnection


class FastReceive(QuicConnection):
    """Receive."""
