"""The child that runs one side of a contender: `python -m benchmarks.quic.process NAME [OPTIONS]`."""

from __future__ import annotations

import asyncio
import gc
import hashlib
import json
import os
import sys
import time
from typing import Any

import attrs
import psutil  # type: ignore[import-untyped]

from benchmarks.quic.contender import Connection, Contender, Stream, load
from tests.interop.peers.lines import serve

#: First byte of a stream: what follows is hashed, or sent back.
HASH, ECHO = b"H", b"E"
BLOCK = 1 << 16
READ = 1 << 18


async def answer(stream: Stream) -> None:
    """Answer a stream with the SHA-1 of what came, or with what came."""
    first = await stream.read(READ)
    if first[:1] == ECHO:
        body = first[1:]
        while chunk := await stream.read(READ):
            body += chunk
        await stream.write(body)
    else:
        digest = hashlib.sha1(first[1:])
        while chunk := await stream.read(READ):
            digest.update(chunk)
        await stream.write(digest.digest())
    await stream.finish()


async def read_to_end(stream: Stream) -> bytes:
    """Read a short answer."""
    body = b""
    while chunk := await stream.read(READ):
        body += chunk
    return body


@attrs.define(eq=False)
class Child:
    """The commands of one side."""

    contender: Contender
    connections: list[Connection] = attrs.field(factory=list)

    async def listen(self) -> dict[str, Any]:
        """Become the server."""
        return {"where": await self.contender.listen(answer)}

    async def connect(self, where: dict[str, Any], count: int = 1) -> dict[str, Any]:
        """Open connections one after the other and keep them."""
        for _ in range(count):
            self.connections.append(await self.contender.connect(where))
        return {}

    async def upload(self, size: int) -> dict[str, Any]:
        """Send `size` bytes on one stream of the first connection; seconds count until the right hash has come."""
        block = os.urandom(BLOCK)
        blocks = size // BLOCK
        expected = hashlib.sha1()
        for _ in range(blocks):
            expected.update(block)
        start = time.perf_counter()
        stream = await self.connections[0].open_stream()
        await stream.write(HASH)
        for _ in range(blocks):
            await stream.write(block)
        await stream.finish()
        digest = await read_to_end(stream)
        seconds = time.perf_counter() - start
        if digest != expected.digest():
            raise ValueError("the other side received something else")
        return {"seconds": seconds, "bytes": blocks * BLOCK}

    async def request(self, count: int, size: int) -> dict[str, Any]:
        """Send small requests one after the other, each on a stream of its own; microseconds until the whole answer."""
        body = os.urandom(size)
        times = []
        for _ in range(count):
            start = time.perf_counter()
            stream = await self.connections[0].open_stream()
            await stream.write(ECHO + body)
            await stream.finish()
            got = await read_to_end(stream)
            times.append((time.perf_counter() - start) * 1e6)
            if got != body:
                raise ValueError("the other side answered something else")
        return {"us": times}

    async def dial(self, where: dict[str, Any], count: int, size: int) -> dict[str, Any]:
        """Connect, ask one small thing and close, `count` times; milliseconds until connected, and until the answer."""
        body = os.urandom(size)
        connected, answered = [], []
        for _ in range(count):
            start = time.perf_counter()
            connection = await self.contender.connect(where)
            connected.append((time.perf_counter() - start) * 1e3)
            stream = await connection.open_stream()
            await stream.write(ECHO + body)
            await stream.finish()
            if await read_to_end(stream) != body:
                raise ValueError("the other side answered something else")
            answered.append((time.perf_counter() - start) * 1e3)
            await connection.close()
        return {"connect_ms": connected, "answer_ms": answered}

    async def memory(self) -> dict[str, Any]:
        """Return this process's resident bytes after a collection."""
        gc.collect()
        return {"resident": psutil.Process().memory_info().rss}

    async def busy(self) -> dict[str, Any]:
        """Return the seconds of CPU time that this process has taken, all its threads together."""
        return {"cpu": time.process_time()}

    async def drop(self) -> dict[str, Any]:
        """Close the connections that are kept."""
        while self.connections:
            await self.connections.pop().close()
        return {}


async def main(name: str, options: str = "{}") -> None:
    """Run the side until stdin ends."""
    child = Child(load(name, **json.loads(options)))
    names = ("listen", "connect", "upload", "request", "dial", "memory", "busy", "drop")
    try:
        await serve({command: getattr(child, command) for command in names})
    finally:
        await child.drop()
        await child.contender.close()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
