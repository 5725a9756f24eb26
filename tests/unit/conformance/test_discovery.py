"""check_discovery passes what keeps the contract and catches each way to break it."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import attrs
import pytest

from tom_connect.abc import FoundAddr, PluginContext
from tom_connect.addr import NodeAddr
from tom_connect.exceptions import DiscoveryError, NetworkError
from tom_connect.keys import NodeId, SecretKey
from tom_connect.record import SignedRecord
from tom_connect.testing.conformance import Rule, check_discovery, rules
from tom_connect.testing.plugincontext import LentContext, plugin_context

from .good import GoodDiscovery, Store
from .mutants import breaks, named

UNREACHABLE = object()
ANOTHER = SecretKey(bytes(31) + b"\1").node_id


async def check(make: Callable[[Store | None, LentContext], Any], **options: Any) -> None:
    """Run the whole check on what `make` gives for a store, or for none."""
    store = Store()

    def factory(ctx: LentContext) -> Any:
        return make(None if ctx.config is UNREACHABLE else store, ctx)

    await check_discovery(
        factory,
        publish=options.pop("publish", store.publish),
        unreachable=lambda: plugin_context(UNREACHABLE),
        forge=store.forge,
        timeout=1.0,
        **options,
    )


async def test_what_keeps_the_contract_passes() -> None:
    """The good one passes, given alone or in a sequence."""
    await check(GoodDiscovery)
    await check(lambda store, ctx: [GoodDiscovery(store, ctx)])


async def test_what_is_not_signed_passes_as_such() -> None:
    """A source that knows no signatures passes."""
    store = Store()
    await check_discovery(lambda ctx: Unsigned(store, ctx), publish=store.publish, signed=False)


class Unsigned(GoodDiscovery):
    def found(self, record: SignedRecord) -> FoundAddr:
        return FoundAddr(record.addr, self.name)


class NoText(GoodDiscovery):
    name = None  # type: ignore[assignment]


class BadStage(GoodDiscovery):
    stage = -1.0


class BadFlag(GoodDiscovery):
    serverless = "yes"  # type: ignore[assignment]


class StartFails(GoodDiscovery):
    async def start(self) -> None:
        raise OSError("no")


class StartHangs(GoodDiscovery):
    async def start(self) -> None:
        await asyncio.sleep(60)


class StartGoesOn(GoodDiscovery):
    async def start(self) -> None:
        for _ in range(100):
            try:
                await asyncio.sleep(0.01)
            except asyncio.CancelledError:
                continue


class CloseNeedsStart(GoodDiscovery):
    async def start(self) -> None:
        self.session = "open"

    async def aclose(self) -> None:
        del self.session


class CloseIsSlow(GoodDiscovery):
    async def aclose(self) -> None:
        await asyncio.sleep(0.85)


class StartBlocks(GoodDiscovery):
    async def start(self) -> None:
        time.sleep(0.12)  # noqa: ASYNC251 - a mutant may


class LeavesTask(GoodDiscovery):
    tasks: set[asyncio.Task[None]] = set()  # noqa: RUF012 - a mutant may

    async def start(self) -> None:
        self.tasks.add(asyncio.create_task(asyncio.sleep(2)))


class LeavesSocket(GoodDiscovery):
    left: list[socket.socket] = []  # noqa: RUF012 - a mutant may

    async def start(self) -> None:
        self.left.append(socket.socket())


class FailsUnseen(GoodDiscovery):
    async def start(self) -> None:
        async def fail() -> None:
            raise RuntimeError("unseen")

        self.ctx.create_task(fail(), "failing")
        await asyncio.sleep(0)
        await asyncio.sleep(0)


class CallbackFails(GoodDiscovery):
    async def resolve(self, node_id: NodeId) -> AsyncIterator[FoundAddr]:
        asyncio.get_running_loop().call_soon(lambda: 1 / 0)
        async for found in super().resolve(node_id):
            yield found


class Shared(GoodDiscovery):
    users = 0

    async def start(self) -> None:
        type(self).users += 1

    async def aclose(self) -> None:
        type(self).users = 0

    async def fetch(self, node_id: NodeId) -> bytes | None:
        return await super().fetch(node_id) if type(self).users else None


class NoIterator(GoodDiscovery):
    async def resolve(self, node_id: NodeId) -> list[FoundAddr]:  # type: ignore[override]
        return []


class Texts(GoodDiscovery):
    def found(self, record: SignedRecord) -> FoundAddr:
        return str(record.addr)  # type: ignore[return-value]


class WrongNode(GoodDiscovery):
    def found(self, record: SignedRecord) -> FoundAddr:
        return FoundAddr(attrs.evolve(record.addr, node_id=ANOTHER), self.name, record.timestamp_us)


class NoSource(GoodDiscovery):
    def found(self, record: SignedRecord) -> FoundAddr:
        return FoundAddr(record.addr, "", record.timestamp_us)


class FindsNothing(GoodDiscovery):
    async def fetch(self, node_id: NodeId) -> bytes | None:
        return None


class FailsIfFound(GoodDiscovery):
    def found(self, record: SignedRecord) -> FoundAddr:
        raise KeyError("found")


class RaisesAtOnce(GoodDiscovery):
    def resolve(self, node_id: NodeId) -> AsyncIterator[FoundAddr]:
        raise LookupError("not asked")


class FindsHalf(GoodDiscovery):
    def found(self, record: SignedRecord) -> FoundAddr:
        addr = NodeAddr(record.node_id, direct_addrs=record.addr.direct_addrs[:1])
        return FoundAddr(addr, self.name, record.timestamp_us)


class NowTimes(GoodDiscovery):
    def found(self, record: SignedRecord) -> FoundAddr:
        return FoundAddr(record.addr, self.name, time.time_ns() // 1000)


class OldLast(GoodDiscovery):
    async def resolve(self, node_id: NodeId) -> AsyncIterator[FoundAddr]:
        async for found in super().resolve(node_id):
            yield found
            assert found.timestamp_us is not None
            yield FoundAddr(NodeAddr(node_id, direct_addrs=["192.0.2.77:7"]), self.name, found.timestamp_us - 1)


class Remembers(GoodDiscovery):
    first: dict[NodeId, bytes | None] = {}  # noqa: RUF012 - a mutant may

    async def fetch(self, node_id: NodeId) -> bytes | None:
        return self.first.setdefault(node_id, await super().fetch(node_id))


class UnknownRaises(GoodDiscovery):
    async def resolve(self, node_id: NodeId) -> AsyncIterator[FoundAddr]:
        empty = True
        async for found in super().resolve(node_id):
            empty = False
            yield found
        if empty:
            raise NetworkError("not found")


class UnknownFound(GoodDiscovery):
    async def resolve(self, node_id: NodeId) -> AsyncIterator[FoundAddr]:
        empty = True
        async for found in super().resolve(node_id):
            empty = False
            yield found
        if empty:
            yield FoundAddr(NodeAddr(node_id), self.name, 1)


class NeverEnds(GoodDiscovery):
    async def resolve(self, node_id: NodeId) -> AsyncIterator[FoundAddr]:
        async for found in super().resolve(node_id):
            yield found
        await asyncio.Event().wait()


class WorksOn(GoodDiscovery):
    async def resolve(self, node_id: NodeId) -> AsyncIterator[FoundAddr]:
        self.ctx.create_task(asyncio.sleep(30), "working on")
        async for found in super().resolve(node_id):
            yield found


class Swallows(GoodDiscovery):
    async def resolve(self, node_id: NodeId) -> AsyncIterator[FoundAddr]:
        try:
            async for found in super().resolve(node_id):
                yield found
        except asyncio.CancelledError:
            return


class Turns(GoodDiscovery):
    async def resolve(self, node_id: NodeId) -> AsyncIterator[FoundAddr]:
        try:
            async for found in super().resolve(node_id):
                yield found
        except asyncio.CancelledError as exc:
            raise NetworkError("cancelled") from exc


class OneAtATime(GoodDiscovery):
    asking: NodeId | None = None

    async def fetch(self, node_id: NodeId) -> bytes | None:
        self.asking = node_id
        await super().fetch(node_id)
        assert self.asking is not None
        return await super().fetch(self.asking)

    def read(self, node_id: NodeId, packet: bytes) -> SignedRecord:
        return SignedRecord.from_bytes(packet)

    def found(self, record: SignedRecord) -> FoundAddr:
        return FoundAddr(record.addr, self.name, record.timestamp_us)


class Blocks(GoodDiscovery):
    async def fetch(self, node_id: NodeId) -> bytes | None:
        time.sleep(0.12)  # noqa: ASYNC251 - a mutant may
        return await super().fetch(node_id)


class WrongError(GoodDiscovery):
    async def fetch(self, node_id: NodeId) -> bytes | None:
        if self.store is None:
            raise OSError("no store")
        return await super().fetch(node_id)


class OtherNetworkError(GoodDiscovery):
    async def resolve(self, node_id: NodeId) -> AsyncIterator[FoundAddr]:
        if self.store is None:
            raise NetworkError("there is no store")
        async for found in super().resolve(node_id):
            yield found


class SilentError(GoodDiscovery):
    async def resolve(self, node_id: NodeId) -> AsyncIterator[FoundAddr]:
        if self.store is None:
            raise DiscoveryError
        async for found in super().resolve(node_id):
            yield found


class NoError(GoodDiscovery):
    async def fetch(self, node_id: NodeId) -> bytes | None:
        return await super().fetch(node_id) if self.store is not None else None


class Credulous(GoodDiscovery):
    async def resolve(self, node_id: NodeId) -> AsyncIterator[FoundAddr]:
        packet = await self.fetch(node_id)
        if packet is not None and len(packet) > 104:
            from tom_connect.record import parse_dns_packet

            timestamp_us = int.from_bytes(packet[96:104], "big")
            yield FoundAddr(parse_dns_packet(node_id, packet[104:]), self.name, timestamp_us)


BROKEN: list[tuple[Rule, Any]] = [
    (rules.KIND, lambda store, ctx: object()),
    (rules.KIND, lambda store, ctx: None),
    (rules.KIND, lambda store, ctx: [GoodDiscovery(store, ctx)] * 2),
    (rules.NAME, NoText),
    (rules.FACTORY_PROMPT, lambda store, ctx: time.sleep(0.11) or GoodDiscovery(store, ctx)),
    (rules.STARTS, StartFails),
    (rules.STARTS, StartHangs),
    (rules.CANCELS, StartGoesOn),
    (rules.CLOSES, CloseNeedsStart),
    (rules.CLOSES_SOON, CloseIsSlow),
    (rules.NO_BLOCKING, StartBlocks),
    (rules.LEAVES_NO_TASK, LeavesTask),
    (rules.LEAVES_NO_SOCKET, LeavesSocket),
    (rules.NOTHING_UNHANDLED, FailsUnseen),
    (rules.NOTHING_UNHANDLED, CallbackFails),
    (rules.NOT_GLOBAL, Shared),
    (rules.STAGE, BadStage),
    (rules.STAGE, BadFlag),
    (rules.ITERATES, NoIterator),
    (rules.FOUND_TYPE, Texts),
    (rules.FOUND_NODE, WrongNode),
    (rules.FOUND_SOURCE, NoSource),
    (rules.FOUND_ADDR, FindsNothing),
    (rules.FOUND_ADDR, FailsIfFound),
    (rules.ITERATES, RaisesAtOnce),
    (rules.KIND, lambda store, ctx: 1 // 0),
    (rules.FOUND_ADDR, FindsHalf),
    (rules.FOUND_ADDR, Remembers),
    (rules.SIGNED_TIME, Unsigned),
    (rules.SIGNED_TIME, NowTimes),
    (rules.NEWEST_LAST, OldLast),
    (rules.UNKNOWN_ENDS, UnknownRaises),
    (rules.UNKNOWN_ENDS, UnknownFound),
    (rules.ENDS, NeverEnds),
    (rules.CLOSING_CANCELS, WorksOn),
    (rules.CANCELS, Swallows),
    (rules.CANCELS, Turns),
    (rules.SIDE_BY_SIDE, OneAtATime),
    (rules.NO_BLOCKING, Blocks),
    (rules.DISCOVERY_ERROR, WrongError),
    (rules.DISCOVERY_ERROR, OtherNetworkError),
    (rules.DISCOVERY_ERROR, SilentError),
    (rules.DISCOVERY_ERROR, NoError),
    (rules.FORGED, Credulous),
]


@pytest.mark.slow
@pytest.mark.leaks("mutants leave sockets behind: that is what is caught")
@pytest.mark.parametrize(("rule", "make"), BROKEN, ids=named)
async def test_what_breaks_a_rule_is_caught(rule: Rule, make: Any) -> None:
    """Each mutant fails by the rule that it breaks, and the error says what was seen and where to read."""
    await breaks(rule, check(make))
    for left in LeavesSocket.left:
        left.close()


async def test_a_context_that_remembers_nothing_is_refused() -> None:
    """Who makes contexts by hand is told by what to make them."""
    store = Store()
    lent = plugin_context()
    bare = PluginContext(**{field.name: getattr(lent, field.name) for field in attrs.fields(PluginContext)})
    with pytest.raises(TypeError, match="plugin_context"):
        await check_discovery(
            lambda ctx: GoodDiscovery(store, ctx),
            publish=store.publish,
            context=lambda: bare,  # type: ignore[arg-type, return-value]
        )


async def test_what_is_not_signed_has_no_time() -> None:
    """A time that nobody signed is caught."""
    store = Store()
    checking = check_discovery(lambda ctx: GoodDiscovery(store, ctx), publish=store.publish, signed=False)
    await breaks(rules.UNSIGNED_TIME, checking)


def test_every_rule_of_discovery_is_broken_by_a_mutant() -> None:
    """No rule is without a mutant that shows that it is looked after."""
    broken = {rule for rule, _ in BROKEN} | {rules.UNSIGNED_TIME}
    assert {rule.name for rule in (*rules.LIFE, *rules.DISCOVERY) if rule not in broken} == set()
