"""Under which topics volunteers are, and where they are looked for."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tom_connect.addr import SocketAddr
from tom_relay.client.volunteers.candidates import PER_HOST, PER_NETWORK, Candidates
from tom_relay.client.volunteers.topicwalk import MAX_TOPICS, TopicWalk
from tom_relay.volunteer.topics import (
    CROWDED,
    DAY,
    MAX_LEVEL,
    ROOM,
    Crowd,
    Placement,
    days_to_announce,
    network_of,
    random_position,
    topic,
)


def test_vectors() -> None:
    """Topics are what the reference says, and differ by day, level and shard."""
    assert topic(20000, 0, 0xABCD).hex() == "fd1a034a0235968e6c145b323d3051b861100619"
    assert topic(20000, 3, 0xABCD).hex() == "66c89e390dc8196aa5fa0db683c6807d2289846a"
    assert topic(20000, 3, 0xA000) == topic(20000, 3, 0xBFFF) != topic(20000, 3, 0xC000)
    assert len({topic(day, level, 0) for day in (1, 2) for level in range(MAX_LEVEL + 1)}) == 2 * (MAX_LEVEL + 1)
    with pytest.raises(ValueError, match="no level"):
        topic(1, MAX_LEVEL + 1, 0)


@pytest.mark.parametrize(("hours", "days"), [(0.5, [9, 10]), (1.5, [10]), (12, [10]), (22.5, [10]), (23.5, [10, 11])])
def test_clocks_may_be_wrong_by_an_hour(hours: float, days: list[int]) -> None:
    """Around midnight a volunteer is under both days."""
    assert days_to_announce(10 * DAY + hours * 3600) == days


class World:
    """Volunteers that announce themselves in rounds, and what is announced; `flooded`: topics that take nobody."""

    def __init__(self, count: int, flooded: frozenset[bytes] = frozenset()) -> None:
        self.rng = random.Random(count)
        self.positions = [random_position(self.rng) for _ in range(count)]
        self.placements = [Placement(self.rng) for _ in range(count)]
        self.inside: dict[bytes, set[int]] = {}
        self.flooded = flooded

    def crowd(self, where: bytes) -> Crowd:
        members = self.inside.get(where, ())
        return Crowd(len(members) + 1, 500) if where in self.flooded else Crowd(len(members), len(members))

    def round(self) -> None:
        for number in self.rng.sample(range(len(self.positions)), len(self.positions)):
            for members in self.inside.values():
                members.discard(number)
            level = 0
            while not self.placements[number].takes(level, self.crowd(topic(1, level, self.positions[number]))):
                level += 1
            self.placements[number].settled = level
            for each in range(level, min(level + 2, MAX_LEVEL + 1)):
                self.inside.setdefault(topic(1, each, self.positions[number]), set()).add(number)

    def search(self, level: int = 0) -> tuple[set[int], int]:
        """Whom a seeker finds in one search, and how many topics it looks at."""
        walk, found, looked = TopicWalk(self.rng, DAY * 1.5, level), set[int](), 0
        while (where := walk.next()) is not None:
            looked += 1
            found |= self.inside.get(where, set()) if where not in self.flooded else set()
            walk.found(self.crowd(where))
        return found, looked


@pytest.mark.parametrize("count", [10, 60, 200, 1000, 5000])
def test_volunteers_spread_over_topics(count: int) -> None:
    """However many there are, after some rounds no topic of theirs is crowded, and who knows nothing finds many of them
    within one search."""
    world = World(count)
    for _round in range(12):
        world.round()
    assert max(map(len, world.inside.values())) <= CROWDED
    levels = Counter(placement.settled for placement in world.placements)
    assert count > ROOM or set(levels) == {0}
    for level, least in ((0, ROOM // 2), (1, ROOM // 4), (MAX_LEVEL, 10)):
        assert min(len(world.search(level)[0]) for _ in range(200)) >= min(count, least)


@pytest.mark.parametrize("levels", [1, 2, 4])
def test_who_floods_topics_moves_volunteers_and_seekers_alike(levels: int) -> None:
    """Topics filled from one address, so that they take nobody any more, are left for the next level by both."""
    flooded = frozenset(topic(1, level, position << 8) for level in range(levels) for position in range(256))
    world = World(40, flooded)
    world.round()
    assert {placement.settled for placement in world.placements} == {levels}
    found = [len(world.search()[0]) for _ in range(100)]
    assert sum(one > 0 for one in found) >= 90


def test_who_holds_one_topic_does_not_hold_all() -> None:
    """If the nodes next to the topic of level 0 hide everybody, a seeker finds volunteers one level deeper."""
    world = World(30)
    world.round()
    del world.inside[topic(1, 0, 0)]
    assert min(len(world.search()[0]) for _ in range(100)) >= 5


def test_a_walk_ends_and_never_asks_twice() -> None:
    """Whatever is found, few topics are looked at, none twice; with nothing found the days around are tried."""
    for seed in range(200):
        rng = random.Random(seed)
        walk, seen = TopicWalk(rng, rng.uniform(2 * DAY, 1e9), rng.randrange(-1, 20)), []
        while (where := walk.next()) is not None:
            seen.append(where)
            walk.found(Crowd(rng.choice([0, 0, 3, 20, 70, 500]), rng.choice([0, 50, 400])))
        assert 1 <= len(seen) <= MAX_TOPICS and len(set(seen)) == len(seen)
    walk, seen = TopicWalk(random.Random(1), 5.5 * DAY, 0), []
    while (where := walk.next()) is not None:
        seen.append(where)
        walk.found(Crowd())
    assert seen[0] == topic(5, 0, 0) and seen[-2:] == [topic(day, 0, 0) for day in (4, 6)]


@given(st.lists(st.tuples(st.ip_addresses(), st.integers(1, 65535)), max_size=60), st.integers())
def test_hosts_and_networks_get_few_places(peers: list[tuple[object, int]], seed: int) -> None:
    """Who has one host or network gets a few places, whatever he announces; all that are taken are given once."""
    candidates = Candidates(random.Random(seed))
    for host, port in peers:
        candidates.offer(SocketAddr(str(host), port), 0.0)
    taken = []
    while (addr := candidates.take()) is not None:
        taken.append(addr)
    assert len(set(taken)) == len(taken)
    assert max(Counter(addr.host for addr in taken).values(), default=0) <= PER_HOST
    assert max(Counter(map(network_of, taken)).values(), default=0) <= PER_NETWORK
    assert not any(candidates.offer(addr, 1.0) for addr in taken)


def test_what_failed_is_left_alone_for_a_while() -> None:
    """An address that failed is not taken again in ten minutes, by a new search either; then it is."""
    candidates, addr = Candidates(random.Random(1)), SocketAddr("192.0.2.1", 5)
    assert candidates.offer(addr, 0.0) and candidates.take() == addr
    candidates.failed(addr, 0.0)
    candidates.begin()
    assert not candidates.offer(addr, 599.0) and candidates.has_failed(addr, 599.0)
    assert candidates.offer(addr, 601.0)
