"""aioquic as its documentation shows it."""

from __future__ import annotations

from aioquic.asyncio.client import connect
from aioquic.asyncio.server import serve
from aioquic.quic.configuration import QuicConfiguration

from benchmarks.quic.contender import Contender
from benchmarks.quic.stock import Stock


def make() -> Contender:
    """Return the contender."""
    return Stock(connect, serve, QuicConfiguration)
