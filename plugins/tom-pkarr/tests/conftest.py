"""What the tests share: what an endpoint lends a plugin, relays of ours, and relays that misbehave."""

from __future__ import annotations

import asyncio
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
from tom_pkarr.server import PkarrRelay, PkarrServerConfig

WAIT = 20.0


@attrs.define
class FakeClock:
    """A clock that tests turn; it stands still otherwise."""

    seconds: float = attrs.Factory(time.time)

    def monotonic(self) -> float:
        return self.seconds

    def wall(self) -> float:
        return self.seconds


class NoSocket:
    """An endpoint's socket that nobody is to use."""

    local_addrs: Sequence[SocketAddr] = ()

    def send(self, data: bytes, addr: SocketAddr) -> bool:
        raise AssertionError("Pkarr sends no datagrams")


Lend = Callable[..., PluginContext]


@pytest.fixture
def lend() -> Lend:
    """Lends a plugin what an endpoint would: `lend(config, key=..., clock=...)`."""

    def make(config: Any, *, key: SecretKey | None = None, clock: FakeClock | None = None) -> PluginContext:
        return plugin_context(config, key=key, clock=clock or FakeClock(), socket=NoSocket(), name="pkarr")

    return make


@pytest.fixture
def clock() -> FakeClock:
    """A clock that stands at the present time until it is turned."""
    return FakeClock()


Run = Callable[..., PkarrRelay]


@pytest.fixture
def run() -> Run:
    """Makes relays on free ports of loopback, without rate limits unless they are given."""

    def make(
        wall: Callable[[], float] = time.time, bootstrap: Sequence[str] | None = None, **options: Any
    ) -> PkarrRelay:
        defaults = {"listen": ("127.0.0.1:0",), "get_rate": 0.0, "put_rate": 0.0}
        return PkarrRelay(PkarrServerConfig.dev(**{**defaults, **options}), wall=wall, bootstrap=bootstrap)

    return make


@pytest_asyncio.fixture
async def relay(run: Run) -> AsyncIterator[PkarrRelay]:
    """A relay."""
    async with run() as relay:
        yield relay


Answer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
Serve = Callable[[Answer], Awaitable[SocketAddr]]


@pytest_asyncio.fixture
async def serve() -> AsyncIterator[Serve]:
    """Serves TCP on loopback with a coroutine for each connection, ended with the test."""
    servers: list[asyncio.Server] = []
    tasks: set[asyncio.Task[None]] = set()

    async def start(answer: Answer) -> SocketAddr:
        async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None
            tasks.add(task)
            try:
                await answer(reader, writer)
            except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
                pass
            finally:
                tasks.discard(task)
                writer.transport.abort()

        server = await asyncio.start_server(handle, "127.0.0.1", 0)
        servers.append(server)
        return SocketAddr(*server.sockets[0].getsockname()[:2])

    yield start
    for server in servers:
        server.close()
    for task in list(tasks):
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


@pytest.fixture
def http_answer() -> Callable[..., Answer]:
    """`http_answer(status, body, **headers)`: a coroutine that answers each request of a connection so."""

    def make(status: int, body: bytes = b"", seen: list[bytes] | None = None, **headers: str) -> Answer:
        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                if seen is not None:
                    seen.append(head)
                size = next(
                    (int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")), 0
                )
                await reader.readexactly(size)
                lines = [f"HTTP/1.1 {status} X", f"Content-Length: {len(body)}"]
                lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
                writer.write("\r\n".join([*lines, "", ""]).encode() + body)
                await writer.drain()

        return answer

    return make


async def eventually(condition: Callable[[], bool], within: float = WAIT) -> None:
    """Wait until what another task does has come true; of that nothing tells."""
    async with asyncio.timeout(within):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.005)


@pytest.fixture(name="eventually")
def _eventually() -> Any:
    """`await eventually(lambda: ...)`."""
    return eventually
