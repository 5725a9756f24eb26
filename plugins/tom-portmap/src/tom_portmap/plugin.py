"""The hooks by which tom-connect gets port mappings."""

from __future__ import annotations

from tom_connect.abc import AddressSource, Diagnostics, PluginContext
from tom_connect.hookspecs import hookimpl
from tom_connect.plugins import ConfigRegistry
from tom_portmap.config import SECTION, PortmapConfig

TOM_CONNECT_API = (1, 0)


@hookimpl
def tom_register_config(registry: ConfigRegistry) -> None:
    """Options `portmap.*`."""
    registry.register(SECTION, PortmapConfig)


@hookimpl
def tom_address_source(ctx: PluginContext) -> AddressSource:
    """Map our port at the gateways."""
    from tom_portmap.source import PortMappings  # listing plugins needs none of it

    mappings = PortMappings(ctx)
    ctx.shared["mappings"] = mappings
    return mappings


@hookimpl
def tom_diagnostics(ctx: PluginContext) -> Diagnostics | None:
    """Which gateway maps what, and why none does."""
    mappings = ctx.shared.get("mappings")
    return None if mappings is None else mappings.diagnostics()
