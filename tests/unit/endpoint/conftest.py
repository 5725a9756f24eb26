"""Fixtures for tests that need connected endpoints."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.unit.endpoint.pairs import Pair, make_pair


@pytest.fixture
async def pair() -> AsyncIterator[Pair]:
    """Two connected endpoints."""
    async with make_pair() as made:
        yield made
