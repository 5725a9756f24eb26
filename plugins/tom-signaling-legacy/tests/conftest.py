"""What the tests share: what an endpoint lends a plugin, servers of ours, and clients that say what they like."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import aiohttp
import attrs
import pytest
import pytest_asyncio

from tom_connect.abc import PluginContext
from tom_connect.addr import SocketAddr
from tom_connect.keys import SecretKey
from tom_connect.testing.plugincontext import plugin_context
from tom_signaling_legacy.server import SignalingServer, SignalingServerConfig

WAIT = 30.0


class NoSocket:
    """An endpoint's socket that nobody is to use."""

    local_addrs: Sequence[SocketAddr] = ()

    def send(self, data: bytes, addr: SocketAddr) -> bool:
        raise AssertionError("signaling sends no datagrams")


Lend = Callable[..., PluginContext]


@pytest.fixture
def lend() -> Lend:
    """Lends a plugin what an endpoint would: `lend(config, key=...)`."""

    def make(config: Any, *, key: SecretKey | None = None) -> PluginContext:
        return plugin_context(config, key=key, socket=NoSocket(), name="signaling")

    return make


Run = Callable[..., SignalingServer]


@pytest.fixture
def run() -> Run:
    """Makes servers on free ports of loopback, without limits on rates unless they are given."""

    def make(**options: Any) -> SignalingServer:
        defaults = {"listen": ("127.0.0.1:0",), "connect_rate": 0.0, "message_rate": 0.0, "broadcast_rate": 0.0}
        return SignalingServer(SignalingServerConfig.dev(**{**defaults, **options}))

    return make


@pytest_asyncio.fixture
async def server(run: Run) -> AsyncIterator[SignalingServer]:
    """A server."""
    async with run() as server:
        yield server


@attrs.define(eq=False)
class RawClient:
    """A WebSocket that says and hears JSON."""

    socket: aiohttp.ClientWebSocketResponse

    async def say(self, message: Any) -> None:
        await self.socket.send_str(message if isinstance(message, str) else json.dumps(message))

    async def hear(self, kind: str | None = None) -> Any:
        """The next message, or the next of a type."""
        async with asyncio.timeout(WAIT):
            while True:
                message = json.loads(await self.socket.receive_str())
                if kind is None or message["type"] == kind:
                    return message

    async def register(self, node_id: str, username: str = "somebody", **more: Any) -> Any:
        """Register, and return the list of participants that follows."""
        await self.say({"type": "register", "nodeId": node_id, "username": username, **more})
        return await self.hear("participants")

    async def ended(self) -> None:
        """Wait until the server has ended the connection."""
        async with asyncio.timeout(WAIT):
            while (await self.socket.receive()).type in (aiohttp.WSMsgType.TEXT, aiohttp.WSMsgType.BINARY):
                pass


Connect = Callable[[str], Any]


@pytest_asyncio.fixture
async def connect() -> AsyncIterator[Connect]:
    """`await connect(url)`: a client, closed with the test."""
    async with contextlib.AsyncExitStack() as stack:
        http = await stack.enter_async_context(aiohttp.ClientSession())

        async def make(url: str) -> RawClient:
            async with asyncio.timeout(WAIT):
                socket = await http.ws_connect(url)
            stack.push_async_callback(socket.close)
            return RawClient(socket)

        yield make


async def eventually(condition: Callable[[], bool], within: float = WAIT) -> None:
    """Wait until what another task does has come true; of that nothing tells."""
    async with asyncio.timeout(within):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.005)


@pytest.fixture(name="eventually")
def _eventually() -> Any:
    """`await eventually(lambda: ...)`."""
    return eventually
