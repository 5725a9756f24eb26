"""The client of Pkarr relays: discovery and publishing for an endpoint."""

from __future__ import annotations
