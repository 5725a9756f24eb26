"""The objects that an endpoint's plugins gave: collected from the hooks, started, and given their places."""

from __future__ import annotations

from collections.abc import Sequence

from tom_connect.abc import (
    AddressSource,
    ConnectionGuard,
    Discovery,
    PluginObject,
    Publisher,
    RelayTransport,
    Rendezvous,
)
from tom_connect.addr import RelayUrl, SocketAddr
from tom_connect.config import EndpointConfig
from tom_connect.discovery import NodesFile
from tom_connect.keys import NodeId
from tom_connect.magicsock.socket import MagicSocket
from tom_connect.plugins import PluginContexts, PluginHost, PluginState


class PluginObjects:
    """What the plugins of one endpoint gave, each with its plugin's name; after `start`, those that run."""

    def __init__(self, host: PluginHost, config: EndpointConfig) -> None:
        self.sources: Sequence[tuple[str, Discovery]] = ()
        """Whom to ask where a node is, the file of known nodes first."""
        self.publishers: Sequence[tuple[str, Publisher]] = ()
        self.address_sources: Sequence[tuple[str, AddressSource]] = ()
        self.relays: Sequence[tuple[str, RelayTransport]] = ()
        self.rendezvous: Sequence[tuple[str, Rendezvous]] = ()
        self._host = host
        self._config = config
        self._guards: Sequence[tuple[str, ConnectionGuard]] = ()
        self._started: list[tuple[str, PluginObject]] = []

    async def start(self, contexts: PluginContexts, magic: MagicSocket) -> None:
        """Collect what the hooks return and start it. Whatever fails is reported and left out.

        Raises ConfigError for an unreadable file of nodes.
        """
        host, dht_only = self._host, self._config.dht_only
        nodes = NodesFile(self._config.nodes_file) if self._config.nodes_file is not None else None
        protocols = host.collect("tom_datagram_protocol", contexts)
        for _name, protocol in protocols:
            magic.add_protocol(protocol)
        sources = [pair for pair in host.collect("tom_discovery", contexts) if pair[1].serverless or not dht_only]
        publishers = [pair for pair in host.collect("tom_publisher", contexts) if pair[1].serverless or not dht_only]
        address_sources = host.collect("tom_address_source", contexts)
        relays = host.collect("tom_relay_transport", contexts)
        for _name, transport in relays:
            magic.relays.add(transport)
        rendezvous = [pair for pair in host.collect("tom_rendezvous", contexts) if pair[1].serverless or not dht_only]
        guards = host.collect("tom_connection_guard", contexts)
        selectors = host.collect("tom_path_selector", contexts)
        wanted: list[tuple[str, PluginObject]] = _once(
            [*protocols, *sources, *publishers, *address_sources, *relays, *rendezvous, *guards, *selectors]
        )
        self._started = await host.start(wanted)
        running = {id(obj) for _name, obj in self._started}
        for _name, protocol in protocols:
            if id(protocol) not in running:
                magic.remove_protocol(protocol)
        for _name, transport in relays:
            if id(transport) not in running:
                magic.relays.remove(transport)
        known = [("tom-connect", nodes)] if nodes is not None else []
        self.sources = [*known, *(pair for pair in sources if id(pair[1]) in running)]
        self.publishers = [pair for pair in publishers if id(pair[1]) in running]
        self.address_sources = [pair for pair in address_sources if id(pair[1]) in running]
        self.relays = [pair for pair in relays if id(pair[1]) in running]
        self.rendezvous = [pair for pair in rendezvous if id(pair[1]) in running]
        # A guard that could not be made or started must not leave the door open.
        made = {name for name, _guard in guards}
        broken = [
            info.name
            for info in host.infos
            if "tom_connection_guard" in info.hooks and info.state is PluginState.FAILED and info.name not in made
        ]
        self._guards = [*guards, *((name, _ShutDoor()) for name in broken)]
        if selectors and id(selectors[0][1]) in running:
            magic.set_path_selector(selectors[0][1])

    async def close(self) -> None:
        """Stop and let go of all that was started."""
        await self._host.close(self._started)

    def network_changed(self) -> None:
        """Tell those concerned that the network is another one."""
        concerned: list[tuple[str, RelayTransport | AddressSource | Rendezvous]]
        concerned = [*self.relays, *self.address_sources, *self.rendezvous]
        for name, plugin_object in concerned:
            try:
                plugin_object.network_changed()
            except Exception as exc:  # a plugin may raise anything, and the others go on
                self._host.report_failure(name, exc)

    def let_in_from(self, where: SocketAddr | RelayUrl) -> bool:
        """Whether every guard lets a handshake from there begin."""
        for name, guard in self._guards:
            try:
                if not guard.before_handshake(where):
                    return False
            except Exception as exc:  # a guard that fails lets nobody in
                self._host.report_failure(name, exc)
                return False
        return True

    def let_in(self, node_id: NodeId, alpn: str) -> bool:
        """Whether every guard lets a node that has proven its key speak that protocol with us."""
        for name, guard in self._guards:
            try:
                if not guard.after_handshake(node_id, alpn):
                    return False
            except Exception as exc:  # a guard that fails lets nobody in
                self._host.report_failure(name, exc)
                return False
        return True


class _ShutDoor(ConnectionGuard):
    def before_handshake(self, remote: SocketAddr | RelayUrl) -> bool:
        return False


def _once(objects: Sequence[tuple[str, PluginObject]]) -> list[tuple[str, PluginObject]]:
    # One object may serve several hooks; it is started and closed once.
    return list({id(obj): (name, obj) for name, obj in objects}.values())


__all__ = ["PluginObjects"]
