"""What the endpoint lends to its plugins, made into one PluginContext for each."""

from __future__ import annotations

import asyncio
import functools
import logging
import pathlib
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any

import attrs

from tom_connect.abc import (
    Clock,
    DirectConnections,
    PluginContext,
    Reachability,
    SharedSocket,
    Signer,
    TopicDirectory,
)
from tom_connect.addr import NodeAddr, SocketAddr
from tom_connect.config import EndpointConfig
from tom_connect.keys import NodeId
from tom_connect.watch import Watch

logger = logging.getLogger("tom_connect.plugins")


@attrs.frozen
class Facilities:
    """What is the same in every plugin's context.

    `create_task`, `report_external_addr` and `connections` are given the plugin's name first, so that the endpoint
    knows whose task failed and who saw an address.
    """

    node_id: NodeId
    signer: Signer
    clock: Clock
    local_addrs: Watch[NodeAddr]
    socket: SharedSocket
    create_task: Callable[[str, Coroutine[Any, Any, None], str], asyncio.Task[None]]
    report_external_addr: Callable[[str, SocketAddr], None]
    connections: Callable[[str], DirectConnections] | None = None
    reachability: Watch[Reachability] | None = None
    directories: Callable[[], Sequence[TopicDirectory]] = tuple
    direct_peers: Watch[tuple[SocketAddr, ...]] = attrs.Factory(lambda: Watch(()))


class PluginContexts:
    """Makes each plugin's context, once; call it with the plugin's name."""

    def __init__(self, facilities: Facilities, config: EndpointConfig, plugin_configs: Mapping[str, Any]) -> None:
        """`plugin_configs`: by plugin name (not section), only of plugins that registered a class."""
        self._facilities = facilities
        self._config = config
        self._plugin_configs = plugin_configs
        self._made: dict[str, PluginContext] = {}

    def __call__(self, name: str) -> PluginContext:
        """The context of a plugin, the same one each time."""
        if name not in self._made:
            lent = self._facilities
            self._made[name] = PluginContext(
                node_id=lent.node_id,
                signer=lent.signer,
                config=self._plugin_configs.get(name),
                clock=lent.clock,
                logger=logging.getLogger(f"tom_connect.plugin.{name}"),
                local_addrs=lent.local_addrs,
                socket=lent.socket,
                data_dir=plugin_data_dir(self._config, name),
                allow_local=self._config.allow_local,
                create_task=functools.partial(lent.create_task, name),
                report_external_addr=functools.partial(lent.report_external_addr, name),
                shared={},
                relay_urls=() if self._config.dht_only else self._config.relay_urls,
                direct=self._config.direct,
                public_relays=() if self._config.dht_only else self._config.public_relays,
                dht_only=self._config.dht_only,
                connections=None if lent.connections is None else lent.connections(name),
                reachability=lent.reachability,
                directories=lent.directories,
                direct_peers=lent.direct_peers,
            )
        return self._made[name]


def plugin_data_dir(config: EndpointConfig, name: str) -> pathlib.Path | None:
    """The plugin's own directory, made if it is missing; None if nothing is to be kept or it can't be made."""
    base = config.data_path()
    if base is None:
        return None
    path = base / "plugins" / name
    try:
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as exc:
        logger.warning("plugin %s keeps nothing between runs: %s", name, exc)
        return None
    return path
