"""The hooks by which tom-connect uses the Mainline DHT. Light: the DHT itself is imported when an endpoint is bound."""

from __future__ import annotations

from tom_connect.abc import (
    DatagramProtocol,
    Diagnostics,
    Discovery,
    PluginContext,
    Publisher,
    Rendezvous,
    TopicDirectory,
)
from tom_connect.exceptions import ConfigError
from tom_connect.hookspecs import hookimpl
from tom_connect.plugins import CliRegistry, ConfigRegistry

from .config import DhtConfig
from .deferred import (
    DeferredDatagrams,
    DeferredDiscovery,
    DeferredPublisher,
    DeferredRendezvous,
    DeferredTopics,
    config_of,
)

TOM_CONNECT_API = (1, 1)

_REFUSED = "refused"


def _refused(ctx: PluginContext) -> bool:
    """Whether the options make no sense for this node; raises ConfigError the first time, so that it is said once."""
    if _REFUSED in ctx.shared:
        return True
    try:
        config_of(ctx).check_contacts_of(ctx.node_id)
    except ConfigError:
        ctx.shared[_REFUSED] = True
        raise
    return False


@hookimpl
def tom_register_config(registry: ConfigRegistry) -> None:
    """Options `dht.*`."""
    registry.register("dht", DhtConfig)


@hookimpl
def tom_discovery(ctx: PluginContext) -> Discovery | None:
    """Find nodes in the DHT."""
    return None if _refused(ctx) else DeferredDiscovery(ctx)


@hookimpl
def tom_publisher(ctx: PluginContext) -> Publisher | None:
    """Publish our address in the DHT."""
    return None if _refused(ctx) else DeferredPublisher(ctx)


@hookimpl
def tom_topic_directory(ctx: PluginContext) -> TopicDirectory | None:
    """Announce and find addresses under topics in the DHT."""
    return None if _refused(ctx) else DeferredTopics(ctx)


@hookimpl
def tom_datagram_protocol(ctx: PluginContext) -> DatagramProtocol | None:
    """Share the endpoint's socket, unless the DHT is configured to have its own."""
    return None if _refused(ctx) or config_of(ctx).own_socket else DeferredDatagrams(ctx)


@hookimpl
def tom_rendezvous(ctx: PluginContext) -> Rendezvous | None:
    """Meet through the DHT, unless it has a socket of its own: nodes would then see that one's address."""
    config = config_of(ctx)
    wanted = not _refused(ctx) and config.rendezvous and not config.own_socket and ctx.direct
    return DeferredRendezvous(ctx) if wanted else None


@hookimpl
def tom_diagnostics(ctx: PluginContext) -> Diagnostics | None:
    """Where the DHT node stands."""
    if _refused(ctx):
        return None
    from .service import DhtService, LiveDiagnostics

    return LiveDiagnostics(DhtService.of(ctx))


@hookimpl
def tom_cli_commands(cli: CliRegistry) -> None:
    """`tom-connect dht`."""
    from .cli import dht  # only the command line needs it

    cli.add(dht)
