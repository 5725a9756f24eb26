"""The hooks by which tom-connect finds nodes by DNS. Light: without origin domains nothing more is imported."""

from __future__ import annotations

from tom_connect.abc import Discovery, PluginContext
from tom_connect.hookspecs import hookimpl
from tom_connect.plugins import ConfigRegistry
from tom_pkarr.dns.config import SECTION, DnsConfig

TOM_CONNECT_API = (1, 0)


@hookimpl
def tom_register_config(registry: ConfigRegistry) -> None:
    """Options `dns.*`."""
    registry.register(SECTION, DnsConfig)


@hookimpl
def tom_discovery(ctx: PluginContext) -> Discovery | None:
    """Find nodes by DNS, if an origin domain is configured."""
    if ctx.config is None or not ctx.config.origins:
        return None
    from tom_pkarr.dns.discovery import DnsDiscovery

    return DnsDiscovery(ctx)
