"""The plugin in an endpoint: when it asks at all, that nobody waits for it, and what it tells."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from typing import Any, cast

import attrs
import pytest

from tom_connect import Endpoint, EndpointConfig
from tom_connect.abc import PluginContext, Signer
from tom_connect.addr import NodeAddr, SocketAddr
from tom_connect.exceptions import ConfigError
from tom_connect.keys import SecretKey
from tom_connect.plugins import InstalledPlugin, PluginCatalog, PluginHost
from tom_connect.signing import SystemClock
from tom_connect.watch import Watch
from tom_portmap import mapper as mapper_module
from tom_portmap import plugin
from tom_portmap import source as source_module
from tom_portmap.config import PortmapConfig
from tom_portmap.core.eligible import PROTOCOLS
from tom_portmap.core.values import Candidate, Grant, Probed
from tom_portmap.errors import RefusedError
from tom_portmap.gateways import Gateway
from tom_portmap.source import PortMappings

GATEWAY, LOCAL = "192.168.1.1", "192.168.1.2"
WILDCARDS = (SocketAddr("0.0.0.0", 4000), SocketAddr("::", 4006))
MAPPED = SocketAddr("11.0.0.1", 4000)


@attrs.define
class Socket:
    """The endpoint's, of which only the addresses matter here."""

    local_addrs: Sequence[SocketAddr]

    def send(self, data: bytes, addr: SocketAddr) -> bool:
        raise AssertionError("mappings are asked for from sockets of their own")


class Router:
    """Stands for all that is asked: what it does is said by a function of the action and candidate."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, Candidate]] = []
        self.answer: Callable[[], Coroutine[Any, Any, None]] = self._at_once
        self.external = ipaddress.ip_address("11.0.0.1")

    async def _at_once(self) -> None:
        return None

    def asker(self, candidate: Candidate, port: int, _nonce: bytes, **_: object) -> Any:
        router = self

        class Asker:
            async def probe(self, held: Grant | None) -> Probed:
                router.asked.append(("probe", candidate))
                await router.answer()
                return Probed(router.external)

            async def map(self, _external: object, suggested: SocketAddr | None, lifetime: int) -> Grant:
                router.asked.append(("map", candidate))
                await router.answer()
                return Grant(SocketAddr(str(router.external), port), float(lifetime))

            async def release(self, _grant: Grant) -> None:
                router.asked.append(("release", candidate))
                await router.answer()

        return Asker()


@pytest.fixture
def router(monkeypatch: pytest.MonkeyPatch) -> Router:
    """A router at the default gateway, without a packet."""
    router = Router()

    async def gateways() -> list[Gateway]:
        return [Gateway(0, GATEWAY)]

    monkeypatch.setattr(source_module, "START_DELAY", 0.0)
    monkeypatch.setattr(mapper_module, "Asker", router.asker)
    monkeypatch.setattr(mapper_module, "default_gateways", gateways)
    monkeypatch.setattr(mapper_module, "facing", lambda _gateway: LOCAL)
    return router


def context(bound: Sequence[SocketAddr] = WILDCARDS, **options: Any) -> PluginContext:
    def create_task(coro: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        return asyncio.get_running_loop().create_task(coro, name=name)

    node_id = SecretKey(bytes(31) + b"\1").node_id
    return PluginContext(
        node_id=node_id,
        signer=cast("Signer", None),
        config=PortmapConfig(**options),
        clock=SystemClock(),
        logger=logging.getLogger("test"),
        local_addrs=Watch(NodeAddr(node_id)),
        socket=Socket(bound),
        data_dir=None,
        allow_local=False,
        create_task=create_task,
        report_external_addr=lambda _addr: None,
        shared={},
    )


@contextlib.asynccontextmanager
async def running(ctx: PluginContext) -> AsyncIterator[PortMappings]:
    """Started and closed as an endpoint does it."""
    mappings = plugin.tom_address_source(ctx)
    assert isinstance(mappings, PortMappings)
    await mappings.start()
    try:
        yield mappings
    finally:
        await mappings.aclose()


async def until(condition: Callable[[], object]) -> None:
    """Let other tasks go on until it holds."""
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 - what is shown is read, not announced
            await asyncio.sleep(0.001)


async def test_the_mapping_is_told_and_given_back(router: Router) -> None:
    """The watch has it as soon as it is granted; closing asks for its end."""
    ctx = context()
    async with running(ctx) as mappings:
        async with asyncio.timeout(20):
            assert await mappings.watch().other_than(()) == (MAPPED,)
        told = plugin.tom_diagnostics(ctx)
        assert told is not None
        assert cast("dict[str, object]", told["mapping"]) | {"time left": ""} == {
            "state": "held",
            "gateway": GATEWAY,
            "protocol": "pcp",
            "external": "11.0.0.1:4000",
            "internal": "192.168.1.2:4000",
            "time left": "",
        }
    assert [what for what, _ in router.asked] == ["probe"] * 3 + ["map", "release"]


@pytest.mark.parametrize(
    ("bound", "options", "state"),
    [
        ((SocketAddr("127.0.0.1", 4000), SocketAddr("::1", 4000)), {}, "not needed"),
        ((SocketAddr("198.51.100.7", 4000),), {}, "not needed"),
        ((SocketAddr("169.254.1.1", 4000),), {}, "not needed"),
        ((SocketAddr("fd00::7", 4000),), {}, "not needed"),
        (WILDCARDS, {"enabled": False}, "switched off"),
    ],
)
async def test_nothing_is_asked_where_no_mapping_helps(
    router: Router, bound: Sequence[SocketAddr], options: dict[str, Any], state: str
) -> None:
    """Bound to loopback, to a public IPv4 address or to a local one that no router maps, or switched off: no task."""
    ctx = context(bound, **options)
    before = asyncio.all_tasks()
    async with running(ctx) as mappings:
        mappings.network_changed()
        assert asyncio.all_tasks() == before
        told = plugin.tom_diagnostics(ctx)
        assert told is not None and str(told["state"]).startswith(state)
        assert list(mappings.watch().value) == []
    assert router.asked == []


async def test_a_public_machine_needs_no_mapping(router: Router, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the address that faces the gateway is public, there is no NAT, and the diagnostics say so."""
    monkeypatch.setattr(mapper_module, "facing", lambda _gateway: "198.51.100.7")
    ctx = context(WILDCARDS[:1])
    async with running(ctx) as mappings:
        await until(lambda: "note" in mappings.diagnostics())
        assert "public address" in str(mappings.diagnostics()["note"])
    assert router.asked == []


async def test_only_the_named_protocols_are_asked(router: Router) -> None:
    """In the order in which they are named."""
    async with running(context(WILDCARDS[:1], protocols=("upnp", "nat-pmp"))) as mappings, asyncio.timeout(20):
        await mappings.watch().other_than(())
    assert [c.protocol for what, c in router.asked if what == "probe"] == ["upnp", "nat-pmp"]


async def test_a_silent_router_delays_neither_start_nor_close(router: Router) -> None:
    """Whatever is being asked: both return at once, or within the time that a close has."""

    async def never() -> None:
        await asyncio.Event().wait()

    ctx = context(WILDCARDS[:1])
    mappings = PortMappings(ctx)
    router.answer = never
    await asyncio.wait_for(mappings.start(), 0.5)
    await until(lambda: len(router.asked) == 3)
    began = time.monotonic()
    await mappings.aclose()
    assert time.monotonic() - began < 5

    router.answer, router.asked[:] = router._at_once, []
    async with running(ctx) as mappings:
        async with asyncio.timeout(20):
            await mappings.watch().other_than(())
        router.answer = never
        began = time.monotonic()
    assert time.monotonic() - began < 5
    assert router.asked[-1][0] == "release"


def test_what_an_endpoint_waits_for_is_little() -> None:
    """Hooks and start read neither protocols nor HTTP: the rest is read in a thread, while the endpoint goes on."""
    script = "import sys, tom_portmap.plugin, tom_portmap.source; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert "tom_portmap.source" in loaded
    late = ("mapper", "igd", "http", "core.values", "core.keeper")
    assert not loaded & {"h11", "ifaddr", *(f"tom_portmap.{name}" for name in late)}


async def test_a_refusal_is_told_in_words(router: Router) -> None:
    """Of each protocol why not."""

    async def refuse() -> None:
        raise RefusedError("it does not allow mappings")

    router.answer = refuse
    ctx = context(WILDCARDS[:1])
    async with running(ctx) as mappings:
        await until(lambda: "problem" in str(mappings.diagnostics()))
        told = cast("dict[str, str]", mappings.diagnostics()["mapping"])
        assert all(f"{GATEWAY} by {name}: it does not allow mappings" in told["problem"] for name in PROTOCOLS)


async def test_another_port_of_ours_is_mapped_after_a_change(router: Router) -> None:
    """When the endpoint had to bind anew, the old mapping is given back and the new port asked for."""
    ctx = context(WILDCARDS[:1])
    async with running(ctx) as mappings:
        await until(lambda: mappings.watch().value == (MAPPED,))
        cast("Socket", ctx.socket).local_addrs = (SocketAddr("0.0.0.0", 5000),)
        mappings.network_changed()
        await until(lambda: mappings.watch().value == (SocketAddr("11.0.0.1", 5000),))
        await until(lambda: any(what == "release" for what, _ in router.asked))


@pytest.mark.parametrize(
    "options",
    [
        {"enabled": 1},
        {"protocols": ()},
        {"protocols": "pcp"},
        {"protocols": ("pcp", "pcp")},
        {"protocols": ("tcp",)},
        {"lifetime": 119},
        {"lifetime": 86_401},
        {"lifetime": 7200.0},
        {"lifetime": True},
    ],
)
def test_a_wrong_option_is_named(options: dict[str, Any]) -> None:
    """With its name and what is expected."""
    with pytest.raises(ConfigError, match=f"^{next(iter(options))}: "):
        PortmapConfig(**options)


def test_the_options_are_those_of_the_section() -> None:
    """An endpoint derives file, environment and command line from them."""
    catalog = PluginCatalog(lambda: [InstalledPlugin("portmap", "tom-portmap", "0.1.0", lambda: plugin)])
    host = PluginHost.load(EndpointConfig(), catalog=catalog, environ={})
    assert host.config_classes == {"portmap": PortmapConfig}
    assert host.infos[0].hooks == ("tom_address_source", "tom_diagnostics", "tom_register_config")


async def test_an_endpoint_offers_what_is_mapped(router: Router) -> None:
    """Its address has the mapped one in it, first; after a change of network the plugin is asked again."""
    config = EndpointConfig(
        bind=("0.0.0.0:0",), persist=False, plugins=(), extra_plugins=(("mapping", plugin),), watch_network=False
    )
    async with Endpoint.bind(config) as endpoint, asyncio.timeout(20):
        addrs = endpoint.watch_addr()
        mapped = SocketAddr("11.0.0.1", endpoint.local_addrs[0].port)
        async for addr in addrs:
            if mapped in addr.direct_addrs:
                assert addr.direct_addrs[0] == mapped
                break
        router.external = ipaddress.ip_address("11.0.0.2")
        endpoint.network_changed()
        moved = SocketAddr("11.0.0.2", mapped.port)
        async for addr in addrs:
            if moved in addr.direct_addrs:
                break
