"""The client of signaling servers: discovery and publishing for an endpoint."""

from __future__ import annotations
