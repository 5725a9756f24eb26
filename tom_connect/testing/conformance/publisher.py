"""The contract of Publisher."""

from __future__ import annotations

import math
import time
from collections.abc import Awaitable, Callable

from tom_connect.abc import FoundAddr, Publisher, PublishReport
from tom_connect.addr import NodeAddr
from tom_connect.exceptions import NetworkError, TomError
from tom_connect.keys import NodeId, SecretKey
from tom_connect.record import SignedRecord
from tom_connect.testing.conformance import rules
from tom_connect.testing.conformance.life import (
    Make,
    Trial,
    check_failed_start,
    check_life,
    require_reason,
    within,
)
from tom_connect.testing.conformance.measuring import unblocked
from tom_connect.testing.conformance.rules import ConformanceError, Rule
from tom_connect.testing.footprint import Footprint
from tom_connect.testing.plugincontext import LentContext, plugin_context

Find = Callable[[NodeId], Awaitable[FoundAddr | SignedRecord | None]]


async def check_publisher(
    make: Make[Publisher],
    *,
    find: Find,
    context: Callable[[], LentContext] = plugin_context,
    unreachable: Callable[[], LentContext] | None = None,
) -> None:
    """Check that an implementation keeps the contract of `tom_connect.abc.Publisher`; raises ConformanceError.

    `make`: the factory, as the hook `tom_publisher` is one; it may return one object or a sequence with one. It is
    called with what `context()` returns, often; each context must have a key of its own, as those of `plugin_context`
    do. `find(node_id)`: what the world now knows of a node, the newest record, None if nothing; it should ask anew
    each time and leave nothing open. `unreachable()`: a context that leads where nothing can be stored; without it
    that is not checked.
    """
    if context().node_id == context().node_id:
        raise ValueError("context() must give each node a key of its own")
    await find(SecretKey.generate().node_id)  # what it imports or opens once is there now
    async with Trial(Publisher, make, timeout=60.0) as trial:  # type: ignore[type-abstract]
        await check_life(trial, context)
        await _check_publishing(trial, context(), find)
        await _check_cancelling(trial, context(), find)
        await _check_apart(trial, context, find)
        if unreachable is not None:
            await _check_unreachable(trial, unreachable())


def _record(ctx: LentContext, port: int, timestamp_us: int) -> SignedRecord:
    return ctx.signer.sign_record(NodeAddr(ctx.node_id, direct_addrs=[f"192.0.2.1:{port}"]), timestamp_us)


def _check_attributes(publisher: Publisher) -> None:
    for attribute in ("republish_after", "timeout"):
        value = getattr(publisher, attribute)
        if isinstance(value, bool) or not isinstance(value, int | float) or not (math.isfinite(value) and value > 0):
            raise ConformanceError(rules.TIMES, f"{attribute} is {value!r}")
    if not isinstance(publisher.serverless, bool):
        raise ConformanceError(rules.TIMES, f"serverless is {publisher.serverless!r}")


async def _published(publisher: Publisher, record: SignedRecord, rule: Rule = rules.REPORTS) -> PublishReport:
    """Publish as the core does; ConformanceError by `rule` if that fails, or if the report is none."""
    try:
        report = await within(rule, publisher.timeout, publisher.publish(record), "publish()")
    except ConformanceError:
        raise
    except Exception as exc:
        raise ConformanceError(rule, f"publish() raised {exc!r}") from exc
    if not isinstance(report, PublishReport):
        raise ConformanceError(rules.REPORTS, f"publish() returned {report!r}")
    if not isinstance(report.by, str) or not report.by or not isinstance(report.nodes, int) or report.nodes < 1:
        raise ConformanceError(rules.REPORTS, f"publish() returned {report!r}")
    return report


async def _held(find: Find, record: SignedRecord, rule: Rule) -> int:
    """The timestamp of what the world holds; ConformanceError by `rule` unless it has the record's address."""
    found = await find(record.node_id)
    if found is None:
        raise ConformanceError(rule, f"published {record.addr!r}; nothing can be found")
    if found.addr != record.addr or found.timestamp_us is None or found.timestamp_us < record.timestamp_us:
        seen = f"published {record.addr!r} as of {record.timestamp_us}; found {found.addr!r} as of {found.timestamp_us}"
        raise ConformanceError(rule, seen)
    return found.timestamp_us


async def _check_publishing(trial: Trial[Publisher], ctx: LentContext, find: Find) -> None:
    now = time.time_ns() // 1000
    async with trial.running(ctx) as (publisher,):
        _check_attributes(publisher)
        first = _record(ctx, 1, now)
        await unblocked(rules.NO_BLOCKING, "publish()", lambda: _published(publisher, first))
        _check_attributes(publisher)
        await _held(find, first, rules.STORES)

        second = _record(ctx, 2, now + 1_000_000)
        await _published(publisher, second, rules.REPLACES)
        newest = await _held(find, second, rules.REPLACES)
        await _published(publisher, second, rules.REPEATS)
        newest = max(newest, await _held(find, second, rules.REPEATS))
        await _check_older(publisher, _record(ctx, 3, now - 60_000_000), find, newest)

        addrs = [f"[2001:db8::{number:x}:1234:5678:9abc]:{50000 + number}" for number in range(1, 40)]
        large = NodeAddr(ctx.node_id, ["https://relay.example/"], addrs, "u" * 200)
        signed = ctx.signer.sign_record(large, max(newest, now) + 10_000_000)
        if len(signed.dns_packet) < 900:
            raise RuntimeError(f"the large record has {len(signed.dns_packet)} bytes only")
        await _published(publisher, signed, rules.CARRIES_ALL)
        await _held(find, signed, rules.CARRIES_ALL)


async def _check_older(publisher: Publisher, older: SignedRecord, find: Find, newest: int) -> None:
    """An older one is refused, or signed again above the newest; never does it take its place as it is."""
    try:
        await within(rules.NEWEST_WINS, publisher.timeout, publisher.publish(older), "publish() of an older record")
    except ConformanceError:
        raise
    except NetworkError as exc:
        require_reason(rules.NEWEST_WINS, "publish() of an older record", exc)
    except Exception as exc:
        raise ConformanceError(rules.NEWEST_WINS, f"publish() of an older record raised {exc!r}") from exc
    found = await find(older.node_id)
    if found is None or found.timestamp_us is None or found.timestamp_us < newest:
        timestamp = None if found is None else found.timestamp_us
        raise ConformanceError(rules.NEWEST_WINS, f"held: a record as of {newest}; after an older one: {timestamp}")


async def _check_cancelling(trial: Trial[Publisher], ctx: LentContext, find: Find) -> None:
    async with trial.running(ctx) as (publisher,):
        now = time.time_ns() // 1000
        await _published(publisher, _record(ctx, 1, now))
        footprint = Footprint()

        async def publishing() -> None:
            nonlocal now
            now += 1_000_000
            try:
                await publisher.publish(_record(ctx, 2, now))
            except NetworkError as exc:
                raise ConformanceError(
                    rules.PUBLISH_CANCELS, f"after a cancelled publish() the next raised {exc!r}"
                ) from exc

        await trial.cancelled(rules.CANCELS, "publish()", publishing)
        left = await footprint.left(sockets=False, within=trial.settle)
        if left:
            raise ConformanceError(rules.PUBLISH_CANCELS, ", ".join(left))
        record = _record(ctx, 3, now + 1_000_000)
        await _published(publisher, record, rules.PUBLISH_CANCELS)
        await _held(find, record, rules.PUBLISH_CANCELS)


async def _check_apart(trial: Trial[Publisher], context: Callable[[], LentContext], find: Find) -> None:
    """Two nodes publish; one ends; the other goes on, and both records are there."""
    first, second = context(), context()
    now = time.time_ns() // 1000
    async with trial.running(first, second) as (one, other):
        if one is other:
            raise ConformanceError(rules.NOT_GLOBAL, "the factory gave both endpoints the same object")
        theirs = _record(second, 2, now)
        await _published(other, theirs, rules.NOT_GLOBAL)
        await trial.close(other, second)
        ours = _record(first, 1, now)
        await _published(one, ours, rules.NOT_GLOBAL)
        await _held(find, ours, rules.NOT_GLOBAL)


async def _check_unreachable(trial: Trial[Publisher], ctx: LentContext) -> None:
    footprint = Footprint()
    publisher = await check_failed_start(trial, ctx, rules.PUBLISH_ERROR, TomError)
    if publisher is None:
        return
    what = "publish() where nobody answers"
    try:
        record = _record(ctx, 1, time.time_ns() // 1000)
        report = await within(rules.PUBLISH_ERROR, publisher.timeout, publisher.publish(record), what)
        raise ConformanceError(rules.PUBLISH_ERROR, f"{what} returned {report!r}")
    except NetworkError as exc:
        require_reason(rules.PUBLISH_ERROR, what, exc)
    except ConformanceError:
        raise
    except Exception as exc:
        raise ConformanceError(rules.PUBLISH_ERROR, f"{what} raised {exc!r}") from exc
    finally:
        await trial.close(publisher, ctx)
    await trial.nothing_left(footprint, ctx)
