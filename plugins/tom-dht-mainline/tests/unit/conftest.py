"""What the tests of the shell share: a DHT on loopback, nodes that join it, and an endpoint's lendings."""

from __future__ import annotations

import asyncio
import pathlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

import attrs
import pytest
import pytest_asyncio

from tom_connect.abc import PluginContext
from tom_connect.addr import SocketAddr
from tom_connect.keys import SecretKey
from tom_connect.testing.plugincontext import plugin_context
from tom_dht_mainline import CoreConfig, DhtNode, UdpTransport
from tom_dht_mainline.config import DhtConfig
from tom_dht_mainline.testing import Testnet

LOOPBACK = SocketAddr("127.0.0.1", 0)


@pytest_asyncio.fixture
async def net() -> AsyncIterator[Testnet]:
    """Ten nodes on loopback; none of them may have failed on anything by the end."""
    async with Testnet(10) as net:
        yield net
        assert [node.failures for node in net.nodes] == [0] * len(net.nodes)


@pytest.fixture
def client(net: Testnet) -> Callable[..., DhtNode]:
    """Makes a node that joins `net` when it is entered."""

    def make(**options: Any) -> DhtNode:
        defaults: dict[str, Any] = {"config": CoreConfig(ipv6=False), "bootstrap": net.bootstrap}
        return DhtNode(UdpTransport((LOOPBACK,)), **defaults | options)

    return make


@attrs.define
class FakeClock:
    """The system's time, shifted."""

    shift: float = 0.0

    def monotonic(self) -> float:
        return time.monotonic()

    def wall(self) -> float:
        return time.time() + self.shift


class LoopbackSocket:
    """An endpoint's shared socket, over a UDP socket on loopback."""

    def __init__(self) -> None:
        self._udp = UdpTransport((LOOPBACK,))
        self.refused: list[bytes] = []
        self.protocols: list[Any] = []

    @property
    def local_addrs(self) -> Sequence[SocketAddr]:
        return self._udp.local_addrs

    async def open(self) -> None:
        await self._udp.open(self._received)

    def _received(self, batch: Sequence[tuple[bytes, tuple[str, int]]]) -> None:
        for data, addr in batch:
            owner = next((protocol for protocol in self.protocols if protocol.claims(data[:8])), None)
            if owner is None:
                self.refused.append(data)
            else:
                owner.datagrams_received([(data, SocketAddr(*addr))])

    def send(self, data: bytes, addr: SocketAddr) -> bool:
        before = self._udp.dropped
        self._udp.send([(data, addr)])
        return self._udp.dropped == before

    async def close(self) -> None:
        await self._udp.close()


@attrs.define
class Lender:
    """Makes plugin contexts as an endpoint does, and remembers what was reported."""

    socket: LoopbackSocket
    external: list[SocketAddr] = attrs.Factory(list)

    def __call__(
        self,
        config: DhtConfig | None,
        *,
        key: SecretKey | None = None,
        data_dir: pathlib.Path | None = None,
        clock: FakeClock | None = None,
    ) -> PluginContext:
        ctx = plugin_context(
            config, key=key, clock=clock or FakeClock(), socket=self.socket, data_dir=data_dir, name="dht"
        )
        return attrs.evolve(ctx, report_external_addr=self.external.append)


@pytest_asyncio.fixture
async def lend() -> AsyncIterator[Lender]:
    """Lends plugins what an endpoint would."""
    socket = LoopbackSocket()
    await socket.open()
    yield Lender(socket)
    await socket.close()


async def eventually(condition: Callable[[], bool], within: float = 30.0) -> None:
    """Wait until a condition of another task's making holds."""
    async with asyncio.timeout(within):
        while not condition():  # noqa: ASYNC110 - what it waits for is another's and has no event
            await asyncio.sleep(0.005)


Eventually = Callable[[Callable[[], bool]], Awaitable[None]]


@pytest.fixture(name="eventually")
def _eventually() -> Eventually:
    """`await eventually(lambda: ...)`."""
    return eventually
