"""Discovery and publisher by signaling keep their contracts."""

from __future__ import annotations

import contextlib

import attrs

from tom_connect.abc import FoundAddr, Publisher
from tom_connect.keys import NodeId
from tom_connect.record import SignedRecord
from tom_connect.testing.conformance import check_discovery, check_publisher
from tom_connect.testing.plugincontext import LentContext, plugin_context
from tom_signaling_legacy.client.config import SignalingConfig
from tom_signaling_legacy.client.plugin import tom_discovery, tom_publisher
from tom_signaling_legacy.server import SignalingServer


def context(url: str, timeout: float = 10.0) -> LentContext:
    return plugin_context(SignalingConfig(urls=(url,), phase=1, timeout=timeout), name="signaling")


def unreachable() -> LentContext:
    return context("ws://127.0.0.1:9", 0.5)


async def test_discovery_keeps_its_contract(server: SignalingServer) -> None:
    """Nodes that are registered with a server of ours are found by what they signed."""
    async with contextlib.AsyncExitStack() as stack:
        there: dict[NodeId, Publisher] = {}

        async def publish(record: SignedRecord) -> None:
            if record.node_id not in there:
                publisher = tom_publisher(attrs.evolve(context(server.url), node_id=record.node_id))
                assert publisher is not None
                stack.push_async_callback(publisher.aclose)
                await publisher.start()
                there[record.node_id] = publisher
            await there[record.node_id].publish(record)

        await check_discovery(
            tom_discovery, publish=publish, context=lambda: context(server.url), unreachable=unreachable
        )


async def test_the_publisher_keeps_its_contract(server: SignalingServer) -> None:
    """Another node that asks through the server is given the record, the newest always."""

    async def find(node_id: NodeId) -> FoundAddr | None:
        discovery = tom_discovery(context(server.url))
        assert discovery is not None
        await discovery.start()
        try:
            found = [one async for one in discovery.resolve(node_id)]
        finally:
            await discovery.aclose()
        return found[-1] if found else None

    await check_publisher(tom_publisher, find=find, context=lambda: context(server.url), unreachable=unreachable)
