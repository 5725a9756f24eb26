"""The hooks by which tom-connect uses signaling servers. Light: without servers nothing more is imported."""

from __future__ import annotations

from tom_connect.abc import Diagnostics, Discovery, PluginContext, Publisher, Rendezvous
from tom_connect.hookspecs import hookimpl
from tom_connect.plugins import ConfigRegistry
from tom_signaling_legacy.client.config import SECTION, SignalingConfig

TOM_CONNECT_API = (1, 0)


@hookimpl
def tom_register_config(registry: ConfigRegistry) -> None:
    """Options `signaling.*`."""
    registry.register(SECTION, SignalingConfig)


@hookimpl
def tom_discovery(ctx: PluginContext) -> Discovery | None:
    """Find nodes that are registered with a signaling server, if any is configured."""
    if not _config(ctx).wanted:
        return None
    from tom_signaling_legacy.client.discovery import SignalingDiscovery
    from tom_signaling_legacy.client.service import SignalingService

    return SignalingDiscovery(SignalingService.of(ctx))


@hookimpl
def tom_publisher(ctx: PluginContext) -> Publisher | None:
    """Answer those who ask for our address through a signaling server, if any is configured."""
    if not _config(ctx).wanted:
        return None
    from tom_signaling_legacy.client.publisher import SignalingPublisher
    from tom_signaling_legacy.client.service import SignalingService

    return SignalingPublisher(SignalingService.of(ctx))


@hookimpl
def tom_rendezvous(ctx: PluginContext) -> Rendezvous | None:
    """Carry calls to nodes to which no path leads yet, if any server is configured and we take direct packets."""
    if not _config(ctx).wanted or not ctx.direct:
        return None
    from tom_signaling_legacy.client.rendezvous import SignalingRendezvous
    from tom_signaling_legacy.client.service import SignalingService

    return SignalingRendezvous(SignalingService.of(ctx))


@hookimpl
def tom_diagnostics(ctx: PluginContext) -> Diagnostics | None:
    """How each server does, and whether signaling is deprecated."""
    if not _config(ctx).wanted:
        return None
    from tom_signaling_legacy.client.service import LiveDiagnostics, SignalingService

    return LiveDiagnostics(SignalingService.of(ctx))


def _config(ctx: PluginContext) -> SignalingConfig:
    return ctx.config if isinstance(ctx.config, SignalingConfig) else SignalingConfig()
