"""Rates by source."""

from __future__ import annotations

import ipaddress

from hypothesis import given
from hypothesis import strategies as st

from tom_pkarr.core.limits import RateLimit, client_host


def test_a_burst_then_the_rate() -> None:
    """As many as the burst pass at once, then one each time the rate allows; the wait is told."""
    limit = RateLimit(2.0, 3)
    assert [limit.take("a", 0.0) for _ in range(4)] == [0.0, 0.0, 0.0, 0.5]
    assert limit.take("a", 0.25) == 0.25
    assert limit.take("a", 0.5) == 0.0
    assert limit.take("b", 0.5) == 0.0
    assert limit.take("a", 1e6) == 0.0
    assert RateLimit(0.0, 1).take("a", 0.0) == 0.0


@given(st.lists(st.floats(0, 2), min_size=1, max_size=60))
def test_never_more_than_burst_and_rate(steps: list[float]) -> None:
    """However requests are spaced, no more pass than the burst and the rate over the time."""
    limit, now, passed = RateLimit(3.0, 5), 0.0, 0
    for step in steps:
        now += step
        passed += limit.take("a", now) == 0.0
    assert passed <= 5 + 3.0 * now + 1e-6


def test_the_table_is_bounded() -> None:
    """A flood from many prefixes takes no more than the table."""
    limit = RateLimit(1.0, 1, limit=100)
    for number in range(1000):
        limit.take(str(number), 0.0)
    assert len(limit) == 100


def test_who_is_behind_a_proxy() -> None:
    """Only what a trusted proxy added is believed: the last address that is no trusted proxy's."""
    trusted = (ipaddress.ip_network("127.0.0.1"), ipaddress.ip_network("10.0.0.0/8"))
    assert client_host("192.0.2.1", "198.51.100.1", ()) == "192.0.2.1"
    assert client_host("192.0.2.1", "198.51.100.1", trusted) == "192.0.2.1"
    assert client_host("127.0.0.1", "198.51.100.1", trusted) == "198.51.100.1"
    assert client_host("127.0.0.1", "203.0.113.9, 198.51.100.1, 10.1.1.1", trusted) == "198.51.100.1"
    assert client_host("127.0.0.1", "made up", trusted) == "127.0.0.1"
    assert client_host("127.0.0.1", None, trusted) == "127.0.0.1"
