"""A relay as a process of its own, and nodes of ours that have no other way to each other."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import random
import subprocess
import sys
import time
import urllib.request
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Any, Self

from tests.interop.peers.process import REPOSITORY
from tom_connect import Connection, Endpoint, EndpointConfig, NodeAddr
from tom_relay.client.config import RelayClientConfig

ALPN = "relayed/1"


class RelayProcess:
    """`tom-connect relay --dev`, started when made; port 0 lets the system choose one, which is kept afterwards."""

    def __init__(self, port: int = 0, *options: str) -> None:
        command = [sys.executable, "-m", "tom_connect", "relay", "--dev", "--json", "--listen", f"127.0.0.1:{port}"]
        self.process = subprocess.Popen(
            [*command, *options], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=REPOSITORY
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if '"serving"' not in line:
            self.process.stdout.close()
            raise RuntimeError(f"the relay ended with {self.process.wait(10)}: {line}")
        self.url = json.loads(line)["url"].rstrip("/")
        self.port = int(self.url.rpartition(":")[2])

    def kill(self) -> None:
        """`kill -9`: no goodbye, nothing drained."""
        self.process.kill()
        self.process.wait(10)

    def metrics(self) -> dict[str, float]:
        """The sum of each metric over its labels, by its name without the prefix."""
        with urllib.request.urlopen(f"{self.url}/metrics", timeout=10) as answer:
            lines = answer.read().decode().splitlines()
        found: dict[str, float] = {}
        for line in lines:
            if not line.startswith("#"):
                name, _, value = line.rpartition(" ")
                name = name.partition("{")[0].removeprefix("tom_relay_")
                found[name] = found.get(name, 0.0) + float(value)
        return found

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            self.kill()
        if self.process.stdout is not None:
            self.process.stdout.close()


@contextlib.asynccontextmanager
async def node_at(*relays: str, **options: Any) -> AsyncIterator[Endpoint]:
    """A node that sends and takes nothing but by its relays, all of which it is connected to.

    `options`: those of the relay client.
    """
    config = EndpointConfig(
        alpns=(ALPN,),
        bind=("127.0.0.1:0",),
        allow_local=True,
        persist=False,
        plugins=("relay",),
        relay=relays,
        direct=False,
        plugin_configs={"relay_client": RelayClientConfig(**options)},
    )
    async with Endpoint.bind(config) as endpoint:
        async with asyncio.timeout(20):
            async for addr in endpoint.watch_addr():
                if addr.relay_urls:
                    break
            while not all(info.connected for info in endpoint.relays()):  # noqa: ASYNC110 - it tells nobody
                await asyncio.sleep(0.01)
        yield endpoint


async def meet(dialer: Endpoint, server: Endpoint) -> tuple[Connection, Connection]:
    """A connection through the server's home relay, as both sides have it."""
    where = NodeAddr(server.node_id, server.node_addr().relay_urls)

    async def accept() -> Connection:
        return await (await anext(server.accept())).accept()

    async with asyncio.timeout(20), asyncio.TaskGroup() as group:
        dialing, accepting = group.create_task(dialer.connect(where, ALPN, timeout=15)), group.create_task(accept())
    return dialing.result(), accepting.result()


class Flow:
    """One stream that is written to at `rate` bytes a second, and hashed on both ends; must be ended."""

    def __init__(self, sender: Connection, receiver: Connection, rate: int = 2_000_000) -> None:
        self.received = 0
        self._rate = rate
        self._sent, self._got = hashlib.sha256(), hashlib.sha256()
        self._stop = False
        self._tasks = (asyncio.create_task(self._send(sender)), asyncio.create_task(self._receive(receiver)))

    async def _send(self, connection: Connection) -> None:
        rng = random.Random(1)
        stream = await connection.open_uni()
        while not self._stop:
            block = rng.randbytes(16_384)
            self._sent.update(block)
            stream.write(block)
            await stream.drain()
            await asyncio.sleep(len(block) / self._rate)
        stream.finish()
        await stream.wait_closed()

    async def _receive(self, connection: Connection) -> None:
        stream = await connection.accept_uni()
        async for data in stream:
            self._got.update(data)
            self.received += len(data)

    async def more(self, size: int, *, within: float) -> float:
        """Wait until so many more bytes have arrived; returns the seconds that took."""
        began, goal = time.monotonic(), self.received + size
        async with asyncio.timeout(within):
            while self.received < goal:
                for task in self._tasks:
                    if task.done():
                        task.result()
                await asyncio.sleep(0.01)
        return time.monotonic() - began

    async def end(self, *, within: float = 20.0) -> None:
        """Stop, and see that every byte has come, in order and once."""
        self._stop = True
        async with asyncio.timeout(within):
            await asyncio.gather(*self._tasks)
        assert self._got.digest() == self._sent.digest()

    async def aclose(self) -> None:
        """Leave off, whatever the state."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


@contextlib.asynccontextmanager
async def flowing(a: Connection, b: Connection, rate: int = 2_000_000) -> AsyncIterator[tuple[Flow, Flow]]:
    """A stream in each direction; both are left off at the end."""
    flows = Flow(a, b, rate), Flow(b, a, rate)
    try:
        yield flows
    finally:
        for flow in flows:
            await flow.aclose()
