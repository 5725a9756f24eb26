"""check_datagram_protocol passes what keeps the contract and catches each way to break it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any

import pytest

from tom_connect.addr import SocketAddr
from tom_connect.testing.conformance import Rule, check_datagram_protocol, rules

from .good import CLAIMED, GoodProtocol
from .mutants import breaks, named


async def check(make: Any) -> None:
    await check_datagram_protocol(make, claimed=CLAIMED, foreign=[b"tomless?"])


async def test_what_keeps_the_contract_passes() -> None:
    """The good one passes."""
    await check(GoodProtocol)


async def test_a_datagram_of_the_protocol_is_needed() -> None:
    """Without an example nothing could be checked; that is said."""
    with pytest.raises(ValueError, match="claimed"):
        await check_datagram_protocol(GoodProtocol, claimed=[])


class OddPriority(GoodProtocol):
    priority = 0.5  # type: ignore[assignment]


class ClaimsNothing(GoodProtocol):
    def claims(self, head: bytes) -> bool:
        return False


class ClaimsMore(GoodProtocol):
    def claims(self, head: bytes) -> bool:
        return head[:3] == b"tom"


class ClaimsStun(GoodProtocol):
    def claims(self, head: bytes) -> bool:
        return super().claims(head) or head[4:8] == b"\x21\x12\xa4\x42"


class ClaimsMuch(GoodProtocol):
    def claims(self, head: bytes) -> bool:
        return super().claims(head) or head[:1] > b"\xc0"


class ClaimsIndexes(GoodProtocol):
    def claims(self, head: bytes) -> bool:
        return head[0] == ord("t") and super().claims(head)


class ClaimsMatch(GoodProtocol):
    def claims(self, head: bytes) -> bool:
        return head[:7] if super().claims(head) else None  # type: ignore[return-value]


class ClaimsSlowly(GoodProtocol):
    def claims(self, head: bytes) -> bool:
        time.sleep(0.0003)
        return super().claims(head)


class TakesOnlyRunning(GoodProtocol):
    def datagrams_received(self, datagrams: Sequence[tuple[bytes, SocketAddr]]) -> None:
        assert self.running
        super().datagrams_received(datagrams)


class Parses(GoodProtocol):
    def datagrams_received(self, datagrams: Sequence[tuple[bytes, SocketAddr]]) -> None:
        for data, _ in datagrams:
            data.decode()
        super().datagrams_received(datagrams)


class ParsesLater(GoodProtocol):
    def handle(self, data: bytes, source: SocketAddr) -> None:
        data.decode()
        super().handle(data, source)


class TakesSlowly(GoodProtocol):
    def datagrams_received(self, datagrams: Sequence[tuple[bytes, SocketAddr]]) -> None:
        time.sleep(0.06)
        super().datagrams_received(datagrams)


class HandlesSlowly(GoodProtocol):
    def take(self) -> None:
        if self.queue:
            time.sleep(0.12)
        super().take()


class Unbounded(GoodProtocol):
    queue_size = 1_000_000


class TaskForEach(GoodProtocol):
    def datagrams_received(self, datagrams: Sequence[tuple[bytes, SocketAddr]]) -> None:
        for data, source in datagrams if self.running else ():
            self.ctx.create_task(self.handled(data, source), "handling")

    async def handled(self, data: bytes, source: SocketAddr) -> None:
        self.handle(data, source)


class Amplifies(GoodProtocol):
    def handle(self, data: bytes, source: SocketAddr) -> None:
        if data[:8] == b"tomtest?":
            self.ctx.socket.send(b"tomtest!" + bytes(1000), source)


class NeedsSocket(GoodProtocol):
    def datagrams_received(self, datagrams: Sequence[tuple[bytes, SocketAddr]]) -> None:
        for _, source in datagrams if self.running else ():
            if not self.ctx.socket.send(b"?", source):
                raise OSError("not sent")


class NeedsSocketLater(GoodProtocol):
    def handle(self, data: bytes, source: SocketAddr) -> None:
        if not self.ctx.socket.send(b"?", source):
            raise OSError("not sent")


class KeepsTask(GoodProtocol):
    kept: set[asyncio.Task[None]] = set()  # noqa: RUF012 - a mutant may

    async def start(self) -> None:
        await super().start()
        self.kept.add(asyncio.create_task(asyncio.sleep(2)))


BROKEN: list[tuple[Rule, Any]] = [
    (rules.PRIORITY, OddPriority),
    (rules.CLAIMS_OWN, ClaimsNothing),
    (rules.CLAIMS_NO_OTHER, ClaimsMore),
    (rules.CLAIMS_NO_OTHER, ClaimsStun),
    (rules.CLAIMS_NO_OTHER, ClaimsMuch),
    (rules.CLAIMS_PROMPT, ClaimsIndexes),
    (rules.CLAIMS_PROMPT, ClaimsMatch),
    (rules.CLAIMS_PROMPT, ClaimsSlowly),
    (rules.TAKES_ALL, TakesOnlyRunning),
    (rules.TAKES_ALL, Parses),
    (rules.NOTHING_UNHANDLED, ParsesLater),
    (rules.TAKES_PROMPT, TakesSlowly),
    (rules.NO_BLOCKING, HandlesSlowly),
    (rules.TAKES_BOUNDED, Unbounded),
    (rules.TAKES_BOUNDED, TaskForEach),
    (rules.NO_AMPLIFIER, Amplifies),
    (rules.SEND_FAILS, NeedsSocket),
    (rules.SEND_FAILS, NeedsSocketLater),
    (rules.LEAVES_NO_TASK, KeepsTask),
]


@pytest.mark.slow
@pytest.mark.parametrize(("rule", "make"), BROKEN, ids=named)
async def test_what_breaks_a_rule_is_caught(rule: Rule, make: Any) -> None:
    """Each mutant fails by the rule that it breaks."""
    await breaks(rule, check(make))


def test_every_rule_of_datagram_protocols_is_broken_by_a_mutant() -> None:
    """No rule is without a mutant that shows that it is looked after."""
    broken = {rule for rule, _ in BROKEN}
    assert {rule.name for rule in rules.DATAGRAM_PROTOCOL if rule not in broken} == set()
