"""The population of a scenario, started: its nodes, each with a control channel, and what can be done to them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, Final

import attrs

from tom_campaign.core.control import Admit, Ask, Bind, Hello, Ready, Window
from tom_campaign.core.errors import ControlError
from tom_campaign.core.records import NodeInfo
from tom_campaign.core.scenario import Group, Scenario
from tom_campaign.networks.channel import Channel
from tom_campaign.networks.children import Children, ChildSpec, children
from tom_campaign.networks.lab import LabClient, lab_of
from tom_campaign.networks.lab_process import DHT, RELAY
from tom_campaign.networks.remote import responders
from tom_connect import EndpointConfig

BIND_TIMEOUT: Final = 60.0
"""Seconds for an endpoint to be bound: no time at all, on a machine that is not busy."""
READY_TIMEOUT: Final = 60.0
"""Seconds for a node to be published and at its relay."""
STARTS: Final = 8
"""Nodes that are bound and published at the same time, so that they are not slow for each other's sake alone."""
RELAY_PORT: Final = 3340
STUN_PORT: Final = 3478


@attrs.define(eq=False)
class Population:
    """Everybody who is measured."""

    scenario: Scenario
    channels: dict[str, Channel]
    hellos: dict[str, Hello]
    tickets: dict[str, str]
    deaths: dict[str, str]
    """Why, by the name of a node that died."""
    published: dict[str, int] = attrs.Factory(dict)
    """How many know where a node is, of those for whom that was waited for."""
    problems: dict[str, str] = attrs.Factory(dict)
    """Why a node was not ready; it is measured all the same."""
    local: Children | None = None
    lab: LabClient | None = None
    _killed_relays: int = 0

    def infos(self) -> dict[str, NodeInfo]:
        """What the records tell of each node."""
        kinds = self.scenario.nat_kinds
        return {
            name: NodeInfo(
                node_id=hello.node_id,
                nat=kinds[name],
                version=hello.version,
                plugins=hello.plugins,
                published=self.published.get(name),
                problem=self.problems.get(name),
            )
            for name, hello in self.hellos.items()
        }

    def target(self, name: str) -> str:
        """How a node is dialed: its NodeId, or a ticket, as the scenario says."""
        return self.hellos[name].node_id if self.scenario.find == "id" else self.tickets[name]

    async def ask(
        self, name: str, ask: Ask, timeout: float, on_window: Callable[[Window], None] | None = None
    ) -> dict[str, Any]:
        """Ask a node; raises ControlError, NodeGoneError if it has died."""
        return await self.channels[name].ask(ask, timeout, on_window)

    async def change(self, event: str, name: str) -> None:
        """Let something happen to a node or its network; raises ControlError."""
        if event == "kill_node":
            assert self.local is not None
            await self.local.kill(name)
        elif event == "kill_relay":
            assert self.local is not None
            if self._killed_relays >= self.scenario.relays:
                raise ControlError("all relays have been killed already")
            self._killed_relays += 1
            await self.local.kill(f"{RELAY}-{self._killed_relays}")
        else:
            assert self.lab is not None
            await self.lab.change(name, event)


@contextlib.asynccontextmanager
async def started(
    scenario: Scenario, controller: Callable[[], EndpointConfig], say: Callable[[str], None]
) -> AsyncIterator[Population]:
    """Start a scenario's population and end it with the block. Raises ControlError if it can't be had.

    `controller`: the configuration with which responders are asked; `say` hears what is being done.
    """
    deaths: dict[str, str] = {}
    population = Population(scenario, {}, {}, {}, deaths)

    def died(name: str) -> None:
        channel = population.channels.get(name)
        if channel is not None and name in scenario.node_names:
            deaths.setdefault(name, channel.gone or "it has ended")

    async with contextlib.AsyncExitStack() as stack:
        if "natlab" in scenario.networks:
            say("Building the lab")
            population.lab = await stack.enter_async_context(lab_of(scenario))
        own = [group for group in scenario.groups if group.network != "remote"]
        if own:
            say(f"Starting {sum(group.count for group in own)} nodes")
            specs = _specs(scenario, own, population.lab)
            population.local = await stack.enter_async_context(children(specs, died))
            population.channels |= {
                name: channel for name, channel in population.local.channels.items() if name in scenario.node_names
            }
            await _bind(population, own)
        targets = {
            name: target
            for group in scenario.groups
            if group.network == "remote"
            for name, target in zip(group.node_names, group.nodes, strict=True)
        }
        if targets:
            say(f"Asking {len(targets)} responders")
            population.channels |= await stack.enter_async_context(responders(targets, controller(), died))
        await _make_ready(population, say)
        yield population


def _specs(scenario: Scenario, groups: list[Group], lab: LabClient | None) -> list[ChildSpec]:
    specs = []
    namespaces = lab.namespaces if lab is not None else {}
    if scenario.dht_nodes:
        addresses = lab.dht_addresses if lab is not None else ["127.0.0.1"]
        options = {"addresses": addresses, "nodes": scenario.dht_nodes, "seed": scenario.seed}
        specs.append(ChildSpec(DHT, "dht", namespaces.get(DHT), options))
    for number in range(1, scenario.relays + 1):
        name = f"{RELAY}-{number}"
        where: dict[str, Any] = {"listen": "127.0.0.1:0"}
        if lab is not None:
            addr = lab.relay_addresses[number - 1]
            where = {"listen": f"{addr}:{RELAY_PORT}", "stun_listen": f"{addr}:{STUN_PORT}"}
        specs.append(ChildSpec(name, "relay", namespaces.get(name), where))
    for group in groups:
        specs += [ChildSpec(name, "node", namespaces.get(name)) for name in group.node_names]
    return specs


async def _bind(population: Population, groups: list[Group]) -> None:
    scenario, local = population.scenario, population.local
    assert local is not None
    bootstrap = (await local.until_ready(DHT))["bootstrap"] if scenario.dht_nodes else None
    relays = [(await local.until_ready(f"{RELAY}-{n}"))["url"] for n in range(1, scenario.relays + 1)]
    configs = {
        name: node_options(group, bootstrap=bootstrap, relays=relays) for group in groups for name in group.node_names
    }

    async def bind(name: str) -> None:
        await population.ask(name, Bind(config=configs[name]), BIND_TIMEOUT)

    async def serve(name: str) -> None:
        await bind(name)
        # What it can't be found for is told when it is waited for with the others.
        with contextlib.suppress(ControlError):
            await population.ask(name, Ready(timeout=READY_TIMEOUT, published=scenario.find == "id"), READY_TIMEOUT)

    # Who needs a volunteer looks for one when it is bound, and ever more rarely where there is none yet.
    volunteers = [name for group in groups if relays_for_others(group) for name in group.node_names]
    await _each(dict.fromkeys(volunteers), serve)
    await _each({name: None for name in configs if name not in volunteers}, bind)


def relays_for_others(group: Group) -> bool:
    """Whether a group's nodes are relays for whoever finds them."""
    options = group.config.get("relay_for_others", {})
    return isinstance(options, Mapping) and options.get("enabled") is True


def node_options(group: Group, *, bootstrap: list[str] | None, relays: list[str]) -> dict[str, Any]:
    """The options of a group's endpoints: those of the scenario over what its networks need.

    Without `plugins` in the scenario, nodes use those for what the campaign has of its own.
    """
    plugins = [name for name, wanted in (("dht", bootstrap is not None), ("relay", bool(relays))) if wanted]
    options: dict[str, Any] = {"plugins": plugins, "persist": False, **group.config}
    if group.network == "local":
        options = {"bind": ["127.0.0.1:0"], "allow_local": True} | options
    if bootstrap is not None and "dht" in options["plugins"]:
        options["dht"] = {"bootstrap": bootstrap, **options.get("dht", {})}
    if relays and "relay" in options["plugins"]:
        options.setdefault("relay", relays)
    return options


async def _make_ready(population: Population, say: Callable[[str], None]) -> None:
    scenario = population.scenario
    say("Waiting until all nodes can be found")
    for name, channel in population.channels.items():
        try:
            async with asyncio.timeout(BIND_TIMEOUT):
                population.hellos[name] = await channel.hello
        except TimeoutError:
            raise ControlError(f"{name} did not say who it is") from None
    admit = Admit(nodes=tuple(hello.node_id for hello in population.hellos.values()))
    mine = {name for group in scenario.groups if group.network != "remote" for name in group.node_names}
    publishing = scenario.published_names & mine if scenario.find == "id" else frozenset()

    async def ready(name: str) -> None:
        await population.ask(name, admit, BIND_TIMEOUT)
        ask = Ready(timeout=READY_TIMEOUT, published=name in publishing, relay=name in mine and bool(scenario.relays))
        try:
            answer = await population.ask(name, ask, READY_TIMEOUT)
        except ControlError as exc:  # what it can't be found or reached for is to be seen in the results
            population.problems[name] = str(exc)
            say(f"{exc}; it is measured all the same")
            population.tickets[name] = population.hellos[name].ticket
            return
        population.tickets[name] = str(answer["ticket"])
        if name in publishing:
            population.published[name] = int(answer["published"])

    await _each(population.channels, ready)


async def _each(names: Mapping[str, object], work: Callable[[str], Any]) -> None:
    """Do something for each name, some at a time; raises the first ControlError."""
    room = asyncio.Semaphore(STARTS)

    async def one(name: str) -> None:
        async with room:
            await work(name)

    try:
        async with asyncio.TaskGroup() as group:
            for name in names:
                group.create_task(one(name))
    except* ControlError as errors:
        error: BaseException = errors
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        raise error from None
