"""What a QUIC program must offer to be measured; each contender is a thin adapter of this shape."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

import attrs

Where = dict[str, Any]


class Stream(Protocol):
    """A bidirectional stream."""

    async def read(self, limit: int) -> bytes:
        """Return up to `limit` bytes, none at the end."""
        ...

    async def write(self, data: bytes) -> None:
        """Send bytes; wait where the program pushes back."""
        ...

    async def finish(self) -> None:
        """Say that no more comes."""
        ...


class Connection(Protocol):
    """A connection that is ready for streams."""

    async def open_stream(self) -> Stream:
        """Open a bidirectional stream."""
        ...

    async def close(self) -> None:
        """Close the connection and free what it held."""
        ...


Serve = Callable[[Stream], Awaitable[None]]


class Contender(Protocol):
    """One side of a measurement, in a process of its own."""

    async def listen(self, serve: Serve) -> Where:
        """Accept connections on 127.0.0.1, give each bidirectional stream to `serve`, and say where to dial."""
        ...

    async def connect(self, where: Where) -> Connection:
        """Dial."""
        ...

    async def close(self) -> None:
        """End everything."""
        ...


@attrs.frozen
class Entry:
    """A contender's name, the module that adapts it, the package that it needs, and its name in tables."""

    name: str
    module: str
    needs: str
    title: str


RAW = Entry("aioquic", "benchmarks.quic.raw_aioquic", "aioquic", "aioquic, stock asyncio")
OURS = Entry("tom-connect", "benchmarks.quic.ours", "tom_connect.endpoint", "tom-connect")
CONTENDERS = (
    RAW,
    Entry("qh3", "benchmarks.quic.with_qh3", "qh3", "qh3, stock asyncio"),
    Entry("iroh", "benchmarks.quic.with_iroh", "iroh", "iroh, Python binding"),
    OURS,
)


def missing(entry: Entry) -> str | None:
    """Say why a contender can't run here, None if it can."""
    try:
        found = importlib.util.find_spec(entry.needs) is not None
    except ImportError:
        found = False
    return None if found else f"{entry.needs} is not installed"


def load(name: str, **options: Any) -> Contender:
    """Make the contender of that name, with options of its own."""
    entry = next(entry for entry in CONTENDERS if entry.name == name)
    made: Contender = importlib.import_module(entry.module).make(**options)
    return made
