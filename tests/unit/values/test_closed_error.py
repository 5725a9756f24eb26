"""How the end of a connection is told."""

from __future__ import annotations

import pytest

from tom_connect.exceptions import ConnectionClosedError


@pytest.mark.parametrize(
    ("code", "reason", "is_application", "text"),
    [
        (0, "", True, "connection closed by the peer"),
        (0, "done", True, "connection closed by the peer: done"),
        (7, "full", True, "connection closed by the peer, code 7: full"),
        (10, "", False, "connection closed by the peer, QUIC error 10"),
    ],
)
def test_words(code: int, reason: str, is_application: bool, text: str) -> None:
    """In words; a number only where something is wrong."""
    assert str(ConnectionClosedError(code, reason, by_peer=True, is_application=is_application)) == text
