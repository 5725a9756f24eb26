"""Fixtures: `pytest_plugins = ["tom_connect.testing.pytest_plugin"]` in a conftest.py brings them."""

from __future__ import annotations

import zlib

import pytest

from tom_connect.testing.fakenet import FakeNet


@pytest.fixture
def fake_net(request: pytest.FixtureRequest) -> FakeNet:
    """An empty simulated network, seeded by the name of the test, so that a test sees the same one every time."""
    return FakeNet(zlib.crc32(request.node.nodeid.encode()))
