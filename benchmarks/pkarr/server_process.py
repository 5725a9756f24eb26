"""The child that is our Pkarr relay: `python -m benchmarks.pkarr.server_process FILE`, packets in an SQLite file."""

from __future__ import annotations

import asyncio
import gc
import pathlib
import sys
import time
from typing import Any

import psutil  # type: ignore[import-untyped]

from tests.interop.peers.lines import serve
from tom_pkarr.server import PkarrRelay, PkarrServerConfig


async def memory() -> dict[str, Any]:
    """Return this process's resident bytes after a collection."""
    gc.collect()
    return {"resident": psutil.Process().memory_info().rss}


async def busy() -> dict[str, Any]:
    """Return the seconds of CPU time that this process has taken."""
    return {"cpu": time.process_time()}


async def main(file: str) -> None:
    """Serve until stdin ends."""
    config = PkarrServerConfig.dev(
        listen=("127.0.0.1:0",), store=pathlib.Path(file), get_rate=0.0, put_rate=0.0, max_bytes=1 << 30
    )
    async with PkarrRelay(config) as relay:

        async def count_values() -> dict[str, Any]:
            return {"values": relay.store.packets}

        await serve({"memory": memory, "busy": busy, "count_values": count_values}, url=relay.url)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
