"""The contract of Discovery."""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

from tom_connect.abc import Discovery, FoundAddr
from tom_connect.addr import NodeAddr
from tom_connect.exceptions import DiscoveryError, TomError
from tom_connect.keys import NodeId, SecretKey
from tom_connect.record import SignedRecord, sign_record
from tom_connect.testing.conformance import rules
from tom_connect.testing.conformance.life import (
    Make,
    Trial,
    asked,
    check_failed_start,
    check_life,
    require_reason,
    within,
)
from tom_connect.testing.conformance.measuring import unblocked
from tom_connect.testing.conformance.rules import ConformanceError, Rule
from tom_connect.testing.footprint import Footprint
from tom_connect.testing.plugincontext import LentContext, plugin_context

SIDE_BY_SIDE = 8
"""Searches at once."""
MAX_FOUND = 64
"""Answers after which the core stops a search."""

Publish = Callable[[SignedRecord], Awaitable[None]]
Forge = Callable[[NodeId, bytes], Awaitable[None]]


async def check_discovery(
    make: Make[Discovery],
    *,
    publish: Publish,
    context: Callable[[], LentContext] = plugin_context,
    unreachable: Callable[[], LentContext] | None = None,
    forge: Forge | None = None,
    signed: bool = True,
    timeout: float = 20.0,
) -> None:
    """Check that an implementation keeps the contract of `tom_connect.abc.Discovery`; raises ConformanceError.

    `make`: the factory, as the hook `tom_discovery` is one; it may return one object or a sequence with one. It is
    called with what `context()` returns, often. `publish(record)`: makes a node findable by its record (take from it
    what the source can hold: `record.addr` has one or two direct addresses); a record of a node that is there already
    takes its place. `unreachable()`: a context that leads to a source that can't be asked; without it that is not
    checked. `forge(node_id, packet)`: puts bytes where the source holds a node's signed packet, key and all, though
    they may be wrong; for sources that refuse such bytes leave it out. `signed`: whether what the source gives is
    signed by the nodes. `timeout`: seconds for one search.
    """
    newest = SecretKey.generate()
    records = [_record(SecretKey.generate(), number) for number in range(1, 4)]
    now = time.time_ns() // 1000
    records.append(_record(newest, 9, now - 10_000_000))
    for record in records:
        await publish(record)
    async with Trial(Discovery, make, timeout) as trial:  # type: ignore[type-abstract]
        await check_life(trial, context)
        search = _Searches(trial, context, signed=signed)
        await search.finds(records)
        await search.ends_for_unknown()
        await search.closes_early(records[0])
        await search.is_cancelled()
        await search.is_used_side_by_side(records)
        await search.keeps_endpoints_apart(records[0])
        newer = _record(newest, 10, now)
        await publish(newer)
        await search.finds([newer])
        if unreachable is not None:
            await _check_unreachable(trial, unreachable())
        if forge is not None:
            await _check_forged(trial, context, forge)


def _record(key: SecretKey, number: int, timestamp_us: int | None = None) -> SignedRecord:
    addrs = [f"192.0.2.{number}:{4000 + number}", f"198.51.100.{number}:{4000 + number}"][: 1 + number % 2]
    return sign_record(key, NodeAddr(key.node_id, direct_addrs=addrs), timestamp_us or time.time_ns() // 1000)


class _Searches:
    """Searches with objects of one implementation, what they find being checked each time."""

    def __init__(self, trial: Trial[Discovery], context: Callable[[], LentContext], *, signed: bool) -> None:
        self._trial = trial
        self._context = context
        self._signed = signed

    async def search(self, discovery: Discovery, node_id: NodeId, rule: Rule = rules.UNKNOWN_ENDS) -> list[FoundAddr]:
        """All that is found of a node; ConformanceError by `rule` if the search fails."""
        what = f"a search for {node_id!r}"
        try:
            found = await within(rules.ENDS, self._trial.timeout, collected(discovery, node_id), what)
        except ConformanceError:
            raise
        except Exception as exc:
            raise ConformanceError(rule, f"{what} raised {exc!r}") from exc
        for one in found:
            self._check_one(node_id, one)
        times = [one.timestamp_us for one in found if one.timestamp_us is not None]
        if times != sorted(times):
            raise ConformanceError(rules.NEWEST_LAST, f"timestamps in this order: {times}")
        return found

    def _check_one(self, node_id: NodeId, found: FoundAddr) -> None:
        if not isinstance(found, FoundAddr):
            raise ConformanceError(rules.FOUND_TYPE, f"resolve() gave {found!r}")
        if found.addr.node_id != node_id:
            raise ConformanceError(rules.FOUND_NODE, f"asked for {node_id!r}, it gave {found.addr.node_id!r}")
        if not isinstance(found.source, str) or not found.source:
            raise ConformanceError(rules.FOUND_SOURCE, f"source is {found.source!r}")
        if not self._signed and found.timestamp_us is not None:
            raise ConformanceError(rules.UNSIGNED_TIME, f"timestamp_us is {found.timestamp_us}")
        if self._signed and found.timestamp_us is None:
            raise ConformanceError(rules.SIGNED_TIME, "timestamp_us is None")

    def _check_is(self, record: SignedRecord, found: Sequence[FoundAddr]) -> None:
        wanted = set(record.addr.direct_addrs)
        if not found:
            seen = f"nothing was found of a node that was published with {_shown(wanted)}"
            raise ConformanceError(rules.FOUND_ADDR, seen)
        last = found[-1]
        if set(last.addr.direct_addrs) != wanted:
            seen = f"published: {_shown(wanted)}; found last: {_shown(last.addr.direct_addrs)}"
            earlier = any(set(one.addr.direct_addrs) == wanted for one in found[:-1])
            raise ConformanceError(rules.NEWEST_LAST if earlier else rules.FOUND_ADDR, seen)
        if self._signed and last.timestamp_us != record.timestamp_us:
            seen = f"signed at {record.timestamp_us}, found with {last.timestamp_us}"
            raise ConformanceError(rules.SIGNED_TIME, seen)

    async def finds(self, records: Sequence[SignedRecord]) -> None:
        ctx = self._context()
        async with self._trial.running(ctx) as (discovery,):
            _check_attributes(discovery)
            for record in records:
                found = await unblocked(
                    rules.NO_BLOCKING,
                    "resolve()",
                    lambda node_id=record.node_id: self.search(discovery, node_id, rules.FOUND_ADDR),  # type: ignore[misc]
                )
                self._check_is(record, found)

    async def ends_for_unknown(self) -> None:
        ctx = self._context()
        async with self._trial.running(ctx) as (discovery,):
            for node_id in (ctx.node_id, SecretKey.generate().node_id):
                found = await self.search(discovery, node_id)
                if found:
                    raise ConformanceError(rules.UNKNOWN_ENDS, f"found {found[0]!r}")

    async def closes_early(self, record: SignedRecord) -> None:
        ctx = self._context()
        async with self._trial.running(ctx) as (discovery,):
            await self.search(discovery, record.node_id, rules.FOUND_ADDR)
            footprint = Footprint()  # what stays for the next search is there now
            for node_id, wanted in (
                (record.node_id, 0),
                (record.node_id, 1),
                (SecretKey.generate().node_id, 0),
            ):
                await within(
                    rules.CLOSING_CANCELS,
                    self._trial.timeout,
                    _begun(discovery, node_id, wanted),
                    "a search that was closed",
                )
                left = await footprint.left(sockets=False, within=self._trial.settle)
                if left:
                    raise ConformanceError(rules.CLOSING_CANCELS, f"after {wanted} answers: {', '.join(left)}")
            self._check_is(record, await self.search(discovery, record.node_id))

    async def is_cancelled(self) -> None:
        ctx = self._context()
        async with self._trial.running(ctx) as (discovery,):
            await self.search(discovery, SecretKey.generate().node_id)
            footprint = Footprint()  # what stays for the next search is there now

            async def searching() -> None:
                await self.search(discovery, SecretKey.generate().node_id, rules.CANCELS)

            await self._trial.cancelled(rules.CANCELS, "a search", searching)
            left = await footprint.left(sockets=False, within=self._trial.settle)
            if left:
                raise ConformanceError(rules.CLOSING_CANCELS, f"after searches were cancelled: {', '.join(left)}")

    async def is_used_side_by_side(self, records: Sequence[SignedRecord]) -> None:
        ctx = self._context()
        async with self._trial.running(ctx) as (discovery,):
            unknown = [SecretKey.generate().node_id for _ in range(SIDE_BY_SIDE - len(records))]
            quitting = asyncio.ensure_future(self.search(discovery, records[0].node_id))
            wanted = [*(record.node_id for record in records), *unknown, records[0].node_id]
            searches = [asyncio.ensure_future(self.search(discovery, node_id)) for node_id in wanted]
            await asyncio.sleep(0)
            quitting.cancel()
            try:
                await asyncio.wait([quitting, *searches])
                for record, task in zip([*records, records[0]], [*searches[: len(records)], searches[-1]], strict=True):
                    try:
                        self._check_is(record, task.result())
                    except (TomError, asyncio.CancelledError, ConformanceError) as exc:
                        raise ConformanceError(rules.SIDE_BY_SIDE, f"of {len(searches)} searches one: {exc!r}") from exc
                for task in searches[len(records) : -1]:
                    if task.cancelled() or task.exception() is not None or task.result():
                        seen = f"a search for an unknown node among others: {task!r}"
                        raise ConformanceError(rules.SIDE_BY_SIDE, seen)
            finally:
                for task in searches:
                    task.cancel()
                await asyncio.gather(quitting, *searches, return_exceptions=True)

    async def keeps_endpoints_apart(self, record: SignedRecord) -> None:
        first, second = self._context(), self._context()
        async with self._trial.running(first, second) as (one, other):
            if other is one:
                raise ConformanceError(rules.NOT_GLOBAL, "the factory gave both endpoints the same object")
            await self._trial.close(other, second)
            try:
                found = await self.search(one, record.node_id)
                self._check_is(record, found)
            except (ConformanceError, Exception) as exc:
                seen = f"after the object of another endpoint was closed: {exc}"
                raise ConformanceError(rules.NOT_GLOBAL, seen) from exc


def _shown(addrs: object) -> str:
    return ", ".join(sorted(map(str, addrs))) or "no address"  # type: ignore[call-overload]


def _check_attributes(discovery: Discovery) -> None:
    stage = discovery.stage
    if isinstance(stage, bool) or not isinstance(stage, int | float) or not (math.isfinite(stage) and stage >= 0):
        raise ConformanceError(rules.STAGE, f"stage is {stage!r}")
    for attribute in ("serverless", "stage_is_fixed"):
        if not isinstance(getattr(discovery, attribute), bool):
            raise ConformanceError(rules.STAGE, f"{attribute} is {getattr(discovery, attribute)!r}")


def _iterator(discovery: Discovery, node_id: NodeId) -> AsyncIterator[FoundAddr]:
    iterator: object = asked(rules.ITERATES, "resolve()", lambda: discovery.resolve(node_id))
    if not isinstance(iterator, AsyncIterator):
        if asyncio.iscoroutine(iterator):
            iterator.close()  # else Python warns that it was never awaited
        raise ConformanceError(rules.ITERATES, f"resolve() returned {iterator!r}")
    return iterator


@contextlib.asynccontextmanager
async def _searching(discovery: Discovery, node_id: NodeId) -> AsyncIterator[AsyncIterator[FoundAddr]]:
    """A search, closed at the end as the core does it."""
    iterator = _iterator(discovery, node_id)
    try:
        yield iterator
    finally:
        aclose = getattr(iterator, "aclose", None)
        if aclose is not None:
            await aclose()


async def collected(discovery: Discovery, node_id: NodeId) -> list[FoundAddr]:
    """All that a search finds, up to what the core takes."""
    found: list[FoundAddr] = []
    async with _searching(discovery, node_id) as iterator:
        async for one in iterator:
            found.append(one)
            if len(found) >= MAX_FOUND:
                break
    return found


async def _begun(discovery: Discovery, node_id: NodeId, wanted: int) -> None:
    """Take so many answers of a search, and close it."""
    async with _searching(discovery, node_id) as iterator:
        for _ in range(wanted):
            await anext(iterator, None)


async def _check_unreachable(trial: Trial[Discovery], ctx: LentContext) -> None:
    footprint = Footprint()
    discovery = await check_failed_start(trial, ctx, rules.DISCOVERY_ERROR, TomError)
    if discovery is None:
        return
    try:
        what = "a search where nobody answers"
        work = collected(discovery, SecretKey.generate().node_id)
        found = await within(rules.DISCOVERY_ERROR, trial.timeout, work, what)
        raise ConformanceError(rules.DISCOVERY_ERROR, f"{what} gave {found!r} and ended as if nothing were wrong")
    except DiscoveryError as exc:
        require_reason(rules.DISCOVERY_ERROR, what, exc)
    except ConformanceError:
        raise
    except Exception as exc:
        raise ConformanceError(rules.DISCOVERY_ERROR, f"{what} raised {exc!r}") from exc
    finally:
        await trial.close(discovery, ctx)
    await trial.nothing_left(footprint, ctx)


async def _check_forged(trial: Trial[Discovery], context: Callable[[], LentContext], forge: Forge) -> None:
    key, other = SecretKey.generate(), SecretKey.generate()
    good, others = _record(key, 5).to_bytes(), _record(other, 6).to_bytes()
    flipped = bytearray(good)
    flipped[40] ^= 1
    changed = bytearray(good)
    changed[-1] ^= 1
    forged = {
        "nothing": b"",
        "garbage": bytes(range(200)),
        "a packet cut short": good[:60],
        "another node's packet": others,
        "another node's packet under this key": key.node_id.raw + others[32:],
        "a signature with a wrong bit": bytes(flipped),
        "an address with a wrong bit": bytes(changed),
    }
    for what, packet in forged.items():
        await forge(key.node_id, packet)
        ctx = context()
        async with trial.running(ctx) as (discovery,):
            try:
                work = collected(discovery, key.node_id)
                found = await within(rules.FORGED, trial.timeout, work, f"a search that meets {what}")
            except TomError:
                continue
            if any(one.timestamp_us is not None or not one.addr.is_empty() for one in found):
                raise ConformanceError(rules.FORGED, f"the source held {what}; it gave {found[0]!r}")
