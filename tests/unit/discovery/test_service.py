"""Look-ups of a whole endpoint: shared, remembered, and not spent on sources that are broken."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import attrs

from tom_connect.abc import Discovery, FoundAddr
from tom_connect.addr import NodeAddr
from tom_connect.discovery import DiscoveryService
from tom_connect.discovery.health import BREAK_AFTER, BREAK_FOR
from tom_connect.discovery.service import MAX_NOTHING, NOTHING_FOR
from tom_connect.exceptions import NetworkError
from tom_connect.keys import NodeId, SecretKey

NODE = SecretKey(bytes(32)).node_id


@attrs.define(eq=False)
class Source(Discovery):
    """Counts those who ask; answers, fails, or waits to be released."""

    name: str
    answers: list[FoundAddr] = attrs.Factory(list)
    error: Exception | None = None
    gate: asyncio.Event | None = None
    stage: float = 0.0
    asked: int = 0
    running: int = 0
    began: asyncio.Event = attrs.Factory(asyncio.Event)

    async def resolve(self, node_id: NodeId) -> AsyncIterator[FoundAddr]:
        self.asked += 1
        self.running += 1
        self.began.set()
        try:
            if self.gate is not None:
                await self.gate.wait()
            for answer in self.answers:
                yield answer
            if self.error is not None:
                raise self.error
        finally:
            self.running -= 1


@attrs.define
class Now:
    at: float = 1000.0

    def __call__(self) -> float:
        return self.at


def found(source: str, addr: str = "1.1.1.1:1", timestamp: int | None = None) -> FoundAddr:
    return FoundAddr(NodeAddr(NODE, (), [addr]), source, timestamp)


def service(*sources: Source, clock: Now | None = None, wall: float = 1e9) -> DiscoveryService:
    pairs = [(source.name, source) for source in sources]
    return DiscoveryService(pairs, report=lambda *_: None, clock=clock or Now(), wall=lambda: wall)


async def answers(discovery: DiscoveryService, node_id: NodeId = NODE) -> list[FoundAddr]:
    async with discovery.look_up(node_id) as lookup:
        return [answer async for answer in lookup]


async def test_those_who_look_for_one_node_at_once_share_a_look_up() -> None:
    """A hundred of them ask the source once, and each gets everything."""
    source = Source("dht", [found("dht")], gate=asyncio.Event())
    discovery = service(source)
    tasks = [asyncio.create_task(answers(discovery)) for _ in range(100)]
    await source.began.wait()
    assert source.gate is not None
    source.gate.set()
    assert await asyncio.gather(*tasks) == [[found("dht")]] * 100
    assert source.asked == 1


async def test_one_who_leaves_takes_nothing_from_the_others_and_the_last_one_ends_it() -> None:
    """The look-up goes on while anybody waits for it; when the last one is cancelled nothing runs any more."""
    source = Source("dht", [found("dht")], gate=asyncio.Event())
    discovery = service(source)
    first, second = asyncio.create_task(answers(discovery)), asyncio.create_task(answers(discovery))
    await source.began.wait()
    first.cancel()
    await asyncio.wait([first])
    assert source.running == 1
    second.cancel()
    await asyncio.wait([second])
    assert source.running == 0
    assert source.asked == 1
    assert source.gate is not None
    source.gate.set()
    assert await answers(discovery) == [found("dht")], "what was cancelled is no answer"
    assert source.asked == 2


async def test_a_source_that_knew_nothing_is_not_asked_again_at_once() -> None:
    """Within two seconds it is passed over, with the reason; then, or after a change of network, it is asked again."""
    clock = Now()
    source = Source("dht")
    discovery = service(source, clock=clock)
    assert await answers(discovery) == []
    async with discovery.look_up(NODE) as lookup:
        assert [answer async for answer in lookup] == []
        assert "knew nothing" in str(lookup.outcomes[0])
    assert source.asked == 1
    assert await answers(discovery, SecretKey(bytes([1]) * 32).node_id) == []
    assert source.asked == 2, "that says nothing of other nodes"
    clock.at += NOTHING_FOR
    await answers(discovery)
    assert source.asked == 3
    discovery.network_changed()
    await answers(discovery)
    assert source.asked == 4


async def test_what_is_known_to_be_nowhere_is_bounded() -> None:
    """Looking for thousands of nodes that do not exist fills no memory."""
    discovery = service(Source("dht"))
    for number in range(MAX_NOTHING + 10):
        await answers(discovery, SecretKey(number.to_bytes(32, "big")).node_id)
    assert len(discovery._nothing) == MAX_NOTHING


async def test_a_broken_source_is_left_out_until_it_is_tried_again() -> None:
    """After four failures it is passed over, with the reason, while the others go on; later it gets one trial."""
    clock = Now()
    loop = asyncio.get_running_loop()
    broken = Source("pkarr", error=NetworkError("no route"))
    good = Source("dht", [found("dht")])
    discovery = DiscoveryService(
        [("pkarr", broken), ("dht", good)], report=lambda *_: None, clock=loop.time, wall=lambda: 1e9
    )
    for _ in range(BREAK_AFTER):
        assert await answers(discovery) == [found("dht")]
    async with discovery.look_up(NODE) as lookup:
        assert [answer async for answer in lookup] == [found("dht")]
        assert "failed 4 times" in str(next(o for o in lookup.outcomes if o.source == "pkarr"))
    assert broken.asked == BREAK_AFTER
    discovery._clock = lambda: loop.time() + BREAK_FOR[0]
    await answers(discovery)
    assert broken.asked == BREAK_AFTER + 1
    assert clock.at == 1000.0
    assert discovery.counts["pkarr"].failed == BREAK_AFTER + 1
    assert discovery.counts["dht"].first == BREAK_AFTER + 2


async def test_with_every_source_broken_all_are_asked() -> None:
    """Where nobody else can help, a source that failed is better than none."""
    only = Source("dht", error=NetworkError("down"))
    loop = asyncio.get_running_loop()
    discovery = DiscoveryService([("dht", only)], report=lambda *_: None, clock=loop.time)
    for _ in range(BREAK_AFTER + 2):
        await answers(discovery)
    assert only.asked == BREAK_AFTER + 2


async def test_an_older_record_of_another_source_is_left_out() -> None:
    """Once the newest record is known, a late source with an older one adds nothing, and that is said."""
    slow = Source("pkarr", [found("pkarr", "2.2.2.2:2", timestamp=4)], stage=0.01)
    discovery = service(Source("dht", [found("dht", timestamp=5)]), slow)
    async with discovery.look_up(NODE) as lookup:
        assert [answer.source async for answer in lookup] == ["dht"]
        assert "older record" in str(lookup.outcomes[1])
        merged = lookup.merged()
    assert merged is not None
    assert merged.timestamp_us == 5


async def test_a_record_from_the_future_is_refused_by_name() -> None:
    """A source whose answer is three hours ahead is named with the reason, and the others' answers count."""
    ahead = Source("dht", [found("dht", timestamp=int((1e9 + 3 * 3600) * 1e6))])
    discovery = service(ahead, Source("dns", [found("dns", "2.2.2.2:2")]))
    async with discovery.look_up(NODE) as lookup:
        assert [answer.source async for answer in lookup] == ["dns"]
        assert "from the future" in str(lookup.outcomes[0])
