"""A wire between two endpoints on loopback that a test can cut, or make too narrow for large packets."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from tom_connect import SocketAddr

Addr = tuple[str, int]


class Wire:
    """Forwards datagrams between whoever sends to `addr` and `target`, as a router with one mapping per sender does.

    `cut`: nothing passes; `width`: datagrams larger than this many bytes vanish.
    """

    def __init__(self, target: SocketAddr) -> None:
        self.target = target
        self.cut = False
        self.width = 65_535
        self.passed = 0
        self.addr: SocketAddr
        self._front: asyncio.DatagramTransport
        self._backs: dict[Addr, asyncio.DatagramTransport] = {}
        self._opening: dict[Addr, asyncio.Task[None]] = {}

    async def open(self) -> None:
        loop = asyncio.get_running_loop()
        self._front, _ = await loop.create_datagram_endpoint(
            lambda: _Side(self._from_client), local_addr=("127.0.0.1", 0)
        )
        self.addr = SocketAddr(*self._front.get_extra_info("sockname"))

    async def aclose(self) -> None:
        for task in self._opening.values():
            task.cancel()
        await asyncio.gather(*self._opening.values(), return_exceptions=True)
        self._front.close()
        for back in self._backs.values():
            back.close()

    def _lets_through(self, data: bytes) -> bool:
        if self.cut or len(data) > self.width:
            return False
        self.passed += 1
        return True

    def _from_client(self, data: bytes, addr: Addr) -> None:
        if not self._lets_through(data):
            return
        back = self._backs.get(addr)
        if back is not None:
            back.sendto(data, self.target)
        elif addr not in self._opening:
            self._opening[addr] = asyncio.create_task(self._open_back(addr, data))

    async def _open_back(self, addr: Addr, data: bytes) -> None:
        def back_to_client(answer: bytes, _source: Addr) -> None:
            if self._lets_through(answer):
                self._front.sendto(answer, addr)

        loop = asyncio.get_running_loop()
        back, _ = await loop.create_datagram_endpoint(lambda: _Side(back_to_client), local_addr=("127.0.0.1", 0))
        self._backs[addr] = back
        back.sendto(data, self.target)


class _Side(asyncio.DatagramProtocol):
    def __init__(self, received: object) -> None:
        self._received = received

    def datagram_received(self, data: bytes, addr: Addr) -> None:
        self._received(data, addr)  # type: ignore[operator]


@contextlib.asynccontextmanager
async def wires_to(target: SocketAddr, count: int) -> AsyncIterator[list[Wire]]:
    """So many wires to `target`, closed at the end."""
    wires = [Wire(target) for _ in range(count)]
    async with contextlib.AsyncExitStack() as stack:
        for wire in wires:
            await wire.open()
            stack.push_async_callback(wire.aclose)
        yield wires
