"""A node that is a relay for others, on virtual time: when it is announced, and what its day's bytes are."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator
from pathlib import Path
from unittest import mock

import attrs

from benchmarks.volunteers.simulated import Clock, run_virtually
from tom_connect.abc import Reachability, TopicDirectory
from tom_connect.addr import SocketAddr
from tom_connect.testing.plugincontext import plugin_context
from tom_connect.watch import Watch
from tom_relay.volunteer.config import RelayForOthersConfig
from tom_relay.volunteer.service import SAVE_EVERY, Volunteer
from tom_relay.volunteer.topics import DAY

REACHED = Reachability(addrs=(SocketAddr("198.51.100.1", 4433),))
DAILY = 1 << 20


class Directory(TopicDirectory):
    """Takes every announcement, and remembers when; nobody else is in it."""

    def __init__(self) -> None:
        self.announced: list[tuple[float, bytes]] = []

    async def announce(self, topic: bytes, port: int | None = None) -> int:
        self.announced.append((asyncio.get_running_loop().time(), topic))
        return 8

    async def find(self, topic: bytes) -> AsyncIterator[SocketAddr]:
        return
        yield


@attrs.define
class World:
    """One volunteer. `reachability`: what it is told of strangers; `data_dir`: where it keeps its count."""

    data_dir: Path | None = None
    reachability: Watch[Reachability] = attrs.field(factory=lambda: Watch(REACHED))
    directory: Directory = attrs.field(factory=Directory)

    @contextlib.asynccontextmanager
    async def volunteer(self) -> AsyncIterator[Volunteer]:
        """Run it."""
        ctx = attrs.evolve(
            plugin_context(clock=Clock(), data_dir=self.data_dir),
            connections=mock.Mock(),
            reachability=self.reachability,
            directories=lambda: [self.directory],
        )
        made = Volunteer(ctx, RelayForOthersConfig(enabled=True, daily=DAILY))
        await made.start()
        try:
            yield made
        finally:
            await made.aclose()


def until_midnight() -> float:
    """Seconds until the next day of the world's clock."""
    return DAY - Clock().wall() % DAY


def test_nobody_is_told_before_strangers_reach_it() -> None:
    """Who is behind a NAT announces nothing and says why; once it is reached it does, at two levels."""

    async def main() -> None:
        world = World(reachability=Watch(Reachability(why_not="a NAT")))
        async with world.volunteer() as volunteer:
            await asyncio.sleep(600.0)
            assert not world.directory.announced and volunteer.why_not == "a NAT" and volunteer.url is None
            world.reachability.set(REACHED)
            await asyncio.sleep(60.0)
            assert len({topic for _, topic in world.directory.announced}) == 2 and volunteer.why_not is None

    run_virtually(main())


def test_it_is_announced_again_in_time() -> None:
    """Every topic stands there all the time: no pause is as long as half of what nodes keep an announcement for."""

    async def main() -> None:
        world = World()
        async with world.volunteer():
            await asyncio.sleep(3600.0)
            ended = asyncio.get_running_loop().time()
        for topic in {topic for _, topic in world.directory.announced}:
            times = [at for at, other in world.directory.announced if other == topic]
            pauses = [after - before for before, after in itertools.pairwise([*times, ended])]
            assert max(pauses) < Directory.lifetime / 2

    run_virtually(main())


def test_when_the_days_bytes_are_used_up_it_rests_until_midnight() -> None:
    """It serves nobody and is announced no more, until the next day (UTC), from which on it is and does."""

    async def main() -> None:
        world = World()
        async with world.volunteer() as volunteer:
            await asyncio.sleep(10.0)
            assert volunteer.serving
            volunteer.hub.counters.relayed.bytes += DAILY
            await asyncio.sleep(10.0)
            assert not volunteer.serving
            # What was under way when it stopped may have been said.
            await asyncio.sleep(1500.0)
            world.directory.announced.clear()
            await asyncio.sleep(until_midnight() - 60.0)
            assert not volunteer.serving and not world.directory.announced
            await asyncio.sleep(900.0)
            assert volunteer.serving and world.directory.announced

    run_virtually(main())


def test_a_restart_gives_no_further_bytes(tmp_path: Path) -> None:
    """What was passed on counts after a crash but for the last minute, and after an end in good order all of it."""

    async def main() -> None:
        world = World(tmp_path)
        async with world.volunteer() as volunteer:
            volunteer.hub.counters.relayed.bytes += DAILY // 2
            await asyncio.sleep(SAVE_EVERY + 2.0)
            async with world.volunteer() as after_a_crash:
                assert after_a_crash.budget.used == DAILY // 2
            volunteer.hub.counters.relayed.bytes += DAILY // 4
            await asyncio.sleep(2.0)
        async with world.volunteer() as again:
            assert again.budget.used == DAILY // 2 + DAILY // 4

    run_virtually(main())


def test_each_limit_is_the_hubs() -> None:
    """What the options say of clients and rates is what the relay's core is given."""
    options = RelayForOthersConfig(clients=3, client_rate=1 << 21, rate=1 << 22)
    hub = options.hub_config()
    assert (hub.max_clients, hub.client_rate, hub.total_rate) == (3, 1 << 21, 1 << 22)
    assert (hub.client_burst, hub.total_burst) == (1 << 21, 1 << 22)
