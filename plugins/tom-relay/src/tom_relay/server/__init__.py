"""The relay server."""

from __future__ import annotations
