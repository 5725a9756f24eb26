"""The child that sends a steady stream of KRPC queries to one address and counts the replies."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from typing import Any

import attrs

from benchmarks.dht.krpc import encode
from tests.interop.peers.lines import serve

#: Seconds between two bursts.
TICK = 0.01


def make_queries(count: int) -> list[bytes]:
    """Return different queries, in about the mix that a public node sees: lookups most of all."""
    own = os.urandom(20)
    queries = []
    for number in range(count):
        arguments: dict[bytes, Any] = {b"id": own}
        method = (b"find_node", b"get", b"get_peers", b"get", b"find_node", b"ping")[number % 6]
        if method == b"get_peers":
            arguments[b"info_hash"] = os.urandom(20)
        elif method != b"ping":
            arguments[b"target"] = os.urandom(20)
        transaction = number.to_bytes(2, "big")
        queries.append(encode({b"a": arguments, b"q": method, b"t": transaction, b"y": b"q", b"ro": 1}))
    return queries


@attrs.define(eq=False)
class Load:
    """A stream of queries that can be switched on and off."""

    replies: int = 0
    sent: int = 0
    seconds: float = 0.0
    _socket: socket.socket | None = None
    _task: asyncio.Task[None] | None = None

    async def start(self, host: str, port: int, rate: float) -> dict[str, Any]:
        """Begin to send `rate` queries a second."""
        self.replies = self.sent = 0
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        self._socket.connect((host, port))
        self._task = asyncio.create_task(self._run(self._socket, rate))
        return {}

    async def _run(self, sock: socket.socket, rate: float) -> None:
        queries = make_queries(600)
        start = time.monotonic()
        while True:
            await asyncio.sleep(TICK)
            self.seconds = time.monotonic() - start
            while self.sent < self.seconds * rate:
                sock.send(queries[self.sent % len(queries)])
                self.sent += 1
            self._count(sock)

    def _count(self, sock: socket.socket) -> None:
        while True:
            try:
                sock.recv(4096)
            except BlockingIOError:
                return
            self.replies += 1

    async def stop(self) -> dict[str, Any]:
        """Stop, and say how many queries were sent in how many seconds and how many replies came."""
        assert self._task is not None and self._socket is not None
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        await asyncio.sleep(0.2)
        self._count(self._socket)
        self._socket.close()
        return {"sent": self.sent, "replies": self.replies, "seconds": self.seconds}


async def main() -> None:
    """Answer until stdin ends."""
    load = Load()
    await serve({"start": load.start, "stop": load.stop})


if __name__ == "__main__":
    asyncio.run(main())
