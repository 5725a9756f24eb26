"""Checks that anyone can call on an own implementation of a plugin's contract (`tom_connect.abc`); free of pytest.

    async def test_conformance():
        await check_discovery(tom_discovery, publish=store, context=lambda: plugin_context(MyConfig()))

Each is given a factory, as a hook is one, and what it needs to see the object work. What does not keep the contract
is told by a ConformanceError: which rule is broken, where to read it, and what was seen.
"""

from __future__ import annotations

from tom_connect.testing.conformance.datagram_protocol import check_datagram_protocol
from tom_connect.testing.conformance.discovery import check_discovery
from tom_connect.testing.conformance.publisher import check_publisher
from tom_connect.testing.conformance.relay_transport import check_relay_transport
from tom_connect.testing.conformance.rules import ConformanceError, Rule

__all__ = [
    "ConformanceError",
    "Rule",
    "check_datagram_protocol",
    "check_discovery",
    "check_publisher",
    "check_relay_transport",
]
