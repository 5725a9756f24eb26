"""The search for volunteers on virtual time: those that lie once they are trusted, and calls that show it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from benchmarks.volunteers.simulated import Volunteer, World, run_virtually
from tom_connect.addr import RelayUrl, SocketAddr
from tom_relay.client.volunteers.book import VolunteerBook
from tom_relay.client.volunteers.seeker import (
    CHECKS,
    DISTRUST,
    DOUBT_AGAIN,
    FILE,
    KNOWN_AFTER,
    SAVE_EVERY,
    SUSPECT_AGAIN,
    WANTED,
    WITNESSES,
    VolunteerSeeker,
)

#: Seconds after which the pauses between tests have become as long as they get.
LONG = 900.0


def volunteers(count: int) -> list[Volunteer]:
    """Honest ones, each in a network of its own."""
    return [Volunteer(SocketAddr(f"198.51.{number}.1", 4433)) for number in range(count)]


async def silenced(world: World, seconds: float) -> float:
    """Have those that are in use pass nothing on after so many seconds; the loop's time then."""
    await world.until(WANTED)
    await asyncio.sleep(seconds)
    for url in world.user.in_use:
        world.at(url).passes = False
    return asyncio.get_running_loop().time()


@pytest.mark.parametrize("served", [0.5, 3.0, 10.0, 60.0, LONG])
def test_liars_are_found_out_though_nobody_calls(served: float) -> None:
    """It takes about as long as they have served, and no longer than the longest pause between two tests."""

    async def main() -> float:
        world = World(volunteers(5))
        async with world.seeking():
            began = await silenced(world, served)
            return await world.until(WANTED) - began

    took = run_virtually(main())
    assert took < min(2 * served, CHECKS[-1]) + 8.0


@pytest.mark.parametrize("served", [0.5, 3.0, 10.0, 60.0, LONG])
def test_a_call_shows_it_within_seconds(served: float) -> None:
    """However long they have served, both are replaced soon after somebody had to call by other means."""

    async def main() -> float:
        world = World(volunteers(5))
        async with world.seeking() as seeker:
            began = await silenced(world, served)
            seeker.suspect()
            return await world.until(WANTED) - began

    assert run_virtually(main()) < 7.0


def test_a_substitute_is_there_when_the_second_test_fails() -> None:
    """It is looked for while a volunteer that failed once is tested again, and taken before that one is left."""

    async def main() -> None:
        world = World(volunteers(3))
        async with world.seeking() as seeker:
            await world.until(WANTED)
            await asyncio.sleep(60.0)
            liar, *_ = world.user.in_use
            world.at(liar).passes = False
            seeker.suspect()
            async with asyncio.timeout(30.0):
                while liar in world.user.in_use:
                    before = len(world.user.in_use)
                    world.moved.clear()
                    await world.moved.wait()
            assert before == WANTED + 1
            # For a while more are used than are wanted.
            await asyncio.sleep(DISTRUST + 5.0)
            assert len(world.user.in_use) == WANTED and liar not in world.user.in_use

    run_virtually(main())


def test_one_bad_test_costs_no_volunteer() -> None:
    """Who fails a test and passes the next is kept, and who came for its place is left again."""

    async def main() -> None:
        world = World(volunteers(3))
        async with world.seeking() as seeker:
            await world.until(WANTED)
            await asyncio.sleep(60.0)
            both = set(world.user.in_use)
            for url in both:
                world.at(url).passes = False
            tests = len(world.tests)
            seeker.suspect()
            async with asyncio.timeout(30.0):
                while len(world.tests) < tests + WANTED:  # noqa: ASYNC110 - the time is virtual
                    await asyncio.sleep(0.1)
            await asyncio.sleep(1.9)
            for url in both:
                world.at(url).passes = True
            await asyncio.sleep(30.0)
            assert set(world.user.in_use) == both
            assert all(seeker.book.of(url).failures == 0 for url in both)

    run_virtually(main())


def test_false_alarms_cost_a_bounded_number_of_tests() -> None:
    """Who leaves calls all the time has each volunteer tested every 20 s, no more, and nobody is given up for it."""

    async def main() -> None:
        world = World(volunteers(4))
        async with world.seeking() as seeker:
            await world.until(WANTED)
            await asyncio.sleep(LONG)
            both, tests = set(world.user.in_use), len(world.tests)
            for _ in range(600):
                seeker.suspect()
                await asyncio.sleep(1.0)
            assert set(world.user.in_use) == both
            assert len(world.tests) - tests <= WANTED * (600 / SUSPECT_AGAIN + 600 / (0.7 * CHECKS[-1]) + 2)

    run_virtually(main())


def _missed(seeker: VolunteerSeeker, url: RelayUrl, *networks: int) -> None:
    """Callers of so many networks did not come through a volunteer."""
    for network in networks:
        seeker.missed(url, f"192.{network}.0.1")


def test_who_passes_on_our_tests_alone_is_left_when_three_callers_did_not_come() -> None:
    """A liar that passes whatever comes from our own address loses its place seconds after three networks called."""

    async def main() -> float:
        world = World(volunteers(6))
        async with world.seeking() as seeker:
            await world.until(WANTED)
            await asyncio.sleep(KNOWN_AFTER)
            liar, other = world.user.in_use
            _missed(seeker, liar, 1, 1, 2)
            await asyncio.sleep(30.0)
            assert set(world.user.in_use) == {liar, other}
            began = asyncio.get_running_loop().time()
            _missed(seeker, liar, 3)
            async with asyncio.timeout(60.0):
                while liar in world.user.in_use:
                    before = set(world.user.in_use)
                    world.moved.clear()
                    await world.moved.wait()
            left = asyncio.get_running_loop().time()
            assert len(before - {liar}) >= WANTED
            assert seeker.book.of(liar).failures == pytest.approx(1.0)
            await asyncio.sleep(DISTRUST + 400.0)
            assert other in world.user.in_use and liar not in world.user.in_use
            return left - began

    assert run_virtually(main()) < 5.0


def test_callers_that_lie_drive_a_node_from_one_volunteer_in_ten_minutes() -> None:
    """Whoever calls from many networks all the time costs a node one volunteer in ten minutes, and never its last."""

    async def main() -> tuple[int, float]:
        world = World(volunteers(40))
        fewest = WANTED
        async with world.seeking() as seeker:
            await world.until(WANTED)
            await asyncio.sleep(KNOWN_AFTER)
            for _ in range(3600):
                for url in world.user.in_use:
                    _missed(seeker, url, *range(WITNESSES))
                await asyncio.sleep(1.0)
                fewest = min(fewest, len(world.user.in_use))
            return fewest, sum(seeker.book.of(one.url).failures for one in world.volunteers)

    fewest, left = run_virtually(main())
    assert fewest == WANTED
    assert 3600 / DOUBT_AGAIN - 1 <= left <= 3600 / DOUBT_AGAIN + 1


def test_a_volunteer_whom_callers_can_not_know_yet_is_not_blamed() -> None:
    """Who calls may have read an older record: what did not come through a new volunteer counts for nothing."""

    async def main() -> None:
        world = World(volunteers(6))
        async with world.seeking() as seeker:
            await world.until(WANTED)
            both = set(world.user.in_use)
            for url in both:
                _missed(seeker, url, *range(WITNESSES))
            await asyncio.sleep(30.0)
            assert set(world.user.in_use) == both

    run_virtually(main())


def test_a_doubted_volunteer_stays_where_there_is_no_other() -> None:
    """False calls from three networks cost nobody the last volunteers that there are."""

    async def main() -> None:
        world = World(volunteers(WANTED))
        async with world.seeking() as seeker:
            await world.until(WANTED)
            await asyncio.sleep(KNOWN_AFTER)
            both = set(world.user.in_use)
            for url in both:
                _missed(seeker, url, *range(WITNESSES))
            await asyncio.sleep(2 * DOUBT_AGAIN)
            assert set(world.user.in_use) == both

    run_virtually(main())


def test_who_was_given_up_is_not_taken_again_by_the_search_that_tested_it() -> None:
    """A liar passes each trial, since it is not trusted yet there; that does not bring it back for ten minutes."""

    async def main() -> None:
        world = World(volunteers(2))
        async with world.seeking() as seeker:
            await silenced(world, 60.0)
            liars = set(world.user.in_use)
            seeker.suspect()
            async with asyncio.timeout(60.0):
                while world.user.in_use:
                    world.moved.clear()
                    await world.moved.wait()
            await asyncio.sleep(300.0)
            assert not liars.intersection(world.user.in_use)
            world.volunteers += volunteers(1)
            world.volunteers[-1].addr = SocketAddr("198.51.77.1", 4433)
            await world.until(1)

    run_virtually(main())


def test_liars_that_are_near_and_many_do_not_win_for_ever() -> None:
    """Where thirty that lie once they are used are nearer than all honest ones, two honest ones are had in a minute."""

    async def main() -> float:
        honest = volunteers(5)
        liars = [Volunteer(SocketAddr(f"203.{number}.1.1", 4433), passes=False, rtt=0.01) for number in range(30)]
        world = World([*honest, *liars])
        async with world.seeking():
            return await world.until(WANTED) - 1000.0

    assert run_virtually(main()) < 60.0


@pytest.mark.parametrize("seed", range(6))
def test_the_nearest_is_one_of_two(seed: int) -> None:
    """Whoever passes its trial first is used at once; beside it the nearest of the others, however they are tried."""

    async def main() -> None:
        made = volunteers(4)
        for number, one in enumerate(made):
            one.rtt = 0.050 + 0.005 * number
        world = World(made, seed=seed)
        async with world.seeking():
            await world.until(WANTED)
            await asyncio.sleep(5.0)
            assert made[0].url in world.user.in_use and len(world.user.in_use) == WANTED

    run_virtually(main())


@pytest.mark.parametrize("served", [True, False], ids=["served", "failed"])
def test_what_one_has_done_for_us_counts_beside_its_distance(served: bool) -> None:
    """One that served for days is taken before a nearer stranger; where it has failed since, the stranger is."""

    async def main() -> None:
        first, proven, stranger = made = volunteers(3)
        first.rtt, proven.rtt, stranger.rtt = 0.01, 0.10, 0.07
        world = World(made)
        async with world.seeking() as seeker:
            await asyncio.sleep(1.0)  # it has read what was kept, and not begun to search
            wall = 1_700_000_000.0 + asyncio.get_running_loop().time()
            seeker.book.served(first.url, 60.0, 0, first.rtt, wall)
            seeker.book.served(proven.url, 10 * 86_400.0, 1_000_000_000, proven.rtt, wall)
            if not served:
                seeker.book.of(proven.url).failures = 6.0
            await world.until(WANTED)
            await asyncio.sleep(5.0)
            assert set(world.user.in_use) == {first.url, (proven if served else stranger).url}

    run_virtually(main())


@pytest.mark.parametrize("served", [3.0, LONG])
def test_a_slow_one_costs_seconds(served: float) -> None:
    """A volunteer that passes on what it gets after three seconds is not taken, and is left where it has become so."""

    async def main() -> float:
        world = World(volunteers(6))
        world.volunteers[0].slow = 3.0
        async with world.seeking() as seeker:
            await world.until(WANTED)
            assert world.volunteers[0].url not in world.user.in_use
            await asyncio.sleep(served)
            slow = set(world.user.in_use)
            for url in slow:
                world.at(url).slow = 3.0
            seeker.suspect()
            began = asyncio.get_running_loop().time()
            async with asyncio.timeout(60.0):
                while len(world.user.in_use) < WANTED or slow.intersection(world.user.in_use):
                    world.moved.clear()
                    await world.moved.wait()
            return asyncio.get_running_loop().time() - began

    assert run_virtually(main()) < 8.0


def test_where_all_are_slow_more_patience_finds_one() -> None:
    """Perhaps our own machine is slow: after a search that finds nobody each has more time."""

    async def main() -> None:
        world = World(volunteers(3))
        for one in world.volunteers:
            one.slow = 3.0
        async with world.seeking():
            async with asyncio.timeout(30.0):
                await world.moved.wait()
            assert world.user.in_use

    run_virtually(main())


def test_our_own_outage_blames_nobody() -> None:
    """Where all are lost at once it is our own network: nobody's address is left alone, and they are had again soon."""

    async def main() -> None:
        world = World(volunteers(2))
        async with world.seeking() as seeker:
            await world.until(WANTED)
            await asyncio.sleep(5.0)
            before = set(world.user.in_use)
            for connection in world.user.in_use.values():
                connection.connected = False
            async with asyncio.timeout(10.0):
                while world.user.in_use:
                    world.moved.clear()
                    await world.moved.wait()
            await world.until(WANTED, within=60.0)
            assert set(world.user.in_use) == before
            assert all(seeker.book.of(url).failures == 0 for url in before)

    run_virtually(main())


def test_what_is_known_survives_a_crash(tmp_path: Path) -> None:
    """It is written while the node runs, not only when it is closed; the level of topics with it."""

    async def main() -> None:
        made = volunteers(90)
        for one in made:
            one.rtt = 0.3
        world = World(made)
        async with world.seeking(data_dir=tmp_path) as seeker:
            await world.until(WANTED)
            await asyncio.sleep(SAVE_EVERY + 5.0)
            kept = VolunteerBook.load((tmp_path / FILE).read_bytes())
            assert set(world.user.in_use) <= set(kept.best(1_700_000_000.0 + asyncio.get_running_loop().time()))
            # Their topics are full, so that those one level deeper and more were looked at.
            assert kept.level == seeker.book.level > 0

    run_virtually(main())


def test_nobody_is_its_own_relay() -> None:
    """A node that relays for others finds itself under the topics, and does not take itself."""

    async def main() -> None:
        world = World(volunteers(2))
        world.user.node_id = next(one.url.node_id for one in world.volunteers if one.url.node_id is not None)
        async with world.seeking():
            await world.until(1)
            await asyncio.sleep(30.0)
            assert list(world.user.in_use) == [world.volunteers[1].url]

    run_virtually(main())


def test_a_look_up_that_hangs_holds_nothing_up() -> None:
    """A directory that never ends is left after some seconds, and the search goes on, and is begun again."""

    class Hanging(World):
        async def find(self, topic: bytes) -> AsyncIterator[SocketAddr]:
            async for addr in super().find(topic):
                yield addr
            await asyncio.Event().wait()

    async def main() -> None:
        world = Hanging(volunteers(1))
        async with world.seeking():
            await world.until(1)
            world.volunteers += volunteers(2)[1:]
            await world.until(WANTED, within=400.0)

    run_virtually(main())


def test_a_host_with_many_ports_is_tried_at_two_of_them() -> None:
    """However often is searched: what failed keeps the places of its host for ten minutes."""

    async def main() -> int:
        dead = [SocketAddr("203.0.113.1", 1024 + port) for port in range(200)]
        world = World(volunteers(1), dead)
        async with world.seeking() as seeker:
            await asyncio.sleep(500.0)
            return seeker.tried

    # The honest one, of which two are wanted, is tried in each search; there is one in 30 s at last.
    assert 2 < run_virtually(main()) <= 2 + 30
