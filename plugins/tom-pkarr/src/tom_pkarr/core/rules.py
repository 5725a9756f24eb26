"""The rules of a Pkarr relay: which packets it takes, which one it keeps, and what it answers."""

from __future__ import annotations

import enum
from collections.abc import Mapping

import attrs

from tom_connect.exceptions import RecordError
from tom_connect.record import SignedRecord, check_relay_payload
from tom_pkarr.core import http
from tom_pkarr.core.freshness import check_ahead
from tom_pkarr.core.packet import minimum_ttl
from tom_pkarr.errors import PutError

MAX_CACHED = 300
"""Seconds at most that our `Cache-Control` lets others keep a packet."""


class Verdict(enum.Enum):
    """What becomes of a packet that is put."""

    STORED = 204
    UNCHANGED = 205
    """It is the one that is held: answered like STORED."""
    OLDER = 409
    MISMATCH = 412
    CONFLICT = 428


@attrs.frozen
class Packet:
    """A verified packet as a relay keeps it. `payload`: signature, timestamp, DNS packet; `ttl`: seconds."""

    key: bytes
    timestamp_us: int
    payload: bytes
    ttl: int

    @classmethod
    def of(cls, record: SignedRecord) -> Packet:
        """The packet of a record; raises RecordError if it is no DNS packet."""
        ttl = minimum_ttl(record.dns_packet)
        return cls(record.node_id.raw, record.timestamp_us, record.relay_payload(), 0 if ttl is None else ttl)

    def beats(self, other: Packet) -> bool:
        """Whether this one is kept: the higher timestamp, of equal ones the larger bytes."""
        return (self.timestamp_us, self.payload) > (other.timestamp_us, other.payload)

    @property
    def etag(self) -> str:
        """The entity tag."""
        return http.etag(self.timestamp_us, self.payload)


@attrs.frozen
class Conditions:
    """What a PUT asks to be true. `if_match`: as the header has it; `unmodified_since`: seconds since 1970."""

    if_match: str | None = None
    unmodified_since: int | None = None

    @classmethod
    def of(cls, headers: Mapping[str, str]) -> Conditions:
        """The conditions of a request."""
        return cls(headers.get("If-Match"), http.parse_http_date(headers.get("If-Unmodified-Since")))

    def __bool__(self) -> bool:
        return self.if_match is not None or self.unmodified_since is not None

    def hold(self, held: Packet | None) -> bool:
        """Whether they are true of what is held (RFC 9110 section 13.2.2)."""
        if self.if_match is not None:
            if held is None:
                return False
            return self.if_match.strip() == "*" or http.matched_timestamp(self.if_match) == held.timestamp_us
        if self.unmodified_since is not None and held is not None:
            return held.timestamp_us // 1_000_000 <= self.unmodified_since
        return True


def read_put(key: bytes, body: bytes, *, wall: float, max_ahead: float) -> Packet:
    """The packet in the body of a PUT for the 32 bytes of a key; raises PutError with the HTTP status.

    It must be signed by that key, hold a DNS packet, and be dated at most `max_ahead` seconds after `wall`.
    """
    if len(body) > http.MAX_PAYLOAD:
        raise PutError(413, "size", f"a packet has at most {http.MAX_PAYLOAD} bytes without its key")
    try:
        timestamp_us, dns_packet = check_relay_payload(key, body)
    except RecordError as exc:
        raise PutError(400, "signature" if "signature" in str(exc) else "packet", str(exc)) from None
    try:
        ttl = minimum_ttl(dns_packet)
    except RecordError as exc:
        raise PutError(400, "packet", str(exc)) from None
    try:
        check_ahead(timestamp_us, wall, max_ahead)
    except RecordError as exc:
        raise PutError(400, "time", str(exc)) from None
    return Packet(key, timestamp_us, body, 0 if ttl is None else ttl)


def judge(new: Packet, held: Packet | None, conditions: Conditions, *, publishing: bool) -> Verdict:
    """What becomes of a packet, given the one that is held; `publishing`: that one is on its way into the DHT.

    The same packet again is always welcome: its sender may not have heard the first answer. While one is being
    published, another is taken only from a writer who says that it knows of it.
    """
    if held is not None and new.payload == held.payload:
        return Verdict.UNCHANGED
    if not conditions.hold(held):
        return Verdict.MISMATCH
    if held is None:
        return Verdict.STORED
    if not new.beats(held):
        return Verdict.OLDER
    if publishing and not conditions:
        return Verdict.CONFLICT
    return Verdict.STORED


def is_unmodified(packet: Packet, headers: Mapping[str, str]) -> bool:
    """Whether a GET is answered by 304: `If-None-Match` counts before `If-Modified-Since` (RFC 9110 13.2.2)."""
    tags = headers.get("If-None-Match")
    if tags is not None:
        return http.names_etag(tags, packet.etag)
    since = http.parse_http_date(headers.get("If-Modified-Since"))
    return since is not None and packet.timestamp_us // 1_000_000 <= since


def get_headers(packet: Packet) -> dict[str, str]:
    """The headers of an answer that names a packet, without its media type."""
    return {
        "Cache-Control": f"public, max-age={min(packet.ttl, MAX_CACHED)}",
        "Last-Modified": http.http_date(packet.timestamp_us),
        "ETag": packet.etag,
    }
