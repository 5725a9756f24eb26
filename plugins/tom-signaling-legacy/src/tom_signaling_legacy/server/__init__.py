"""The signaling server: `SignalingServer` for a program or a test, `tom-connect signaling serve` by itself."""

from __future__ import annotations

from tom_signaling_legacy.server.config import SignalingServerConfig
from tom_signaling_legacy.server.server import SignalingServer

__all__ = ["SignalingServer", "SignalingServerConfig"]
