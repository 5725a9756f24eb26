"""The child that resolves a node by our client: `python -m benchmarks.pkarr.resolve_process URL KEY`, times inside."""

from __future__ import annotations

import asyncio
import logging
import sys
import time
from typing import Any

from tests.interop.peers.lines import serve
from tom_connect.abc import PluginContext
from tom_connect.addr import NodeAddr, SocketAddr
from tom_connect.keys import NodeId, SecretKey
from tom_connect.signing import NodeSigner
from tom_connect.watch import Watch
from tom_pkarr.client.config import PkarrConfig
from tom_pkarr.client.discovery import PkarrDiscovery
from tom_pkarr.client.service import PkarrService
from tom_pkarr.core.cache import FreshCache


class SystemClock:
    """The system's time."""

    def monotonic(self) -> float:
        """Seconds that only grow."""
        return time.monotonic()

    def wall(self) -> float:
        """Seconds since 1970."""
        return time.time()


class NoSocket:
    """An endpoint's socket, which Pkarr does not use."""

    local_addrs: tuple[SocketAddr, ...] = ()

    def send(self, data: bytes, addr: SocketAddr) -> bool:
        """Drop it."""
        return False


def context(config: PkarrConfig) -> PluginContext:
    """What an endpoint would lend the plugin."""
    key = SecretKey.generate()
    return PluginContext(
        node_id=key.node_id,
        signer=NodeSigner(key),
        config=config,
        clock=SystemClock(),
        logger=logging.getLogger("benchmarks"),
        local_addrs=Watch(NodeAddr(key.node_id)),
        socket=NoSocket(),
        data_dir=None,
        allow_local=True,
        create_task=lambda coroutine, name: asyncio.get_running_loop().create_task(coroutine, name=name),
        report_external_addr=lambda addr: None,
        shared={},
    )


async def main(url: str, z32: str) -> None:
    """Answer until stdin ends."""
    node_id = NodeId.from_z32(z32)
    service = PkarrService(context(PkarrConfig(relays=(url,), timeout=20.0)))
    discovery = PkarrDiscovery(service)

    async def timed() -> float:
        start = time.perf_counter()
        async for found in discovery.resolve(node_id):
            assert found.addr.direct_addrs
        return (time.perf_counter() - start) * 1000

    async def resolve(count: int) -> dict[str, Any]:
        """Open a session and resolve, then again with the session there; then from what is known."""
        start = time.perf_counter()
        await discovery.start()
        cold = (time.perf_counter() - start) * 1000 + await timed()
        warm = []
        for _ in range(count):
            service.cache = FreshCache()
            warm.append(await timed())
        return {"cold": cold, "warm": warm, "known": await timed()}

    try:
        await serve({"resolve": resolve})
    finally:
        await discovery.aclose()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
