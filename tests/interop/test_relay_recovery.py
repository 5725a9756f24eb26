"""`kill -9` of a relay under traffic: nodes are back through it or through another, and no stream loses a byte."""

from __future__ import annotations

import asyncio
import contextlib
import time

import pytest

from tests.interop.relayed import Flow, RelayProcess, flowing, meet, node_at
from tom_connect import Connection, RelayUrl

BACK_WITHIN = 5.0
"""Seconds within which traffic flows again, both ways."""
SOME = 100_000
"""Bytes that show that it flows: more than was under way."""


async def flow_again(flows: tuple[Flow, Flow], since: float) -> float:
    """Wait until both directions flow again; returns the seconds since then."""
    async with asyncio.TaskGroup() as group:
        for flow in flows:
            group.create_task(flow.more(SOME, within=20))
    return time.monotonic() - since


def carrier(connection: Connection) -> str | None:
    """The URL of the relay that a connection's packets go to now, None if they have nowhere to go."""
    path = next((path for path in connection.paths() if path.active), None)
    assert path is None or isinstance(path.addr, RelayUrl)
    return str(path.addr).rstrip("/") if path is not None else None


@pytest.mark.slow
@pytest.mark.parametrize("away", [0.0, 4.0], ids=["at_once", "after_4_s"])
async def test_nodes_are_back_through_a_restarted_relay(away: float) -> None:
    """Killed under traffic and started again on its port, at once or later: traffic is back within 5 s of that."""
    with RelayProcess() as relay:
        async with node_at(relay.url) as a, node_at(relay.url) as b:
            dialed, accepted = await meet(a, b)
            async with flowing(dialed, accepted) as flows:
                await flow_again(flows, time.monotonic())
                relay.kill()
                # What was under way still arrives: what comes through the next process is what counts.
                await asyncio.sleep(away)
                with await asyncio.to_thread(RelayProcess, relay.port) as again:
                    began = time.monotonic()
                    async with asyncio.timeout(20):
                        while (await asyncio.to_thread(again.metrics))["relayed_packets_total"] < 10:  # noqa: ASYNC110
                            await asyncio.sleep(0.05)
                    took = await flow_again(flows, began)
                    print(f"back after {took:.2f} s")
                    assert took < BACK_WITHIN
                    assert again.metrics()["authenticated_total"] == 2
                    for flow in flows:
                        await flow.end()
                    assert carrier(dialed) == again.url


@pytest.mark.slow
async def test_nodes_are_back_through_a_second_relay() -> None:
    """Both nodes know two relays; the one that carries the traffic is killed and stays away: 5 s, and not a byte."""
    with contextlib.ExitStack() as stack:
        relays = {relay.url: relay for relay in (stack.enter_context(RelayProcess()) for _ in range(2))}
        async with node_at(*relays) as a, node_at(*relays) as b:
            dialed, accepted = await meet(a, b)
            async with flowing(dialed, accepted) as flows:
                await flow_again(flows, time.monotonic())
                dead = carrier(dialed)
                assert dead is not None
                (other,) = relays.keys() - {dead}
                began = time.monotonic()
                relays[dead].kill()
                # What was under way still arrives: only what flows when both have turned to the other relay counts.
                async with asyncio.timeout(20):
                    while not carrier(dialed) == carrier(accepted) == other:  # noqa: ASYNC110 - it tells nobody
                        await asyncio.sleep(0.01)
                took = await flow_again(flows, began)
                print(f"back after {took:.2f} s")
                assert took < BACK_WITHIN
                for flow in flows:
                    await flow.end()


@pytest.mark.slow
async def test_nodes_that_lost_their_relay_can_be_dialed_at_the_second() -> None:
    """A node whose home relay is killed publishes the second one within 5 s and is dialed there anew."""
    with contextlib.ExitStack() as stack:
        relays = {relay.url: relay for relay in (stack.enter_context(RelayProcess()) for _ in range(2))}
        async with node_at(*relays) as a, node_at(*relays) as b:
            dead = str(b.node_addr().relay_urls[0]).rstrip("/")
            relays[dead].kill()
            async with asyncio.timeout(BACK_WITHIN):
                async for addr in b.watch_addr():
                    if addr.relay_urls and str(addr.relay_urls[0]).rstrip("/") != dead:
                        break
            dialed, accepted = await meet(a, b)
            async with flowing(dialed, accepted) as flows:
                await flow_again(flows, time.monotonic())
                for flow in flows:
                    await flow.end()
