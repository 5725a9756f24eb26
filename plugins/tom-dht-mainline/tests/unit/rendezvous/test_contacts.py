"""The places that two contacts share."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tom_connect.keys import SecretKey
from tom_connect.signing import NodeSigner
from tom_dht_mainline.core import ItemError
from tom_dht_mainline.core.rendezvous.contacts import (
    DAY,
    EARLIER,
    NONCE,
    PURPOSE,
    ROOM,
    SIZE,
    Kind,
    day_of,
    days_of,
    place,
)

VECTORS = json.loads((Path(__file__).parents[2] / "vectors" / "rendezvous.json").read_text())["contacts"]
SHARED = bytes(range(32))
OWNER = SecretKey(bytes(32)).node_id.raw
HERE = place(SHARED, Kind.RECORD, OWNER, 20_000)

contents = st.binary(max_size=ROOM)
nonces = st.binary(min_size=NONCE, max_size=NONCE)


@given(contents, nonces)
def test_what_is_left_is_read(content: bytes, random: bytes) -> None:
    """A round trip, always of one length, in an item that DHT nodes take."""
    item = HERE.item(content, 7, random)
    assert item.signature_is_valid() and item.salt == b"" and item.public_key == HERE.public_key
    assert isinstance(item.value, bytes) and len(item.value) == SIZE == 989
    assert HERE.open(item.value) == content


def test_more_than_an_item_holds_is_refused() -> None:
    """It is an error of whoever leaves it."""
    with pytest.raises(ItemError, match="958"):
        HERE.item(bytes(ROOM + 1), 1, bytes(NONCE))


@given(st.integers(0, SIZE - 1))
def test_every_prefix_is_refused(size: int) -> None:
    """What is truncated is nothing that a contact has left."""
    value = HERE.item(b"hello", 1, bytes(NONCE)).value
    assert isinstance(value, bytes)
    with pytest.raises(ItemError):
        HERE.open(value[:size])


@given(st.integers(0, SIZE * 8 - 1))
def test_perturbed_bytes_are_refused(bit: int) -> None:
    """One wrong bit anywhere, and it does not open."""
    value = HERE.item(b"hello", 1, bytes(NONCE)).value
    assert isinstance(value, bytes)
    data = bytearray(value)
    data[bit // 8] ^= 1 << bit % 8
    with pytest.raises(ItemError):
        HERE.open(bytes(data))


@pytest.mark.parametrize("value", [7, [], b"", bytes(SIZE), b"\x01" + bytes(SIZE - 1)], ids=repr)
def test_what_no_contact_has_left_is_refused(value: object) -> None:
    """Whoever comes to hold the place's key can still put anything there."""
    with pytest.raises(ItemError):
        HERE.open(value)


def test_every_place_is_another_one() -> None:
    """Secret, kind, owner and day each make another key, and what was left at one place opens at no other."""
    others = [
        place(bytes(32), Kind.RECORD, OWNER, 20_000),
        place(SHARED, Kind.INVITATION, OWNER, 20_000),
        place(SHARED, Kind.RECORD, SecretKey(bytes([1]) * 32).node_id.raw, 20_000),
        place(SHARED, Kind.RECORD, OWNER, 20_001),
    ]
    assert len({each.public_key for each in (HERE, *others)}) == 5
    for other in others:
        with pytest.raises(ItemError):
            other.open(HERE.item(b"hello", 1, bytes(NONCE)).value)


@given(st.floats(0, 4e9), st.floats(-EARLIER, EARLIER))
def test_clocks_that_differ_by_two_hours_are_no_matter(now: float, wrong: float) -> None:
    """Whatever the hour: the day on which a contact looks is among those that we have published for."""
    assert day_of(now + wrong) in days_of(now)


@given(st.floats(0, 4e9), st.floats(-EARLIER, EARLIER), st.floats(0, 3600))
def test_so_is_an_hour_between_two_publications(now: float, wrong: float, since: float) -> None:
    """A contact whose clock is ahead finds what was published up to an hour ago; what is behind lies there still."""
    assert day_of(now + max(wrong, 0.0)) in (*days_of(now - since), day_of(now - EARLIER))
    assert len(days_of(now)) <= 2


def test_a_day_that_can_not_be_is_the_first_or_the_last() -> None:
    """A clock that was never set, or is mad, is no error."""
    assert days_of(0.0) == (0,)
    assert day_of(1e30) == 0xFFFFFFFF
    assert day_of(DAY * 20_000.5) == 20_000


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["kind"])
def test_vectors(vector: dict[str, str]) -> None:
    """Both ends derive the same place, and what lies there is as the page says."""
    one, two = (SecretKey(bytes.fromhex(vector[name])) for name in ("owner_secret", "contact_secret"))
    shared = {
        NodeSigner(one).shared_secret(two.node_id, PURPOSE),
        NodeSigner(two).shared_secret(one.node_id, PURPOSE),
    }
    assert shared == {bytes.fromhex(vector["shared"])}
    here = place(shared.pop(), Kind[vector["kind"].upper()], one.node_id.raw, int(vector["day"]))
    item = here.item(bytes.fromhex(vector["content"]), int(vector["seq"]), bytes.fromhex(vector["nonce"]))
    assert here.signing_key.private_bytes_raw().hex() == vector["item_seed"]
    assert here.cipher_key.hex() == vector["cipher_key"]
    assert (item.public_key.hex(), item.target.hex()) == (vector["public_key"], vector["target"])
    assert isinstance(item.value, bytes)
    assert (item.value.hex(), item.signature.hex()) == (vector["value"], vector["signature"])
    assert here.open(item.value).hex() == vector["content"]
