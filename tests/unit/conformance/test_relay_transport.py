"""check_relay_transport passes what keeps the contract and catches each way to break it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import pytest

from tom_connect.abc import RelayInfo
from tom_connect.addr import RelayUrl
from tom_connect.keys import NodeId, SecretKey
from tom_connect.testing.conformance import Rule, check_relay_transport, rules
from tom_connect.testing.plugincontext import LentContext
from tom_connect.watch import Watch

from .good import DEAD, RELAY, GoodRelays, Hub
from .mutants import breaks, named


async def check(make: Any) -> None:
    hub = Hub()
    await check_relay_transport(lambda ctx: make(hub, ctx), relay=RELAY, silent=DEAD, timeout=1.0)


async def test_what_keeps_the_contract_passes() -> None:
    """The good one passes."""
    await check(GoodRelays)


class NoScheme(GoodRelays):
    schemes = frozenset({"other"})


class ShoutedScheme(GoodRelays):
    schemes = frozenset({"mem", "MEM"})


class EarlyHome(GoodRelays):
    def __init__(self, hub: Hub, ctx: LentContext) -> None:
        super().__init__(hub, ctx)
        self.home.set(RELAY)


class NoHome(GoodRelays):
    def joined_now(self, url: RelayUrl) -> None:
        self.woken.set()


class ManyWatches(GoodRelays):
    def home_relay(self) -> Watch[RelayUrl | None]:
        return Watch(self.home.value)


class AdoptsHome(GoodRelays):
    def joined_now(self, url: RelayUrl) -> None:
        self.home.set(url)
        self.woken.set()


class HomeIsStandby(GoodRelays):
    def standby_relay(self) -> Watch[RelayUrl | None]:
        return self.home


class TellsNothing(GoodRelays):
    def relays(self) -> Sequence[RelayInfo]:
        return ()


class NoHomeMark(GoodRelays):
    def relays(self) -> Sequence[RelayInfo]:
        return [RelayInfo(RELAY, "configured", True)]


class OddProbes(GoodRelays):
    def probes(self) -> Any:
        return ["127.0.0.1"]


class SendNeedsStart(GoodRelays):
    def send(self, relay: RelayUrl, node_id: NodeId, datagrams: Sequence[bytes], ecn: int) -> bool:
        assert self.task is not None
        return super().send(relay, node_id, datagrams, ecn)


class SendTellsNothing(GoodRelays):
    def send(self, relay: RelayUrl, node_id: NodeId, datagrams: Sequence[bytes], ecn: int) -> bool:
        super().send(relay, node_id, datagrams, ecn)
        return None  # type: ignore[return-value]


class SendBlocks(GoodRelays):
    def send(self, relay: RelayUrl, node_id: NodeId, datagrams: Sequence[bytes], ecn: int) -> bool:
        time.sleep(0.03)
        return super().send(relay, node_id, datagrams, ecn)


class Unbounded(GoodRelays):
    queue_size = 1_000_000


class DropsUnsaid(GoodRelays):
    def send(self, relay: RelayUrl, node_id: NodeId, datagrams: Sequence[bytes], ecn: int) -> bool:
        super().send(relay, node_id, datagrams, ecn)
        return True


class Truncates(GoodRelays):
    def deliver(self, node: GoodRelays, data: bytes, ecn: int) -> None:
        super().deliver(node, data[:1280], ecn)


class DeliversNothing(GoodRelays):
    def deliver(self, node: GoodRelays, data: bytes, ecn: int) -> None:
        return


class DropsMost(GoodRelays):
    queue_size = 16


class Reverses(GoodRelays):
    async def work(self) -> None:
        while True:
            await self.woken.wait()
            self.woken.clear()
            while self.queue:
                to, data, ecn = self.queue.pop()
                if (node := self.hub.nodes.get(to)) is not None:
                    self.deliver(node, data, ecn)


class WrongSender(GoodRelays):
    def deliver(self, node: GoodRelays, data: bytes, ecn: int) -> None:
        node.receive(RELAY, SecretKey(bytes(32)).node_id, [data], ecn)


class KeyAsBytes(GoodRelays):
    def deliver(self, node: GoodRelays, data: bytes, ecn: int) -> None:
        node.receive(RELAY, self.ctx.node_id.raw, [data], ecn)  # type: ignore[arg-type]


class FromWithin(GoodRelays):
    def send(self, relay: RelayUrl, node_id: NodeId, datagrams: Sequence[bytes], ecn: int) -> bool:
        if (node := self.hub.nodes.get(node_id)) is not None and self.joined.get(RELAY):
            node.receive(RELAY, self.ctx.node_id, datagrams, ecn)
            return True
        return super().send(relay, node_id, datagrams, ecn)


class OpensNothing(GoodRelays):
    def join(self, url: RelayUrl, *, trusted: bool) -> None:
        if url in self.ctx.relay_urls:
            super().join(url, trusted=trusted)


class TrustsAll(GoodRelays):
    def join(self, url: RelayUrl, *, trusted: bool) -> None:
        super().join(url, trusted=True)


class AttestRaises(GoodRelays):
    def attest(self, relay: RelayUrl, node_id: NodeId) -> None:
        self.hub.nodes[node_id].receive(relay, node_id, (), 0)


class OpenRaises(GoodRelays):
    def open(self, relay: RelayUrl, *, trusted: bool) -> None:
        if relay.scheme != "mem":
            raise ValueError(relay.scheme)
        super().open(relay, trusted=trusted)


class LostByMoving(GoodRelays):
    def network_changed(self) -> None:
        self.joined.clear()
        self.joined[RELAY] = False


def one_for_all(hub: Hub, ctx: LentContext) -> GoodRelays:
    """The same object for each endpoint, until it is closed."""
    if hub.shared is None or hub.shared.closed:
        hub.shared = GoodRelays(hub, ctx)
    return hub.shared


BROKEN: list[tuple[Rule, Any]] = [
    (rules.SCHEMES, NoScheme),
    (rules.SCHEMES, ShoutedScheme),
    (rules.HOME, EarlyHome),
    (rules.HOME, NoHome),
    (rules.HOME, ManyWatches),
    (rules.HOME, AdoptsHome),
    (rules.STANDBY, HomeIsStandby),
    (rules.RELAYS, TellsNothing),
    (rules.RELAYS, NoHomeMark),
    (rules.PROBES, OddProbes),
    (rules.SENDS, SendNeedsStart),
    (rules.SENDS, SendTellsNothing),
    (rules.SEND_PROMPT, SendBlocks),
    (rules.SEND_BOUNDED, Unbounded),
    (rules.SEND_BOUNDED, DropsUnsaid),
    (rules.ARRIVES, Truncates),
    (rules.ARRIVES, DeliversNothing),
    (rules.ARRIVES, DropsMost),
    (rules.ORDER, Reverses),
    (rules.SENDER, WrongSender),
    (rules.SENDER, KeyAsBytes),
    (rules.SENDER, FromWithin),
    (rules.OPENS, OpensNothing),
    (rules.TRUSTS_NOBODY, TrustsAll),
    (rules.CALLS, AttestRaises),
    (rules.CALLS, OpenRaises),
    (rules.MOVES, LostByMoving),
    (rules.NOT_GLOBAL, one_for_all),
]


@pytest.mark.slow
@pytest.mark.parametrize(("rule", "make"), BROKEN, ids=named)
async def test_what_breaks_a_rule_is_caught(rule: Rule, make: Any) -> None:
    """Each mutant fails by the rule that it breaks."""
    await breaks(rule, check(make))


def test_every_rule_of_relay_transports_is_broken_by_a_mutant() -> None:
    """No rule is without a mutant that shows that it is looked after."""
    broken = {rule for rule, _ in BROKEN}
    assert {rule.name for rule in rules.RELAY_TRANSPORT if rule not in broken} == set()
