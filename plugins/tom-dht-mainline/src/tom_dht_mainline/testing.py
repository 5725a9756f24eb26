"""A DHT for tests: real nodes on loopback, interconnected.

    async with Testnet(20) as net:
        config = DhtConfig(bootstrap=net.bootstrap)

Tests without an event loop, or with programs of their own, use `threaded_testnet`, and
`python -m tom_dht_mainline.testing` runs one until interrupted.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import random
import threading
from collections.abc import Coroutine, Iterable, Iterator
from types import TracebackType
from typing import Any, Self

from tom_connect.addr import SocketAddr

from .core import DhtConfig, Family, Mode
from .node import DhtNode
from .transport import UdpTransport

START_TIMEOUT = 30.0
"""Seconds until a Testnet that has not converged gives up; it takes well under one."""
_BUCKET = 8
"""Nodes of one k-bucket (BEP 5)."""
_FAR_PARTS = 2
"""Halves of the id space that are looked into: the other half, and the other quarter of ours."""
_WAVE = 32
"""Nodes that are busy at the same time: more would overflow the receive buffers of the few that all of them ask."""


class Testnet:
    """`size` DHT nodes in this process, each with a UDP socket of its own on 127.0.0.1 and all in server mode.

    Entering it returns when every node has joined; leaving it closes them all. `ipv6=True` uses ::1. `seed` makes ids
    and choices repeatable. Raises OSError or TimeoutError if it can't be had.
    """

    __test__ = False  # pytest would take the name for a test class

    def __init__(
        self, size: int = 20, *, ipv6: bool = False, seed: int | None = None, config: DhtConfig | None = None
    ) -> None:
        if not 1 <= size <= 1000:
            raise ValueError(f"a Testnet has 1 to 1000 nodes, not {size}")
        self._size = size
        self._family = Family.IPV6 if ipv6 else Family.IPV4
        self._host = "::1" if ipv6 else "127.0.0.1"
        self._random = random.Random(seed) if seed is not None else None
        self._config = config or DhtConfig(mode=Mode.SERVER, ipv4=not ipv6, ipv6=ipv6)
        self.nodes: list[DhtNode] = []
        """The nodes, the first of which all others joined through."""

    @property
    def bootstrap(self) -> tuple[str, ...]:
        """`HOST:PORT` of up to three of the nodes: what to give to whoever is to join."""
        return tuple(str(node.local_addrs[0]) for node in self.nodes[:3])

    async def start(self) -> None:
        """Start the nodes and wait until they know each other."""
        try:
            async with asyncio.timeout(START_TIMEOUT):
                await self._add_node(())
                while len(self.nodes) < self._size:
                    await self._add_wave(min(_WAVE, self._size - len(self.nodes)))
                for first in range(0, self._size, _WAVE):
                    await self._all(self._look_around(node) for node in self.nodes[first : first + _WAVE])
        except BaseException:
            await self.aclose()
            raise

    async def _add_node(self, bootstrap: tuple[str, ...]) -> DhtNode:
        rng = random.Random(self._random.getrandbits(64)) if self._random else None
        transport = UdpTransport((SocketAddr(self._host, 0),))
        node = DhtNode(transport, config=self._config, bootstrap=bootstrap, rng=rng)
        await node.start()
        self.nodes.append(node)
        return node

    async def _add_wave(self, size: int) -> list[DhtNode]:
        """Add nodes that join at the same time, and have those known who were there first."""
        through = self.bootstrap
        seeds = self.nodes[: len(through)]
        added = [await self._add_node(through) for _ in range(size)]
        await self._all(node.bootstrap() for node in added)
        # A node verifies whoever queries it before it names it to others, but not within the first second.
        await self._all(seed.ping(node.local_addrs[0]) for node in added for seed in seeds)
        return added

    async def _look_around(self, node: DhtNode) -> None:
        """Fill the node's table: its own neighbours, and some of the far parts of the id space.

        A node that knew its own part alone would end look-ups there, and store where nobody else looks.
        """
        if self._size < 2:
            return
        own = node.node_id(self._family)
        await node.find_node(own)
        for shared_bits in range(min(_FAR_PARTS, (self._size // _BUCKET).bit_length())):
            far = int.from_bytes(own, "big") ^ 1 << 159 - shared_bits
            await node.find_node(far.to_bytes(20, "big"))

    @staticmethod
    async def _all(coroutines: Iterable[Coroutine[Any, Any, object]]) -> None:
        async with asyncio.TaskGroup() as group:
            for coroutine in coroutines:
                group.create_task(coroutine)

    async def add_node(self) -> DhtNode:
        """One more node, joined; it is closed with the others."""
        (node,) = await self._add_wave(1)
        await self._look_around(node)
        return node

    async def aclose(self) -> None:
        """Close all nodes."""
        nodes, self.nodes = self.nodes, []
        await asyncio.gather(*(node.aclose() for node in nodes))

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()


@contextlib.contextmanager
def threaded_testnet(size: int = 20, *, seed: int | None = None) -> Iterator[tuple[str, ...]]:
    """Run a Testnet in a thread of its own; gives its `bootstrap`. For tests without an event loop."""
    ready: queue.Queue[tuple[str, ...] | BaseException] = queue.Queue()
    loop = asyncio.new_event_loop()
    leave = asyncio.Event()

    async def run() -> None:
        async with Testnet(size, seed=seed) as net:
            ready.put(net.bootstrap)
            await leave.wait()

    def main() -> None:
        try:
            with asyncio.Runner(loop_factory=lambda: loop) as runner:
                runner.run(run())
        except BaseException as exc:
            ready.put(exc)

    thread = threading.Thread(target=main, name="testnet", daemon=True)
    thread.start()
    outcome = ready.get()
    if isinstance(outcome, BaseException):
        raise outcome
    try:
        yield outcome
    finally:
        loop.call_soon_threadsafe(leave.set)
        thread.join()


def main() -> None:
    """Run a Testnet until interrupted and print its bootstrap nodes, one a line."""
    import argparse

    parser = argparse.ArgumentParser(prog="python -m tom_dht_mainline.testing", description=main.__doc__)
    parser.add_argument("--nodes", type=int, default=20, help="how many nodes to run (default: 20)")
    size = parser.parse_args().nodes

    async def run() -> None:
        async with Testnet(size) as net:
            for text in net.bootstrap:
                print(text, flush=True)  # noqa: T201 - it is what this command is for
            await asyncio.Event().wait()

    try:
        with contextlib.suppress(KeyboardInterrupt):
            asyncio.run(run())
    except ValueError as exc:
        parser.error(str(exc))


if __name__ == "__main__":
    main()
