"""Discovery and publisher by relays keep their contracts."""

from __future__ import annotations

import asyncio
from typing import Any

import aiohttp

from tom_connect.keys import NodeId
from tom_connect.record import SignedRecord
from tom_connect.testing.conformance import check_discovery, check_publisher
from tom_connect.testing.plugincontext import LentContext, plugin_context
from tom_pkarr.client import plugin
from tom_pkarr.client.config import PkarrConfig
from tom_pkarr.server import PkarrRelay


def context(*urls: str) -> LentContext:
    return plugin_context(PkarrConfig(relays=urls, timeout=10.0), name="pkarr")


def unreachable() -> LentContext:
    return context("http://127.0.0.1:9")


async def test_discovery_keeps_its_contract(relay: PkarrRelay, serve: Any) -> None:
    """Beside an honest relay stands one that gives out what nobody signed."""
    forged: dict[bytes, bytes] = {}

    async def lie(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            body = forged.get(head.split(b" ")[1].rpartition(b"/")[2])
            status = "404 Not Found" if body is None else "200 OK"
            body = body or b""
            writer.write(f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
            await writer.drain()

    async def forge(node_id: NodeId, packet: bytes) -> None:
        forged[node_id.z32().encode()] = packet[32:]

    async def publish(record: SignedRecord) -> None:
        url = f"{relay.url}/{record.node_id.z32()}"
        async with aiohttp.ClientSession() as session, session.put(url, data=record.relay_payload()) as response:
            assert response.status == 204, await response.text()

    liar = f"http://{await serve(lie)}"
    await check_discovery(
        plugin.tom_discovery,
        publish=publish,
        context=lambda: context(relay.url, liar),
        unreachable=unreachable,
        forge=forge,
    )


async def test_the_publisher_keeps_its_contract(relay: PkarrRelay) -> None:
    """What it stores is what the relay gives out, the newest record always."""

    async def find(node_id: NodeId) -> SignedRecord | None:
        url = f"{relay.url}/{node_id.z32()}"
        async with aiohttp.ClientSession() as session, session.get(url) as response:
            if response.status == 404:
                return None
            return SignedRecord.from_relay_payload(node_id, await response.read())

    await check_publisher(plugin.tom_publisher, find=find, context=lambda: context(relay.url), unreachable=unreachable)
