"""In which order the tests are run, and which of them where."""

from __future__ import annotations

from typing import Any

import attrs
import pytest

from tests.suites import _slow_first


@attrs.define(eq=False)
class Fake:
    """As much of a test as its place depends on."""

    name: str

    def get_closest_marker(self, name: str) -> bool | None:
        return True if name == "slow" and self.name.startswith("slow") else None


@pytest.mark.parametrize("workers", [1, 2, 4, 7])
@pytest.mark.parametrize("slow", [0, 3, 20, 40])
def test_every_worker_begins_with_its_share_of_the_slow_ones(workers: int, slow: int) -> None:
    """Workers get equal parts in a row: each begins with slow tests, of which all have as many; none is lost."""
    items: list[Any] = [Fake(f"slow {n}" if n < slow else f"quick {n}") for n in range(60)]
    ordered = _slow_first(items[::-1], workers)
    assert sorted(ordered, key=items.index) == items
    shares = []
    for worker in range(workers):
        part = ordered[60 * worker // workers : 60 * (worker + 1) // workers]
        first = [test.name.startswith("slow") for test in part]
        assert first == sorted(first, reverse=True)
        shares.append(sum(first))
    assert max(shares) - min(shares) <= 1
