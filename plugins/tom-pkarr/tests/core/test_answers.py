"""What a client makes of a relay's answers, good and bad."""

from __future__ import annotations

import random

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tom_connect.addr import NodeAddr
from tom_connect.keys import SecretKey
from tom_connect.record import SignedRecord, sign_packet, sign_record
from tom_pkarr.core.answers import (
    Absent,
    Found,
    Held,
    NotNewest,
    Refused,
    Stored,
    Unchanged,
    read_get,
    read_put,
)
from tom_pkarr.core.cache import FreshCache
from tom_pkarr.core.http import http_date
from tom_pkarr.core.retry import ATTEMPTS, MAX_PAUSE, Standing

KEY = SecretKey(bytes(31) + b"\x07")
NODE = KEY.node_id
WALL = 1_700_000_000.0


def record(at: float = WALL, key: SecretKey = KEY, **fields: object) -> SignedRecord:
    addr = NodeAddr(key.node_id, **{"direct_addrs": ("203.0.113.7:4433",), **fields})  # type: ignore[arg-type]
    return sign_record(key, addr, int(at * 1e6))


def get(body: bytes, status: int = 200, **options: object) -> object:
    headers = options.pop("headers", {})
    return read_get(NODE, status, headers, body, **{"wall": WALL, **options})  # type: ignore[arg-type]


def held(at: float, found_at: float, **fields: object) -> Held:
    signed = record(at)
    return Held(signed, signed.addr, found_at, **fields)  # type: ignore[arg-type]


def test_a_record_is_found_for_its_ttl() -> None:
    """The address comes out, fresh for its TTL or what the relay says, whichever is less."""
    found = get(record().relay_payload(), headers={"Cache-Control": "public, max-age=300", "ETag": '"t"'})
    assert isinstance(found, Found)
    assert [str(addr) for addr in found.addr.direct_addrs] == ["203.0.113.7:4433"]
    assert (found.fresh_for, found.etag) == (30.0, '"t"')
    found = get(record().relay_payload(), headers={"Cache-Control": "max-age=5"})
    assert isinstance(found, Found)
    assert found.fresh_for == 5.0


def reason(answer: object) -> str:
    assert isinstance(answer, Refused)
    return answer.reason


def test_bad_records_are_refused_with_the_reason() -> None:
    """A wrong key, a bad signature, a time far ahead, an old record, and a body that is none: each says what it is."""
    good = record().relay_payload()
    assert "signature" in reason(get(record(key=SecretKey.generate()).relay_payload()))
    assert "signature" in reason(get(bytes([good[0] ^ 1]) + good[1:]))
    assert "ahead" in reason(get(record(WALL + 3 * 3600).relay_payload()))
    assert "25.0 h old" in reason(get(record(WALL - 25 * 3600).relay_payload()))
    assert "only 5 bytes" in reason(get(b"hello"))
    assert "DNS packet" in reason(get(sign_packet(KEY, b"\xff" * 40, int(WALL * 1e6)).relay_payload()))


def test_a_clock_that_is_wrong_by_an_hour_is_borne() -> None:
    """A record dated an hour ahead is taken."""
    assert isinstance(get(record(WALL + 3600).relay_payload()), Found)


def test_an_older_record_than_was_seen_is_refused() -> None:
    """A relay can't set a node back to where it was before."""
    known = held(WALL, WALL)
    assert "older" in reason(get(record(WALL - 60).relay_payload(), held=known))
    assert isinstance(get(record(WALL).relay_payload(), held=known), Found)


def test_unknown_attributes_duplicates_and_broken_texts_are_passed_over() -> None:
    """Of a record with strange contents what can be read is used, each address once."""
    import dns.message
    import dns.rrset

    name = f"_iroh.{NODE.z32()}."
    texts = ['"addr=192.0.2.1:5"', '"addr=192.0.2.1:5"', '"colour=blue"', '"\\255\\254=x"', '"addr=\\255"', '"addr"']
    message = dns.message.Message(id=0)
    message.answer.append(dns.rrset.from_text(name, 30, "IN", "TXT", *texts))
    message.answer.append(dns.rrset.from_text("_iroh.other.", 30, "IN", "TXT", '"addr=192.0.2.9:9"'))
    found = get(sign_packet(KEY, message.to_wire(), int(WALL * 1e6)).relay_payload())
    assert isinstance(found, Found)
    assert [str(addr) for addr in found.addr.direct_addrs] == ["192.0.2.1:5"]


@pytest.mark.parametrize(
    ("status", "transient"),
    [(400, False), (403, False), (429, True), (500, True), (502, True), (503, True), (301, False), (204, False)],
)
def test_other_statuses(status: int, transient: bool) -> None:
    """Every other status is a refusal that names it, and some are worth another attempt."""
    answer = get(b"", status)
    assert isinstance(answer, Refused)
    assert answer.transient is transient
    assert f"HTTP status {status}" in answer.reason


def test_absence_and_no_change() -> None:
    """404 is no failure; 304 confirms what the request named, and nothing else."""
    known = held(WALL - 60, WALL)
    assert get(b"", 404) == Absent()
    assert get(b"", 304, held=known, conditional=True) == Unchanged(30.0)
    assert isinstance(get(b"", 304, held=known), Refused)
    assert isinstance(get(b"", 304), Refused)


def test_waits_asked_for_are_bounded() -> None:
    """A relay that says to come back in a year is asked again after minutes."""
    answer = read_put(429, {"Retry-After": "31536000"}, WALL)
    assert isinstance(answer, Refused)
    assert answer.retry_after == MAX_PAUSE


def test_answers_to_a_put() -> None:
    """Any 2xx is stored, as npm's relay says 200; 409, 412 and 428 speak of another record."""
    assert [read_put(status, {}, WALL) for status in (200, 204)] == [Stored(), Stored()]
    assert [read_put(status, {}, WALL) for status in (409, 412, 428)] == [
        NotNewest(409),
        NotNewest(412),
        NotNewest(428),
    ]
    assert isinstance(read_put(413, {}, WALL), Refused)


def test_conditions() -> None:
    """A relay's own tag counts before the date, and the date of a record that was new when found names nothing."""
    assert held(WALL - 60, WALL).conditions("r") == {"If-Modified-Since": http_date(int((WALL - 60) * 1e6))}
    assert held(WALL - 1, WALL).conditions("r") == {}
    tagged = held(WALL - 1, WALL, etags={"r": '"t"'})
    assert tagged.conditions("r") == {"If-None-Match": '"t"'}
    assert tagged.conditions("other") == {}


@given(st.integers(100, 599), st.dictionaries(st.sampled_from(["Cache-Control", "ETag", "Retry-After"]), st.text()),
       st.binary(max_size=1100))  # fmt: skip
def test_any_answer_is_read(status: int, headers: dict[str, str], body: bytes) -> None:
    """No answer makes the reader raise, and none without our signature is a record."""
    assert not isinstance(get(body, status, headers=headers), Found)
    read_put(status, headers, WALL)


def test_perturbed_records_are_refused() -> None:
    """A payload with any one bit changed is no record of this node."""
    payload = record().relay_payload()
    for at in range(len(payload)):
        assert isinstance(get(payload[:at] + bytes([payload[at] ^ 1]) + payload[at + 1 :]), Refused)


def test_the_cache_is_bounded_and_keeps_what_is_stale() -> None:
    """The least recently used goes; what is stale is still there to be confirmed; no answer is fresh for ever."""
    cache: FreshCache[str] = FreshCache(limit=2)
    cache.put(b"a", "A", 1e9, now=0.0)
    cache.put(b"b", "B", 10.0, now=0.0)
    assert (cache.fresh(b"a", 59.0), cache.fresh(b"a", 61.0), cache.get(b"a")) == ("A", None, "A")
    cache.put(b"c", "C", -5.0, now=0.0)
    assert (cache.get(b"b"), cache.fresh(b"c", 0.0), len(cache)) == (None, None, 2)


def test_retries_wait_longer_with_jitter_and_end() -> None:
    """Waits grow, differ between clients, heed what the relay asked for, and there are few of them."""
    standings = [Standing(random.Random(seed)) for seed in range(20)]
    first, second = ([s.next_wait(n, 0.0) for s in standings] for n in (1, 2))
    assert standings[0].next_wait(0, 0.0) == 0.0
    assert len(set(first)) > 10
    assert max(filter(None, first)) <= 2 * min(filter(None, second)) <= 2 * max(filter(None, second)) < 2.0
    assert standings[0].next_wait(ATTEMPTS, 0.0) is None
    for standing in standings:
        standing.failed("HTTP status 429", 7.0, now=100.0)
        wait = standing.next_wait(0, 101.0)
        assert wait is not None and 6.0 <= wait <= 6.7
        assert standing.pause(107.5) == 0.0
    standings[0].failed("HTTP status 429", 1e9, now=0.0)
    assert standings[0].pause(0.0) == MAX_PAUSE
    assert attrs.asdict(standings[0], recurse=False)["problem"] == "HTTP status 429"
