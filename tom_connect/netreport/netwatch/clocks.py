"""A clock that counts the time asleep, where the system has one."""

from __future__ import annotations

import sys
import time


def boot_time() -> float | None:
    """Seconds since the machine started, those asleep included; None where `time.monotonic` is all there is."""
    # On macOS CLOCK_MONOTONIC counts sleep, and time.monotonic does not; on Linux it is the same clock as that.
    clock = getattr(time, "CLOCK_MONOTONIC" if sys.platform == "darwin" else "CLOCK_BOOTTIME", None)
    if clock is None:
        return None
    try:
        return time.clock_gettime(clock)
    except OSError:
        return None
