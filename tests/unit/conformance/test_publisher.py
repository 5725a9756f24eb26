"""check_publisher passes what keeps the contract and catches each way to break it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tom_connect.abc import FoundAddr, PublishReport
from tom_connect.exceptions import NetworkError
from tom_connect.keys import NodeId, SecretKey
from tom_connect.record import SignedRecord
from tom_connect.testing.conformance import Rule, check_publisher, rules
from tom_connect.testing.plugincontext import LentContext, plugin_context

from .good import GoodPublisher, Store
from .mutants import breaks, named

UNREACHABLE = object()


async def check(make: Any) -> None:
    """Run the whole check on what `make` gives for a store, or for none."""
    store = Store()

    def factory(ctx: LentContext) -> Any:
        return make(None if ctx.config is UNREACHABLE else store, ctx)

    await check_publisher(factory, find=store.find, unreachable=lambda: plugin_context(UNREACHABLE))


class SignsAgain(GoodPublisher):
    async def publish(self, record: SignedRecord) -> PublishReport:
        held = None if self.store is None else await self.store.find(record.node_id)
        if held is not None and held.timestamp_us > record.timestamp_us:
            record = self.ctx.signer.sign_record(record.addr, held.timestamp_us + 1)
        return await super().publish(record)


class IgnoresOlder(GoodPublisher):
    async def publish(self, record: SignedRecord) -> PublishReport:
        held = None if self.store is None else await self.store.find(record.node_id)
        if held is not None and held.timestamp_us > record.timestamp_us:
            return PublishReport(self.name, 1)
        return await super().publish(record)


@pytest.mark.parametrize("make", [GoodPublisher, SignsAgain, IgnoresOlder])
async def test_what_keeps_the_contract_passes(make: Any) -> None:
    """An older record may be refused, signed again, or taken to be there already."""
    await check(make)


async def test_what_is_found_may_be_an_address() -> None:
    """`find` may give what a discovery gives."""
    store = Store()

    async def find(node_id: NodeId) -> FoundAddr | None:
        record = await store.find(node_id)
        return None if record is None else FoundAddr(record.addr, "store", record.timestamp_us)

    await check_publisher(lambda ctx: GoodPublisher(store, ctx), find=find)


async def test_one_key_for_all_is_refused() -> None:
    """A context that always has the same key is a mistake of the caller's, and said to be one."""
    store, key = Store(), SecretKey.generate()
    with pytest.raises(ValueError, match="a key of its own"):
        await check_publisher(
            lambda ctx: GoodPublisher(store, ctx), find=store.find, context=lambda: plugin_context(key=key)
        )


class NeverAgain(GoodPublisher):
    republish_after = float("inf")


class NoTime(GoodPublisher):
    timeout = 0.0


class NoReport(GoodPublisher):
    async def publish(self, record: SignedRecord) -> PublishReport:
        await super().publish(record)
        return None  # type: ignore[return-value]


class ByNobody(GoodPublisher):
    name = ""


class Nowhere(GoodPublisher):
    async def publish(self, record: SignedRecord) -> PublishReport:
        await super().publish(record)
        return PublishReport(self.name, 0)


class Refuses(GoodPublisher):
    async def publish(self, record: SignedRecord) -> PublishReport:
        raise NetworkError("no")


class StoresNothing(GoodPublisher):
    async def publish(self, record: SignedRecord) -> PublishReport:
        if self.store is None:
            raise NetworkError("there is no store")
        return PublishReport(self.name, 1)


class StoresFirst(GoodPublisher):
    async def publish(self, record: SignedRecord) -> PublishReport:
        if self.store is not None and await self.store.find(record.node_id) is not None:
            return PublishReport(self.name, 1)
        return await super().publish(record)


class RefusesRepeats(GoodPublisher):
    async def publish(self, record: SignedRecord) -> PublishReport:
        if self.store is not None and await self.store.find(record.node_id) == record:
            raise NetworkError("that is there already")
        return await super().publish(record)


class TakesOlder(GoodPublisher):
    async def publish(self, record: SignedRecord) -> PublishReport:
        if self.store is None:
            raise NetworkError("there is no store")
        await self.store.publish(record)
        return PublishReport(self.name, 1)


class RefusesWrongly(GoodPublisher):
    async def publish(self, record: SignedRecord) -> PublishReport:
        try:
            return await super().publish(record)
        except NetworkError as exc:
            raise ValueError(str(exc)) from exc


class RefusesMuch(GoodPublisher):
    async def publish(self, record: SignedRecord) -> PublishReport:
        if len(record.dns_packet) > 500:
            raise NetworkError("too large")
        return await super().publish(record)


class GoesOn(GoodPublisher):
    async def publish(self, record: SignedRecord) -> PublishReport:
        self.ctx.create_task(asyncio.sleep(30), "going on")
        return await super().publish(record)


class Swallows(GoodPublisher):
    async def publish(self, record: SignedRecord) -> PublishReport:
        try:
            return await super().publish(record)
        except asyncio.CancelledError:
            return PublishReport(self.name, 1)


class StaysLocked(GoodPublisher):
    busy = False

    async def publish(self, record: SignedRecord) -> PublishReport:
        if self.busy:
            raise NetworkError("busy")
        self.busy = True
        try:
            report = await super().publish(record)
        except NetworkError:
            self.busy = False
            raise
        self.busy = False
        return report


class OneForAll(GoodPublisher):
    open = 0

    async def start(self) -> None:
        type(self).open += 1

    async def aclose(self) -> None:
        type(self).open = 0

    async def publish(self, record: SignedRecord) -> PublishReport:
        if not type(self).open:
            raise NetworkError("closed")
        return await super().publish(record)


class WrongError(GoodPublisher):
    async def publish(self, record: SignedRecord) -> PublishReport:
        if self.store is None:
            raise OSError("refused")
        return await super().publish(record)


class SilentError(GoodPublisher):
    async def publish(self, record: SignedRecord) -> PublishReport:
        if self.store is None:
            raise NetworkError
        return await super().publish(record)


class NoError(GoodPublisher):
    async def publish(self, record: SignedRecord) -> PublishReport:
        return PublishReport(self.name, 1) if self.store is None else await super().publish(record)


class Hangs(GoodPublisher):
    timeout = 0.2

    async def publish(self, record: SignedRecord) -> PublishReport:
        if self.store is None:
            await asyncio.sleep(30)
        return await super().publish(record)


class StartWrongError(GoodPublisher):
    async def start(self) -> None:
        if self.store is None:
            raise OSError("refused")


BROKEN: list[tuple[Rule, Any]] = [
    (rules.KIND, lambda store, ctx: None),
    (rules.TIMES, NeverAgain),
    (rules.TIMES, NoTime),
    (rules.REPORTS, NoReport),
    (rules.REPORTS, ByNobody),
    (rules.REPORTS, Nowhere),
    (rules.REPORTS, Refuses),
    (rules.STORES, StoresNothing),
    (rules.REPLACES, StoresFirst),
    (rules.REPEATS, RefusesRepeats),
    (rules.NEWEST_WINS, TakesOlder),
    (rules.NEWEST_WINS, RefusesWrongly),
    (rules.CARRIES_ALL, RefusesMuch),
    (rules.PUBLISH_CANCELS, GoesOn),
    (rules.PUBLISH_CANCELS, StaysLocked),
    (rules.CANCELS, Swallows),
    (rules.NOT_GLOBAL, OneForAll),
    (rules.PUBLISH_ERROR, WrongError),
    (rules.PUBLISH_ERROR, SilentError),
    (rules.PUBLISH_ERROR, NoError),
    (rules.PUBLISH_ERROR, Hangs),
    (rules.PUBLISH_ERROR, StartWrongError),
]


@pytest.mark.slow
@pytest.mark.parametrize(("rule", "make"), BROKEN, ids=named)
async def test_what_breaks_a_rule_is_caught(rule: Rule, make: Any) -> None:
    """Each mutant fails by the rule that it breaks."""
    await breaks(rule, check(make))


def test_every_rule_of_publishers_is_broken_by_a_mutant() -> None:
    """No rule is without a mutant that shows that it is looked after."""
    broken = {rule for rule, _ in BROKEN}
    assert {rule.name for rule in rules.PUBLISHER if rule not in broken} == set()
