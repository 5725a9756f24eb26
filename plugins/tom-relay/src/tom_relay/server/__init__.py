"""The relay server: `RelayServer` runs in a program or a test, `tom-connect relay` runs it by itself."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tom_relay.server.access import AccessPolicy, AllowList, DenyList, HttpAccess, OpenAccess, TokenAccess
    from tom_relay.server.config import RelayServerConfig
    from tom_relay.server.contributions import Contribution, Role
    from tom_relay.server.server import RelayServer

SECTION = "relay_server"
"""Where the options stand."""

__all__ = [
    "AccessPolicy",
    "AllowList",
    "Contribution",
    "DenyList",
    "HttpAccess",
    "OpenAccess",
    "RelayServer",
    "RelayServerConfig",
    "Role",
    "TokenAccess",
]

_MODULES = {
    "access": ("AccessPolicy", "AllowList", "DenyList", "HttpAccess", "OpenAccess", "TokenAccess"),
    "config": ("RelayServerConfig",),
    "contributions": ("Contribution", "Role"),
    "server": ("RelayServer",),
}


def __getattr__(name: str) -> object:
    # The plugin is loaded with every command and endpoint, and only those who serve need an HTTP server.
    for module, names in _MODULES.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
