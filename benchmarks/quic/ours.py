"""tom-connect's endpoint, without plugins unless its DHT node is asked for."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any

import attrs

from benchmarks.quic.contender import Contender, Serve, Where
from tom_connect import Connection, Endpoint, EndpointConfig, NodeAddr, NodeId, TomError
from tom_connect.streams import BiStream

ALPN = "bench/1"


@attrs.define(eq=False)
class OurStream:
    """A bidirectional stream."""

    stream: BiStream

    async def read(self, limit: int) -> bytes:
        """Return up to `limit` bytes, none at the end."""
        return await self.stream.read(limit)

    async def write(self, data: bytes) -> None:
        """Send bytes, with the backpressure that there is."""
        self.stream.write(data)
        await self.stream.drain()

    async def finish(self) -> None:
        """Say that no more comes."""
        self.stream.finish()


@attrs.define(eq=False)
class OurConnection:
    """A connection."""

    connection: Connection

    async def open_stream(self) -> OurStream:
        """Open a bidirectional stream."""
        return OurStream(await self.connection.open_bi())

    async def close(self) -> None:
        """Close the connection."""
        await self.connection.close()


@attrs.define(eq=False)
class Ours:
    """The contender."""

    config: EndpointConfig
    endpoint: Endpoint | None = None
    _tasks: set[asyncio.Future[None]] = attrs.field(factory=set)

    async def _open(self) -> Endpoint:
        if self.endpoint is None:
            self.endpoint = await Endpoint.bind(self.config)
        return self.endpoint

    async def listen(self, serve: Serve) -> Where:
        """Listen on a free port of 127.0.0.1."""
        endpoint = await self._open()
        self._start(self._accept(endpoint, serve))
        return {"node_id": str(endpoint.node_id), "addresses": [str(addr) for addr in endpoint.local_addrs]}

    async def connect(self, where: Where) -> OurConnection:
        """Dial by direct address."""
        endpoint = await self._open()
        addr = NodeAddr(NodeId.parse(where["node_id"]), direct_addrs=where["addresses"])
        return OurConnection(await endpoint.connect(addr, ALPN))

    async def close(self) -> None:
        """Close the endpoint."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self.endpoint is not None:
            await self.endpoint.close()

    def _start(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _accept(self, endpoint: Endpoint, serve: Serve) -> None:
        async for incoming in endpoint.accept():
            self._start(self._streams(await incoming.accept(), serve))

    async def _streams(self, connection: Connection, serve: Serve) -> None:
        try:
            while True:
                self._start(serve(OurStream(await connection.accept_bi())))
        except TomError:
            return  # the connection has ended


def make(
    dht_bootstrap: list[str] | None = None, *, both_families: bool = False, watch_network: bool = True
) -> Contender:
    """Return the contender; with bootstrap nodes it runs a DHT node too, on the same socket."""
    plugins: tuple[str, ...] = ()
    configs: dict[str, Any] = {}
    if dht_bootstrap is not None:
        from tom_dht_mainline.config import DhtConfig

        plugins = ("dht*",)
        configs = {"dht": DhtConfig(bootstrap=tuple(dht_bootstrap), server="on", ipv6=False)}
    return Ours(
        EndpointConfig(
            alpns=(ALPN,),
            bind=("127.0.0.1:0", "[::1]:0") if both_families else ("127.0.0.1:0",),
            allow_local=True,
            plugins=plugins,
            plugin_configs=configs,
            persist=False,
            idle_timeout=600.0,
            watch_network=watch_network,
        )
    )
