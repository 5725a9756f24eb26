"""The signaling server: `SignalingServer` for a program or a test, `tom-connect signaling serve` by itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tom_signaling_legacy.server.config import SignalingServerConfig
    from tom_signaling_legacy.server.server import SignalingServer

SECTION = "signaling_server"
"""Where the options stand."""

__all__ = ["SignalingServer", "SignalingServerConfig"]


def __getattr__(name: str) -> object:
    # The plugin is loaded with every command and endpoint, and only those who serve need options and an HTTP server.
    if name == "SignalingServerConfig":
        from tom_signaling_legacy.server.config import SignalingServerConfig

        return SignalingServerConfig
    if name == "SignalingServer":
        from tom_signaling_legacy.server.server import SignalingServer

        return SignalingServer
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
