"""The hooks by which a node becomes a relay for others. Light: nothing is served unless it is asked for."""

from __future__ import annotations

from tom_connect.abc import Diagnostics, Discovery, PluginContext, PluginObject
from tom_connect.hookspecs import hookimpl
from tom_connect.plugins import ConfigRegistry
from tom_relay.volunteer.config import SECTION, RelayForOthersConfig

TOM_CONNECT_API = (1, 1)


@hookimpl
def tom_register_config(registry: ConfigRegistry) -> None:
    """Options `relay_for_others.*`."""
    registry.register(SECTION, RelayForOthersConfig)


def _made(ctx: PluginContext) -> None:
    if "volunteer" in ctx.shared:
        return
    ctx.shared["volunteer"] = None
    if isinstance(ctx.config, RelayForOthersConfig) and ctx.config.enabled:
        from tom_relay.volunteer.service import Volunteer

        ctx.shared["volunteer"] = Volunteer(ctx, ctx.config)


@hookimpl
def tom_service(ctx: PluginContext) -> PluginObject | None:
    """Pass on datagrams of others, if that is wanted."""
    _made(ctx)
    volunteer: PluginObject | None = ctx.shared["volunteer"]
    return volunteer


@hookimpl
def tom_discovery(ctx: PluginContext) -> Discovery | None:
    """Know where our clients are."""
    _made(ctx)
    if ctx.shared["volunteer"] is None:
        return None
    from tom_relay.volunteer.service import ClientsDiscovery

    return ClientsDiscovery(ctx.shared["volunteer"])


@hookimpl
def tom_diagnostics(ctx: PluginContext) -> Diagnostics | None:
    """What we are for others, and why not."""
    volunteer = ctx.shared.get("volunteer")
    if volunteer is None:
        return None
    return {
        "relay for others": str(volunteer.url or "not reachable"),
        "nodes connected": len(volunteer.hub),
        "bytes passed on today": volunteer.budget.used,
        "announced": ", ".join(f"{where.hex()[:8]} to {taken} nodes" for where, taken in volunteer.announced.items())
        or f"no: {volunteer.why_not or 'not yet'}",
    }
