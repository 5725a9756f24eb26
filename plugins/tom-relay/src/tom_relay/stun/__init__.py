"""STUN binding: the server of a relay (RFC 8489). The core's network report is the client."""

from __future__ import annotations

from tom_relay.stun.server import StunLimits, StunServer

__all__ = ["StunLimits", "StunServer"]
