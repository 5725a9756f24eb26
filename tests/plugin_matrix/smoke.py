"""Run in an environment of the matrix, as a file: dials by every route that the installed plugins offer.

Takes one argument, JSON: `servers` as servers.py prints them, `absent` the modules of plugins that are not installed.
Prints JSON: what each route did, the plugins with their states, and what was imported of `absent`. It imports nothing
of the tests.
"""

from __future__ import annotations

import asyncio
import importlib.util
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from attrs import evolve

from tom_connect import Endpoint, EndpointConfig, NodeAddr

ALPN = "smoke/1"
PATIENCE = 60.0
"""Seconds for one route, on a machine that is busy with other things."""
DISCOVERIES = ("dht", "pkarr", "signaling")
"""Plugins that find a node by its id."""


def plugin_configs(servers: dict[str, Any], names: set[str]) -> dict[str, object]:
    """The options by which each plugin uses our servers and nobody else's."""
    configs: dict[str, object] = {}
    if "dht" in names:
        from tom_dht_mainline.config import DhtConfig

        configs["dht"] = DhtConfig(bootstrap=servers["dht"], host="127.0.0.1", ipv6=False, server="off")
    if "pkarr" in names:
        from tom_pkarr.client.config import PkarrConfig

        configs["pkarr"] = PkarrConfig(relays=servers["pkarr"], timeout=20.0)
    if "signaling" in names:
        from tom_signaling_legacy.client.config import SignalingConfig

        configs["signaling"] = SignalingConfig(urls=servers["signaling"], phase=1, timeout=20.0)
    return configs


class Route:
    """One way to a node: the plugins that may be used (None: all), and what the dialer is told."""

    def __init__(self, installed: set[str], servers: dict[str, Any], plugins: tuple[str, ...] | None = None) -> None:
        used = installed if plugins is None else installed & set(plugins)
        self.discovery = None if plugins is None else next((name for name in plugins if name in DISCOVERIES), None)
        self.relayed = plugins is not None and "relay" in plugins
        # The dialer has no relay of its own: where it has, it looks for a node there before anybody has found it.
        self.dialer = EndpointConfig(
            alpns=(ALPN,),
            bind=("127.0.0.1:0",),
            allow_local=True,
            persist=False,
            plugins=plugins,
            plugin_configs=plugin_configs(servers, used),
            direct=not self.relayed,
        )
        self.dialed = evolve(self.dialer, relay=tuple(servers["relay"]) if self.relayed else ())

    async def target(self, node: Endpoint) -> Any:
        """What is known of the node that is dialed, once it can be reached by that."""
        addr = node.node_addr()
        if self.relayed:
            addr = await anext(a async for a in node.watch_addr() if a.relay_urls)
        if self.discovery is None:
            return NodeAddr(node.node_id, addr.relay_urls) if self.relayed else addr
        async for reports in node.watch_published():
            if any(report.by == self.discovery for report in reports):
                break
        return node.node_id

    async def go(self) -> dict[str, Any]:
        """Dial, have bytes back, and tell who found the node and over which kinds of path it was met."""
        async with (
            asyncio.timeout(PATIENCE),
            Endpoint.bind(self.dialed) as a,
            Endpoint.bind(self.dialer) as b,
            asyncio.TaskGroup() as tasks,
        ):
            tasks.create_task(echo(a))
            connection = await b.connect(await self.target(a), ALPN, timeout=PATIENCE)
            stream = await connection.open_bi()
            stream.write(b"smoke")
            stream.finish()
            answer = await stream.read()
            return {
                "answer": answer.decode(),
                "node": connection.remote_node_id == a.node_id,
                "paths": sorted({path.kind for path in connection.paths()}),
                "found": sorted(name for name, count in b.discovery_counts().items() if count.first),
                "plugins": {info.name: str(info.state) for info in b.plugins},
                "diagnostics": sorted(b.diagnostics()),
            }


async def echo(node: Endpoint) -> None:
    """Send the first stream of one connection back, reversed."""
    async with one(node) as connection:
        stream = await connection.accept_bi()
        stream.write((await stream.read())[::-1])
        stream.finish()


@asynccontextmanager
async def one(node: Endpoint) -> AsyncIterator[Any]:
    """The next connection."""
    yield await (await anext(node.accept())).accept()


async def main() -> None:
    wanted = json.loads(sys.argv[1])
    servers, absent = wanted["servers"], tuple(wanted["absent"])
    async with Endpoint.bind(EndpointConfig(plugins=(), bind=("127.0.0.1:0",), persist=False)) as bare:
        installed = {info.name for info in bare.plugins}
    ways: list[tuple[str, ...]] = [(name,) for name in DISCOVERIES if name in installed]
    if "relay" in installed:
        ways += [("relay",), *(("relay", *way) for way in ways)]
    routes = {" ".join(way): Route(installed, servers, way) for way in ways}
    routes["address"] = Route(installed, servers)
    results = {name: await route.go() for name, route in routes.items()}
    imported = sorted(name for name in sys.modules if name.split(".")[0] in absent)
    there = [name for name in absent if importlib.util.find_spec(name)]
    print(json.dumps({"routes": results, "imported": imported, "there": there}))


asyncio.run(main())
