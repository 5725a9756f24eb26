"""Plugins that behave and plugins that do not, and hosts of them."""

from __future__ import annotations

import asyncio
import types
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from typing import Any, cast

from tom_connect.abc import Discovery, FoundAddr, PluginContext, SharedSocket, Signer
from tom_connect.addr import NodeAddr, SocketAddr
from tom_connect.config import EndpointConfig
from tom_connect.hookspecs import hookimpl
from tom_connect.keys import NodeId, SecretKey
from tom_connect.plugins import API_VERSION, Facilities, InstalledPlugin, PluginCatalog, PluginHost
from tom_connect.watch import Watch


class Clock:
    def monotonic(self) -> float:
        return 0.0

    def wall(self) -> float:
        return 1.6e9


class Found(Discovery):
    """A discovery that knows nothing and remembers what was done with it."""

    def __init__(self, name: str = "") -> None:
        self.name = name
        self.calls: list[str] = []

    async def start(self) -> None:
        self.calls.append("start")

    async def aclose(self) -> None:
        self.calls.append("aclose")

    async def resolve(self, node_id: NodeId) -> AsyncIterator[FoundAddr]:
        return
        yield


class Plugin:
    """A good plugin with one discovery."""

    TOM_CONNECT_API: object = API_VERSION

    @hookimpl
    def tom_discovery(self, ctx: Any) -> object:
        return Found()


def hook(name: str, function: Callable[..., Any]) -> object:
    """A plugin with one hook, called as a function without self."""
    module = Module()
    setattr(module, name, hookimpl(function))
    return module


class Module(types.ModuleType):
    """A plugin module with the given attributes."""

    def __init__(self, name: str = "plugin", **attributes: object) -> None:
        super().__init__(name)
        self.TOM_CONNECT_API: object = API_VERSION
        for key, value in attributes.items():
            setattr(self, key, value)


def installed(name: str, plugin: object, package: str = "pkg", version: str = "1.0") -> InstalledPlugin:
    def load() -> object:
        if isinstance(plugin, BaseException):
            raise plugin
        return plugin

    return InstalledPlugin(name, package, version, load)


def load(
    *plugins: InstalledPlugin,
    config: EndpointConfig | None = None,
    environ: dict[str, str] | None = None,
    commands: bool = True,
) -> PluginHost:
    """A host of these plugins alone."""
    catalog = PluginCatalog(lambda: plugins)
    return PluginHost.load(config, catalog=catalog, environ=environ or {}, commands=commands)


def no_context(_name: str) -> PluginContext:
    """No context: for factories that look at none."""
    return cast("PluginContext", None)


def states(host: PluginHost) -> dict[str, str]:
    return {info.name: str(info.state) for info in host.infos}


def reason(host: PluginHost, name: str) -> str:
    return next(info.reason for info in host.infos if info.name == name and info.reason)


def make_facilities() -> Facilities:
    """What an endpoint lends, without an endpoint."""
    key = SecretKey(bytes(31) + b"\1").node_id

    def create_task(_plugin: str, coro: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        return asyncio.get_running_loop().create_task(coro, name=name)

    def report(_plugin: str, _addr: SocketAddr) -> None:
        return None

    return Facilities(
        node_id=key,
        signer=cast("Signer", None),
        clock=Clock(),
        local_addrs=Watch(NodeAddr(key)),
        socket=cast("SharedSocket", None),
        create_task=create_task,
        report_external_addr=report,
    )


def names(pairs: Iterable[tuple[str, object]]) -> list[str]:
    return [name for name, _ in pairs]
