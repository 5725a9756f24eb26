"""iroh's Python binding as shipped, without relays."""

from __future__ import annotations

import asyncio
from typing import Any

import attrs
import iroh

from benchmarks.quic.contender import Contender, Serve, Where
from tests.interop.peers.iroh_process import open_endpoint

ALPN = "bench/1"


@attrs.define(eq=False)
class IrohStream:
    """A bidirectional stream of the binding."""

    recv: Any
    send: Any

    async def read(self, limit: int) -> bytes:
        """Return up to `limit` bytes, none at the end."""
        return bytes(await self.recv.read(limit))

    async def write(self, data: bytes) -> None:
        """Send bytes."""
        await self.send.write_all(data)

    async def finish(self) -> None:
        """Say that no more comes."""
        await self.send.finish()


@attrs.define(eq=False)
class IrohConnection:
    """A connection of the binding."""

    connection: Any

    async def open_stream(self) -> IrohStream:
        """Open a bidirectional stream."""
        stream = await self.connection.open_bi()
        return IrohStream(stream.recv(), stream.send())

    async def close(self) -> None:
        """Close the connection."""
        self.connection.close(0, b"")


@attrs.define(eq=False)
class Iroh:
    """The contender."""

    both_families: bool = False
    _endpoint: Any = None
    _tasks: set[asyncio.Task[None]] = attrs.field(factory=set)

    async def listen(self, serve: Serve) -> Where:
        """Listen on a free port of 127.0.0.1."""
        self._endpoint = await open_endpoint(None, "127.0.0.1:0", [ALPN])
        self._start(self._accept(serve))
        bound = [addr.replace("[::]", "[::1]") for addr in self._endpoint.bound_sockets()]
        return {"node_id": str(self._endpoint.id()), "addresses": bound if self.both_families else bound[:1]}

    async def connect(self, where: Where) -> IrohConnection:
        """Dial by direct address."""
        if self._endpoint is None:
            self._endpoint = await open_endpoint(None, "127.0.0.1:0", [ALPN])
        address = iroh.EndpointAddr(iroh.EndpointId.from_string(where["node_id"]), None, where["addresses"])
        return IrohConnection(await self._endpoint.connect(address, ALPN.encode()))

    async def close(self) -> None:
        """Close the endpoint."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._endpoint is not None:
            await self._endpoint.close()

    def _start(self, work: Any) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _accept(self, serve: Serve) -> None:
        while (incoming := await self._endpoint.accept_next()) is not None:
            self._start(self._streams(incoming, serve))

    async def _streams(self, incoming: Any, serve: Serve) -> None:
        try:
            connection = await (await incoming.accept()).connect()
            while True:
                stream = await connection.accept_bi()
                self._start(serve(IrohStream(stream.recv(), stream.send())))
        except iroh.IrohError:
            return  # the connection has ended


def make(*, both_families: bool = False) -> Contender:
    """Return the contender."""
    return Iroh(both_families)
