"""Peers that wait to be accepted."""

from __future__ import annotations

import asyncio

import pytest

from tests.unit.endpoint.pairs import ALPN, local_config
from tom_connect import Connection, ConnectionClosedError, Endpoint, Incoming, LocalError
from tom_connect import ConnectionRefusedError as RefusedError


async def dial(client: Endpoint, server: Endpoint) -> tuple[asyncio.Task[Connection], Incoming]:
    """Begin to dial, and give what the server sees of it."""
    dialing = asyncio.create_task(client.connect(server.node_addr(), ALPN, timeout=5))
    return dialing, await anext(server.accept())


async def test_whoever_waits_is_known() -> None:
    """Key, protocol and path are known before anything is decided, and the dialer waits meanwhile."""
    async with Endpoint.bind(local_config()) as server, Endpoint.bind(local_config()) as client:
        dialing, incoming = await dial(client, server)
        assert (incoming.remote_node_id, incoming.alpn) == (client.node_id, ALPN)
        assert [path.addr for path in incoming.paths() if path.active] == [client.local_addrs[0]]
        assert client.node_id.short() in repr(incoming)
        assert not dialing.done()
        accepted = await incoming.accept()
        assert (await dialing).remote_node_id == server.node_id
        assert accepted.remote_node_id == client.node_id


@pytest.mark.parametrize("first", ["accept", "refuse", "ignore"])
async def test_it_is_decided_once(first: str) -> None:
    """A second decision is a mistake of the program, whatever the first one was."""
    async with Endpoint.bind(local_config()) as server, Endpoint.bind(local_config()) as client:
        dialing, incoming = await dial(client, server)
        if first == "accept":
            await incoming.accept()
        else:
            getattr(incoming, first)()
        with pytest.raises(LocalError, match="already"):
            await incoming.accept()
        with pytest.raises(LocalError, match="already"):
            incoming.refuse()
        with pytest.raises(LocalError, match="already"):
            incoming.ignore()
        dialing.cancel()
        await asyncio.gather(dialing, return_exceptions=True)


async def test_who_has_gone_is_not_accepted() -> None:
    """A dialer that was cancelled meanwhile says so at once: accepting it raises, and others come before it."""
    async with Endpoint.bind(local_config()) as server:
        async with Endpoint.bind(local_config()) as client, Endpoint.bind(local_config()) as other:
            dialing, gone = await dial(client, server)
            dialing.cancel()
            await asyncio.gather(dialing, return_exceptions=True)
            # Over the same socket, and so behind the goodbye of the first one.
            dialing, incoming = await dial(other, server)
            assert incoming.remote_node_id == other.node_id
            with pytest.raises(ConnectionClosedError):
                await gone.accept()
            await incoming.accept()
            await dialing


async def test_those_who_wait_are_bounded() -> None:
    """Where nobody accepts, one more than `max_incoming` is refused and the others go on waiting."""
    async with Endpoint.bind(local_config(max_incoming=3)) as server, Endpoint.bind(local_config()) as client:
        dialing = [asyncio.create_task(client.connect(server.node_addr(), ALPN)) for _ in range(4)]
        done, waiting = await asyncio.wait(dialing, timeout=10, return_when=asyncio.FIRST_COMPLETED)
        (refused,) = done
        assert isinstance(refused.exception(), RefusedError)
        for _ in waiting:
            await (await anext(server.accept())).accept()
        assert len({id(connection) for connection in await asyncio.gather(*waiting)}) == 3
