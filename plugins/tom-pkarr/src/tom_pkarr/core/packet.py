"""The shape of a DNS packet, read without building anything: a relay looks at each packet that is put (RFC 1035)."""

from __future__ import annotations

from tom_connect.exceptions import RecordError

_HEADER = 12
_RR_FIXED = 10  # type, class, TTL, length
_QUESTION_FIXED = 4
_POINTER = 0xC0
_MAX_NAME = 255
_MAX_TTL = 2**31 - 1


def minimum_ttl(packet: bytes) -> int | None:
    """The lowest TTL of all records in a DNS packet, seconds; None if it has no record.

    Raises RecordError unless its names and records fill it exactly. A TTL above 2**31-1 is 0 (RFC 2181 section 8).
    """
    if len(packet) < _HEADER:
        raise RecordError(f"not a DNS packet: only {len(packet)} bytes")
    questions, *sections = (int.from_bytes(packet[at : at + 2], "big") for at in (4, 6, 8, 10))
    at = _HEADER
    for _ in range(questions):
        at = _after_name(packet, at) + _QUESTION_FIXED
        if at > len(packet):
            raise RecordError("not a DNS packet: a question is cut off")
    lowest: int | None = None
    for _ in range(sum(sections)):
        at = _after_name(packet, at)
        if at + _RR_FIXED > len(packet):
            raise RecordError("not a DNS packet: a record is cut off")
        ttl = int.from_bytes(packet[at + 4 : at + 8], "big")
        at += _RR_FIXED + int.from_bytes(packet[at + 8 : at + 10], "big")
        ttl = 0 if ttl > _MAX_TTL else ttl
        lowest = ttl if lowest is None else min(lowest, ttl)
    if at != len(packet):
        raise RecordError("not a DNS packet: its records do not end where it ends")
    return lowest


def _after_name(packet: bytes, at: int) -> int:
    """Where a name ends; a pointer ends it, and may only lead back."""
    start = at
    while at < len(packet):
        size = packet[at]
        if size == 0:
            return at + 1
        if size >= _POINTER:
            target = int.from_bytes(packet[at : at + 2], "big") & 0x3FFF
            if at + 2 > len(packet) or not _HEADER <= target < at:
                break
            return at + 2
        if size > 63:
            break
        at += 1 + size
        if at - start > _MAX_NAME:
            break
    raise RecordError("not a DNS packet: a name is malformed")
