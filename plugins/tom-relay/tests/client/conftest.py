"""Fixtures: relays on loopback."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tom_relay.server import RelayServer, RelayServerConfig


@pytest.fixture
async def relay() -> AsyncIterator[RelayServer]:
    """A relay for everyone, on a free port."""
    async with RelayServer(RelayServerConfig.dev(listen=("127.0.0.1:0",))) as server:
        yield server
