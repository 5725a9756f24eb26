"""Two nodes in a lab on whose internet there is nothing but DHTs: they are moved from net to net and connected there.

One DHT is Mainline's (libtorrent's nodes), for ours; hyperdht has one of its own, beside it in the same lab.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any, Final

import attrs

from tests.interop.peers.npm_hyperdht import start_hyperdht, start_hyperdht_network
from tests.interop.peers.process import LineProcess, python_module
from tests.netns.dht import DhtNet
from tests.netns.dht.net import public_addresses
from tom_connect.testing.natlab import Host, Lab, Nat, Router, Wire

TOM, HYPERDHT, IROH = "tom-connect", "hyperdht", "iroh"
UPLINK: Final = Wire(delay=0.0125, loss=0.005)
"""On each home's uplink and before the DHTs: 50 ms from home to home and back, and from home to the DHT and back. On
either way 2% of the packets or their answers are lost."""
HYPERDHT_NODES: Final = 50
PLUGINS: Final = ("dht",)
"""Plugins of ours that are in use: no relay takes part."""
WITH_VOLUNTEERS: Final = ("dht", "relay", "relay-volunteer")
"""The same where volunteers are looked for through the DHT."""


@attrs.frozen
class Meeting:
    """How one dial went: seconds until connected, and until the path was direct; None if it never was, and why."""

    connected: float | None
    direct: float | None
    why: str | None


@attrs.define(eq=False)
class Couple:
    """Two hosts of a lab, with a node of each kind in both; one dials the other by its key.

    Couples of one lab may join and publish at the same time; a couple dials while no other does.
    """

    lab: Lab
    hosts: tuple[Host, Host]
    dht: DhtNet
    hyperdht_bootstrap: list[dict[str, Any]]
    nodes: dict[str, list[LineProcess]]
    relayed: bool = False
    """Whether ours look for relays of volunteers."""
    dialing: asyncio.Lock = attrs.field(factory=asyncio.Lock)
    """Held by who dials; that of all couples of a lab, so that none has the machine's CPU taken by another's dial."""
    _port: int = 20_000

    def settle(self, routers: tuple[Router, Router]) -> None:
        """Move the hosts behind two routers."""
        for host, router in zip(self.hosts, routers, strict=True):
            host.move(router)

    async def meet(self, wait: float, kind: str = TOM, *, relayed_for: float | None = None) -> Meeting:
        """Open fresh nodes with fresh keys on both sides, let both join and publish, then dial by the key alone.

        `relayed_for`: seconds after which a connection of ours is believed to stay relayed, if these are fewer.
        """
        dialer, listener = self.nodes[kind]
        self._port += 1
        try:
            options: dict[str, Any] = await self._bind(kind, dialer, listener)
            if kind == TOM:
                options["relayed_for"] = relayed_for
            async with self.dialing:
                met = await dialer.call("dial", wait=wait, timeout=wait + 60, **options)
            return Meeting(met.get("connected", met["direct"]), met["direct"], met["why"])
        finally:
            await asyncio.gather(dialer.call("unbind"), listener.call("unbind"))

    async def _bind(self, kind: str, *both: LineProcess) -> dict[str, str]:
        options: dict[str, Any] = {"port": self._port}
        if kind == TOM:
            options |= {"bootstrap": self.dht.names, "plugins": WITH_VOLUNTEERS if self.relayed else PLUGINS}
        elif kind == HYPERDHT:
            options = {"bootstrap": self.hyperdht_bootstrap}
        _, listening = await asyncio.gather(*(node.call("bind", **options) for node in both))
        if kind == TOM:
            # Behind a strict NAT there is nothing to publish but how to be called; with a relay there is.
            wait = "published" if self.relayed else "reachable"
            await asyncio.gather(*(node.call(wait) for node in both))
        name = "key" if kind == HYPERDHT else "node_id"
        return {name: listening[name]}


@contextlib.asynccontextmanager
async def volunteers(couples: Sequence[Couple], count: int, wire: Wire = UPLINK) -> AsyncIterator[None]:
    """Nodes with public addresses that are relays for others; while they are there, the nodes of ours look for them."""
    lab, dht = couples[0].lab, couples[0].dht
    with contextlib.ExitStack() as stack:
        processes = []
        for number in range(count):
            router = lab.router(f"office{number}", Nat.NONE, wire=wire)
            host = lab.host(f"volunteer{number}", router, ipv6=False)
            command = host.command(python_module("tests.netns.volunteer_process"))
            processes.append(stack.enter_context(LineProcess.start(command)))
        await asyncio.gather(*(each.call("start", bootstrap=dht.names, volunteer=True) for each in processes))
        await asyncio.gather(*(each.call("announced") for each in processes))
        for couple in couples:
            couple.relayed = True
        try:
            yield
        finally:
            for couple in couples:
                couple.relayed = False


@contextlib.contextmanager
def couples(kinds: Sequence[str] = (TOM,), *, count: int = 1, wire: Wire = UPLINK) -> Iterator[list[Couple]]:
    """Build a lab with the DHTs and two hosts on its internet for each couple, and start a node of each kind in them.

    Raises PeerMissing without libtorrent, or hyperdht where it is wanted.
    """
    with contextlib.ExitStack() as stack:
        lab = stack.enter_context(Lab())
        dht = stack.enter_context(DhtNet.start(lab, wire=wire))
        bootstrap: list[dict[str, Any]] = []
        if HYPERDHT in kinds:
            addresses = list(itertools.islice(public_addresses(random.Random(2)), HYPERDHT_NODES))
            network, bootstrap = start_hyperdht_network(lab.host("hyperdht", wire=wire, ipv6=False), addresses)
            stack.enter_context(network)
        made = [stack.enter_context(couple(lab, dht, kinds, bootstrap, number=number)) for number in range(count)]
        dialing = asyncio.Lock()
        for each in made:
            each.dialing = dialing
        yield made


@contextlib.contextmanager
def couple(
    lab: Lab,
    dht: DhtNet,
    kinds: Sequence[str] = (TOM,),
    hyperdht_bootstrap: Sequence[dict[str, Any]] = (),
    *,
    number: int = 0,
) -> Iterator[Couple]:
    """Put two hosts on the internet of a lab that has the DHTs already, with a node of each kind in both."""
    with contextlib.ExitStack() as stack:
        hosts = lab.host(f"a{number}", ipv6=False), lab.host(f"b{number}", ipv6=False)
        nodes = {kind: [stack.enter_context(_node(kind, host)) for host in hosts] for kind in kinds}
        yield Couple(lab, hosts, dht, list(hyperdht_bootstrap), nodes)


def _node(kind: str, host: Host) -> LineProcess:
    if kind == HYPERDHT:
        return start_hyperdht(host)
    modules = {TOM: "benchmarks.serverless.tom_process", IROH: "benchmarks.serverless.iroh_process"}
    return LineProcess.start(host.command(python_module(modules[kind])))
