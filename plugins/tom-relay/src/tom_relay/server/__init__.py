"""The relay server: `RelayServer` runs in a program or a test, `tom-connect relay` runs it by itself."""

from __future__ import annotations

from tom_relay.server.access import AccessPolicy, AllowList, DenyList, HttpAccess, OpenAccess, TokenAccess
from tom_relay.server.config import RelayServerConfig
from tom_relay.server.contributions import Contribution, Role
from tom_relay.server.server import RelayServer

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
