"""The STUN server of a relay: tells a node the address at which the network shows it (RFC 8489)."""

from __future__ import annotations

from tom_relay.stun.server import StunLimits, StunServer

__all__ = ["StunLimits", "StunServer"]
