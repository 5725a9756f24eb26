"""Endpoints that know relays on loopback, and meet there."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

from tom_connect import Connection, Endpoint, EndpointConfig, NodeAddr

ALPN = "relayed/1"


def config(*relays: str, direct: bool = False, **fields: Any) -> EndpointConfig:
    """An endpoint on loopback that uses relays; it takes nothing else unless `direct`."""
    values: dict[str, Any] = {
        "alpns": (ALPN,),
        "bind": ("127.0.0.1:0",),
        "allow_local": True,
        "persist": False,
        "plugins": ("relay",),
        "relay": relays,
        "direct": direct,
    }
    return EndpointConfig(**{**values, **fields})


@contextlib.asynccontextmanager
async def at_relay(*relays: str, **fields: Any) -> AsyncIterator[Endpoint]:
    """An endpoint that has a home relay."""
    async with Endpoint.bind(config(*relays, **fields)) as endpoint:
        await home(endpoint)
        yield endpoint


async def home(endpoint: Endpoint, *, within: float = 30.0, other_than: tuple[Any, ...] = ()) -> NodeAddr:
    """The endpoint's address once it has a home relay that is none of `other_than`."""
    async with asyncio.timeout(within):
        async for addr in endpoint.watch_addr():
            if addr.relay_urls and addr.relay_urls[0] not in other_than:
                return addr
    raise AssertionError("the endpoint was closed")


async def meet(dialer: Endpoint, server: Endpoint, addr: NodeAddr | None = None) -> tuple[Connection, Connection]:
    """A connection from `dialer` to `server`, through its relays alone unless an address is given."""
    where = addr or NodeAddr(server.node_id, server.node_addr().relay_urls)
    async with asyncio.timeout(30), asyncio.TaskGroup() as group:
        dialing = group.create_task(dialer.connect(where, ALPN, timeout=10))

        async def accept() -> Connection:
            return await (await anext(server.accept())).accept()

        accepting = group.create_task(accept())
    return dialing.result(), accepting.result()


async def until(condition: Callable[[], bool], *, within: float = 30.0) -> None:
    """Wait until something that tells nobody is so."""
    async with asyncio.timeout(within):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


def kind(connection: Connection) -> str | None:
    """The kind of path that carries a connection's traffic now."""
    return next((path.kind for path in connection.paths() if path.active), None)
