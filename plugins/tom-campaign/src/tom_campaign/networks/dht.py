"""A DHT of a campaign's own: real nodes that know each other, on addresses that are given."""

from __future__ import annotations

import asyncio
import functools
import random
from collections.abc import Awaitable, Callable, Sequence
from types import TracebackType
from typing import Final, Self

from tom_connect import SocketAddr
from tom_dht_mainline import CoreConfig, DhtNode, DhtUnreachableError, Family, Mode, UdpTransport

START_TIMEOUT: Final = 60.0
"""Seconds until a DHT that has not come about is given up; it takes one or two on a machine that is not busy."""
_RETRY: Final = 0.2
"""Seconds before somebody who was not heard is asked again."""
_WAVE: Final = 16
"""Nodes that join at the same time: more would overflow the receive buffers of those through whom they join."""


async def _answered(ask: Callable[[], Awaitable[object]]) -> None:
    """Ask until there is an answer: on a machine that is busy enough each of them may come too late."""
    while True:
        try:
            await ask()
            return
        except DhtUnreachableError:
            await asyncio.sleep(_RETRY)


class PrivateDht:
    """`size` DHT nodes in server mode, on the IPv4 `addresses` in turn; enter it, and all of them have joined.

    Nodes on one address other than loopback count as one to others (BEP 42, limits by address): give each its own, at
    most four of a /24. Raises OSError or TimeoutError if it can't be had.
    """

    def __init__(self, addresses: Sequence[str], size: int, *, seed: int = 0) -> None:
        self._places = [addresses[number % len(addresses)] for number in range(size)]
        self._random = random.Random(seed)
        self._nodes: list[DhtNode] = []

    @property
    def bootstrap(self) -> list[str]:
        """`HOST:PORT` of the nodes to join through."""
        return [str(node.local_addrs[0]) for node in self._nodes[:3]]

    async def __aenter__(self) -> Self:
        try:
            async with asyncio.timeout(START_TIMEOUT):
                await self._start()
        except BaseException:
            await self._close()
            raise
        return self

    async def _start(self) -> None:
        config = CoreConfig(mode=Mode.SERVER, ipv4=True, ipv6=False)
        through: tuple[str, ...] = ()
        for first in range(0, len(self._places), _WAVE):
            added = []
            for place in self._places[first : first + _WAVE] if first else self._places[:1]:
                added.append(await self._add(place, config, through))
            await asyncio.gather(*(node.bootstrap() for node in added))
            through = tuple(self.bootstrap)
            if first == 0:
                more = [await self._add(place, config, through) for place in self._places[1:_WAVE]]
                await asyncio.gather(*(node.bootstrap() for node in more))
                through = tuple(self.bootstrap)
                added += more
            # A node verifies whoever queries it before it names it to others, but not within the first second.
            seeds = self._nodes[:3]
            await asyncio.gather(
                *(
                    _answered(functools.partial(seed.ping, node.local_addrs[0]))
                    for node in added
                    for seed in seeds
                    if seed is not node
                )
            )
        for first in range(0, len(self._nodes), _WAVE):
            await asyncio.gather(*(self._look_around(node) for node in self._nodes[first : first + _WAVE]))

    async def _add(self, place: str, config: CoreConfig, through: tuple[str, ...]) -> DhtNode:
        rng = random.Random(self._random.getrandbits(64))
        node = DhtNode(UdpTransport((SocketAddr(place, 0),)), config=config, bootstrap=through, rng=rng)
        await node.start()
        self._nodes.append(node)
        return node

    @staticmethod
    async def _look_around(node: DhtNode) -> None:
        """Get to know the own neighbours, and some of the other half."""
        own = node.node_id(Family.IPV4)
        other_half = (int.from_bytes(own, "big") ^ 1 << 159).to_bytes(20, "big")
        for target in (own, other_half):
            await _answered(functools.partial(node.find_node, target))

    async def _close(self) -> None:
        nodes, self._nodes = self._nodes, []
        await asyncio.gather(*(node.aclose() for node in nodes))

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._close()
