"""The hooks by which tom-connect gets relays."""

from __future__ import annotations

from tom_connect.abc import Diagnostics, PluginContext, RelayTransport
from tom_connect.hookspecs import hookimpl
from tom_connect.plugins import ConfigRegistry
from tom_relay.client.config import SECTION, RelayClientConfig

TOM_CONNECT_API = (1, 0)


@hookimpl
def tom_register_config(registry: ConfigRegistry) -> None:
    """Options `relay_client.*`."""
    registry.register(SECTION, RelayClientConfig)


@hookimpl
def tom_relay_transport(ctx: PluginContext) -> RelayTransport:
    """Carry datagrams through relays."""
    from tom_relay.client.transport import Relays  # listing plugins needs no WebSockets

    transport = Relays(ctx)
    ctx.shared["transport"] = transport
    return transport


@hookimpl
def tom_diagnostics(ctx: PluginContext) -> Diagnostics | None:
    """How each relay does."""
    transport = ctx.shared.get("transport")
    if transport is None:
        return None
    told: dict[str, object] = {
        str(info.url): info.problem or ("connected" if info.connected else "connecting") for info in transport.relays()
    }
    seeker = transport.seeker
    if seeker is not None:
        used = ", ".join(map(str, seeker.used)) or seeker.problem or "none yet"
        told["volunteers"] = used if seeker.wanted else "not needed: strangers reach us"
    elif transport.seeks:
        told["volunteers"] = "none yet"
    return told
