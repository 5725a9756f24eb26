"""The bytes that a volunteer passes on in a day, also across restarts; sans-IO but for its file."""

from __future__ import annotations

import json
import os
import pathlib
from typing import Final

from tom_relay.volunteer.topics import DAY, day_of

FILE: Final = "passed-on.json"


class DailyBudget:
    """Counts against `limit` bytes a day (UTC). `directory`: where the count outlives us, None: nowhere."""

    def __init__(self, limit: int, directory: pathlib.Path | None, wall: float) -> None:
        self.limit = limit
        self.day = day_of(wall)
        self.used = 0
        self._seen = 0
        self._saved = -1
        self._path = None if directory is None else directory / FILE
        if self._path is not None:
            self.used = _read(self._path, self.day)

    def count(self, total: int, wall: float) -> None:
        """Take note that `total` bytes were passed on since we began."""
        if day_of(wall) != self.day:
            self.day, self.used = day_of(wall), 0
        self.used += total - self._seen
        self._seen = total

    @property
    def spent(self) -> bool:
        """Whether nothing more may be passed on today."""
        return self.used >= self.limit

    def renewed_in(self, wall: float) -> float:
        """Seconds until the next day begins."""
        return (day_of(wall) + 1) * DAY - wall

    def save(self) -> None:
        """Write what changed; raises OSError."""
        if self._path is None or self.used == self._saved:
            return
        temporary = self._path.with_suffix(".new")
        temporary.write_text(json.dumps({"day": self.day, "bytes": self.used}))
        os.replace(temporary, self._path)  # noqa: PTH105 - the same, and it says what it does
        self._saved = self.used


def _read(path: pathlib.Path, day: int) -> int:
    try:
        with path.open("rb") as file:
            kept = json.loads(file.read(1000))
        used = kept["bytes"] if kept["day"] == day else 0
    except (OSError, ValueError, TypeError, LookupError):
        return 0
    return used if isinstance(used, int) and used >= 0 else 0
