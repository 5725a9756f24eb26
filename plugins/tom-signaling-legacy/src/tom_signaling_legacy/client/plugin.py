"""The hooks by which tom-connect uses signaling servers. Light: without servers nothing more is imported."""

from __future__ import annotations

from tom_connect.abc import Diagnostics, Discovery, PluginContext, Publisher
from tom_connect.hookspecs import hookimpl
from tom_connect.plugins import ConfigRegistry
from tom_signaling_legacy.client.config import SECTION, SignalingConfig
from tom_signaling_legacy.client.service import LiveDiagnostics, SignalingService

TOM_CONNECT_API = (1, 0)


@hookimpl
def tom_register_config(registry: ConfigRegistry) -> None:
    """Options `signaling.*`."""
    registry.register(SECTION, SignalingConfig)


@hookimpl
def tom_discovery(ctx: PluginContext) -> Discovery | None:
    """Find nodes that are registered with a signaling server, if any is configured."""
    service = SignalingService.of(ctx)
    if not service.config.wanted:
        return None
    from tom_signaling_legacy.client.discovery import SignalingDiscovery

    return SignalingDiscovery(service)


@hookimpl
def tom_publisher(ctx: PluginContext) -> Publisher | None:
    """Answer those who ask for our address through a signaling server, if any is configured."""
    service = SignalingService.of(ctx)
    if not service.config.wanted:
        return None
    from tom_signaling_legacy.client.publisher import SignalingPublisher

    return SignalingPublisher(service)


@hookimpl
def tom_diagnostics(ctx: PluginContext) -> Diagnostics | None:
    """How each server does, and whether signaling is deprecated."""
    service = SignalingService.of(ctx)
    return LiveDiagnostics(service) if service.config.wanted else None
