"""qh3 as its documentation shows it."""

from __future__ import annotations

from qh3.asyncio.client import connect
from qh3.asyncio.server import serve
from qh3.quic.configuration import QuicConfiguration

from benchmarks.quic.contender import Contender
from benchmarks.quic.stock import Stock


def make() -> Contender:
    """Return the contender."""
    return Stock(connect, serve, QuicConfiguration)
