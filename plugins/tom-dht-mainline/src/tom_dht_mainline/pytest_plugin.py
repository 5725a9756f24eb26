"""A pytest fixture for whoever tests against a DHT.

Put `pytest_plugins = ["tom_dht_mainline.pytest_plugin"]` into the topmost conftest.py.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .testing import threaded_testnet


@pytest.fixture(scope="session")
def dht_bootstrap() -> Iterator[tuple[str, ...]]:
    """`HOST:PORT` of nodes of a DHT on loopback that lives as long as the test session."""
    with threaded_testnet(20) as bootstrap:
        yield bootstrap
