"""A UDP forwarder on loopback that delays datagrams, and loses some."""

from __future__ import annotations

import asyncio
import random
from typing import Any

from tom_connect.addr import SocketAddr


class LossyWay(asyncio.DatagramProtocol):
    """Passes datagrams between whoever sends to `front` and one server, each way after `delay` seconds."""

    def __init__(self, server: SocketAddr, *, delay: float, loss: float, seed: int) -> None:
        self._server = server
        self._delay = delay
        self._loss = loss
        self._random = random.Random(seed)
        self._client: Any = None
        self._inside: Any = None
        self._outside: Any = None
        self.front: SocketAddr

    async def open(self) -> None:
        """Bind both sides."""
        loop = asyncio.get_running_loop()
        way = self

        class Outside(asyncio.DatagramProtocol):
            def datagram_received(self, data: bytes, addr: Any) -> None:
                way._later(lambda: way._inside.sendto(data, way._client))

        self._inside, _ = await loop.create_datagram_endpoint(lambda: self, local_addr=("127.0.0.3", 0))
        self._outside, _ = await loop.create_datagram_endpoint(Outside, local_addr=("127.0.0.3", 0))
        self.front = SocketAddr(*self._inside.get_extra_info("sockname"))

    def datagram_received(self, data: bytes, addr: Any) -> None:
        """Pass it on to the server."""
        self._client = addr
        self._later(lambda: self._outside.sendto(data, tuple(self._server)))

    def _later(self, send: Any) -> None:
        if self._random.random() >= self._loss:
            asyncio.get_running_loop().call_later(self._delay, self._unless_closed, send)

    def _unless_closed(self, send: Any) -> None:
        if not self._outside.is_closing():
            send()

    def close(self) -> None:
        """Pass nothing on any more."""
        self._inside.close()
        self._outside.close()
