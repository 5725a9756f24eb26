"""Items and peers read from replies of any content."""

from __future__ import annotations

import random
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from tom_dht_mainline.core import DhtConfig, DhtCore, ImmutableItem, MutableItem
from tom_dht_mainline.core.address import is_usable
from tom_dht_mainline.core.krpc import Message, parse_peers
from tom_dht_mainline.core.searches import read_immutable, read_mutable

KEY = Ed25519PrivateKey.from_private_bytes(bytes(32))
ITEM = MutableItem.sign(KEY, b"value", 10)
FIELDS: dict[bytes, Any] = {b"k": ITEM.public_key, b"seq": ITEM.seq, b"sig": ITEM.signature, b"v": ITEM.value}
REASONS = {"bad-key", "bad-value", "bad-signature", "bad-target", "stale"}
values = st.recursive(
    st.integers() | st.binary(max_size=70),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.binary(max_size=4), inner, max_size=3),
    max_leaves=6,
)


def reply(body: dict[bytes, Any]) -> Message:
    message = Message("r", b"abcd")
    message.body = body
    return message


@pytest.fixture(scope="module")
def core() -> DhtCore:
    return DhtCore(DhtConfig(), rng=random.Random(1), now=0.0)


@given(changes=st.dictionaries(st.sampled_from([b"k", b"seq", b"sig", b"v"]), values), floor=st.integers(0, 20))
def test_any_mutable_reply_is_the_item_or_dropped_and_counted(
    core: DhtCore, changes: dict[bytes, Any], floor: int
) -> None:
    """With any fields changed, a reply gives the one item that its owner signed, or nothing and a count by reason."""
    dropped = core.counters.dropped
    before = sum(dropped.values())
    item, lied = read_mutable(core._context, ITEM.public_key, b"", reply({**FIELDS, **changes}), floor, None)
    if item is not None:
        assert item == ITEM
        assert not lied
        assert floor <= 10
    else:
        assert sum(dropped.values()) == before + 1
        assert set(dropped) <= REASONS


@given(value=values)
def test_any_immutable_reply_is_the_item_or_dropped_and_counted(core: DhtCore, value: Any) -> None:
    """A value is taken under its own hash alone."""
    dropped = core.counters.dropped
    before = sum(dropped.values())
    assert read_immutable(core._context, bytes(20), reply({b"v": value})) is None
    assert sum(dropped.values()) == before + 1
    item = ImmutableItem.create(value)
    assert read_immutable(core._context, item.target, reply({b"v": value})) == item


@given(st.lists(values | st.binary(min_size=6, max_size=6) | st.binary(min_size=18, max_size=18)) | values)
def test_any_list_of_peers_is_read(raw: Any) -> None:
    """Whatever `values` holds, addresses come out of it, no more than there are entries, and nothing is raised."""
    peers = parse_peers(raw, 10)
    assert len(peers) <= (min(10, len(raw)) if isinstance(raw, list) else 0)
    for peer in peers:
        is_usable(peer)
