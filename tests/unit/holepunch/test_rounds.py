"""When the rounds of punching towards one node come."""

from __future__ import annotations

import pytest

from tom_connect.holepunch.puncher import JITTER, ROUNDS, Puncher


@pytest.mark.parametrize(("drawn", "spread"), [(b"\x00\x00", 1 - JITTER), (b"\xff\xff", 1 + JITTER)])
def test_nodes_that_began_together_do_not_keep_step(drawn: bytes, spread: float) -> None:
    """Each pause between rounds, up to the longest, is shorter or longer by a part that is drawn."""
    puncher = Puncher(lambda size: drawn[:size].ljust(size, b"\x00"))
    for number in range(len(ROUNDS) + 2):
        puncher.begin(1000.0, fresh=number == 0)
        assert puncher.next_round - 1000.0 == pytest.approx(ROUNDS[min(number, len(ROUNDS) - 1)] * spread)
    assert JITTER > 0
