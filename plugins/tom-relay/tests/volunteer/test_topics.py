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


@pytest.mark.parametrize("count", [10, 60, 200, 1000, 5000])
def test_volunteers_spread_over_topics(count: int) -> None:
    """However many there are, after some rounds no topic of theirs is crowded, and who knows nothing finds many of them
    within one search."""
    rng = random.Random(count)
    positions = [random_position(rng) for _ in range(count)]
    placements = [Placement(rng) for _ in range(count)]
    inside: dict[bytes, set[int]] = {}
    for _round in range(12):
        for number in rng.sample(range(count), count):
            for members in inside.values():
                members.discard(number)
            level = 0
            while not placements[number].takes(level, len(inside.get(topic(1, level, positions[number]), ()))):
                level += 1
            placements[number].settled = level
            inside.setdefault(topic(1, level, positions[number]), set()).add(number)
    sizes = [len(members) for members in inside.values() if members]
    assert max(sizes) <= CROWDED + ROOM // 2
    levels = Counter(placement.settled for placement in placements)
    assert count > ROOM or set(levels) == {0}
    asked = []
    for _seeker in range(200):
        walk, total = TopicWalk(rng, DAY * 1.5, 0), 0
        while (where := walk.next()) is not None:
            total += len(inside.get(where, ()))
            walk.found(len(inside.get(where, ())))
        asked.append(total)
    assert min(asked) >= min(count, ROOM // 2)


def test_a_walk_ends_and_never_asks_twice() -> None:
    """Whatever is found, few topics are looked at, none twice; with nothing found the days around are tried."""
    for seed in range(200):
        rng = random.Random(seed)
        walk, seen = TopicWalk(rng, rng.uniform(2 * DAY, 1e9), rng.randrange(-1, 20)), []
        while (where := walk.next()) is not None:
            seen.append(where)
            walk.found(rng.choice([0, 0, 3, 20, 70, 500]))
        assert 1 <= len(seen) <= MAX_TOPICS and len(set(seen)) == len(seen)
    walk, seen = TopicWalk(random.Random(1), 5.5 * DAY, 0), []
    while (where := walk.next()) is not None:
        seen.append(where)
        walk.found(0)
    assert seen == [topic(day, 0, 0) for day in (5, 4, 6)]


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
