"""Rates by source."""

from __future__ import annotations

import pytest

from tom_relay.stun.sources import SourceRates, source_key


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("192.0.2.1", "192.0.2.1", True),
        ("192.0.2.1", "192.0.2.2", False),
        ("::ffff:192.0.2.1", "192.0.2.1", True),
        ("2001:db8::1", "2001:db8::ffff:2", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("fe80::1%eth0", "fe80::2%eth1", True),
    ],
)
def test_who_counts_as_one_source(one: str, other: str, same: bool) -> None:
    """An IPv4 address, and an IPv6 /64, are one source each."""
    assert (source_key(one) == source_key(other)) is same


def test_bursts_and_rates() -> None:
    """A source gets its burst at once, then its rate, and its whole burst again after a pause."""
    rates = SourceRates(rate=2.0, burst=4.0, limit=10)
    assert [rates.take(b"a", 0.0) for _ in range(6)] == [True] * 4 + [False] * 2
    assert [rates.take(b"a", 0.5), rates.take(b"a", 0.5)] == [True, False]
    assert sum(rates.take(b"a", 100.0) for _ in range(10)) == 4


def test_refusals_cost_nothing() -> None:
    """Who keeps asking while refused is served as soon as who waits."""
    rates = SourceRates(rate=1.0, burst=1.0, limit=10)
    assert rates.take(b"a", 0.0)
    assert not any(rates.take(b"a", at / 100) for at in range(1, 99))
    assert rates.take(b"a", 1.0)


def test_a_clock_that_steps_back_gives_nothing_away() -> None:
    """Time that runs backwards neither refills an allowance nor blocks it for good."""
    rates = SourceRates(rate=1.0, burst=2.0, limit=10)
    assert rates.take(b"a", 100.0)
    assert sum(rates.take(b"a", 50.0) for _ in range(5)) <= 1
    assert rates.take(b"a", 102.0)


def test_memory_is_bounded_and_the_busy_are_remembered() -> None:
    """A flood of forged sources neither grows the table nor makes it forget who is asking now."""
    rates = SourceRates(rate=0.001, burst=1.0, limit=100)
    assert rates.take(b"busy", 0.0)
    for number in range(5000):
        rates.take(number.to_bytes(4, "big"), 0.0)
        assert not rates.take(b"busy", 0.0)
    assert len(rates) == 100
