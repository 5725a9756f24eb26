"""Runs a campaign: phase after phase, some steps at a time, each recorded as it is done."""

from __future__ import annotations

import asyncio
import contextlib
import platform
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager
from typing import Any

import attrs
import importlib_metadata

from tom_campaign.core.control import Ask, Close, Connect, Ping, Resolve, Transfer, Window
from tom_campaign.core.errors import ControlError, NodeGoneError
from tom_campaign.core.records import CampaignStarted, CampaignSummary, EnduranceRolling, PhaseResult, Record
from tom_campaign.core.scenario import Phase, Scenario
from tom_campaign.core.schedule import Step, remaining, steps_of
from tom_campaign.core.summing import Measured, campaign_summary, figures, of_step, phase_result
from tom_campaign.core.typed import MistypedError, typed
from tom_campaign.networks.population import Population
from tom_campaign.recordfile import Recorded

_EXCLUSIVE = frozenset({"burst", "transfer"})
"""Kinds of which a node is in one step at a time: two would measure each other."""
BLOCKS_OF_A_MIB = 16


def own_version() -> str:
    """The version of tom-campaign."""
    try:
        return importlib_metadata.version("tom-campaign")
    except importlib_metadata.PackageNotFoundError:
        return "unknown"


def planned_messages(phase: Phase) -> int:
    """What a step of a phase sends if nothing is in its way."""
    values = phase.parameters
    if phase.kind in ("ping", "burst"):
        return int(values["count"])
    if phase.kind in ("failover", "endurance"):
        return max(1, round(float(values["duration"]) / float(values["interval"])))
    if phase.kind == "transfer":
        return max(1, round(float(values["mib"]) * BLOCKS_OF_A_MIB))
    return 1


def request_of(phase: Phase, target: str) -> tuple[Ask, float]:
    """What the dialer of a step is asked, and how many seconds that may take."""
    values = phase.parameters
    timeout = float(values["timeout"])
    if phase.kind == "discovery":
        return Resolve(target=target, timeout=timeout, fresh=values["fresh"]), timeout
    if phase.kind == "connect":
        wait = values["direct_wait"]
        return Connect(target=target, timeout=timeout, direct_wait=wait), timeout + wait
    count = planned_messages(phase)
    if phase.kind == "transfer":
        return Transfer(target=target, timeout=timeout, blocks=count), timeout
    interval = 1 / values["rate"] if phase.kind == "burst" else float(values["interval"])
    ask = Ping(
        target=target,
        timeout=timeout,
        count=count,
        interval=interval,
        size=values["size"],
        # What survives a change of network is to be seen, and how long it takes, not what the change itself swallows.
        reliable=phase.kind == "failover",
        every=values.get("every", 0.0),
    )
    return ask, count * interval + 2 * timeout


@attrs.define(eq=False)
class Campaign:
    """One run of a scenario. `write` takes each record; `before`: what is recorded of earlier runs, if it goes on."""

    scenario: Scenario
    population: Callable[[], AbstractAsyncContextManager[Population]]
    write: Callable[[Record], None]
    before: Recorded | None = None
    results: list[PhaseResult] = attrs.field(init=False)
    _people: Population | None = None
    _busy: dict[str, asyncio.Lock] = attrs.Factory(dict)
    _summary: CampaignSummary | None = None

    def __attrs_post_init__(self) -> None:
        self.results = list(self.before.results) if self.before is not None else []

    async def run(self) -> CampaignSummary:
        """Do what is not done yet. The last record is a summary, also where this is cancelled or fails."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        phases = steps_of(self.scenario)
        done = {result.step for result in self.results}
        left = {steps[0].phase.name: remaining(steps, done) for steps in phases if steps}
        planned = {phase.name: len(steps) for phase, steps in zip(self.scenario.phases, phases, strict=True)}
        total = sum(planned.values())

        def conclude() -> CampaignSummary:
            """The summary, written once: what comes after it is not of this run any more."""
            if self._summary is None:
                dead = set(self._people.deaths if self._people is not None else ())
                self._summary = campaign_summary(
                    self.scenario,
                    planned,
                    self.results,
                    at=time.time(),
                    elapsed_s=loop.time() - began + (self.before.elapsed_s if self.before is not None else 0.0),
                    interrupted=len(self.results) < total,
                    dead_nodes=dead | set(self.before.dead_nodes if self.before is not None else ()),
                )
                self.write(self._summary)
            return self._summary

        async def measure() -> None:
            async with self.population() as people:
                self._people = people
                self.write(self._started(people, total))
                try:
                    await self._phases(left)
                finally:
                    # Before the population goes, which takes a while.
                    conclude()

        if not any(left.values()):
            return conclude()
        measuring = asyncio.create_task(measure(), name="measuring")
        try:
            await asyncio.wait([measuring])
        except asyncio.CancelledError:
            # First of all: to end a population, even one that is still being started, takes longer than Ctrl-C may.
            conclude()
            measuring.cancel()
            await asyncio.gather(measuring, return_exceptions=True)
            raise
        summary = conclude()
        measuring.result()
        return summary

    def _started(self, people: Population, steps: int) -> CampaignStarted:
        scenario = self.scenario
        return CampaignStarted(
            campaign=scenario.name,
            description=scenario.description,
            digest=scenario.digest,
            at=round(time.time(), 3),
            seed=scenario.seed,
            version=own_version(),
            python=platform.python_version(),
            system=f"{platform.system()} {platform.release()}",
            find=scenario.find,
            dht_nodes=scenario.dht_nodes,
            relays=scenario.relays,
            nodes=people.infos(),
            phases=tuple(phase.name for phase in scenario.phases),
            steps=steps,
            resumed=self.before is not None,
        )

    async def _phases(self, left: dict[str, tuple[Step, ...]]) -> None:
        # A connection is kept while later phases of the same pair may use it.
        last = {step.pair: step for steps in left.values() for step in steps if step.phase.kind != "discovery"}
        for steps in left.values():
            waiting = iter(steps)
            # What happens to the network, or to a relay, happens to others too.
            jobs = 1 if steps and steps[0].phase.kind == "failover" else self.scenario.jobs
            try:
                async with asyncio.TaskGroup() as group:
                    for number in range(min(jobs, len(steps))):
                        group.create_task(self._work(waiting, last), name=f"job {number}")
            except BaseExceptionGroup as exc:
                raise exc.exceptions[0] from None

    async def _work(self, waiting: Iterator[Step], last: dict[Any, Step]) -> None:
        for step in waiting:
            async with self._alone(step):
                await self._do(step)
            if last.get(step.pair) is step:
                await self._close(step)

    @contextlib.asynccontextmanager
    async def _alone(self, step: Step) -> AsyncIterator[None]:
        if step.phase.kind not in _EXCLUSIVE:
            yield
            return
        # In the order of names, so that no two steps wait for each other.
        one, other = (
            self._busy.setdefault(name, asyncio.Lock()) for name in sorted((step.pair.dialer, step.pair.target))
        )
        async with one, other:
            yield

    async def _close(self, step: Step) -> None:
        assert self._people is not None
        with contextlib.suppress(ControlError):
            await self._people.ask(step.pair.dialer, Close(target=self._people.target(step.pair.target)), 10.0)

    def _record(self, record: Record) -> None:
        """Write what was measured, unless the summary has been: it is of what stands before it."""
        if self._summary is None:
            if isinstance(record, PhaseResult):
                self.results.append(record)
            self.write(record)

    async def _do(self, step: Step) -> None:
        assert self._people is not None
        loop = asyncio.get_running_loop()
        nats = self.scenario.nat_kinds
        began = loop.time()

        def rolled(window: Window) -> None:
            at = time.time()
            names = of_step(step, campaign=self.scenario.name, nats=nats, at=at, path_kind=window.path_kind)
            self._record(
                EnduranceRolling(
                    **names,
                    **figures(window.sent, window.received, window.rtt, window.reconnections),
                    elapsed_s=window.elapsed_s,
                    window_s=window.window_s,
                    total_sent=window.total_sent,
                    total_received=window.total_received,
                    discovery_source=window.discovery_source,
                )
            )

        try:
            measured = await self._measure(step, rolled)
        except NodeGoneError as exc:
            measured = Measured(sent=planned_messages(step.phase), received=0, error=str(exc))
        except (ControlError, MistypedError) as exc:
            measured = Measured(sent=planned_messages(step.phase), received=0, error=str(exc))
        if (why := self._people.deaths.get(step.pair.target)) is not None:
            measured = attrs.evolve(measured, error=why if measured.error is None else f"{why}; {measured.error}")
        result = phase_result(
            step,
            measured,
            campaign=self.scenario.name,
            nats=nats,
            at=time.time(),
            elapsed_s=loop.time() - began,
        )
        self._record(result)

    async def _measure(self, step: Step, rolled: Callable[[Window], None]) -> Measured:
        people = self._people
        assert people is not None
        ask, timeout = request_of(step.phase, people.target(step.pair.target))
        if step.phase.kind != "failover":
            return typed(Measured, await people.ask(step.pair.dialer, ask, timeout, rolled), "answer")
        values = step.phase.parameters
        victim = step.pair.dialer if values["side"] == "dialer" else step.pair.target

        async def happen() -> None:
            await asyncio.sleep(values["before"])
            await people.change(values["event"], victim)

        happening = asyncio.create_task(happen(), name=f"{values['event']} of {victim}")
        try:
            answer = await people.ask(step.pair.dialer, ask, timeout)
            await happening
        finally:
            happening.cancel()
            await asyncio.gather(happening, return_exceptions=True)
        return typed(Measured, answer, "answer")
