"""Pings and calls that wait for their pongs."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

import attrs

from tom_connect.holepunch.paths import RemotePaths
from tom_connect.holepunch.pathstate import PathState

PONG_TIME: Final = 10.0
"""Seconds for which a ping waits for its pong; longer than any path that is worth using takes."""
MAX_OUTSTANDING: Final = 8192


@attrs.define(eq=False)
class Asked:
    """A ping or call-me-maybe. `tx`: its transaction id; `stamp`: that of the packet; `at`: when it was sent."""

    remote: RemotePaths
    state: PathState
    tx: bytes
    stamp: bytes
    at: float


class Outstanding:
    """All that waits, the oldest first."""

    def __init__(self) -> None:
        self._by_tx: OrderedDict[bytes, Asked] = OrderedDict()
        self._by_stamp: dict[bytes, Asked] = {}

    def __len__(self) -> int:
        return len(self._by_tx)

    def add(self, asked: Asked) -> None:
        """Something was sent."""
        self._by_tx[asked.tx] = self._by_stamp[asked.stamp] = asked

    def get(self, tx: bytes) -> Asked | None:
        """What has that transaction id."""
        return self._by_tx.get(tx)

    def stamped(self, stamp: bytes) -> Asked | None:
        """What was sent in the packet with that stamp."""
        return self._by_stamp.get(stamp)

    def done(self, asked: Asked) -> None:
        """It is answered, or waits no longer."""
        self._by_tx.pop(asked.tx, None)
        self._by_stamp.pop(asked.stamp, None)

    def expire(self, now: float) -> None:
        """Forget what is too old, or too much."""
        while self._by_tx:
            asked = next(iter(self._by_tx.values()))
            if now - asked.at < PONG_TIME and len(self._by_tx) <= MAX_OUTSTANDING:
                return
            self.done(asked)
