"""Two nodes that dial each other at once."""

from __future__ import annotations

import asyncio
import collections
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import attrs
import pytest

from tests.unit.endpoint.pairs import ALPN, local_config
from tom_connect import ConnectionRefusedError as RefusedError
from tom_connect import Endpoint, NodeId, SecretKey, crossing
from tom_connect.abc import ConnectionGuard, PluginContext
from tom_connect.hookspecs import hookimpl

#: Seconds for anything, on a machine that is busy with other things.
PATIENCE = 30.0


@contextlib.asynccontextmanager
async def equals(**of_small: Any) -> AsyncIterator[tuple[Endpoint, Endpoint]]:
    """Two endpoints whose protocol has equal ends, the one with the smaller key first."""
    keys = sorted((SecretKey.generate() for _ in range(2)), key=lambda key: key.node_id.raw)
    configs = [local_config(one_connection_alpns=(ALPN,), secret_key=key) for key in keys]
    configs[0] = attrs.evolve(configs[0], **of_small)
    async with Endpoint.bind(configs[0]) as small, Endpoint.bind(configs[1]) as large:
        yield small, large


async def links(endpoint: Endpoint, count: int) -> None:
    """Wait until an endpoint has so many connections, finished or not."""
    async with asyncio.timeout(PATIENCE):
        while len(endpoint._driver.links) != count:  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.005)


@pytest.mark.parametrize("first", [0, 1], ids=["small-first", "large-first"])
async def test_one_connection_results(first: int) -> None:
    """Both get the same one, in whichever order they began, though nobody accepts; streams pass in both directions."""
    async with equals() as ends:
        order = [ends[first], ends[1 - first]]
        dials = [a.connect(b.node_addr(), ALPN, timeout=PATIENCE) for a, b in (order, order[::-1])]
        one, other = await asyncio.gather(*dials)
        for here, there in ((one, other), (other, one)):
            stream = await here.open_bi()
            stream.write(b"hello")
            async with asyncio.timeout(PATIENCE):
                assert await (await there.accept_bi()).read(5) == b"hello"
        for endpoint in ends:
            await links(endpoint, 1)
            assert not endpoint._waiting


async def test_what_waits_already_is_taken() -> None:
    """Who dials a node that waits to be accepted gets that connection and makes none."""
    async with equals() as (small, large):
        for dialer, other in ((small, large), (large, small)):
            dialing = asyncio.create_task(dialer.connect(other.node_addr(), ALPN, timeout=PATIENCE))
            async with asyncio.timeout(PATIENCE):
                while not other._waiting:  # noqa: ASYNC110 - nobody tells
                    await asyncio.sleep(0.005)
            connection = await other.connect(dialer.node_addr(), ALPN, timeout=PATIENCE)
            assert (await dialing).remote_node_id == other.node_id
            await connection.close()
            await links(dialer, 0)
            await links(other, 0)


class Guard(ConnectionGuard):
    """Lets nobody in."""

    def after_handshake(self, node_id: NodeId, alpn: str) -> bool:
        return False


class Closed:
    """A plugin with that guard."""

    @hookimpl
    def tom_connection_guard(self, ctx: PluginContext) -> ConnectionGuard:
        return Guard()


async def test_a_dial_that_waits_for_ours_is_offered_when_ours_is_refused() -> None:
    """The smaller key dials while it lets nobody in: the larger one's dial fails, and the other can be accepted."""
    async with equals(extra_plugins=(("closed", Closed()),)) as (small, large):
        dials = [
            asyncio.create_task(a.connect(b.node_addr(), ALPN, timeout=PATIENCE))
            for a, b in ((small, large), (large, small))
        ]
        async with asyncio.timeout(PATIENCE):
            accepted = await (await anext(large.accept())).accept()
            assert accepted.remote_node_id == small.node_id
            assert (await dials[0]).remote_node_id == large.node_id
            with pytest.raises(RefusedError):
                await dials[1]


class OurDial:
    """A dial that ends when the test says so."""

    def __init__(self) -> None:
        self.confirmed: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def run(self) -> str:
        return await self.confirmed


@attrs.define(eq=False)
class Came:
    """A link that came in, as far as crossings look at it."""

    peer: NodeId
    alpn: str = ALPN
    error: Exception | None = None
    over: asyncio.Event = attrs.field(factory=asyncio.Event)


@pytest.mark.parametrize("goes_on", [False, True])
async def test_a_dial_that_goes_on_after_ours_is_a_connection_of_its_own(
    goes_on: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other had accepted ours before it began: nobody gives that one up, so it is offered after a while."""
    monkeypatch.setattr(crossing, "GRACE", 0.05)
    own, peer = sorted((SecretKey.generate().node_id for _ in range(2)), key=lambda node_id: node_id.raw, reverse=True)
    offered: list[object] = []
    seeing_off: list[asyncio.Future[None]] = []
    crossings = crossing.Crossings(
        own,
        (ALPN,),
        offer=offered.append,
        spawn=lambda coroutine, what: seeing_off.append(asyncio.ensure_future(coroutine)),
    )
    dial: Any = OurDial()
    connecting = asyncio.create_task(crossings.connect(dial, peer, ALPN, collections.deque()))
    await asyncio.sleep(0)
    first, second = Came(peer), Came(peer)
    assert [crossings.take(link) for link in (first, second)] == [True, False]  # type: ignore[arg-type]
    dial.confirmed.set_result("ours")
    assert await connecting == "ours"
    assert not offered
    if not goes_on:
        first.over.set()
    await asyncio.gather(*seeing_off)
    assert offered == ([first] if goes_on else [])
    assert not crossings.take(second)  # type: ignore[arg-type]


async def test_without_being_asked_for_each_dial_has_its_connection() -> None:
    """By default nothing is merged: which end dialed may matter to the protocol."""
    async with Endpoint.bind(local_config()) as one, Endpoint.bind(local_config()) as other:
        dials = [asyncio.create_task(a.connect(b.node_addr(), ALPN)) for a, b in ((one, other), (other, one))]
        for endpoint in (one, other):
            await (await anext(endpoint.accept())).accept()
        await asyncio.gather(*dials)
        assert len(one._driver.links) == len(other._driver.links) == 2
