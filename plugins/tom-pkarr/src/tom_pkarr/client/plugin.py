"""The hooks by which tom-connect uses Pkarr relays. Light: without relays nothing more is imported."""

from __future__ import annotations

from tom_connect.abc import Diagnostics, Discovery, PluginContext, Publisher
from tom_connect.hookspecs import hookimpl
from tom_connect.plugins import ConfigRegistry
from tom_pkarr.client.config import SECTION, PkarrConfig
from tom_pkarr.client.service import LiveDiagnostics, PkarrService

TOM_CONNECT_API = (1, 0)


@hookimpl
def tom_register_config(registry: ConfigRegistry) -> None:
    """Options `pkarr.*`."""
    registry.register(SECTION, PkarrConfig)


@hookimpl
def tom_discovery(ctx: PluginContext) -> Discovery | None:
    """Find nodes at Pkarr relays, if any is configured."""
    service = PkarrService.of(ctx)
    if not service.config.relays:
        return None
    from tom_pkarr.client.discovery import PkarrDiscovery

    return PkarrDiscovery(service)


@hookimpl
def tom_publisher(ctx: PluginContext) -> Publisher | None:
    """Publish our address at Pkarr relays, if any is configured."""
    service = PkarrService.of(ctx)
    if not service.config.relays or not service.config.publish:
        return None
    from tom_pkarr.client.publisher import PkarrPublisher

    return PkarrPublisher(service)


@hookimpl
def tom_diagnostics(ctx: PluginContext) -> Diagnostics | None:
    """How each relay does."""
    service = PkarrService.of(ctx)
    return LiveDiagnostics(service) if service.config.relays else None
