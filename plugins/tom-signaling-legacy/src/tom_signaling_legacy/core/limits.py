"""Limits that options set or are checked by: apart from what they limit."""

from __future__ import annotations

from typing import Final

import attrs

MAX_USERNAME: Final = 128
"""Characters of a user's name: it goes to everyone with each list of participants."""


@attrs.frozen
class HubLimits:
    """What one client may cost; rates are messages a second.

    `broadcast_rate`: of messages that go to everyone; `queue_bytes`: characters, which are ASCII.
    """

    message_rate: float = 50.0
    message_burst: float = 100.0
    broadcast_rate: float = 2.0
    broadcast_burst: float = 20.0
    queue_messages: int = 1024
    queue_bytes: int = 1 << 20
