"""STUN binding: the server of a relay, and the client that asks it (RFC 8489)."""

from __future__ import annotations

from tom_relay.stun.client import StunClient
from tom_relay.stun.server import StunLimits, StunServer

__all__ = ["StunClient", "StunLimits", "StunServer"]
