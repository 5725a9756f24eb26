"""The transport keeps its contract."""

from __future__ import annotations

import asyncio
import functools

from tom_connect.testing.conformance import check_relay_transport
from tom_connect.testing.plugincontext import plugin_context
from tom_relay.client.config import RelayClientConfig
from tom_relay.plugin import tom_relay_transport
from tom_relay.server import RelayServer


async def test_the_transport_keeps_its_contract(relay: RelayServer) -> None:
    """Through a relay of ours, and towards one that says nothing, everything that the core relies on holds."""

    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    silent = await asyncio.start_server(say_nothing, "127.0.0.1", 0)
    async with silent:
        await check_relay_transport(
            tom_relay_transport,
            relay=relay.url,
            context=functools.partial(plugin_context, RelayClientConfig()),
            silent=f"http://127.0.0.1:{silent.sockets[0].getsockname()[1]}/",
        )
