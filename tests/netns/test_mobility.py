"""A live stream while the network changes under it: no record is lost, and the silence is short.

The bound asserted is for a busy machine; `python -m benchmarks mobility` measures.
"""

from __future__ import annotations

import asyncio
import time

import pytest

from tests.netns.mobility import EVENTS, SIDES, Side, measured, talking
from tom_connect.testing.natlab import Lab

BOUND = 5.0
"""Seconds of silence after connectivity is back."""
ASLEEP = 10.0
"""Seconds for which a laptop sleeps here; long enough for paths to be given up."""

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("event", EVENTS)
async def test_the_stream_goes_on(natlab: Lab, event: str, side: Side) -> None:
    """Whatever happens to the network of either side, records flow again soon, both ways, and every one has come."""
    async with talking(natlab) as world:
        gaps = await measured(world, event, side, asleep=ASLEEP)
        print(gaps)
        await world.whole()
        assert max(gap.after for gap in gaps.values()) < BOUND


async def test_back_to_a_direct_path(natlab: Lab) -> None:
    """Where UDP is blocked the relay carries the stream, and a direct path does again when it is let through."""
    async with talking(natlab) as world:
        router = world.ends["dialer"].router
        await asyncio.to_thread(router.block_udp)
        await world.on("relay")
        await asyncio.to_thread(router.block_udp, False)
        await world.on("direct")
        await world.whole()


async def test_a_relay_that_dies_is_not_missed(natlab: Lab) -> None:
    """While a direct path carries the stream, the death of the relay makes no gap."""
    async with talking(natlab) as world:
        began = time.monotonic()
        world.relay.kill()
        await asyncio.sleep(3.0)  # as long as it takes to notice that the relay is gone
        gaps = await world.gaps(began, began)
        print(gaps)
        assert max(gap.longest for gap in gaps.values()) < BOUND / 2
        await world.whole()


async def test_a_relay_that_carries_is_restarted(natlab: Lab) -> None:
    """Where only the relay carries the stream, it goes on soon after the relay has been killed and started again."""
    async with talking(natlab) as world:
        await asyncio.to_thread(world.ends["acceptor"].router.block_udp)
        await world.on("relay")
        await world.quiet_flow()
        began = time.monotonic()
        world.relay.kill()
        await asyncio.to_thread(world.relay.start)
        gaps = await world.gaps(began, time.monotonic())
        print(gaps)
        assert max(gap.after for gap in gaps.values()) < BOUND
        await world.whole()
