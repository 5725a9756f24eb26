"""The bencode codec: canonical, strict and bounded."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tom_dht_mainline.core.bencode import MAX_DEPTH, MAX_ITEMS, Raw, decode, encode
from tom_dht_mainline.core.errors import BencodeError

values = st.recursive(
    st.integers(-(2**63), 2**63 - 1) | st.binary(max_size=40),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.binary(max_size=8), inner, max_size=5),
    max_leaves=20,
)

VECTORS = [
    (b"4:spam", b"spam"),
    (b"0:", b""),
    (b"i3e", 3),
    (b"i-3e", -3),
    (b"i0e", 0),
    (b"l4:spam4:eggse", [b"spam", b"eggs"]),
    (b"d3:cow3:moo4:spam4:eggse", {b"cow": b"moo", b"spam": b"eggs"}),
    (b"d4:spaml1:a1:bee", {b"spam": [b"a", b"b"]}),
    (b"de", {}),
    (b"le", []),
]


@pytest.mark.parametrize(("data", "value"), VECTORS)
def test_examples_of_bep_3(data: bytes, value: object) -> None:
    """The examples of BEP 3 read and write as it says."""
    assert decode(data) == value
    assert encode(value) == data


@given(values)
def test_round_trip(value: object) -> None:
    """Whatever can be written reads back the same."""
    if not _too_deep(value):
        assert decode(encode(value)) == value


def _too_deep(value: object, depth: int = 0) -> bool:
    inner = value if isinstance(value, list) else value.values() if isinstance(value, dict) else ()
    return depth > MAX_DEPTH or any(_too_deep(item, depth + 1) for item in inner)


@given(values)
def test_every_prefix_is_refused(value: object) -> None:
    """No proper prefix of a message is a message."""
    if _too_deep(value):
        return
    data = encode(value)
    for end in range(len(data)):
        with pytest.raises(BencodeError):
            decode(data[:end])


@given(st.binary(max_size=200))
def test_any_bytes_give_a_value_or_a_bencode_error(data: bytes) -> None:
    """Random bytes raise nothing else, and what is read strictly is canonical."""
    try:
        value = decode(data)
    except BencodeError:
        return
    assert encode(value) == data


@given(values, st.data())
def test_perturbed_bytes_raise_only_bencode_errors(value: object, data: st.DataObject) -> None:
    """A changed byte gives another value or a BencodeError."""
    if _too_deep(value):
        return
    message = bytearray(encode(value))
    message[data.draw(st.integers(0, len(message) - 1))] = data.draw(st.integers(0, 255))
    for ordered in (True, False):
        try:
            decode(bytes(message), sorted_keys=ordered)
        except BencodeError:
            pass


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"i03e",
        b"i-0e",
        b"ie",
        b"i-e",
        b"i+1e",
        b"i1_0e",
        b"i 1e",
        b"i" + b"9" * 100 + b"e",
        b"01:a",
        b"-1:a",
        b"5:abcd",
        b"99999999999999999999:a",
        b"4:spamx",
        b"d3:cow",
        b"di1e1:ae",
        b"d1:b1:x1:a1:ye",
        b"d1:a1:x1:a1:ye",
        b"l",
        b"x",
        "i\u0663e".encode(),
    ],
)
def test_malformed_messages_are_refused(data: bytes) -> None:
    """Non-canonical numbers, bad lengths, repeated or unordered keys and rubbish are refused."""
    with pytest.raises(BencodeError):
        decode(data)


@pytest.mark.parametrize(
    "bomb",
    [
        b"l" * 100_000,
        b"l" * 2000 + b"e" * 2000,
        b"d1:a" * 5000,
        b"l" + b"le" * (MAX_ITEMS + 1) + b"e",
        b"l" + b"i0e" * 60_000 + b"e",
        b"999999:" + b"a" * 10,
    ],
)
def test_bombs_are_refused(bomb: bytes) -> None:
    """Deep, wide and over-long messages give a BencodeError, no RecursionError."""
    with pytest.raises(BencodeError):
        decode(bomb)


def test_unordered_keys_only_where_allowed() -> None:
    """Sloppy remote nodes may send keys out of order, but never one twice."""
    assert decode(b"d1:b1:x1:a1:ye", sorted_keys=False) == {b"a": b"y", b"b": b"x"}
    with pytest.raises(BencodeError):
        decode(b"d1:a1:x1:b1:z1:a1:ye", sorted_keys=False)


@pytest.mark.parametrize("value", ["text", 1.5, None, True, {"a": 1}, {1: b""}, {b"a": "x"}, [None]])
def test_what_bencode_cannot_carry_is_refused(value: object) -> None:
    """Text, floats, None, booleans and other keys are a BencodeError, not a guess."""
    with pytest.raises(BencodeError):
        encode(value)


def test_raw_bytes_go_in_as_they_are() -> None:
    """A value that is bencoded already is not encoded twice."""
    assert encode({b"v": Raw(b"i5e")}) == b"d1:vi5ee"


def test_deep_values_are_not_written() -> None:
    """What could not be read back is not written."""
    value: object = b""
    for _ in range(MAX_DEPTH + 1):
        value = [value]
    with pytest.raises(BencodeError):
        encode(value)
