"""How a node joins the DHT, and joins again when it has lost everyone."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol, TypeVar

from .bootstrap import BootstrapNode, resolve
from .core import Address, DhtCore, Event, Operation
from .errors import DhtClosedError

Op = TypeVar("Op", bound=Operation)

FIRST_RETRY = 5.0
"""Seconds until a node that found nobody tries again: a network that is coming up takes about as long."""
LAST_RETRY = 300.0
CHECK_INTERVAL = 60.0
"""Seconds between two looks at whether anybody is left in the table."""


class Joiner(Protocol):
    """What joining needs of its node."""

    async def run(self, start: Callable[[DhtCore, float], Op], enough: Callable[[Event], bool] = ...) -> Op:
        """Run an operation to its end."""

    def knows_nodes(self) -> bool:
        """Whether the routing tables hold a good node."""


class Joining:
    """Joins through all bootstrap nodes and the saved ones at once; names are resolved beside, not before.

    `ready()` waits for the first address to ask, `join()` until the table is filled or nobody answered.
    """

    def __init__(
        self, node: Joiner, bootstrap: Sequence[BootstrapNode], has_saved: bool, logger: logging.Logger
    ) -> None:
        self._node = node
        self._bootstrap = dict.fromkeys(bootstrap, "not asked yet")
        self._has_saved = has_saved
        self._logger = logger
        self._somebody_to_ask = asyncio.Event()
        self._joined = asyncio.Event()
        self._wanted = asyncio.Event()
        self._knows_addresses = has_saved
        self.silent: dict[Address, BootstrapNode] = {}
        """Addresses that were asked and have sent nothing yet."""

    async def run(self) -> None:
        """Join, and again whenever nobody is left; never ends by itself."""
        retry = FIRST_RETRY
        warned = ""
        while True:
            await self._join_once(tuple(self._bootstrap))
            if self._node.knows_nodes() or not self._bootstrap:
                if warned:
                    self._logger.warning("the DHT answers now")
                retry, warned = FIRST_RETRY, ""
                while self._node.knows_nodes() or not self._bootstrap:
                    await self._pause(CHECK_INTERVAL)
            else:
                # What a person has read already is no warning again: without a network this comes every few seconds.
                level = logging.INFO if (report := self.report()) == warned else logging.WARNING
                self._logger.log(level, "no DHT node answered; %s; trying again in %.0f s", report, retry)
                warned = report
                await self._pause(retry)
                retry = min(2 * retry, LAST_RETRY)

    async def _pause(self, seconds: float) -> None:
        self._wanted.clear()
        try:
            async with asyncio.timeout(seconds):
                await self._wanted.wait()
        except TimeoutError:
            pass

    async def _join_once(self, nodes: Iterable[BootstrapNode]) -> None:
        literal = [node for node in nodes if node.address is not None]
        named = [node for node in nodes if node.address is None]
        async with asyncio.TaskGroup() as group:
            if literal or self._has_saved or not named:
                group.create_task(self._through(literal, [node.address for node in literal if node.address]))
            for node in named:
                group.create_task(self._through_name(node))
        self._somebody_to_ask.set()
        self._joined.set()

    async def _through_name(self, node: BootstrapNode) -> None:
        self._bootstrap[node] = "name not resolved yet"
        try:
            addresses = await resolve(node)
        except TimeoutError:
            self._bootstrap[node] = "the name server did not answer"
            return
        except OSError as exc:
            self._bootstrap[node] = f"name not found: {exc.strerror or exc}"
            return
        await self._through([node], addresses)

    async def _through(self, nodes: Sequence[BootstrapNode], addresses: Sequence[Address]) -> None:
        for node in nodes:
            self._bootstrap[node] = "asked"
        for address in addresses:
            self.silent[address] = next((node for node in nodes if node.address == address), nodes[0])
        self._knows_addresses = self._knows_addresses or bool(addresses)
        self._somebody_to_ask.set()
        try:
            await self._node.run(lambda core, now: core.bootstrap(addresses, now))
        except DhtClosedError:
            return
        for node in nodes:
            if self._bootstrap[node] == "asked":
                self._bootstrap[node] = "no answer"
        if self._node.knows_nodes():
            self._joined.set()

    def heard(self, address: Address) -> None:
        """A datagram came from an address in `silent`."""
        self._bootstrap[self.silent.pop(address)] = "answered"

    async def through_peers(self, addresses: Sequence[Address]) -> None:
        """Join through nodes that we are connected to, if we know nobody else."""
        if self._node.knows_nodes() or not addresses:
            return
        try:
            await self._node.run(lambda core, now: core.bootstrap((), now, through=addresses))
        except DhtClosedError:
            return
        if self._node.knows_nodes():
            self._knows_addresses = True
            self._somebody_to_ask.set()
            self._joined.set()
            self._wanted.set()

    def close(self) -> None:
        """Wake everyone who waits; the node has closed."""
        self._somebody_to_ask.set()
        self._joined.set()

    async def ready(self) -> None:
        """Wait until there is an address to ask, or it is clear that there is none."""
        if self._bootstrap and not self._node.knows_nodes() and self._joined.is_set():
            if not self._knows_addresses:
                self._joined.clear()
                self._somebody_to_ask.clear()
            self._wanted.set()
        await self._somebody_to_ask.wait()

    async def join(self, more: Sequence[BootstrapNode]) -> None:
        """Wait until the table is filled or nobody answered; `more` nodes are joined through as well."""
        fresh = [node for node in more if node not in self._bootstrap]
        for node in fresh:
            self._bootstrap[node] = "not asked yet"
        if fresh:
            await self._join_once(fresh)
        await self._joined.wait()

    def outcomes(self) -> dict[str, str]:
        """Each bootstrap node with what became of it."""
        return {str(node): outcome for node, outcome in self._bootstrap.items()}

    def report(self) -> str:
        """The same in one line, for error messages: nodes with one outcome together."""
        if not self._bootstrap:
            return "no bootstrap node was given (set bootstrap to HOST:PORT of a DHT node)"
        alike: dict[str, list[str]] = {}
        for node, outcome in self.outcomes().items():
            alike.setdefault(outcome, []).append(node)
        return "bootstrap: " + ", ".join(f"{', '.join(nodes)} ({outcome})" for outcome, nodes in alike.items())
