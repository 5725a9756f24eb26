"""The Pkarr relay: `PkarrRelay` runs in a program or a test, `tom-connect pkarr serve` runs it by itself."""

from __future__ import annotations

from tom_pkarr.server.config import PkarrServerConfig
from tom_pkarr.server.server import PkarrRelay

__all__ = ["PkarrRelay", "PkarrServerConfig"]
