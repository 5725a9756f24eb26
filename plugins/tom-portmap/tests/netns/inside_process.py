"""A node that listens behind a router: says in JSON lines where it can be reached and how the mappings do.

Argument: the options of the plugin as JSON, and `bind`. A line on standard input: "changed" (the network), or "close".
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import Any

from tom_connect import Connection, Endpoint, EndpointConfig, Router
from tom_connect.abc import AddressSource, PluginContext
from tom_connect.hookspecs import hookimpl
from tom_connect.plugins import ConfigRegistry
from tom_portmap import plugin
from tom_portmap.config import PortmapConfig
from tom_portmap.source import PortMappings

ALPN = "mapped/1"


class Watched:
    """The plugin, whose mappings can be looked at."""

    mappings: PortMappings

    @hookimpl
    def tom_register_config(self, registry: ConfigRegistry) -> None:
        plugin.tom_register_config(registry)

    @hookimpl
    def tom_address_source(self, ctx: PluginContext) -> AddressSource:
        source = plugin.tom_address_source(ctx)
        assert isinstance(source, PortMappings)
        self.mappings = source
        return source


def tell(**values: Any) -> None:
    print(json.dumps(values), flush=True)


async def echo(connection: Connection) -> None:
    stream = await connection.accept_bi()
    stream.write(await stream.read())
    stream.finish()
    await connection.closed()


async def report(endpoint: Endpoint, watched: Watched) -> None:
    """Say what changed, several times a second."""
    before = None
    while True:
        diagnostics = watched.mappings.diagnostics()
        told = [str(addr) for addr in endpoint.node_addr().direct_addrs]
        mapped = [str(addr) for addr in watched.mappings.watch().value]
        for slot in diagnostics.values():
            if isinstance(slot, dict):
                slot.pop("time left", None)
        now = (told, mapped, str(diagnostics))
        if now != before:
            before = now
            tell(node_id=str(endpoint.node_id), told=told, mapped=mapped, diagnostics=diagnostics)
        await asyncio.sleep(0.05)


async def main() -> None:
    options = json.loads(sys.argv[1])
    bind = options.pop("bind", None)
    watched = Watched()
    config = EndpointConfig(
        persist=False,
        plugins=(),
        extra_plugins=(("watched", watched),),
        plugin_configs={"portmap": PortmapConfig(**options)},
        **({} if bind is None else {"bind": (bind,)}),
    )
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    began = time.monotonic()
    async with Endpoint.bind(config) as endpoint:
        tell(bound=time.monotonic() - began, port=endpoint.local_addrs[0].port)
        serving = asyncio.create_task(Router(endpoint).route(ALPN, echo).serve())
        reporting = asyncio.create_task(report(endpoint, watched))
        while (line := (await reader.readline()).strip()) == b"changed":
            endpoint.network_changed()
        assert line in (b"close", b"")
        for task in (serving, reporting):
            task.cancel()
        await asyncio.gather(serving, reporting, return_exceptions=True)
        began = time.monotonic()
    tell(closed=time.monotonic() - began)


asyncio.run(main())
