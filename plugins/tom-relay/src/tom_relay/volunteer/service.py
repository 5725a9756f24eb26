"""A node that is a relay for others: serves them over QUIC, and says so where nodes without a relay look."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Final

from tom_connect.abc import Discovery, FoundAddr, PluginContext, PluginObject, Reachability, TopicDirectory
from tom_connect.addr import NodeAddr, RelayUrl, SocketAddr
from tom_connect.exceptions import NetworkError, TomError
from tom_connect.keys import NodeId
from tom_relay.server.hub import RelayClient, RelayHub
from tom_relay.server.quic import QuicSessions
from tom_relay.volunteer.budget import DailyBudget
from tom_relay.volunteer.config import RelayForOthersConfig
from tom_relay.volunteer.topics import (
    MAX_LEVEL,
    Crowd,
    Placement,
    days_to_announce,
    network_of,
    random_position,
    topic,
)
from tom_relay.wire.quic import ALPN, CloseCode

TICK: Final = 0.5
"""Seconds between looks at who is silent, and at what was passed on."""
SAVE_EVERY: Final = 60.0
ANNOUNCE_SHARE: Final = 0.4
"""Part of an announcement's lifetime after which it is made again, up to a fifth earlier: one may fail in between."""
FIRST_RETRY: Final = 1.0
RETRY: Final = 60.0
"""Seconds before an announcement is tried again that failed; doubled each time from the first to the last."""
SAY_AFTER: Final = 8.0
"""Such a wait after which it is said that nobody takes announcements."""
DRAIN: Final = 0.4
"""Seconds that queues get to empty when we stop."""
FIND_TIMEOUT: Final = 20.0
MAX_COUNTED: Final = 512
"""Addresses of a topic that are counted."""


class Volunteer(PluginObject):
    """Serves a hub over QUIC while the endpoint runs, within its limits.

    `hub`: shared with another server, which then sets the limits and keeps it in order; None: one of its own.
    """

    name = "relay-for-others"

    def __init__(
        self,
        ctx: PluginContext,
        config: RelayForOthersConfig,
        *,
        hub: RelayHub | None = None,
        sessions: QuicSessions | None = None,
        rng: random.Random | None = None,
    ) -> None:
        self.why_not: str | None = "it has not begun yet"
        """Why nobody is told of us, None once it is known that we may be."""
        self.announced: dict[bytes, int] = {}
        """The topics of the last round, each with how many nodes took our announcement."""
        self._ctx = ctx
        self._config = config
        self._rng = rng or random.Random()
        self._ours = hub is None
        # Both are false when they are empty.
        self.hub = hub if hub is not None else RelayHub(config.hub_config(), self._queued, self._rng)
        self.sessions = (
            sessions
            if sessions is not None
            else QuicSessions(self.hub, max_clients=config.clients, clock=ctx.clock.monotonic)
        )
        self.budget = DailyBudget(config.daily, ctx.data_dir, ctx.clock.wall())
        self._tasks: list[asyncio.Task[None]] = []
        self._end: Callable[[], None] | None = None
        self._position = random_position(self._rng)
        self._placements: dict[int, Placement] = {}

    def _queued(self, client: RelayClient) -> None:
        self.sessions.queued(client)

    @property
    def url(self) -> RelayUrl | None:
        """Our URL as a relay, None as long as strangers don't reach us."""
        where = self._ctx.reachability.value if self._ctx.reachability is not None else Reachability()
        return RelayUrl.of_node(self._ctx.node_id, where.addrs[0]) if where.addrs else None

    @property
    def serving(self) -> bool:
        """Whether nodes may connect now."""
        return self._end is not None

    # Life

    async def start(self) -> None:
        """Serve, and begin to announce ourselves once strangers reach us."""
        if self._ctx.connections is None:
            self.why_not = "this endpoint lends no QUIC connections"
            return
        if not self._ctx.direct:
            self.why_not = "the endpoint takes no direct packets"
            self._ctx.logger.warning("no relay for others: %s", self.why_not)
            return
        self._serve()
        self._tasks.append(asyncio.create_task(self._keep_up(), name="relay for others: upkeep"))
        if self._config.announce:
            self._tasks.append(asyncio.create_task(self._announce(), name="relay for others: announcing"))

    async def aclose(self) -> None:
        """Tell clients that the relay goes, and end."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._stop_serving()
        with contextlib.suppress(OSError):
            self.budget.save()

    def _serve(self) -> None:
        assert self._ctx.connections is not None
        self._end = self._ctx.connections.serve(ALPN, self.sessions.serve)

    async def _stop_serving(self) -> None:
        if self._end is None:
            return
        end, self._end = self._end, None
        if self._ours:
            self.hub.announce_restart()
        await self.sessions.stop(DRAIN)
        end()

    async def _keep_up(self) -> None:
        clock, save_at = self._ctx.clock, 0.0
        while True:
            await asyncio.sleep(TICK)
            now = clock.monotonic()
            if self._ours:
                for client in self.hub.tick(now):
                    self.sessions.end(client, CloseCode.SILENT, "no answer")
            self.budget.count(self.hub.counters.relayed.bytes, clock.wall())
            if self.budget.spent and self.serving:
                self._ctx.logger.info("relay for others: %d bytes were passed on today, no more", self.budget.used)
                await self._stop_serving()
            elif not self.budget.spent and not self.serving:
                self._serve()
            if now >= save_at:
                save_at = now + SAVE_EVERY
                try:
                    self.budget.save()
                except OSError as exc:
                    self._ctx.logger.warning("what was passed on today is not saved: %s", exc)

    # Being found

    async def _announce(self) -> None:
        retry = FIRST_RETRY
        while True:
            reachable = await self._reachable()
            if self.budget.spent:
                await asyncio.sleep(RETRY)
                continue
            wait = 0.0
            for directory in self._ctx.directories():
                if await self._announce_at(directory, reachable.addrs):
                    wait = max(wait, directory.lifetime * ANNOUNCE_SHARE)
            if not wait:
                # The DHT has perhaps not been joined yet.
                wait, retry = retry, min(2 * retry, RETRY)
                if wait >= SAY_AFTER:
                    self._say("nobody takes announcements: is the DHT plugin in use, and joined?")
            else:
                self.why_not, retry = None, FIRST_RETRY
            await asyncio.sleep(wait * self._rng.uniform(0.8, 1.0))

    async def _reachable(self) -> Reachability:
        watch = self._ctx.reachability
        if watch is None:
            self._say("the endpoint does not find out whether strangers reach it")
            await asyncio.Event().wait()
            raise AssertionError("unreachable")
        async for value in watch:
            if value.addrs:
                return value
            self._say(value.why_not or "strangers don't reach us")
        raise asyncio.CancelledError  # the endpoint is closed

    def _say(self, why_not: str) -> None:
        if why_not != self.why_not:
            self.why_not = why_not
            self._ctx.logger.warning("as a relay for others we are not announced: %s", why_not)

    async def _announce_at(self, directory: TopicDirectory, addrs: Sequence[SocketAddr]) -> bool:
        """Announce ourselves under the topics that are ours now; whether any announcement was taken."""
        days = days_to_announce(self._ctx.clock.wall())
        self._placements = {day: self._placements.get(day, Placement(self._rng)) for day in days}
        announced: dict[bytes, int] = {}
        port = next((addr.port for addr in addrs if addr.ip.version == 4), addrs[0].port)
        networks = {network_of(addr) for addr in addrs}
        for day, placement in self._placements.items():
            try:
                await self._place(directory, day, placement, networks, port, announced)
            except TomError as exc:
                self._ctx.logger.info("as a relay for others we are not announced now: %s", exc)
        self.announced = announced
        return any(announced.values())

    async def _place(
        self,
        directory: TopicDirectory,
        day: int,
        placement: Placement,
        ours: set[str],
        port: int,
        announced: dict[bytes, int],
    ) -> None:
        """Announce ourselves at the first level of a day that has room and takes us, and at the next one."""
        level = 0
        while not placement.takes(level, await self._others(directory, topic(day, level, self._position), ours)):
            level += 1
        for tried in range(level, MAX_LEVEL + 1):
            where = topic(day, tried, self._position)
            try:
                announced[where] = await directory.announce(where, port)
            except NetworkError:
                if tried == MAX_LEVEL:
                    raise
                continue  # whoever is near it may have no room, or want none of us
            if tried > level:
                break
        placement.settled = level

    async def _others(self, directory: TopicDirectory, where: bytes, ours: set[str]) -> Crowd:
        """How many others are announced under a topic."""
        networks: set[str] = set()
        addresses = 0
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(FIND_TIMEOUT), contextlib.aclosing(directory.find(where)) as found:  # type: ignore[type-var]
                async for addr in found:
                    networks.add(network_of(addr))
                    addresses += 1
                    if addresses >= MAX_COUNTED:
                        break
        return Crowd(len(networks - ours), addresses)


class ClientsDiscovery(Discovery):
    """Knows where a volunteer's own clients are: they are connected to it from the socket that they are dialed at."""

    name = "relay-clients"
    serverless = True

    def __init__(self, volunteer: Volunteer) -> None:
        self._volunteer = volunteer

    async def resolve(self, node_id: NodeId) -> AsyncIterator[FoundAddr]:
        """Where a client's connection comes from, if it is connected."""
        addr = self._volunteer.sessions.address_of(node_id)
        if addr is not None:
            yield FoundAddr(NodeAddr(node_id, (), (addr,)), self.name)
