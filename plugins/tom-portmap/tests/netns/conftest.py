"""Labs with a real gateway, and nodes behind it as processes."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest

from tom_connect.testing.natlab import Host, Lab
from tom_connect.testing.natlab import missing as lab_missing

from .gateway import PATIENCE, missing

HERE = Path(__file__).parent


@pytest.fixture
def lab() -> Iterator[Lab]:
    """An internet in network namespaces."""
    lacking = [*lab_missing(), *([missing()] if missing() else [])]
    if lacking:
        pytest.skip(f"needs {', '.join(map(str, lacking))}")
    with Lab() as lab:
        yield lab


@attrs.define(eq=False)
class Inside:
    """A node behind a router, in a process of its own."""

    process: asyncio.subprocess.Process
    bound: float
    port: int
    said: dict[str, Any]

    async def until(self, condition: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
        """What it says once that fulfils the condition."""
        async with asyncio.timeout(PATIENCE):
            while not condition(self.said):
                self.said = await self.hear()
        return self.said

    async def hear(self) -> dict[str, Any]:
        """The next line."""
        assert self.process.stdout is not None
        line = await self.process.stdout.readline()
        assert line, "the node has died"
        heard: dict[str, Any] = json.loads(line)
        return heard

    async def mapped(self) -> str:
        """The address at which it is mapped, once it is."""
        return str((await self.until(lambda said: said.get("mapped")))["mapped"][0])

    def tell(self, word: str) -> None:
        """Tell it something."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{word}\n".encode())

    async def close(self) -> float:
        """Close its endpoint; returns the seconds that took."""
        self.tell("close")
        async with asyncio.timeout(PATIENCE):
            return float((await self.until(lambda said: "closed" in said))["closed"])


Start = Callable[..., Awaitable[Inside]]


@pytest.fixture
async def inside() -> AsyncIterator[Start]:
    """Starts a node on a host: `await inside(host, protocols=["pcp"])`."""
    running: list[asyncio.subprocess.Process] = []

    async def start(host: Host, **options: object) -> Inside:
        process = await host.process(
            [sys.executable, str(HERE / "inside_process.py"), json.dumps(options)],
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        running.append(process)
        node = Inside(process, 0.0, 0, {})
        async with asyncio.timeout(PATIENCE):
            first = await node.hear()
        node.bound, node.port = first["bound"], first["port"]
        return node

    yield start
    for process in running:
        if process.returncode is None:
            process.kill()
        await process.wait()
        if process.stdin is not None:
            process.stdin.close()


async def dial(host: Host, node_id: str, addr: str, *, seconds: float = PATIENCE) -> dict[str, Any]:
    """Dial a node from a host, at one address alone."""
    process = await host.process(
        [sys.executable, str(HERE / "dial_process.py"), node_id, addr, str(seconds)], stdout=asyncio.subprocess.PIPE
    )
    async with asyncio.timeout(2 * PATIENCE):
        said, _ = await process.communicate()
    heard: dict[str, Any] = json.loads(said)
    return heard
