"""The transport keeps its contract."""

from __future__ import annotations

import functools

from tom_connect.testing.conformance import check_relay_transport
from tom_connect.testing.plugincontext import plugin_context
from tom_relay.client.config import RelayClientConfig
from tom_relay.plugin import tom_relay_transport
from tom_relay.server import RelayServer


async def test_the_transport_keeps_its_contract(relay: RelayServer) -> None:
    """Through a relay of ours, everything that the core relies on holds."""
    context = functools.partial(plugin_context, RelayClientConfig())
    await check_relay_transport(tom_relay_transport, relay=relay.url, context=context)
