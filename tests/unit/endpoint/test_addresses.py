"""Where an endpoint says it is: what is told, what is kept, and how changes are heard of."""

from __future__ import annotations

import asyncio

import pytest

from tests.unit.endpoint.pairs import ALPN, Pair, accept_one, local_config
from tests.unit.endpoint.wires import wires_to
from tom_connect import Endpoint, NodeAddr, SocketAddr
from tom_connect import own_addrs as own_addrs_module
from tom_connect.abc import AddressSource, PluginContext
from tom_connect.holepunch.events import PathSelected
from tom_connect.hookspecs import hookimpl
from tom_connect.netreport.interfaces import InterfaceAddress, NetworkState, expand_wildcards, interface_addresses
from tom_connect.watch import Watch

HOSTS = ["192.168.1.5", "10.0.0.7", "169.254.3.3", "127.0.0.1", "203.0.113.9", "fd00::5", "2001:db8::9"]


class Reporter:
    """A plugin that keeps its context, to report addresses through it."""

    def __init__(self) -> None:
        self.ctx: PluginContext

    @hookimpl
    def tom_address_source(self, ctx: PluginContext) -> None:
        self.ctx = ctx


def interfaces(monkeypatch: pytest.MonkeyPatch, hosts: list[str]) -> None:
    state = NetworkState(tuple(InterfaceAddress("eth0", 2, host, 24) for host in hosts))
    monkeypatch.setattr(own_addrs_module, "network_state", lambda: state)


@pytest.mark.parametrize(
    ("allow_local", "told"), [(False, ["203.0.113.9"]), (True, [host for host in HOSTS if ":" not in host])]
)
async def test_local_addresses_are_told_only_where_that_is_allowed(
    monkeypatch: pytest.MonkeyPatch, allow_local: bool, told: list[str]
) -> None:
    """A wildcard stands for every interface; private, loopback and link-local ones are left out by default."""
    interfaces(monkeypatch, HOSTS)
    async with Endpoint.bind(
        local_config(bind=("0.0.0.0:0",), allow_local=allow_local, watch_network=False)
    ) as endpoint:
        port = endpoint.local_addrs[0].port
        assert endpoint.node_addr().direct_addrs == tuple(SocketAddr(host, port) for host in told)


async def test_changes_are_heard_of(monkeypatch: pytest.MonkeyPatch) -> None:
    """`watch_addr` gives the address as it is, then each change once: other interfaces, an address seen by others."""
    interfaces(monkeypatch, ["203.0.113.9"])
    plugin = Reporter()
    config = local_config(
        bind=("0.0.0.0:0",), allow_local=False, watch_network=False, extra_plugins=(("reporter", plugin),)
    )
    async with Endpoint.bind(config) as endpoint:
        port = endpoint.local_addrs[0].port
        changes = aiter(endpoint.watch_addr())
        assert [str(a) for a in (await anext(changes)).direct_addrs] == [f"203.0.113.9:{port}"]
        interfaces(monkeypatch, ["203.0.113.10", "10.0.0.7"])
        endpoint.network_changed()
        assert [str(a) for a in (await anext(changes)).direct_addrs] == [f"203.0.113.10:{port}"]
        plugin.ctx.report_external_addr(SocketAddr("198.51.100.4", 4000))
        addr = await anext(changes)
        assert [str(a) for a in addr.direct_addrs] == ["198.51.100.4:4000", f"203.0.113.10:{port}"]
        assert endpoint.node_addr() == addr
        endpoint.network_changed()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(changes), 0.05)
    assert [value async for value in changes] == []


class Mapped(AddressSource):
    """An address source that hears of changes, and may fail when it does."""

    def __init__(self, *addrs: SocketAddr, fail: bool = False) -> None:
        self.addrs = Watch(addrs)
        self.changes = 0
        self._fail = fail

    @hookimpl
    def tom_address_source(self, ctx: PluginContext) -> AddressSource:
        return self

    def watch(self) -> Watch[tuple[SocketAddr, ...]]:
        return self.addrs

    def network_changed(self) -> None:
        self.changes += 1
        if self._fail:
            raise RuntimeError("broken plugin")


async def test_address_sources_hear_of_another_network() -> None:
    """What they know comes before the interfaces' addresses; one that fails is reported, and the others are told."""
    broken, good = Mapped(fail=True), Mapped(SocketAddr("203.0.113.77", 4000))
    plugins = (("broken", broken), ("good", good))
    async with Endpoint.bind(local_config(extra_plugins=plugins)) as endpoint:
        assert [addr.port for addr in endpoint.node_addr().direct_addrs] == [4000, endpoint.local_addrs[0].port]
        endpoint.network_changed()
        assert (broken.changes, good.changes) == (1, 1)
        assert {info.name: str(info.state) for info in endpoint.plugins}["broken"] == "failed"
        good.addrs.set(())
        async with asyncio.timeout(5):
            while len((addr := endpoint.node_addr()).direct_addrs) > 1:
                await endpoint.watch_addr().other_than(addr)


def test_this_machine_has_addresses_that_others_can_read() -> None:
    """Every address of an interface is a usable text, each once, IPv4 first, none with an interface number."""
    hosts = [address.host for address in interface_addresses()]
    assert len(hosts) == len(set(hosts))
    assert hosts == sorted(hosts, key=lambda host: ":" in host)
    assert all(str(SocketAddr(host, 1)) and "%" not in host for host in hosts)


def test_a_wildcard_stands_for_its_own_family() -> None:
    """What is bound to one address stays, and no address is named twice."""
    bound = [SocketAddr("0.0.0.0", 1), SocketAddr("::", 2), SocketAddr("192.0.2.1", 3), SocketAddr("192.0.2.1", 3)]
    found = expand_wildcards(bound, ["192.0.2.7", "2001:db8::7"])
    assert [str(addr) for addr in found] == ["192.0.2.7:1", "[2001:db8::7]:2", "192.0.2.1:3"]


async def test_path_events_are_iterated_until_the_connection_ends() -> None:
    """Who listens hears of the new path when the old one is cut, and of nothing after the end."""
    async with (
        Endpoint.bind(local_config()) as server,
        Endpoint.bind(local_config(allow_local=False)) as client,
        wires_to(server.local_addrs[0], 2) as wires,
    ):
        accepting = asyncio.create_task(accept_one(server))
        dialed = await client.connect(NodeAddr(server.node_id, (), [wire.addr for wire in wires]), ALPN)
        accepted = await accepting
        with dialed.path_events() as events:
            used = next(path.addr for path in dialed.paths() if path.active)
            next(wire for wire in wires if wire.addr == used).cut = True
            stream = await dialed.open_uni()
            async with asyncio.timeout(10):
                stream.write(b"x")
                async for event in events:
                    if isinstance(event, PathSelected) and event.path != used:
                        break
                await (await accepted.accept_uni()).readexactly(1)
                assert next(path.addr for path in dialed.paths() if path.active) == event.path
                await dialed.close()
                assert [e async for e in events if isinstance(e, PathSelected) and e.path == used] == []


async def test_closing_path_events_ends_the_iteration(pair: Pair) -> None:
    """A task that waits for the next event ends when the iterator is closed, and the connection goes on."""
    events = pair.dialed.path_events()

    async def listen() -> list[object]:
        return [event async for event in events]

    listening = asyncio.create_task(listen())
    await asyncio.sleep(0)
    events.close()
    await asyncio.wait_for(listening, 5)
    assert not pair.dialed.is_closed
