"""Which relay becomes the home relay, and how long until the next attempt."""

from __future__ import annotations

import random

import attrs

from tom_connect import RelayUrl
from tom_relay.client.backoff import LAST, LAST_WANTED, Backoff
from tom_relay.client.choice import PATIENCE, Candidate, choose_home
from tom_relay.client.standing import Standing

A, B, C = (RelayUrl.parse(f"https://{name}.example/") for name in "abc")


def at(url: RelayUrl, rtt: float | None, **fields: object) -> Candidate:
    """A connected relay."""
    return Candidate(url, connected=0.0, rtt=rtt, **fields)  # type: ignore[arg-type]


def test_the_nearest_is_chosen() -> None:
    """Of those that are connected, by latency; of none, nothing."""
    assert choose_home(None, [at(A, 0.2), at(B, 0.03), Candidate(C, rtt=0.001)], 0) == B
    assert choose_home(None, [Candidate(A)], 0) is None
    assert choose_home(None, [at(A, None)], 0) == A


def test_a_little_nearer_is_not_enough_to_move() -> None:
    """A home relay stays until another is half as far again nearer."""
    assert choose_home(A, [at(A, 0.050), at(B, 0.040)], 0) == A
    assert choose_home(A, [at(A, 0.050), at(B, 0.020)], 0) == B
    assert choose_home(A, [at(A, 0.005), at(B, 0.001)], 0) == A


def test_a_lost_home_relay_has_a_second_to_come_back() -> None:
    """Then another takes its place; with no other there is none."""
    gone = Candidate(A, lost_at=10.0, rtt=0.01)
    assert choose_home(A, [gone, at(B, 0.1)], 10.0 + PATIENCE / 2) == A
    assert choose_home(A, [gone, at(B, 0.1)], 10.0 + PATIENCE) == B
    assert choose_home(A, [gone], 10.0 + PATIENCE) is None


def test_public_relays_come_last() -> None:
    """One that is connected is the home only while no relay of our own is, however near it is."""
    public = at(B, 0.001, kind="public")
    assert choose_home(None, [public, at(A, 0.3)], 0) == A
    assert choose_home(B, [public, at(A, 0.3)], 0) == A
    assert choose_home(A, [public, Candidate(A, lost_at=0.0)], 5) == B


def test_score_and_role_decide_among_near_ones() -> None:
    """Of relays that are equally near the one with the higher score is chosen; a proven relay goes before a peer."""
    low, high = at(A, 0.020, standing=Standing(1.0)), at(B, 0.025, standing=Standing(9.0))
    assert choose_home(None, [low, high], 0) == B
    assert choose_home(None, [attrs.evolve(low, standing=Standing(20.0)), high], 0) == A
    assert choose_home(A, [low, high], 0) == B
    proven = at(B, 0.060, standing=Standing(0.0, "relay"))
    assert choose_home(None, [at(A, 0.020, standing=Standing(50.0, "peer")), proven], 0) == B
    far = at(C, 0.2, standing=Standing(99.0))
    assert choose_home(None, [low, far], 0) == A


def test_a_peer_is_preferred_to_a_relay_far_away() -> None:
    """To have proven itself is worth a detour and no more: a home that starts anew is not left for one far away."""
    peer, relay = at(A, 0.020, standing=Standing(0.0, "peer")), at(B, 0.060, standing=Standing(0.0, "relay"))
    assert choose_home(None, [peer, relay], 0) == B
    assert choose_home(None, [peer, attrs.evolve(relay, rtt=0.200)], 0) == A
    assert choose_home(A, [peer, relay], 0) == A
    assert choose_home(A, [peer, attrs.evolve(relay, rtt=0.030)], 0) == B


def test_who_does_not_say_how_it_stands_has_proven_nothing() -> None:
    """A relay whose standing is not known yet, or never will be, displaces none that says that it is a peer."""
    assert choose_home(A, [at(A, 0.020, standing=Standing(0.2, "peer")), at(B, 0.020)], 0) == A
    assert choose_home(A, [at(A, 0.020), at(B, 0.020, standing=Standing(0.2, "peer"))], 0) == A


def test_relays_that_have_just_begun_are_equal() -> None:
    """A little score moves no home relay, however many times that of the other it is."""
    new, newer = at(A, 0.020, standing=Standing(0.001, "peer")), at(B, 0.020, standing=Standing(0.9, "peer"))
    assert choose_home(A, [new, newer], 0) == A
    assert choose_home(A, [new, attrs.evolve(newer, standing=Standing(1.1, "peer"))], 0) == B


def test_waits_double_with_jitter_up_to_a_limit() -> None:
    """The first are short, a relay that somebody waits for is tried every 2 s at least, a success begins anew."""
    backoff = Backoff(random.Random(1))
    waits = [backoff.next(wanted=False) for _ in range(20)]
    assert waits[0] <= 0.1 and LAST / 2 <= waits[-1] <= LAST
    assert all(backoff.next(wanted=True) <= LAST_WANTED for _ in range(9))
    backoff.reset()
    assert backoff.next(wanted=False) <= 0.1
    assert len({Backoff(random.Random(seed)).next(wanted=False) for seed in range(9)}) == 9
