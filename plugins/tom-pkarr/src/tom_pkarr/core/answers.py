"""What a Pkarr relay's answers mean to a client."""

from __future__ import annotations

from collections.abc import Mapping

import attrs

from tom_connect.addr import NodeAddr
from tom_connect.exceptions import RecordError
from tom_connect.keys import NodeId
from tom_connect.record import DEFAULT_TTL, SignedRecord
from tom_pkarr.core import http
from tom_pkarr.core.freshness import check_time
from tom_pkarr.core.packet import minimum_ttl
from tom_pkarr.core.retry import MAX_PAUSE

SETTLED = 5.0
"""Seconds that a record must be old for its date to stand for it in `If-Modified-Since`: dates have whole seconds,
and a second record of the same one would be hidden for ever (RFC 9110 section 8.8.2.2)."""
_TRANSIENT = frozenset({408, 425, 429, 500, 502, 503, 504})


@attrs.frozen
class Held:
    """A record that we hold: what it says, and when it was found, seconds since 1970."""

    record: SignedRecord
    addr: NodeAddr
    found_at: float
    etags: Mapping[str, str] = attrs.Factory(dict)
    """The entity tags under which relays named it, by their URL."""

    def conditions(self, relay: str) -> dict[str, str]:
        """The headers that ask a relay for something newer than this."""
        tag = self.etags.get(relay)
        if tag is not None:
            return {"If-None-Match": tag}
        if self.found_at - self.record.timestamp_us / 1e6 < SETTLED:
            return {}
        return {"If-Modified-Since": http.http_date(self.record.timestamp_us)}


@attrs.frozen
class Found:
    """The relay holds a record. `fresh_for`: seconds for which it need not be asked again."""

    record: SignedRecord
    addr: NodeAddr
    fresh_for: float
    etag: str | None


@attrs.frozen
class Unchanged:
    """The relay holds nothing newer than what we do."""

    fresh_for: float


@attrs.frozen
class Absent:
    """The relay holds no record."""


@attrs.frozen
class Refused:
    """The relay gave no usable answer. `transient`: another attempt may fare better, after `retry_after` seconds."""

    reason: str
    transient: bool = False
    retry_after: float | None = None


@attrs.frozen
class Stored:
    """The relay holds our record now."""


@attrs.frozen
class NotNewest:
    """The relay holds another record of ours, or is storing one (409, 412, 428)."""

    status: int


GetAnswer = Found | Unchanged | Absent | Refused
PutAnswer = Stored | NotNewest | Refused


def read_get(
    node_id: NodeId,
    status: int,
    headers: Mapping[str, str],
    body: bytes,
    *,
    wall: float,
    held: Held | None = None,
    conditional: bool = False,
) -> GetAnswer:
    """Read the answer to a GET for a node. `wall`: seconds since 1970; `conditional`: whether it named `held`.

    A record that is malformed, wrongly signed, too old or too far ahead is Refused, with the reason.
    """
    if status == 304:
        if held is None or not conditional:
            return Refused("it answers 304 to a request without conditions")
        return Unchanged(_fresh_for(held.record, headers))
    if status == 404:
        return Absent()
    if status != 200:
        return _refused(status, headers, wall)
    try:
        record = SignedRecord.from_relay_payload(node_id, body)
        check_time(record.timestamp_us, wall)
        found = Found(record, record.addr, _fresh_for(record, headers), _etag(headers))
    except RecordError as exc:
        return Refused(str(exc))
    if held is not None and record.timestamp_us < held.record.timestamp_us:
        return Refused("its record is older than one that we have seen")
    return found


def read_put(status: int, headers: Mapping[str, str], wall: float) -> PutAnswer:
    """Read the answer to a PUT; `wall`: seconds since 1970."""
    if 200 <= status < 300:
        return Stored()
    if status in (409, 412, 428):
        return NotNewest(status)
    return _refused(status, headers, wall)


def _refused(status: int, headers: Mapping[str, str], wall: float) -> Refused:
    if 300 <= status < 400:
        return Refused(f"HTTP status {status}: it sends us elsewhere, where we do not go")
    after = http.retry_after(headers.get("Retry-After"), wall, MAX_PAUSE) if status in (429, 503) else None
    text = f"HTTP status {status}" + (f", to be asked again in {after:.0f} s" if after else "")
    return Refused(text, status in _TRANSIENT, after)


def _etag(headers: Mapping[str, str]) -> str | None:
    tag = headers.get("ETag")
    return tag if tag and len(tag) <= 128 and tag.isascii() and tag.isprintable() else None


def _fresh_for(record: SignedRecord, headers: Mapping[str, str]) -> float:
    ttl = minimum_ttl(record.dns_packet)
    own = float(DEFAULT_TTL if ttl is None else ttl)
    said = http.max_age(headers.get("Cache-Control"))
    return own if said is None else min(own, said)
