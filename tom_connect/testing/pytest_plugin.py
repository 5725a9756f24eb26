"""Fixtures: `pytest_plugins = ["tom_connect.testing.pytest_plugin"]` in the topmost conftest.py brings them."""

from __future__ import annotations

import zlib
from collections.abc import Iterator

import pytest

from tom_connect.testing.fakenet import FakeNet
from tom_connect.testing.natlab import Lab, missing


@pytest.fixture
def fake_net(request: pytest.FixtureRequest) -> FakeNet:
    """An empty simulated network, seeded by the name of the test, so that a test sees the same one every time."""
    return FakeNet(zlib.crc32(request.node.nodeid.encode()))


@pytest.fixture
def natlab() -> Iterator[Lab]:
    """An empty lab of network namespaces, removed after the test; skips the test where the machine can't have one."""
    if lacking := missing():
        pytest.skip(f"a network lab needs {', '.join(lacking)}")
    with Lab() as lab:
        yield lab
