"""What a router refuses, and how a connection ends when its handler does."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from tests.unit.endpoint.pairs import local_config
from tom_connect import Connection, ConnectionClosedError, Endpoint, LocalError, Router
from tom_connect import ConnectionRefusedError as RefusedError
from tom_connect.exceptions import ProtocolError


@contextlib.asynccontextmanager
async def serving(router: Router) -> AsyncIterator[None]:
    """Serve meanwhile."""
    task = asyncio.create_task(router.serve())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def wait(connection: Connection) -> None:
    """A handler that goes on until the connection ends."""
    await connection.closed()


async def test_more_connections_than_allowed_are_refused() -> None:
    """With room for one a second is refused, and let in once the first has gone."""
    async with Endpoint.bind(local_config(alpns=())) as server, Endpoint.bind(local_config()) as client:
        async with serving(Router(server, max_connections=1).route("a/1", wait)):
            first = await client.connect(server.node_addr(), "a/1")
            with pytest.raises(RefusedError, match="too many"):
                await client.connect(server.node_addr(), "a/1")
            await first.close()
            async with asyncio.timeout(5):
                while True:
                    with contextlib.suppress(RefusedError):
                        second = await client.connect(server.node_addr(), "a/1")
                        break
            assert not second.is_closed


async def test_a_protocol_without_a_handler_is_refused() -> None:
    """An ALPN that the endpoint accepts and the router does not know is refused with its name."""
    async with Endpoint.bind(local_config(alpns=("b/1",))) as server, Endpoint.bind(local_config()) as client:
        async with serving(Router(server).route("a/1", wait)):
            with pytest.raises(RefusedError, match="b/1"):
                await client.connect(server.node_addr(), "b/1")


async def test_a_protocol_has_one_handler() -> None:
    """A second handler of one ALPN is a mistake of the program."""
    async with Endpoint.bind(local_config(alpns=())) as server:
        with pytest.raises(LocalError, match="has a handler already"):
            Router(server).route("a/1", wait).route("a/1", wait)


async def test_a_router_serves_once_at_a_time() -> None:
    """A second `serve` while the first runs is a mistake that is said at once; after it, the router serves again."""
    async with Endpoint.bind(local_config(alpns=())) as server, Endpoint.bind(local_config()) as client:
        router = Router(server).route("a/1", wait)
        async with serving(router):
            await (await client.connect(server.node_addr(), "a/1")).close()
            with pytest.raises(LocalError, match="serves already"):
                await asyncio.wait_for(router.serve(), 5)
            await (await client.connect(server.node_addr(), "a/1")).close()
        async with serving(router):
            await (await client.connect(server.node_addr(), "a/1")).close()


@pytest.mark.parametrize("error", [ProtocolError("that is not how it goes"), ValueError("a mistake")])
async def test_a_handler_that_raises_closes_with_code_1(error: Exception) -> None:
    """Whichever error it was, the peer does not take the end for a success, and learns nothing of it."""

    async def fail(_connection: Connection) -> None:
        raise error

    async with Endpoint.bind(local_config(alpns=())) as server, Endpoint.bind(local_config()) as client:
        async with serving(Router(server).route("f/1", fail)):
            connection = await client.connect(server.node_addr(), "f/1")
            ended = await connection.closed()
    assert isinstance(ended, ConnectionClosedError)
    assert (ended.code, ended.by_peer, ended.is_application) == (1, True, True)
    assert str(error) not in ended.reason


async def test_a_router_that_ends_closes_its_connections() -> None:
    """Handlers that still run are cancelled, and their peers hear of it at once."""
    async with Endpoint.bind(local_config(alpns=())) as server, Endpoint.bind(local_config()) as client:
        async with serving(Router(server).route("a/1", wait)):
            connection = await client.connect(server.node_addr(), "a/1")
        ended = await asyncio.wait_for(connection.closed(), 5)
        assert isinstance(ended, ConnectionClosedError)
