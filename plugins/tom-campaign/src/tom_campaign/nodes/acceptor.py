"""The side that is measured: it sends back datagrams and messages, and checks what is transferred."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from typing import Final

import attrs

from tom_connect import BiStream, Connection, Incoming, NodeId, TomError

ECHO: Final = b"e"
"""First byte of a stream whose bytes are sent back."""
SINK: Final = b"t"
"""First byte of a stream whose bytes are hashed."""
BLOCK: Final = 64 * 1024
"""Bytes of one block of a transfer."""
MAX_CONNECTIONS: Final = 256
"""Connections at the same time; two of a pair, in a campaign of 200 nodes, come seldom near."""
MAX_STREAMS: Final = 16
"""Streams of a connection at the same time."""
STREAM_IDLE: Final = 120.0
"""Seconds without a byte after which a stream is given up; a failover phase may be silent for a while."""


@attrs.define(eq=False)
class Acceptor:
    """Takes connections of admitted nodes.

    `admitted`: who may connect; `max_bytes`: that a connection may send on streams, None: any number.
    """

    max_bytes: int | None = None
    admitted: frozenset[NodeId] = frozenset()
    _open: int = 0

    async def handle(self, incoming: Incoming) -> None:
        """Serve one connection until it ends; refuse strangers and too many. Never raises a TomError."""
        if incoming.remote_node_id not in self.admitted:
            incoming.refuse("not part of a campaign here")
            return
        if self._open >= MAX_CONNECTIONS:
            incoming.refuse("too many connections")
            return
        self._open += 1
        try:
            with contextlib.suppress(TomError):
                connection = await incoming.accept()
                async with connection:
                    await self._serve(connection)
        finally:
            self._open -= 1

    async def _serve(self, connection: Connection) -> None:
        room = asyncio.Semaphore(MAX_STREAMS)
        budget = _Budget(self.max_bytes)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(_echo_datagrams(connection))
                while True:
                    await room.acquire()
                    stream = await connection.accept_bi()
                    group.create_task(_serve_stream(stream, budget, room))
        except* TomError:
            pass  # the connection has ended, which ends all of this


@attrs.define
class _Budget:
    """Bytes that a connection may still send on streams."""

    left: int | None

    def take(self, size: int) -> bool:
        """Whether these are allowed too."""
        if self.left is None:
            return True
        self.left -= size
        return self.left >= 0


async def _echo_datagrams(connection: Connection) -> None:
    while True:
        data = await connection.read_datagram()
        # One that no longer fits, as the path has changed, is lost, as it would be on the way.
        if len(data) <= connection.max_datagram_size:
            connection.send_datagram(data)


async def _serve_stream(stream: BiStream, budget: _Budget, room: asyncio.Semaphore) -> None:
    try:
        async with asyncio.timeout(STREAM_IDLE) as idle:
            kind = await stream.read(1)
            if kind == ECHO:
                await _echo(stream, budget, idle)
            elif kind == SINK:
                await _sink(stream, budget, idle)
            else:
                stream.reset(1)
                stream.stop(1)
    except (TomError, TimeoutError):
        with contextlib.suppress(TomError):
            stream.reset(1)
            stream.stop(1)
    finally:
        room.release()


def _more_time(idle: asyncio.Timeout) -> None:
    idle.reschedule(asyncio.get_running_loop().time() + STREAM_IDLE)


async def _echo(stream: BiStream, budget: _Budget, idle: asyncio.Timeout) -> None:
    while data := await stream.read(BLOCK):
        if not budget.take(len(data)):
            stream.reset(2)
            stream.stop(2)
            return
        _more_time(idle)
        stream.write(data)
        await stream.drain()
    stream.finish()


async def _sink(stream: BiStream, budget: _Budget, idle: asyncio.Timeout) -> None:
    """Hash what comes, and say after each whole block how many there are, so that a broken transfer has a figure."""
    digest, size, told = hashlib.sha256(), 0, 0
    while data := await stream.read(BLOCK):
        if not budget.take(len(data)):
            stream.reset(2)
            stream.stop(2)
            return
        _more_time(idle)
        digest.update(data)
        size += len(data)
        for _ in range(size // BLOCK - told):
            stream.write(b"b")
        told = size // BLOCK
    stream.write(b"h" + digest.digest())
    stream.finish()
