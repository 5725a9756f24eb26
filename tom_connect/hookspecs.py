"""The hooks that plugins implement, typed and documented.

A plugin is a module or object named by an entry point of the group `tom_connect`; it marks its implementations with
`hookimpl`. Hooks are synchronous factories, each called once when an endpoint binds; all that is asynchronous lives in
the objects that they return (`tom_connect.abc`). New arguments are only ever added, and a plugin may take fewer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import pluggy

from tom_connect.abc import (
    AddressSource,
    ConnectionGuard,
    DatagramProtocol,
    Diagnostics,
    Discovery,
    PathSelector,
    PluginContext,
    PluginObject,
    Publisher,
    RelayTransport,
    Rendezvous,
    TopicDirectory,
)

if TYPE_CHECKING:
    from tom_connect.plugins import CliRegistry, ConfigRegistry

PROJECT = "tom_connect"
hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


class TomHookSpecs:
    """Every hook of tom-connect."""

    @hookspec
    def tom_register_config(self, registry: ConfigRegistry) -> None:
        """Register a frozen attrs class of options: `registry.register("dht", DhtConfig)`.

        The core derives the TOML table `[dht]`, environment names `TOM_CONNECT_DHT_*` and CLI options `--dht-*`
        from it, and gives the plugin's instance as `ctx.config`. What the plugin's commands alone read is registered by
        `register_for_commands`.
        """

    @hookspec
    def tom_discovery(self, ctx: PluginContext) -> Discovery | Sequence[Discovery] | None:
        """Return what finds nodes."""

    @hookspec
    def tom_publisher(self, ctx: PluginContext) -> Publisher | Sequence[Publisher] | None:
        """Return what publishes our address record."""

    @hookspec
    def tom_relay_transport(self, ctx: PluginContext) -> RelayTransport | Sequence[RelayTransport] | None:
        """Return what carries datagrams through relays of the URL schemes it claims."""

    @hookspec
    def tom_datagram_protocol(self, ctx: PluginContext) -> DatagramProtocol | Sequence[DatagramProtocol] | None:
        """Return a protocol that shares the magic socket."""

    @hookspec
    def tom_address_source(self, ctx: PluginContext) -> AddressSource | Sequence[AddressSource] | None:
        """Return what knows further addresses of ours."""

    @hookspec
    def tom_rendezvous(self, ctx: PluginContext) -> Rendezvous | Sequence[Rendezvous] | None:
        """Return what carries call-me-maybe where no path exists yet."""

    @hookspec
    def tom_topic_directory(self, ctx: PluginContext) -> TopicDirectory | Sequence[TopicDirectory] | None:
        """Return where nodes announce themselves under a topic, and are found."""

    @hookspec
    def tom_service(self, ctx: PluginContext) -> PluginObject | Sequence[PluginObject] | None:
        """Return what works beside the endpoint and fits no other hook; it is started and closed with the others."""

    @hookspec
    def tom_connection_guard(self, ctx: PluginContext) -> ConnectionGuard | Sequence[ConnectionGuard] | None:
        """Return what accepts or refuses connections, before and after the handshake."""

    @hookspec(firstresult=True)
    def tom_path_selector(self, ctx: PluginContext) -> PathSelector | None:
        """Return what chooses paths; the first plugin that returns one wins."""

    @hookspec
    def tom_cli_commands(self, cli: CliRegistry) -> None:
        """Add sub-commands to `tom-connect`: `cli.add(command)` with a click command or group."""

    @hookspec
    def tom_diagnostics(self, ctx: PluginContext) -> Diagnostics | None:
        """Return names and values that `tom-connect doctor` shows."""
