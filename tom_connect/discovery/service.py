"""Discovery for a whole endpoint: look-ups that are shared, what is known to be nowhere, and which sources work."""

from __future__ import annotations

import contextlib
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Final

from tom_connect.abc import Discovery
from tom_connect.discovery.health import SourceCounts, SourceHealth
from tom_connect.discovery.known import KnownRecords
from tom_connect.discovery.lookup import Lookup
from tom_connect.keys import NodeId

NOTHING_FOR: Final = 2.0
"""Seconds for which a source that knew nothing of a node is not asked for it again: a program that dials in a loop does
not flood it, and a node that has just come is missed no longer than that."""
MAX_NOTHING: Final = 1024
"""Pairs of source and node of which that is remembered."""


class DiscoveryService:
    """The discovery sources of an endpoint. `known`: what earlier dials have shown; `clock`: seconds that only grow."""

    def __init__(
        self,
        sources: Sequence[tuple[str, Discovery]],
        *,
        report: Callable[[str, BaseException], None],
        known: KnownRecords | None = None,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        if known is not None:
            sources = [("tom-connect", known), *sources]
        self.sources = tuple(sources)
        """Name of the plugin, and source; what is known already comes first."""
        self.known = known
        self._report = report
        self._clock = clock
        self._wall = wall
        self._health: dict[str, SourceHealth] = {d.name or name: SourceHealth() for name, d in sources}
        self._running: dict[NodeId, Lookup] = {}
        self._nothing: OrderedDict[tuple[str, NodeId], float] = OrderedDict()

    def __bool__(self) -> bool:
        """Whether there is anybody to ask."""
        return any(len(source) if isinstance(source, KnownRecords) else True for _name, source in self.sources)

    @contextlib.asynccontextmanager
    async def look_up(self, node_id: NodeId) -> AsyncIterator[Lookup]:
        """A look-up of a node, the one that is under way if there is one; the last to leave cancels it."""
        lookup = self._running.get(node_id)
        if lookup is None or lookup.ended:
            # Whoever was never met is not looked for there: that would be said in every report on a look-up.
            known = self.known is None or node_id in self.known
            lookup = Lookup(
                node_id,
                self.sources if known else self.sources[1:],
                report=self._report,
                health=self._health,
                skip=self._not_asked(node_id),
                wall=self._wall,
            )
            self._running[node_id] = lookup
        try:
            async with lookup:
                yield lookup
        finally:
            if not lookup.users:
                self._remember(lookup)
                if self._running.get(node_id) is lookup:
                    del self._running[node_id]

    def network_changed(self) -> None:
        """The network is another one: nothing is known of who knows what, or of what works."""
        self._nothing.clear()
        for health in self._health.values():
            health.forgive()

    @property
    def counts(self) -> Mapping[str, SourceCounts]:
        """Look-ups of each source since the start, by what came of them."""
        return {name: health.counts for name, health in self._health.items()}

    def _not_asked(self, node_id: NodeId) -> dict[str, str]:
        now = self._clock()
        skip = {}
        broken = {}
        for name, health in self._health.items():
            if (seconds := health.left_out_for(now)) > 0:
                broken[name] = f"failed {health.failures} times, tried again in {seconds:.0f} s"
            elif now - self._nothing.get((name, node_id), -NOTHING_FOR) < NOTHING_FOR:
                skip[name] = "it knew nothing a moment ago"
        # With everything broken, all are asked: nobody else can help.
        others = sum(not source.asks_nobody for _name, source in self.sources)
        return skip if len(broken) == others else skip | broken

    def _remember(self, lookup: Lookup) -> None:
        now = self._clock()
        for outcome in lookup.outcomes:
            key = (outcome.source, lookup.node_id)
            if outcome.found:
                self._nothing.pop(key, None)
            elif outcome.empty:
                self._nothing[key] = now
                self._nothing.move_to_end(key)
        while len(self._nothing) > MAX_NOTHING:
            self._nothing.popitem(last=False)
