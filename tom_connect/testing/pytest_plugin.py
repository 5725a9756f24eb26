"""Pytest fixtures for whoever tests an application or a plugin of tom-connect.

Put `pytest_plugins = ["tom_connect.testing.pytest_plugin"]` into the topmost conftest.py.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tom_connect.testing.natlab import Lab, missing


@pytest.fixture
def natlab() -> Iterator[Lab]:
    """An empty network lab, removed after the test; where the machine can't have one, the test is skipped."""
    if lacking := missing():
        pytest.skip(f"a network lab needs {', '.join(lacking)}")
    with Lab() as lab:
        yield lab
