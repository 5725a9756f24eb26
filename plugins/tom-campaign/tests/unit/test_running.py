"""A campaign runs its steps once each, records what comes of them, and ends with a summary, whatever happens."""

from __future__ import annotations

import asyncio
import contextlib
import json
import pathlib
from collections.abc import AsyncIterator, Callable
from typing import Any, cast

import attrs
import pytest

from tom_campaign.core.control import Ask, Close, Connect, Hello, Ping, Transfer, Window
from tom_campaign.core.errors import ControlError, NodeGoneError
from tom_campaign.core.reading import read_scenario
from tom_campaign.core.records import (
    CampaignStarted,
    CampaignSummary,
    EnduranceRolling,
    PhaseResult,
    Record,
    encoded,
)
from tom_campaign.core.scenario import Scenario
from tom_campaign.core.statistics import RttStatistics, rtt_statistics
from tom_campaign.core.summing import Measured
from tom_campaign.networks.population import Population
from tom_campaign.recordfile import Recorded, read_records
from tom_campaign.running import Campaign, planned_messages, request_of

TEXT = """
name = "x"
jobs = 3
[[group]]
name = "a"
network = "local"
count = 4
[[phase]]
kind = "connect"
[[phase]]
kind = "transfer"
mib = 0.5
[[phase]]
kind = "endurance"
duration = 2
every = 1
interval = 0.5
"""


def scenario(text: str = TEXT) -> Scenario:
    return read_scenario(text.encode(), "x.toml")


@attrs.define
class FakePeople:
    """A population whose nodes answer at once; `answer` decides, and `asked` remembers."""

    plan: Scenario
    answer: Callable[[str, Ask], Measured]
    asked: list[tuple[str, Ask]] = attrs.Factory(list)
    deaths: dict[str, str] = attrs.Factory(dict)
    changes: list[tuple[str, str]] = attrs.Factory(list)
    busy: set[str] = attrs.Factory(set)
    most: int = 0

    def infos(self) -> dict[str, Any]:
        return Population.infos(self)  # type: ignore[arg-type]

    scenario = property(lambda self: self.plan)
    published: dict[str, int] = attrs.Factory(dict)
    problems: dict[str, str] = attrs.Factory(dict)

    @property
    def hellos(self) -> dict[str, Hello]:
        return {name: Hello(node_id=name, version="1") for name in self.plan.node_names}

    def target(self, name: str) -> str:
        return name

    async def ask(
        self, name: str, ask: Ask, timeout: float, on_window: Callable[[Window], None] | None = None
    ) -> dict[str, Any]:
        self.asked.append((name, ask))
        if isinstance(ask, Close):
            return {}
        concerned = {name, ask.target} if isinstance(ask, Transfer) else set()  # type: ignore[union-attr]
        assert not concerned & self.busy, "a node is in two transfers at once"
        self.busy |= concerned
        self.most = max(self.most, len(self.busy))
        await asyncio.sleep(0)
        self.busy -= concerned
        if isinstance(ask, Ping) and ask.every and on_window is not None:
            for number in (1, 2):
                on_window(
                    Window(
                        elapsed_s=number,
                        window_s=1.0,
                        sent=2,
                        received=2,
                        total_sent=2 * number,
                        total_received=2 * number,
                        reconnections=0,
                        path_kind="direct",
                        rtt=rtt_statistics([1.0, 2.0]),
                        discovery_source="dht",
                    )
                )
        answer: dict[str, Any] = json.loads(json.dumps(attrs.asdict(self.answer(name, ask))))
        return answer

    async def change(self, event: str, name: str) -> None:
        self.changes.append((event, name))


def good(_name: str, ask: Ask) -> Measured:
    count = ask.count if isinstance(ask, Ping) else ask.blocks if isinstance(ask, Transfer) else 1
    return Measured(sent=count, received=count, rtt=RttStatistics(), path_kind="direct")


def recorded(records: list[Record], folder: pathlib.Path) -> Recorded:
    """What a file with these records tells."""
    path = folder / "x.jsonl"
    path.write_text("".join(map(encoded, records)))
    return read_records(path)


def campaign(people: FakePeople, records: list[Record], before: Recorded | None = None) -> Campaign:
    @contextlib.asynccontextmanager
    async def population() -> AsyncIterator[Any]:
        yield people

    return Campaign(people.plan, population, records.append, before)


async def test_every_step_is_done_once_and_recorded() -> None:
    """The records are a start, a result for each step, windows of endurance, and a summary of all."""
    people, records = FakePeople(scenario(), good), list[Record]()
    summary = await campaign(people, records).run()
    assert isinstance(records[0], CampaignStarted) and records[0].steps == 36 and not records[0].resumed
    results = [record for record in records if isinstance(record, PhaseResult)]
    assert len(results) == len({result.step for result in results}) == 36
    assert [result.phase for result in results] == ["connect"] * 12 + ["transfer"] * 12 + ["endurance"] * 12
    windows = [record for record in records if isinstance(record, EnduranceRolling)]
    assert len(windows) == 24 and {window.discovery_source for window in windows} == {"dht"}
    assert records[-1] is summary and (summary.verdict, summary.done, summary.interrupted) == ("PASS", 36, False)
    assert people.most >= 2  # transfers of other nodes do run at the same time


async def test_connections_are_closed_after_their_last_step() -> None:
    """Each pair is closed once, after all its phases."""
    people = FakePeople(scenario(), good)
    await campaign(people, []).run()
    closed = [(name, ask.target) for name, ask in people.asked if isinstance(ask, Close)]
    assert len(closed) == len(set(closed)) == 12
    for name, target in closed:
        mine = [ask for who, ask in people.asked if who == name and ask.target == target]  # type: ignore[union-attr]
        assert isinstance(mine[-1], Close) and len(mine) == 4


async def test_what_was_done_is_not_done_again(tmp_path: pathlib.Path) -> None:
    """With results of an earlier run only the rest is done, and the summary tells of all: also of time and deaths."""
    records = list[Record]()
    await campaign(FakePeople(scenario(), good), records).run()
    ended = attrs.evolve(cast(CampaignSummary, records.pop()), elapsed_s=100.0, dead_nodes=("a-4",))
    file = recorded([*records[:21], ended], tmp_path)
    before = list(file.results)
    people, after = FakePeople(scenario(), good), list[Record]()
    summary = await campaign(people, after, file).run()
    assert 100.0 <= summary.elapsed_s < 160.0 and summary.dead_nodes == ("a-4",)
    assert isinstance(after[0], CampaignStarted) and after[0].resumed
    again = {record.step for record in after if isinstance(record, PhaseResult)}
    assert len(again) == 16 and not again & {result.step for result in before}
    assert (summary.done, summary.steps, summary.verdict) == (36, 36, "PASS")


async def test_with_nothing_left_nobody_is_started(tmp_path: pathlib.Path) -> None:
    """A campaign that was done already writes its summary, with the time that it took, and starts no node."""
    records = list[Record]()
    await campaign(FakePeople(scenario(), good), records).run()
    records[-1] = attrs.evolve(cast(CampaignSummary, records[-1]), elapsed_s=12.5)

    @contextlib.asynccontextmanager
    async def nobody() -> AsyncIterator[Population]:
        raise AssertionError("a population was started")
        yield

    after = list[Record]()
    summary = await Campaign(scenario(), nobody, after.append, recorded(records, tmp_path)).run()
    assert after == [summary] and 12.5 <= summary.elapsed_s < 13.5 and not summary.interrupted


async def test_an_interrupted_campaign_has_a_summary() -> None:
    """Cancelled in the middle, the last record is a summary that says so."""
    records = list[Record]()
    reached = asyncio.Event()

    @attrs.define
    class Slow(FakePeople):
        async def ask(self, name: str, ask: Ask, timeout: float, on_window: Any = None) -> dict[str, Any]:
            if isinstance(ask, Transfer):
                reached.set()
                await asyncio.Event().wait()
            return await FakePeople.ask(self, name, ask, timeout, on_window)

    running = asyncio.create_task(campaign(Slow(scenario(), good), records).run())
    await reached.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    summary = records[-1]
    assert isinstance(summary, CampaignSummary)
    assert (summary.interrupted, summary.done, summary.steps, summary.verdict) == (True, 12, 36, "FAIL")


@pytest.mark.parametrize("during", ["start", "steps"])
async def test_the_summary_does_not_wait_for_the_end_of_the_population(during: str) -> None:
    """Cancelled while nodes are started or measured, the summary is written at once, and nothing follows it."""
    records = list[Record]()
    reached, cleaning, cleaned = asyncio.Event(), asyncio.Event(), asyncio.Event()

    @attrs.define
    class Slow(FakePeople):
        async def ask(self, name: str, ask: Ask, timeout: float, on_window: Any = None) -> dict[str, Any]:
            if not reached.is_set():
                reached.set()
                with contextlib.suppress(asyncio.CancelledError):  # what answers all the same
                    await asyncio.Event().wait()
            elif not cleaning.is_set() and not running.cancelling():
                await asyncio.Event().wait()
            return await FakePeople.ask(self, name, ask, timeout, on_window)

    @contextlib.asynccontextmanager
    async def slow_to_end() -> AsyncIterator[Any]:
        try:
            if during == "start":
                reached.set()
                await asyncio.Event().wait()
            yield Slow(scenario(), good)
        finally:
            cleaning.set()
            await cleaned.wait()

    running = asyncio.create_task(Campaign(scenario(), slow_to_end, records.append).run())
    await reached.wait()
    running.cancel()
    await cleaning.wait()
    assert isinstance(records[-1], CampaignSummary) and records[-1].interrupted
    cleaned.set()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert sum(isinstance(record, CampaignSummary) for record in records) == 1
    assert isinstance(records[-1], CampaignSummary)


async def test_a_population_that_can_not_be_had_leaves_a_summary() -> None:
    """If the nodes can't be started the error is raised, and the file still ends with a summary."""

    @contextlib.asynccontextmanager
    async def broken() -> AsyncIterator[Population]:
        raise ControlError("no lab")
        yield

    records = list[Record]()
    with pytest.raises(ControlError, match="no lab"):
        await Campaign(scenario(), broken, records.append).run()
    assert isinstance(records[-1], CampaignSummary) and records[-1].interrupted and records[-1].done == 0


async def test_losses_and_dead_nodes_are_results() -> None:
    """A node that has died fails its own steps and those that go to it; the others go on, and the summary names it."""
    people = FakePeople(scenario(), good)
    records = list[Record]()

    def answer(name: str, ask: Ask) -> Measured:
        if isinstance(ask, Connect) and name == "a-1":
            people.deaths["a-1"] = "the process of a-1 has ended (signal 9)"
        if name in people.deaths:
            raise NodeGoneError(people.deaths[name])
        if ask.target in people.deaths:  # type: ignore[union-attr]
            return Measured(sent=1, received=0, error="no answer")
        return good(name, ask)

    people.answer = answer
    summary = await campaign(people, records).run()
    assert (summary.verdict, summary.done, summary.dead_nodes, summary.interrupted) == ("FAIL", 36, ("a-1",), False)
    for result in (record for record in records if isinstance(record, PhaseResult) and record.phase == "transfer"):
        concerned = "a-1" in (result.dialer, result.target)
        assert (result.verdict == "FAIL") == concerned
        assert concerned == ("signal 9" in (result.error or ""))


async def test_an_answer_that_makes_no_sense_is_a_result() -> None:
    """What a responder says is not believed blindly: a wrong answer fails that step alone."""

    @attrs.define
    class Liar(FakePeople):
        async def ask(self, name: str, ask: Ask, timeout: float, on_window: Any = None) -> dict[str, Any]:
            return {"sent": 1, "received": 5} if name == "a-1" else {"sent": "many"}

    records = list[Record]()
    summary = await campaign(Liar(scenario(), good), records).run()
    assert summary.verdict == "FAIL" and summary.done == 36
    assert all("answer" in (r.error or "") for r in records if isinstance(r, PhaseResult))


async def test_the_network_changes_in_the_middle_of_a_failover() -> None:
    """The event happens once in each step, to the side that the scenario names."""
    text = """
name = "x"
[relay]
count = 4
[pairs]
choose = "sample"
count = 1
[[group]]
name = "a"
network = "local"
count = 2
[[phase]]
kind = "failover"
event = "kill_relay"
side = "target"
before = 0
"""
    plan, held = scenario(text), asyncio.Event()

    @attrs.define
    class Waiting(FakePeople):
        async def ask(self, name: str, ask: Ask, timeout: float, on_window: Any = None) -> dict[str, Any]:
            if isinstance(ask, Ping):
                assert ask.reliable
                await held.wait()
            return await FakePeople.ask(self, name, ask, timeout, on_window)

        async def change(self, event: str, name: str) -> None:
            self.changes.append((event, name))
            held.set()

    people, records = Waiting(plan, good), list[Record]()
    await campaign(people, records).run()
    (result,) = (record for record in records if isinstance(record, PhaseResult))
    assert people.changes == [("kill_relay", result.target)] and result.network_event == "kill_relay"


def test_requests_are_what_the_scenario_says() -> None:
    """Each kind of phase becomes the request that measures it, with its counts."""
    connect, transfer, endurance = scenario().phases
    assert request_of(connect, "t") == (Connect(target="t", timeout=15, direct_wait=10), 25)
    assert request_of(transfer, "t")[0] == Transfer(target="t", timeout=60, blocks=8)
    ask, seconds = request_of(endurance, "t")
    assert isinstance(ask, Ping) and (ask.count, ask.interval, ask.every, ask.reliable) == (4, 0.5, 1, False)
    assert seconds >= 2 and planned_messages(endurance) == 4
