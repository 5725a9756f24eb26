"""The Pkarr relay: `PkarrRelay` runs in a program or a test, `tom-connect pkarr serve` runs it by itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tom_pkarr.server.config import PkarrServerConfig
    from tom_pkarr.server.server import PkarrRelay

SECTION = "pkarr_server"
"""Where the options stand."""

__all__ = ["PkarrRelay", "PkarrServerConfig"]


def __getattr__(name: str) -> object:
    # The plugin is loaded with every command and endpoint, and only those who serve need options and an HTTP server.
    if name == "PkarrServerConfig":
        from tom_pkarr.server.config import PkarrServerConfig

        return PkarrServerConfig
    if name == "PkarrRelay":
        from tom_pkarr.server.server import PkarrRelay

        return PkarrRelay
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
