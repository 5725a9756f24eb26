"""The JSON item of older ToM programs: its exact text, staleness, hostile bytes."""

from __future__ import annotations

import json
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tom_connect.addr import NodeAddr
from tom_connect.exceptions import RecordError
from tom_connect.keys import SecretKey
from tom_connect.record import MAX_DNS_PACKET, LegacyItem

ME = SecretKey(bytes(31) + b"\x01").node_id
OTHER = SecretKey(b"o" * 32).node_id
TEXT = (
    b'{"node_id":"4cb5abf6ad79fbf5abbccafcc269d85cd2651ed4b885b5869f241aedf0a5ba29",'
    b'"relay_urls":["https://r.example/"],"direct_addrs":["203.0.113.7:4433","[2001:db8::7]:4433"],'
    b'"timestamp":1700000000000}'
)
ITEM = LegacyItem(NodeAddr(ME, ["https://r.example/"], ["203.0.113.7:4433", "[2001:db8::7]:4433"]), 1_700_000_000_000)


def test_the_text_is_that_of_the_format() -> None:
    """Names, order and lack of blanks are as the older programs have them, both ways; user data has no place."""
    assert ITEM.to_json() == TEXT
    assert LegacyItem.from_json(ME, TEXT) == ITEM
    with_data = LegacyItem(ITEM.addr.merged(NodeAddr(ME, user_data="x")), ITEM.timestamp_ms)
    assert with_data.to_json() == TEXT


@pytest.mark.parametrize(
    ("age", "stale"), [(0, False), (7199, False), (7201, True), (86400, True), (-7199, False), (-7201, True)]
)
def test_two_hours_make_an_item_stale(age: float, stale: bool) -> None:
    """Older than two hours is stale; so is what claims to come from as far in the future."""
    assert ITEM.is_stale(1_700_000_000 + age) is stale


def test_too_many_addresses_are_cut() -> None:
    """The value has at most 996 bytes, loses the last addresses first and wastes less than one address."""
    many = [f"192.0.2.{n}:{40000 + n}" for n in range(200)]
    item = LegacyItem(NodeAddr(ME, ["https://r.example/"], many), 1)
    data = item.to_json()
    assert MAX_DNS_PACKET - 22 < len(data) <= MAX_DNS_PACKET
    read = LegacyItem.from_json(ME, data).addr
    assert [str(a) for a in read.direct_addrs] == many[: len(read.direct_addrs)]
    assert read.relay_urls == item.addr.relay_urls


@given(st.lists(st.ip_addresses(), max_size=80), st.lists(st.text("abc.", min_size=1, max_size=200), max_size=9))
def test_any_address_fits_and_reads_back(ips: list[object], relays: list[str]) -> None:
    """Whatever is given, what is written is read again as it was written."""
    direct = [f"[{ip}]:9" if ":" in str(ip) else f"{ip}:9" for ip in ips]
    item = LegacyItem(NodeAddr(ME, [f"https://{r}/" for r in relays], direct), 5)
    data = item.to_json()
    assert len(data) <= MAX_DNS_PACKET
    assert LegacyItem.from_json(ME, data).to_json() == data


def changed(**fields: object) -> bytes:
    """The valid text with some fields replaced."""
    return json.dumps(json.loads(TEXT) | fields).encode()


@pytest.mark.parametrize(
    "data",
    [
        b"", b"null", b"[]", b"1", b'"x"', b"{}", b"\xff\xfe", b"[" * 996, b'{"a":' * 199, b"9" * 996, b"NaN",
        changed(node_id=str(OTHER)), changed(node_id=5), changed(node_id=None), changed(timestamp="now"),
        changed(timestamp=1.5), changed(timestamp=True), changed(timestamp=-1), changed(timestamp=2**63),
        changed(timestamp=None), changed(relay_urls="https://r.example/"), changed(direct_addrs={"a": 1}),
        TEXT + b" " * 996,
    ],
)  # fmt: skip
def test_malformed_items_are_refused(data: bytes) -> None:
    """Not JSON, not an object, another node's, no timestamp, wrong types, too deep, too long."""
    with pytest.raises(RecordError):
        LegacyItem.from_json(ME, data)


def test_values_that_can_not_be_read_are_skipped() -> None:
    """One bad address does not cost the others; fields that we don't know are let be."""
    data = changed(
        direct_addrs=["nonsense", 5, None, "\ud800", "192.0.2.1:0", "192.0.2.1:5"],
        relay_urls=["x", ["y"], "\ud800", "https://r.example"],
        version=2,
    )
    read = LegacyItem.from_json(ME, data).addr
    assert read == NodeAddr(ME, ["https://r.example/"], ["192.0.2.1:5"])


@given(st.binary(max_size=300))
def test_any_bytes_raise_nothing_but_record_error(data: bytes) -> None:
    """Bytes that nobody wrote as JSON."""
    try:
        LegacyItem.from_json(ME, data)
    except RecordError:
        pass


def test_prefixes_and_changed_bytes_raise_nothing_but_record_error() -> None:
    """Every prefix is refused; a changed byte gives an item or RecordError."""
    for size in range(len(TEXT)):
        with pytest.raises(RecordError):
            LegacyItem.from_json(ME, TEXT[:size])
    rng = random.Random(3)
    for _ in range(2000):
        broken = bytearray(TEXT)
        broken[rng.randrange(len(TEXT))] = rng.randrange(256)
        try:
            LegacyItem.from_json(ME, bytes(broken))
        except RecordError:
            pass
