"""The pairs of connected endpoints that the tests of endpoints use."""

from __future__ import annotations

from tests.unit.endpoint.conftest import pair as pair
