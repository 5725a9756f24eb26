"""The hooks by which tom-connect uses the Mainline DHT. Light: the DHT itself is imported when an endpoint is bound."""

from __future__ import annotations

from tom_connect.abc import DatagramProtocol, Diagnostics, Discovery, PluginContext, Publisher, Rendezvous
from tom_connect.hookspecs import hookimpl
from tom_connect.plugins import CliRegistry, ConfigRegistry

from .config import DhtConfig
from .deferred import DeferredDatagrams, DeferredDiscovery, DeferredPublisher, DeferredRendezvous, config_of

TOM_CONNECT_API = (1, 0)


@hookimpl
def tom_register_config(registry: ConfigRegistry) -> None:
    """Options `dht.*`."""
    registry.register("dht", DhtConfig)


@hookimpl
def tom_discovery(ctx: PluginContext) -> Discovery:
    """Find nodes in the DHT."""
    return DeferredDiscovery(ctx)


@hookimpl
def tom_publisher(ctx: PluginContext) -> Publisher:
    """Publish our address in the DHT."""
    return DeferredPublisher(ctx)


@hookimpl
def tom_datagram_protocol(ctx: PluginContext) -> DatagramProtocol | None:
    """Share the endpoint's socket, unless the DHT is configured to have its own."""
    return None if config_of(ctx).own_socket else DeferredDatagrams(ctx)


@hookimpl
def tom_rendezvous(ctx: PluginContext) -> Rendezvous | None:
    """Meet through the DHT, unless it has a socket of its own: nodes would then see that one's address."""
    config = config_of(ctx)
    return DeferredRendezvous(ctx) if config.rendezvous and not config.own_socket and ctx.direct else None


@hookimpl
def tom_diagnostics(ctx: PluginContext) -> Diagnostics:
    """Where the DHT node stands."""
    from .service import DhtService, LiveDiagnostics

    return LiveDiagnostics(DhtService.of(ctx))


@hookimpl
def tom_cli_commands(cli: CliRegistry) -> None:
    """`tom-connect dht`."""
    from .cli import dht  # only the command line needs it

    cli.add(dht)
