"""Limits that options are checked by: apart from the codec, which those who only read options do not need."""

from __future__ import annotations

from typing import Final

MAX_MESSAGE: Final = 1 << 20
"""Bytes of a WebSocket message, at most."""
