"""The DHT as a directory of addresses under topics: a topic is an infohash (BEP 5)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Final

from tom_connect.abc import TopicDirectory
from tom_connect.addr import SocketAddr

from .service import DhtService

LIFETIME: Final = 1800.0
"""Seconds that nodes keep an announcement at least; libtorrent's keep it for about 45 minutes."""


class DhtTopics(TopicDirectory):
    """Announces by announce_peer, finds by get_peers. Whoever holds an IP address may announce it; nodes may lie."""

    name = "dht"
    serverless = True
    lifetime = LIFETIME

    def __init__(self, service: DhtService) -> None:
        self._service = service

    async def start(self) -> None:
        """Start the node if it does not run yet."""
        await self._service.acquire(self)

    async def aclose(self) -> None:
        """Close the node if nobody else uses it."""
        await self._service.release(self)

    async def announce(self, topic: bytes, port: int | None = None) -> int:
        """See `TopicDirectory`; without a port nodes store the one that they see our DHT socket at.

        Raises DhtUnreachableError or DhtPutError.
        """
        return await self._service.node.announce_peer(topic, port)

    async def find(self, topic: bytes) -> AsyncIterator[SocketAddr]:
        """See `TopicDirectory`; at most 2,000 addresses. Raises DhtUnreachableError."""
        seen: set[SocketAddr] = set()
        async with aclosing(self._service.node.get_peers(topic)) as peers:
            async for host, port in peers:
                addr = SocketAddr(host, port)
                if addr not in seen:
                    seen.add(addr)
                    yield addr
