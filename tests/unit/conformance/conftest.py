"""Checks that must fail fail soon."""

from __future__ import annotations

import pytest

from tom_connect.testing.conformance import life


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(life.Trial, "settle", 0.15)
    monkeypatch.setattr(life, "START_TIMEOUT", 0.3)
