"""The child that is one server: `python -m benchmarks.relay.server_process relay|echo asyncio|uvloop`."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import sys
import time
from collections.abc import AsyncIterator
from typing import Any

import psutil  # type: ignore[import-untyped]
from aiohttp import WSMsgType, web

from tests.interop.peers.lines import serve
from tom_relay.server import RelayServer, RelayServerConfig


@contextlib.asynccontextmanager
async def bare_echo() -> AsyncIterator[int]:
    """What aiohttp does at the least: send each WebSocket message back; yields the port."""

    async def answer(request: web.Request) -> web.WebSocketResponse:
        websocket = web.WebSocketResponse(compress=False)
        await websocket.prepare(request)
        async for message in websocket:
            if message.type is WSMsgType.BINARY:
                await websocket.send_bytes(message.data)
        return websocket

    app = web.Application()
    app.router.add_get("/relay", answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0, shutdown_timeout=0.1, backlog=1024)
        await site.start()
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


async def memory() -> dict[str, Any]:
    """Return this process's resident bytes after a collection."""
    gc.collect()
    return {"resident": psutil.Process().memory_info().rss}


async def resident() -> dict[str, Any]:
    """Return this process's resident bytes as they are."""
    return {"resident": psutil.Process().memory_info().rss}


async def busy() -> dict[str, Any]:
    """Return the seconds of CPU time that this process has taken."""
    return {"cpu": time.process_time()}


async def main(kind: str) -> None:
    """Serve until stdin ends."""
    common = {"memory": memory, "resident": resident, "busy": busy}
    if kind == "echo":
        async with bare_echo() as port:
            await serve(common, port=port)
        return
    async with RelayServer(RelayServerConfig.dev(listen=("127.0.0.1:0",))) as relay:

        async def counts() -> dict[str, Any]:
            counters = relay.hub.counters
            return {
                "relayed": counters.relayed.packets,
                "dropped": sum(counters.dropped.values()),
                "queued": relay.hub.queued_bytes,
            }

        await serve({**common, "counts": counts}, port=relay.addrs[0].port)


def run(kind: str, loop: str) -> None:
    """Run the server on the event loop of that name."""
    if loop == "uvloop":
        import uvloop  # type: ignore[import-not-found, unused-ignore]

        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(main(kind))
    else:
        asyncio.run(main(kind))


if __name__ == "__main__":
    run(*sys.argv[1:])
