"""Two nodes behind NATs, a DHT, and an attacker's machine: one row of the benchmark is one stage."""

from __future__ import annotations

import contextlib
import itertools
import json
import random
from collections.abc import Iterable, Iterator
from typing import Any, Final

import attrs

from benchmarks.serverless.pairs import PLUGINS, UPLINK
from tests.interop.peers.process import LineProcess, PeerError, python_module
from tests.netns.dht import DhtNet
from tests.netns.dht.net import PORT, public_addresses
from tom_connect import NodeId, SecretKey
from tom_connect.testing.natlab import Host, Lab, Nat, Router
from tom_dht_mainline.core import mutable_target
from tom_dht_mainline.core.nodeid import crc32c

Identity = tuple[str, str, int]
"""A DHT node: id in hex, host, port."""

SOUGHT: Final = 4000
"""Addresses from which an attacker chooses those whose ids may lie near its target (BEP 42)."""


def identities(count: int, chooser: random.Random, near: bytes | None = None) -> list[Identity]:
    """Nodes with addresses in prefixes of their own and ids that belong to them (BEP 42), the nearest to `near`."""
    found = []
    for host in itertools.islice(public_addresses(chooser), SOUGHT if near is not None else count):
        for last in range(8) if near is not None else (chooser.randrange(8),):
            masked = int.from_bytes(bytes(map(int, host.split(".")))) & 0x030F3FFF | last << 29
            crc = crc32c(masked.to_bytes(4)) >> 11
            rest = int.from_bytes(near or chooser.randbytes(20)) & (1 << 139) - 1
            found.append((((crc << 139 | rest) & ~0xFF | last).to_bytes(20), host))
    if near is not None:
        found.sort(key=lambda each: int.from_bytes(each[0]) ^ int.from_bytes(near))
    hosts: dict[str, bytes] = {}
    for node_id, host in found:
        hosts.setdefault(host, node_id)
    return [(node_id.hex(), host, PORT) for host, node_id in itertools.islice(hosts.items(), count)]


_RULES: Final = """
table inet attack {}
delete table inet attack
table inet attack {
    counter sent { packets 0 bytes 0 }
    counter received { packets 0 bytes 0 }
    counter strangers { packets 0 bytes 0 }
    set friends { type ipv4_addr; elements = { %s } }
    chain out {
        type filter hook output priority 0; policy accept;
        meta l4proto udp counter name sent
        meta l4proto udp ip daddr != @friends counter name strangers
    }
    chain into {
        type filter hook input priority 0; policy accept;
        meta l4proto udp counter name received
    }
}
"""


@attrs.frozen
class Spent:
    """What one machine has sent and received, and its node's CPU, since it was set up. `strangers`: packets to others
    than nodes of the DHT and the two that meet."""

    out: int
    into: int
    strangers: int
    cpu: float
    at: float


@attrs.define(eq=False)
class Tally:
    """Counts what a machine sends and receives; rules of its own kernel do it, not the program under test."""

    host: Host

    def begin(self, friends: Iterable[str]) -> None:
        """Set up the rules. `friends`: addresses that are no strangers."""
        rules = _RULES % ", ".join(sorted(set(friends)))
        self.host.run(["nft", "-f", "-"], input=rules)

    async def read(self, node: LineProcess) -> Spent:
        """What was counted up to now."""
        listed = json.loads(self.host.run(["nft", "-j", "list", "counters"]).stdout)["nftables"]
        counted = {each["counter"]["name"]: each["counter"]["packets"] for each in listed if "counter" in each}
        costs = await node.call("costs")
        return Spent(counted["sent"], counted["received"], counted["strangers"], costs["cpu"], costs["at"])


@attrs.define(eq=False)
class Stage:
    """The two that meet, with a tally on each, the DHT, and the attacker's machine with its processes."""

    lab: Lab
    dht: DhtNet
    routers: tuple[Router, Router]
    hosts: tuple[Host, Host]
    nodes: tuple[LineProcess, LineProcess]
    """The caller and the callee."""
    tallies: tuple[Tally, Tally]
    attacker: Host
    gang: LineProcess
    flood: LineProcess
    locks: LineProcess
    seed: int
    friends: set[str] = attrs.field(factory=set)
    callees: int = 0
    key: SecretKey = attrs.field(factory=SecretKey.generate)

    @property
    def callee_id(self) -> NodeId:
        """Who is dialed now."""
        return self.key.node_id

    @property
    def target(self) -> bytes:
        """Where the callee's record lies."""
        return mutable_target(self.callee_id.raw)

    def new_callee(self) -> None:
        """From now on somebody else is dialed; which key that is the attacker knows before it is published."""
        self.callees += 1
        self.key = SecretKey(random.Random(self.seed * 1000 + self.callees).randbytes(32))

    async def join(self, nodes: list[Identity], others: list[Identity], **conduct: Any) -> None:
        """Have nodes of the attacker's join the DHT."""
        await self.gang.call("close")
        self.attacker.add_addresses([host for _, host, _ in nodes])
        await self.gang.call("open", nodes=nodes, others=others, **conduct)
        await self.dht.meet(nodes)
        self.friends |= {host for _, host, _ in nodes}

    async def nearest(self, count: int) -> list[tuple[str, int]]:
        """The nodes of the DHT that are nearest to the callee's target."""
        target = int.from_bytes(self.target)
        known = sorted(await self.dht.known(), key=lambda node: int(node[0], 16) ^ target)
        return [(host, port) for _, host, port in known[:count]]

    def begin(self) -> None:
        """Count from now on."""
        friends = {host for host, _ in (*self.dht.modern, *self.dht.old, *self.dht.dead)} | self.friends
        friends |= {host.addr for host in self.hosts} | {
            router.wan for router in self.routers if router.kind is not Nat.NONE
        }
        for tally in self.tallies:
            tally.begin(friends)

    async def publish(self) -> str | None:
        """Have the callee join with its key, and be published; why it could not."""
        try:
            await self._bind(self.nodes[1], seed=self.key.seed().hex())
            await self.nodes[1].call("reachable")
        except PeerError as error:
            return str(error).splitlines()[0]
        return None

    async def dial(self, wait: float) -> dict[str, Any]:
        """Have a caller with a fresh key join, and dial the callee by its key."""
        caller = self.nodes[0]
        try:
            await self._bind(caller)
            return await caller.call("dial", node_id=str(self.callee_id), wait=wait, timeout=wait + 60)
        except PeerError as error:
            return {"connected": None, "direct": None, "why": str(error).splitlines()[0]}
        finally:
            await caller.call("unbind")

    async def _bind(self, node: LineProcess, **options: Any) -> None:
        await node.call("bind", bootstrap=self.dht.names, plugins=PLUGINS, **options)


@contextlib.contextmanager
def stage(
    kinds: tuple[Nat, Nat] = (Nat.MODERATE, Nat.MODERATE), *, off: Iterable[str] = (), nodes: int = 50, seed: int = 1
) -> Iterator[Stage]:
    """Build a lab with a DHT and two nodes, the caller's NAT first, that lack the defences `off`.

    Raises PeerMissing without libtorrent.
    """
    with contextlib.ExitStack() as stack:
        lab = stack.enter_context(Lab())
        dht = stack.enter_context(DhtNet.start(lab, nodes, dead=nodes // 10, seed=seed))
        routers = tuple(lab.router(name, kind, wire=UPLINK) for name, kind in zip(("a", "b"), kinds, strict=True))
        hosts = tuple(lab.host(f"host-{router.name}", router, ipv6=False) for router in routers)
        module = python_module("benchmarks.serverless.attack.undefended_process", ",".join(off))
        running = tuple(stack.enter_context(LineProcess.start(host.command(module))) for host in hosts)
        attacker = lab.host("attacker", ipv6=False)
        gang, flood, locks = (
            stack.enter_context(
                LineProcess.start(attacker.command(python_module(f"benchmarks.serverless.attack.{name}")))
            )
            for name in ("nodes_process", "flood_process", "locks_process")
        )
        made = Stage(
            lab=lab,
            dht=dht,
            routers=(routers[0], routers[1]),
            hosts=(hosts[0], hosts[1]),
            nodes=(running[0], running[1]),
            tallies=(Tally(hosts[0]), Tally(hosts[1])),
            attacker=attacker,
            gang=gang,
            flood=flood,
            locks=locks,
            seed=seed,
        )
        made.new_callee()
        yield made
