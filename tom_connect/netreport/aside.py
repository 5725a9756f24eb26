"""Questions about our NAT that want a socket which nothing else has used: opened for one question and closed again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from tom_connect.abc import Clock
from tom_connect.addr import SocketAddr
from tom_connect.netreport.checks import MappingCheck
from tom_connect.netreport.report import Version


class AsideSockets:
    """Carries out mapping checks, one at a time for each IP version.

    `local()`: where the endpoint's own sockets are bound; these here are bound to the same host. `on_end()` is called
    after each check.
    """

    def __init__(self, clock: Clock, *, local: Callable[[], Sequence[SocketAddr]], on_end: Callable[[], None]) -> None:
        self._now = clock.monotonic
        self._local = local
        self._on_end = on_end
        self._tasks: dict[Version, asyncio.Task[None]] = {}
        self._closed = False

    def examine(self, version: Version, check: MappingCheck) -> None:
        """Carry out a check; one of this IP version that is under way is of no use any more."""
        host = next((addr.host for addr in self._local() if addr.ip.version == version), None)
        if self._closed or host is None:
            return
        if (under_way := self._tasks.get(version)) is not None:
            under_way.cancel()
        self._tasks[version] = asyncio.get_running_loop().create_task(
            self._examine(host, check, under_way), name=f"netreport: how IPv{version} is mapped"
        )

    async def aclose(self) -> None:
        """End what is under way. Idempotent."""
        self._closed = True
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    async def _examine(self, host: str, check: MappingCheck, before: asyncio.Task[None] | None) -> None:
        if before is not None:
            await asyncio.gather(before, return_exceptions=True)
        loop = asyncio.get_running_loop()
        try:
            transport, answers = await loop.create_datagram_endpoint(
                lambda: _Answers(check, self._now), local_addr=(host, 0)
            )
        except OSError:
            return  # the address has gone, and a change of network will be told
        try:
            sends = check.start(self._now())
            while not check.done:
                for data, dest in sends:
                    transport.sendto(data, (dest.host, dest.port))
                sends = []
                due = check.get_timer()
                try:
                    async with asyncio.timeout(None if due is None else max(0.0, due - self._now())):
                        await answers.came.wait()
                except TimeoutError:
                    sends = check.handle_timer(self._now())
                answers.came.clear()
        finally:
            transport.close()
        self._on_end()


class _Answers(asyncio.DatagramProtocol):
    """Gives a check what arrives."""

    def __init__(self, check: MappingCheck, now: Callable[[], float]) -> None:
        self.came = asyncio.Event()
        self._check = check
        self._now = now

    def datagram_received(self, data: bytes, addr: tuple[Any, ...]) -> None:
        if self._check.receive(data, SocketAddr(str(addr[0]), int(addr[1])), self._now()):
            self.came.set()
