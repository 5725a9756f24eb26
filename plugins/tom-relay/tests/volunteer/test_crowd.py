"""An attacker who fills a topic costs time, and nobody's connectivity."""

from __future__ import annotations

import pytest

from .crowd import crowd, seek

pytestmark = pytest.mark.slow


async def test_nine_of_ten_are_dead_or_lie() -> None:
    """Of 100 addresses 90 are dead or pass nothing on: two of the honest are in use within seconds, and little is sent
    to addresses that nobody answers at."""
    async with crowd(honest=10, lying=30, dead=60) as made:
        found = await seek(made, within=60.0)
        assert found.first <= found.both < 60.0
        assert found.tried >= 2
        assert made.sent_to_dead <= len(made.dead) * 3 * 1200
