"""The DHT's share of the endpoint's socket."""

from __future__ import annotations

from collections.abc import Sequence

from tom_connect.abc import PluginObject
from tom_connect.addr import SocketAddr

from .service import DhtService
from .transport import SharedTransport


class DhtDatagrams(PluginObject):
    """Passes on what has come for the node."""

    name = "dht"

    def __init__(self, service: DhtService, transport: SharedTransport) -> None:
        self._service = service
        self._transport = transport

    async def start(self) -> None:
        """Start the node if it does not run yet."""
        await self._service.acquire(self)

    async def aclose(self) -> None:
        """Close the node if nobody else uses it."""
        await self._service.release(self)

    def received(self, datagrams: Sequence[tuple[bytes, SocketAddr]]) -> None:
        """Queue a batch; it is handled in turns of its own."""
        self._transport.feed(datagrams)
