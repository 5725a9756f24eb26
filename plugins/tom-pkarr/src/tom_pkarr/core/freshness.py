"""How old or how far ahead of its time a record may be."""

from __future__ import annotations

from tom_connect.exceptions import RecordError

MAX_AGE = 24 * 3600.0
"""Seconds: an older record says nothing any more of where a node is."""
MAX_AHEAD = 2 * 3600.0
"""Seconds that a timestamp may lie in the future, for wrong clocks; it prolongs a replay by as much."""


def check_ahead(timestamp_us: int, wall: float, limit: float = MAX_AHEAD) -> None:
    """Raise RecordError for a timestamp more than `limit` seconds after `wall`, both since 1970."""
    ahead = timestamp_us / 1e6 - wall
    if ahead > limit:
        raise RecordError(f"the record is dated {ahead / 3600:.1f} h ahead of this machine's clock")


def check_time(timestamp_us: int, wall: float) -> None:
    """Raise RecordError for a record that is too old to be used or too far ahead; `wall`: seconds since 1970."""
    check_ahead(timestamp_us, wall)
    age = wall - timestamp_us / 1e6
    if age > MAX_AGE:
        raise RecordError(f"the record is {age / 3600:.1f} h old")
