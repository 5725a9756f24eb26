"""Two endpoints on loopback that know each other's address."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import attrs

from tom_connect import Connection, Endpoint, EndpointConfig

ALPN = "test/1"


def local_config(**changes: object) -> EndpointConfig:
    """A config for tests: loopback alone, nothing kept, no installed plugin."""
    values: dict[str, object] = {
        "alpns": (ALPN,),
        "bind": ("127.0.0.1:0",),
        "allow_local": True,
        "persist": False,
        "plugins": (),
    }
    return EndpointConfig(**{**values, **changes})  # type: ignore[arg-type]


@attrs.define
class Pair:
    """A dialing and a listening endpoint with one connection between them."""

    client: Endpoint
    server: Endpoint
    dialed: Connection
    accepted: Connection


async def accept_one(server: Endpoint) -> Connection:
    """Accept the next incoming connection."""
    incoming = await anext(server.accept())
    return await incoming.accept()


@contextlib.asynccontextmanager
async def make_pair(**changes: object) -> AsyncIterator[Pair]:
    """Bind two endpoints and connect them."""
    async with Endpoint.bind(local_config(**changes)) as server, Endpoint.bind(local_config(**changes)) as client:
        async with asyncio.TaskGroup() as group:
            dial = group.create_task(client.connect(server.node_addr(), ALPN))
            accept = group.create_task(accept_one(server))
        yield Pair(client, server, dial.result(), accept.result())
