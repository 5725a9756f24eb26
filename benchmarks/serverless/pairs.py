"""Two nodes in a lab on whose internet there is nothing but DHTs: they are moved from net to net and connected there.

One DHT is Mainline's (libtorrent's nodes), for ours; hyperdht has one of its own, beside it in the same lab.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
from collections.abc import Iterator, Sequence
from typing import Any, Final

import attrs

from tests.interop.peers.npm_hyperdht import start_hyperdht, start_hyperdht_network
from tests.interop.peers.process import LineProcess, python_module
from tests.netns.dht import DhtNet
from tests.netns.dht.net import public_addresses
from tom_connect.testing.natlab import Host, Lab, Nat, Router, Wire

TOM, HYPERDHT, IROH = "tom-connect", "hyperdht", "iroh"
UPLINK: Final = Wire(delay=0.0125)
"""On each home's uplink and before the DHTs: 50 ms from home to home and back, and from home to the DHT and back."""
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
    """Two hosts of a lab, with a node of each kind in both; one dials the other by its key."""

    lab: Lab
    hosts: tuple[Host, Host]
    dht: DhtNet
    hyperdht_bootstrap: list[dict[str, Any]]
    nodes: dict[str, list[LineProcess]]
    volunteers: list[LineProcess] = attrs.field(factory=list)
    _port: int = 20_000

    async def call_volunteers(self, count: int, wire: Wire) -> None:
        """Start nodes with public addresses that are relays for others; from now on ours look for them."""
        for number in range(count):
            router = self.lab.router(f"office{number}", Nat.NONE, wire=wire)
            host = self.lab.host(f"volunteer{number}", router, ipv6=False)
            process = LineProcess.start(host.command(python_module("tests.netns.volunteer_process")))
            self.volunteers.append(process)
            await process.call("start", bootstrap=self.dht.names, volunteer=True)
            await process.call("announced")

    def settle(self, routers: tuple[Router, Router]) -> None:
        """Move the hosts behind two routers."""
        for host, router in zip(self.hosts, routers, strict=True):
            host.move(router)

    async def meet(self, wait: float, kind: str = TOM) -> Meeting:
        """Open fresh nodes with fresh keys on both sides, let both join and publish, then dial by the key alone."""
        dialer, listener = self.nodes[kind]
        self._port += 1
        try:
            key = await self._bind(kind, dialer, listener)
            met = await dialer.call("dial", wait=wait, timeout=wait + 60, **key)
            return Meeting(met.get("connected", met["direct"]), met["direct"], met["why"])
        finally:
            await asyncio.gather(dialer.call("unbind"), listener.call("unbind"))

    async def _bind(self, kind: str, *both: LineProcess) -> dict[str, str]:
        options: dict[str, Any] = {"port": self._port}
        if kind == TOM:
            options |= {"bootstrap": self.dht.names, "plugins": WITH_VOLUNTEERS if self.volunteers else PLUGINS}
        elif kind == HYPERDHT:
            options = {"bootstrap": self.hyperdht_bootstrap}
        _, listening = await asyncio.gather(*(node.call("bind", **options) for node in both))
        if kind == TOM:
            # Behind a strict NAT there is nothing to publish but how to be called; with a relay there is.
            wait = "published" if self.volunteers else "reachable"
            await asyncio.gather(*(node.call(wait) for node in both))
        name = "key" if kind == HYPERDHT else "node_id"
        return {name: listening[name]}


@contextlib.contextmanager
def couple(kinds: Sequence[str] = (TOM,), *, wire: Wire = UPLINK, nodes: int = 50) -> Iterator[Couple]:
    """Build a lab with the DHTs and two hosts on its internet, and start a node of each kind in both hosts.

    Raises PeerMissing without libtorrent, or hyperdht where it is wanted.
    """
    with contextlib.ExitStack() as stack:
        lab = stack.enter_context(Lab())
        dht = stack.enter_context(DhtNet.start(lab, nodes, wire=wire))
        bootstrap: list[dict[str, Any]] = []
        if HYPERDHT in kinds:
            addresses = list(itertools.islice(public_addresses(random.Random(2)), HYPERDHT_NODES))
            network, bootstrap = start_hyperdht_network(lab.host("hyperdht", wire=wire, ipv6=False), addresses)
            stack.enter_context(network)
        hosts = lab.host("a", ipv6=False), lab.host("b", ipv6=False)
        modules = {TOM: "benchmarks.serverless.tom_process", IROH: "benchmarks.serverless.iroh_process"}
        running: dict[str, list[LineProcess]] = {}
        for kind in kinds:
            for host in hosts:
                if kind == HYPERDHT:
                    process = start_hyperdht(host)
                else:
                    process = LineProcess.start(host.command(python_module(modules[kind])))
                running.setdefault(kind, []).append(stack.enter_context(process))
        made = Couple(lab, hosts, dht, bootstrap, running)
        try:
            yield made
        finally:
            for process in made.volunteers:
                process.close()
