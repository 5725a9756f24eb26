"""The child that runs many nodes of ours on one machine of a lab, each at an address of its own, some at a time.

Publishers open an endpoint, wait until their record is stored, and leave. Strangers open an endpoint with a fresh key
and no saved state, and look nodes up. All are clients of the DHT, as nodes behind NATs are.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, TypeVar

from tests.interop.peers.lines import serve
from tom_connect import Endpoint, EndpointConfig, NodeId, TomError
from tom_dht_mainline.config import DhtConfig

PORT = 4433
#: Endpoints that are open at the same time.
AT_ONCE = 12
PUBLISH_TIMEOUT = 60.0
#: Seconds that a publisher stays for a better report than one of too few nodes; it publishes again meanwhile.
STAY = 30.0

T = TypeVar("T")


@contextlib.asynccontextmanager
async def endpoint_at(host: str, bootstrap: Sequence[str]) -> AsyncIterator[Endpoint]:
    """An endpoint with `dht_only` and a fresh key."""
    config = EndpointConfig(
        alpns=("population/1",),
        bind=(f"{host}:{PORT}",),
        persist=False,
        dht_only=True,
        watch_network=False,
        plugins=("dht",),
        plugin_configs={"dht": DhtConfig(bootstrap=tuple(bootstrap), ipv6=False, server="off")},
    )
    async with Endpoint.bind(config) as endpoint:
        yield endpoint


async def _some_at_a_time(work: Callable[[T], Awaitable[Any]], items: Sequence[T]) -> list[Any]:
    limit = asyncio.Semaphore(AT_ONCE)

    async def one(item: T) -> Any:
        async with limit:
            return await work(item)

    return await asyncio.gather(*(one(item) for item in items))


async def publish(hosts: list[str], bootstrap: list[str]) -> dict[str, Any]:
    """Publish a node on each host; `nodes`: for each its id, the nodes of the DHT that took its record, and seconds."""

    async def one(host: str) -> dict[str, Any]:
        began = time.monotonic()
        try:
            async with endpoint_at(host, bootstrap) as endpoint:
                watch = endpoint.watch_published()
                async with asyncio.timeout(PUBLISH_TIMEOUT):
                    reports = await watch.other_than(())
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(STAY):
                        while not reports[0].enough:
                            reports = await watch.other_than(reports)
                return {
                    "node_id": str(endpoint.node_id),
                    "addr": f"{host}:{PORT}",
                    "stored": reports[0].nodes,
                    "seconds": time.monotonic() - began,
                }
        except TimeoutError:
            pass
        return {"node_id": None, "addr": f"{host}:{PORT}", "stored": 0, "seconds": time.monotonic() - began}

    return {"nodes": await _some_at_a_time(one, hosts)}


async def resolve(strangers: list[list[Any]], bootstrap: list[str]) -> dict[str, Any]:
    """Let each stranger, a host and (id, address) pairs, look nodes up one after the other.

    `found`: for each pair the seconds to the first answer that names the address, None where none came, with why.
    """

    async def one(stranger: list[Any]) -> list[list[Any]]:
        host, wanted = stranger
        async with endpoint_at(host, bootstrap) as endpoint:
            return [await _look_up(endpoint, at, *pair) for at, pair in enumerate(wanted, 1)]

    found = await _some_at_a_time(one, strangers)
    return {"found": [each for some in found for each in some]}


async def _look_up(endpoint: Endpoint, at: int, node_id: str, addr: str) -> list[Any]:
    began = time.monotonic()
    try:
        async with endpoint.look_up(NodeId.parse(node_id)) as lookup:
            async for found in lookup:
                if addr in map(str, found.addr.direct_addrs):
                    return [time.monotonic() - began, None]
            return [None, f"the stranger's look-up {at}: " + "; ".join(map(str, lookup.outcomes))]
    except TomError as error:
        return [None, str(error)]


async def main() -> None:
    """Answer until standard input ends."""
    await serve({"publish": publish, "resolve": resolve})


if __name__ == "__main__":
    asyncio.run(main())
