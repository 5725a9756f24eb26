"""The hooks by which tom-connect uses Pkarr relays. Light: without relays nothing more is imported."""

from __future__ import annotations

from tom_connect.abc import Diagnostics, Discovery, PluginContext, Publisher
from tom_connect.hookspecs import hookimpl
from tom_connect.plugins import ConfigRegistry
from tom_pkarr.client.config import SECTION, PkarrConfig

TOM_CONNECT_API = (1, 0)


@hookimpl
def tom_register_config(registry: ConfigRegistry) -> None:
    """Options `pkarr.*`."""
    registry.register(SECTION, PkarrConfig)


@hookimpl
def tom_discovery(ctx: PluginContext) -> Discovery | None:
    """Find nodes at Pkarr relays, if any is configured."""
    if not _config(ctx).relays:
        return None
    from tom_pkarr.client.discovery import PkarrDiscovery
    from tom_pkarr.client.service import PkarrService

    return PkarrDiscovery(PkarrService.of(ctx))


@hookimpl
def tom_publisher(ctx: PluginContext) -> Publisher | None:
    """Publish our address at Pkarr relays, if any is configured."""
    if not _config(ctx).relays or not _config(ctx).publish:
        return None
    from tom_pkarr.client.publisher import PkarrPublisher
    from tom_pkarr.client.service import PkarrService

    return PkarrPublisher(PkarrService.of(ctx))


@hookimpl
def tom_diagnostics(ctx: PluginContext) -> Diagnostics | None:
    """How each relay does."""
    if not _config(ctx).relays:
        return None
    from tom_pkarr.client.service import LiveDiagnostics, PkarrService

    return LiveDiagnostics(PkarrService.of(ctx))


def _config(ctx: PluginContext) -> PkarrConfig:
    return ctx.config if isinstance(ctx.config, PkarrConfig) else PkarrConfig()
