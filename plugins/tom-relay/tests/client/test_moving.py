"""What becomes of relay connections when the node's network is another one."""

from __future__ import annotations

import asyncio

import pytest

from tom_connect import Endpoint
from tom_relay.client.connection import RelayConnection
from tom_relay.server import RelayServer

from .meeting import at_relay, config, until


def connection_of(endpoint: Endpoint) -> RelayConnection:
    (connection,) = endpoint._own.relays[0][1]._connections.values()  # type: ignore[attr-defined]
    assert isinstance(connection, RelayConnection)
    return connection


async def test_a_connection_from_an_address_that_is_gone(relay: RelayServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection whose own address this machine no longer has is left at once, not when it has been silent for
    long; one whose address is still there stays."""
    async with at_relay(relay.url) as endpoint:
        connection = connection_of(endpoint)
        assert connection._leg is not None
        carrier = connection._leg.carrier
        assert not carrier.address_is_gone()
        endpoint.network_changed()
        await asyncio.sleep(0)
        assert connection._leg.carrier is carrier
        monkeypatch.setattr(carrier, "address_is_gone", lambda: True)
        connection._backoff.next = lambda *, wanted: 1000.0  # type: ignore[method-assign]
        endpoint.network_changed()
        await until(lambda: connection._leg is not None and connection._leg.carrier is not carrier)
        await until(lambda: connection.connected)


async def test_an_attempt_of_the_old_network_is_begun_anew() -> None:
    """A connection that hangs while it is set up is given up when the network changes, and tried again at once."""
    arrived: asyncio.Queue[asyncio.StreamWriter] = asyncio.Queue()

    async def hang(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        arrived.put_nowait(writer)

    server = await asyncio.start_server(hang, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    writers = []
    try:
        async with Endpoint.bind(config(f"http://127.0.0.1:{port}", watch_network=False)) as endpoint:
            connection_of(endpoint)._backoff.next = lambda *, wanted: 1000.0  # type: ignore[method-assign]
            for _ in range(3):
                writers.append(await asyncio.wait_for(arrived.get(), 10))
                assert arrived.empty()
                endpoint.network_changed()
            writers.append(await asyncio.wait_for(arrived.get(), 10))
    finally:
        for writer in writers:
            writer.close()
        server.close()
        await server.wait_closed()
