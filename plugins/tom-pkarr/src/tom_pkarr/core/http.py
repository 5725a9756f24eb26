"""What Pkarr needs of HTTP: dates, validators, freshness, and how long to wait (RFC 9110, RFC 9111)."""

from __future__ import annotations

import email.utils
import re

MAX_PAYLOAD = 64 + 8 + 1000
"""Bytes of a body at most: signature, timestamp, and a BEP 44 value."""
PKARR_TYPE = "application/pkarr.org/relays#payload"
"""Media type of a packet at `/<z32>`."""
IROH_TYPE = "application/x-pkarr-signed-packet"
"""Media type of a packet at `/pkarr/<z32>`, as iroh's DNS server has it."""

_MAX_AGE = re.compile(r"max-age\s*=\s*\"?([0-9]{1,9})")
_SECONDS = re.compile(r"[0-9]{1,9}")
_MATCH = re.compile(r'(?:W/)?"?([0-9]{1,20})(?:-[0-9a-f]{16})?"?')


def http_date(timestamp_us: int) -> str:
    """A time in microseconds since 1970 as HTTP writes dates, to the second (RFC 9110 section 5.6.7)."""
    return email.utils.formatdate(min(timestamp_us // 1_000_000, 253_402_300_799), usegmt=True)


def parse_http_date(text: str | None) -> int | None:
    """Seconds since 1970, None for what is no date."""
    if not text or len(text) > 64:
        return None
    try:
        when = email.utils.parsedate_to_datetime(text)
        return int(when.timestamp()) if when.tzinfo is not None else None
    except (ValueError, TypeError, OverflowError, IndexError):
        return None


def etag(timestamp_us: int, signature: bytes) -> str:
    """The entity tag of a packet; the signature tells apart two packets of one microsecond."""
    return f'"{timestamp_us}-{signature[:8].hex()}"'


def matched_timestamp(if_match: str) -> int | None:
    """The timestamp that `If-Match` names: a bare number, as Pkarr writes it, or an entity tag of ours."""
    match = _MATCH.fullmatch(if_match.strip())
    return int(match[1]) if match else None


def names_etag(if_none_match: str, tag: str) -> bool:
    """Whether an `If-None-Match` list names this entity tag (weak comparison, RFC 9110 section 8.8.3.2)."""
    listed = {part.strip().removeprefix("W/") for part in if_none_match[:1024].split(",")}
    return "*" in listed or tag in listed


def max_age(cache_control: str | None) -> float | None:
    """Seconds for which an answer is fresh by `Cache-Control`, None if it does not say."""
    if not cache_control:
        return None
    text = cache_control[:256].lower()
    if "no-store" in text or "no-cache" in text:
        return 0.0
    match = _MAX_AGE.search(text)
    return float(match[1]) if match else None


def retry_after(text: str | None, wall: float, limit: float) -> float | None:
    """Seconds that `Retry-After` asks to wait, at most `limit`; `wall`: seconds since 1970 (RFC 9110 10.2.3)."""
    if not text:
        return None
    if _SECONDS.fullmatch(text.strip()):
        return min(float(text), limit)
    when = parse_http_date(text)
    return None if when is None else min(max(when - wall, 0.0), limit)
