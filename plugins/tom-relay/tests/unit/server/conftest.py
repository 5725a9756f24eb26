"""What the server's tests share: servers on loopback, clients that keep to the protocol, and patience."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import aiohttp
import attrs
import pytest
import pytest_asyncio

from tom_connect.keys import NodeId, SecretKey
from tom_relay.server import RelayServer, RelayServerConfig
from tom_relay.wire import (
    ClientHandshake,
    Dialect,
    EndpointGone,
    Ping,
    Pong,
    ReceivedDatagrams,
    SendDatagrams,
    ServerFrame,
    decode_from_server,
    encode,
)

WAIT = 30.0


@attrs.define
class Client:
    """A client of the relay that does as the protocol says."""

    key: SecretKey
    websocket: aiohttp.ClientWebSocketResponse
    dialect: Dialect

    @property
    def node_id(self) -> NodeId:
        return self.key.node_id

    async def send(self, to: NodeId, data: bytes, **fields: Any) -> None:
        await self.websocket.send_bytes(encode(SendDatagrams(to.raw, data, **fields), self.dialect))

    async def read(self) -> ServerFrame:
        """The next frame that is no ping; pings are answered."""
        async with asyncio.timeout(WAIT):
            while True:
                message = await self.websocket.receive()
                assert message.type is aiohttp.WSMsgType.BINARY, (message, self.websocket.close_code)
                frame = decode_from_server(message.data, self.dialect)
                if not isinstance(frame, Ping):
                    return frame
                await self.websocket.send_bytes(encode(Pong(frame.data), self.dialect))

    async def closed(self) -> tuple[int | None, str]:
        """Wait for the end; its WebSocket code and reason."""
        async with asyncio.timeout(WAIT):
            while True:
                message = await self.websocket.receive()
                if message.type is not aiohttp.WSMsgType.BINARY:
                    return self.websocket.close_code, str(message.extra or "")


@attrs.define
class Clients:
    """Makes clients, and ends them with the test."""

    session: aiohttp.ClientSession
    opened: list[aiohttp.ClientWebSocketResponse] = attrs.Factory(list)
    """Kept: a WebSocket that nobody holds is closed."""

    async def open(
        self, url: str, key: SecretKey | None = None, dialect: Dialect = Dialect.IROH_V2, **options: Any
    ) -> Client:
        """Connect; raises RelayDeniedError."""
        key = key or SecretKey.generate()
        websocket = await self.upgrade(url, dialect, **options)
        handshake = ClientHandshake(dialect, key.node_id, key.sign)
        while not handshake.done:
            answer = handshake.receive((await websocket.receive(WAIT)).data)
            if answer is not None:
                await websocket.send_bytes(answer)
        return Client(key, websocket, dialect)

    async def upgrade(
        self, url: str, dialect: Dialect = Dialect.IROH_V2, path: str = "/relay", **options: Any
    ) -> aiohttp.ClientWebSocketResponse:
        """A WebSocket before its handshake."""
        websocket = await self.session.ws_connect(
            url + path,
            protocols=(dialect.value,),
            max_msg_size=1 << 21,
            timeout=aiohttp.ClientWSTimeout(ws_close=0.2),
            **options,
        )
        self.opened.append(websocket)
        return websocket


@pytest_asyncio.fixture
async def clients() -> AsyncIterator[Clients]:
    """Makes clients of a relay."""
    async with aiohttp.ClientSession() as session:
        clients = Clients(session)
        yield clients
        await asyncio.gather(*(websocket.close() for websocket in clients.opened), return_exceptions=True)


Run = Callable[..., contextlib.AbstractAsyncContextManager[RelayServer]]


@pytest.fixture
def run() -> Run:
    """Runs a relay on a free port of loopback."""

    def make(**options: Any) -> RelayServer:
        return RelayServer(RelayServerConfig.dev(**{"listen": ("127.0.0.1:0",), **options}))

    return make


@pytest_asyncio.fixture
async def relay(run: Run) -> AsyncIterator[RelayServer]:
    """A relay with the usual limits."""
    async with run() as relay:
        yield relay


async def relays_still(relay: RelayServer, clients: Clients) -> None:
    """Check that two fresh clients reach each other."""
    a, b = await clients.open(relay.url), await clients.open(relay.url)
    await a.send(b.node_id, b"still here", ecn=1)
    assert await b.read() == ReceivedDatagrams(a.node_id.raw, b"still here", 1)
    await a.websocket.close()
    assert await b.read() == EndpointGone(a.node_id.raw)
    await b.websocket.close()


@pytest.fixture(name="relays_still")
def _relays_still() -> Any:
    """`await relays_still(relay, clients)`."""
    return relays_still


async def eventually(condition: Callable[[], bool], within: float = WAIT) -> None:
    """Wait until what another task does has come true; of that nothing tells."""
    async with asyncio.timeout(within):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.005)


@pytest.fixture(name="eventually")
def _eventually() -> Any:
    """`await eventually(lambda: ...)`."""
    return eventually


Raw = Callable[[RelayServer], Awaitable[tuple[asyncio.StreamReader, asyncio.StreamWriter]]]


@pytest_asyncio.fixture
async def raw() -> AsyncIterator[Raw]:
    """Opens TCP connections to a relay, and closes them with the test."""
    opened: list[asyncio.StreamWriter] = []

    async def dial(relay: RelayServer) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection(relay.addrs[0].host, relay.addrs[0].port)
        opened.append(writer)
        return reader, writer

    yield dial
    for writer in opened:
        writer.close()
    await asyncio.gather(*(writer.wait_closed() for writer in opened), return_exceptions=True)
