"""A topic directory full of addresses, most of which are dead or lie."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncIterator
from typing import Any

import attrs

from tom_connect import Endpoint
from tom_connect.abc import PluginContext, TopicDirectory
from tom_connect.addr import RelayUrl, SocketAddr
from tom_connect.hookspecs import hookimpl
from tom_relay.client.config import RelayClientConfig

from .nodes import config, until, volunteer_of, volunteering


class Listed(TopicDirectory):
    """Says the same addresses under every topic."""

    serverless = True

    def __init__(self, addrs: list[SocketAddr]) -> None:
        self.addrs = addrs

    async def announce(self, topic: bytes, port: int | None = None) -> int:
        """Nobody announces anything here."""
        return 0

    async def find(self, topic: bytes) -> AsyncIterator[SocketAddr]:
        """All of them."""
        for addr in self.addrs:
            yield addr


@attrs.define(eq=False)
class DirectoryPlugin:
    """Brings the directory."""

    addrs: list[SocketAddr]
    name: str = "listed"

    @hookimpl
    def tom_topic_directory(self, ctx: PluginContext) -> TopicDirectory:
        """Return it."""
        return Listed(self.addrs)


@attrs.define(eq=False)
class Crowd:
    """The volunteers of a topic."""

    honest: dict[RelayUrl, Endpoint]
    addrs: list[SocketAddr]
    dead: list[asyncio.DatagramTransport]
    sent_to_dead: int = 0


class _Dead(asyncio.DatagramProtocol):
    """Takes everything, and answers nothing."""

    def __init__(self, crowd: Crowd) -> None:
        self._crowd = crowd

    def datagram_received(self, data: bytes, addr: Any) -> None:
        """Count it."""
        self._crowd.sent_to_dead += len(data)


def lie(endpoint: Endpoint) -> None:
    """Let a volunteer pass on nothing."""
    volunteer_of(endpoint).hub._forward = lambda *_args: None  # type: ignore[method-assign]


@contextlib.asynccontextmanager
async def crowd(*, honest: int, lying: int, dead: int) -> AsyncIterator[Crowd]:
    """So many of each, at addresses of one host."""
    made = Crowd({}, [], [])
    loop = asyncio.get_running_loop()
    async with contextlib.AsyncExitStack() as stack:
        for number in range(honest + lying):
            endpoint, url = await stack.enter_async_context(volunteering(announce=False, clients=100))
            assert url.node_addr is not None
            made.addrs.append(url.node_addr)
            if number < honest:
                made.honest[url] = endpoint
            else:
                lie(endpoint)
        for _ in range(dead):
            transport, _ = await loop.create_datagram_endpoint(lambda: _Dead(made), local_addr=("127.0.0.2", 0))
            stack.callback(transport.close)
            made.dead.append(transport)
            made.addrs.append(SocketAddr(*transport.get_extra_info("sockname")))
        yield made


@attrs.frozen
class Found:
    """Seconds from the start of a node until it had a home relay, and two; and how many addresses it tried."""

    first: float
    both: float
    tried: int


async def seek(made: Crowd, *, within: float) -> Found:
    """Let a node without a relay find two honest volunteers in a crowd."""
    addrs = random.sample(made.addrs, len(made.addrs))
    sections = {"relay_client": RelayClientConfig(volunteers="always")}
    fields = {"plugin_configs": sections, "plugins": ("relay",), "extra_plugins": (DirectoryPlugin(addrs),)}
    began = time.monotonic()
    async with Endpoint.bind(config(**fields)) as node:
        first: list[float] = []

        def has(count: int) -> bool:
            return sum(url in made.honest for url in node.node_addr().relay_urls) >= count

        await until(lambda: has(1), within=within)
        first.append(time.monotonic() - began)
        await until(lambda: has(2), within=within)
        seeker = node._contexts("relay").shared["transport"].seeker
        return Found(first[0], time.monotonic() - began, seeker.tried)


async def _measure(shares: list[tuple[int, int, int]], runs: int) -> None:
    for honest, lying, dead in shares:
        async with crowd(honest=honest, lying=lying, dead=dead) as made:
            found = [await seek(made, within=120) for _ in range(runs)]
            first = sorted(one.first for one in found)
            both = sorted(one.both for one in found)
            tried = sorted(one.tried for one in found)
            bytes_each = made.sent_to_dead / runs / max(1, dead)
            print(
                f"{honest:3} honest, {lying:3} lying, {dead:3} dead: "
                f"first {first[runs // 2]:.2f} s (most {first[-1]:.2f}), "
                f"two {both[runs // 2]:.2f} s (most {both[-1]:.2f}), tried {tried[runs // 2]}, "
                f"{bytes_each:.0f} bytes to each dead address"
            )


if __name__ == "__main__":
    asyncio.run(_measure([(100, 0, 0), (50, 25, 25), (10, 45, 45), (3, 0, 97), (3, 48, 49)], 5))
