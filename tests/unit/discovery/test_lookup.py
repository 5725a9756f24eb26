"""Look-ups over several sources that answer, fail, dawdle or lie."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from tom_connect.abc import Discovery, FoundAddr
from tom_connect.addr import NodeAddr
from tom_connect.discovery import Lookup
from tom_connect.discovery.health import SourceHealth
from tom_connect.discovery.lookup import MAX_FOUND
from tom_connect.exceptions import NetworkError
from tom_connect.keys import NodeId, SecretKey

NODE = SecretKey(bytes(32)).node_id
OTHER = SecretKey(bytes([1]) * 32).node_id


def found(source: str, addr: str, timestamp: int | None = None, node: NodeId = NODE) -> FoundAddr:
    return FoundAddr(NodeAddr(node, (), [addr]), source, timestamp)


class Script(Discovery):
    """Gives its answers after `delay` seconds, then raises `error` if there is one."""

    def __init__(
        self,
        name: str,
        *answers: FoundAddr,
        delay: float = 0.0,
        stage: float = 0.0,
        error: Exception | None = None,
        endless: bool = False,
        ready: bool | Exception = True,
    ) -> None:
        self.name = name
        self.stage = stage
        self._ready = ready
        self.asked_at: float | None = None
        self.closed = False
        self._answers, self._delay, self._error, self._endless = answers, delay, error, endless

    @property
    def ready(self) -> bool:
        if isinstance(self._ready, Exception):
            raise self._ready
        return self._ready

    async def resolve(self, node_id: NodeId) -> AsyncIterator[FoundAddr]:
        self.asked_at = asyncio.get_running_loop().time()
        try:
            await asyncio.sleep(self._delay)
            for answer in self._answers:
                yield answer
            if self._error is not None:
                raise self._error
            if self._endless:
                await asyncio.Event().wait()
        finally:
            self.closed = True


async def look(*sources: Script) -> tuple[list[FoundAddr], Lookup, list[tuple[str, BaseException]]]:
    reports: list[tuple[str, BaseException]] = []
    pairs = [(source.name, source) for source in sources]
    async with Lookup(NODE, pairs, report=lambda name, exc: reports.append((name, exc))) as lookup:
        answers = [answer async for answer in lookup]
    return answers, lookup, reports


async def test_answers_of_all_sources_come_as_they_are_found() -> None:
    """A slow source does not hold up a quick one, and both answers arrive."""
    answers, lookup, _ = await look(
        Script("slow", found("slow", "1.1.1.1:1"), delay=0.02), Script("quick", found("quick", "2.2.2.2:2"))
    )
    assert [answer.source for answer in answers] == ["quick", "slow"]
    assert all(outcome.found == 1 and outcome.seconds is not None for outcome in lookup.outcomes)


async def test_failing_source_is_reported_and_the_others_go_on() -> None:
    """A source that raises is named with its reason; only a fault of its own is reported as the plugin's."""
    answers, lookup, reports = await look(
        Script("network", error=NetworkError("no route")),
        Script("broken", error=ZeroDivisionError("oops")),
        Script("good", found("good", "1.1.1.1:1")),
    )
    assert [answer.source for answer in answers] == ["good"]
    texts = {outcome.source: str(outcome) for outcome in lookup.outcomes}
    assert "no route" in texts["network"]
    assert "oops" in texts["broken"]
    assert [name for name, _ in reports] == ["broken"]


async def test_answer_for_another_node_is_a_fault() -> None:
    """A source that answers with another node's address is reported, and the address is not passed on."""
    answers, _, reports = await look(Script("liar", found("liar", "1.1.1.1:1", node=OTHER)))
    assert answers == []
    assert [name for name, _ in reports] == ["liar"]


async def test_older_answers_of_one_source_are_left_out() -> None:
    """Of one source's signed answers only those as new as the newest so far are given."""
    answers, _, _ = await look(
        Script("dht", found("dht", "1.1.1.1:1", 5), found("dht", "2.2.2.2:2", 4), found("dht", "3.3.3.3:3", 6))
    )
    assert [answer.timestamp_us for answer in answers] == [5, 6]


async def test_later_stage_waits_for_its_time() -> None:
    """A source of a later stage is not asked while an earlier one is at work, until its delay has passed."""
    first = Script("first", found("first", "1.1.1.1:1"), delay=0.2)
    second = Script("second", found("second", "2.2.2.2:2"), stage=0.05)
    start = asyncio.get_running_loop().time()
    await look(first, second)
    assert second.asked_at is not None
    assert second.asked_at - start >= 0.045


async def test_later_stage_begins_at_once_when_the_earlier_found_nothing() -> None:
    """No hedge is waited for once every earlier source has ended with nothing."""
    start = asyncio.get_running_loop().time()
    answers, _, _ = await look(Script("first"), Script("second", found("second", "2.2.2.2:2"), stage=60.0))
    assert [answer.source for answer in answers] == ["second"]
    assert asyncio.get_running_loop().time() - start < 5


@pytest.mark.parametrize("ready", [False, ZeroDivisionError("oops")])
async def test_a_source_that_is_not_ready_is_asked_but_not_waited_for(ready: bool | Exception) -> None:
    """A later source goes ahead of one that is still joining; one that can't even say so is reported."""
    joining = Script("joining", found("joining", "1.1.1.1:1"), delay=0.05, ready=ready)
    start = asyncio.get_running_loop().time()
    answers, _, reports = await look(joining, Script("later", found("later", "2.2.2.2:2"), stage=60.0))
    assert [answer.source for answer in answers] == ["later", "joining"]
    assert asyncio.get_running_loop().time() - start < 5
    assert [name for name, _ in reports] == (["joining"] if isinstance(ready, Exception) else [])


async def test_sources_of_one_stage_do_not_wait_for_each_other() -> None:
    """Of two hedges of the same length none is behind the other, however their names sort."""
    silent = Script("one", stage=60.0, endless=True)
    pairs = [(s.name, s) for s in (Script("first"), silent, Script("two", found("two", "2.2.2.2:2"), stage=60.0))]
    async with asyncio.timeout(5), Lookup(NODE, pairs, report=lambda *_: None) as lookup:
        assert (await anext(aiter(lookup))).source == "two"
        assert silent.asked_at is not None


async def test_a_silent_source_costs_a_hedge_once() -> None:
    """A later source that has answered while an earlier one was silent is asked at once from then on."""
    health = {"silent": SourceHealth(), "later": SourceHealth()}
    for stage in (0.05, 60.0, 60.0):
        sources = (Script("silent", endless=True), Script("later", found("later", "2.2.2.2:2"), stage=stage))
        pairs = [(source.name, source) for source in sources]
        async with asyncio.timeout(5), Lookup(NODE, pairs, report=lambda *_: None, health=health) as lookup:
            assert (await anext(aiter(lookup))).source == "later"


async def test_a_source_that_falls_silent_is_not_waited_for() -> None:
    """One that was the quicker one until now holds up the later one once, and no more when that one has answered."""
    health = {"dying": SourceHealth(), "later": SourceHealth()}
    health["dying"].answered(0.01, first=True)
    health["later"].answered(0.5, first=True)
    for stage in (0.05, 60.0):
        sources = (Script("dying", endless=True), Script("later", found("later", "2.2.2.2:2"), delay=0.05, stage=stage))
        pairs = [(source.name, source) for source in sources]
        async with asyncio.timeout(5), Lookup(NODE, pairs, report=lambda *_: None, health=health) as lookup:
            assert (await anext(aiter(lookup))).source == "later"


async def test_a_source_that_is_out_of_date_is_not_waited_for() -> None:
    """One whose record a later source outdid is asked but not waited for, until it keeps up again."""
    health = {"behind": SourceHealth(), "later": SourceHealth()}

    async def ask(stage: float, old: tuple[str, int], new: tuple[str, int]) -> list[str]:
        behind = Script("behind", found("behind", *old))
        pairs = [("behind", behind), ("later", Script("later", found("later", *new), stage=stage))]
        async with asyncio.timeout(5), Lookup(NODE, pairs, report=lambda *_: None, health=health) as lookup:
            return [answer.source async for answer in lookup]

    health["later"].answered(9.0, first=True)  # the slower one otherwise
    assert await ask(0.05, ("1.1.1.1:1", 5), ("2.2.2.2:2", 6)) == ["behind", "later"]
    assert health["behind"].outdated
    assert await ask(60.0, ("1.1.1.1:1", 5), ("2.2.2.2:2", 6)) == ["behind", "later"]
    assert await ask(60.0, ("2.2.2.2:2", 5), ("2.2.2.2:2", 6)) == ["behind", "later"], "the same address is no news"
    assert not health["behind"].outdated
    assert not health["later"].outdated


async def test_leaving_cancels_what_runs() -> None:
    """Leaving the block early closes every source's iterator."""
    endless = Script("endless", found("endless", "1.1.1.1:1"), endless=True)
    async with Lookup(NODE, [("endless", endless)], report=lambda *_: None) as lookup:
        assert (await anext(aiter(lookup))).source == "endless"
        assert "still searching" in str(lookup.outcomes[0])
    assert endless.closed


async def test_endless_answers_are_cut() -> None:
    """A source that never stops answering is stopped after a bounded number of answers."""
    many = [found("flood", f"1.1.1.1:{port}") for port in range(1, 3 * MAX_FOUND)]
    answers, _, _ = await look(Script("flood", *many, endless=True))
    assert len(answers) == MAX_FOUND


async def test_without_sources_it_ends_at_once() -> None:
    """A look-up with nobody to ask gives nothing and does not hang."""
    async with asyncio.timeout(1):
        answers, _, _ = await look()
    assert answers == []


@pytest.mark.parametrize(("count", "word"), [(1, "1 address found"), (2, "2 addresses found")])
async def test_outcome_reads_well(count: int, word: str) -> None:
    """The text of an outcome counts addresses in plain English."""
    addrs = [f"1.1.1.{n}:1" for n in range(count)]
    _, lookup, _ = await look(Script("s", FoundAddr(NodeAddr(NODE, (), addrs), "s")))
    assert word in str(lookup.outcomes[0])
