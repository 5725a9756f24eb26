"""QUIC address discovery of a relay: tells a node its address inside an authenticated QUIC connection."""

from __future__ import annotations

from tom_relay.qad.certificate import ServerCertificate
from tom_relay.qad.server import QadLimits, QadServer

__all__ = ["QadLimits", "QadServer", "ServerCertificate"]
