"""BEP 44 items: its test vectors, limits and signatures."""

from __future__ import annotations

import attrs
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tom_dht_mainline.core import MAX_VALUE, ImmutableItem, ItemError, MutableItem
from tom_dht_mainline.core.items import Verifier, signed_bytes

KEY = bytes.fromhex("77ff84905a91936367c01360803104f92432fcd904a43511876df5cdf3e7e548")
SIGNATURE_1 = bytes.fromhex(
    "305ac8aeb6c9c151fa120f120ea2cfb923564e11552d06a5d856091e5e853cff"
    "1260d3f39e4999684aa92eb73ffd136e6f4f3ecbfda0ce53a1608ecd7ae21f01"
)
SIGNATURE_2 = bytes.fromhex(
    "6834284b6b24c3204eb2fea824d82f88883a3d95e8b4a21b8c0ded553d17d17d"
    "df9a8a7104b1258f30bed3787e6cb896fca78c58f8e03b5f18f14951a87d9a08"
)


def test_mutable_vector_of_bep_44() -> None:
    """Test 1 of BEP 44: target, signed bytes and signature."""
    item = MutableItem.create(KEY, b"Hello World!", 1, SIGNATURE_1)
    assert item.target.hex() == "4a533d47ec9c7d95b1ad75f576cffc641853b750"
    assert signed_bytes(item.encoded, 1) == b"3:seqi1e1:v12:Hello World!"
    assert item.signature_is_valid()
    assert item.value == b"Hello World!"


def test_salted_vector_of_bep_44() -> None:
    """Test 2 of BEP 44: the same with salt."""
    item = MutableItem.create(KEY, b"Hello World!", 1, SIGNATURE_2, salt=b"foobar")
    assert item.target.hex() == "411eba73b6f087ca51a3795d9c8c938d365e32c1"
    assert signed_bytes(item.encoded, 1, b"foobar") == b"4:salt6:foobar3:seqi1e1:v12:Hello World!"
    assert item.signature_is_valid()


def test_immutable_vector_of_bep_44() -> None:
    """Test 3 of BEP 44: the target of an immutable item."""
    assert ImmutableItem.create(b"Hello World!").target.hex() == "e5f96f6f38320f0f33959cb4d3d656452117aadb"


def test_value_limit() -> None:
    """996 raw bytes are taken, 997 refused before any node answers 205."""
    ImmutableItem.create(bytes(MAX_VALUE))
    with pytest.raises(ItemError, match="at most 1000"):
        ImmutableItem.create(bytes(MAX_VALUE + 1))
    with pytest.raises(ItemError):
        ImmutableItem.create("text")


@pytest.mark.parametrize(
    "change",
    [{"seq": -1}, {"seq": 2**63}, {"salt": bytes(65)}, {"public_key": bytes(31)}, {"signature": bytes(63)}],
)
def test_illegal_shapes_are_refused(change: dict[str, object]) -> None:
    """Sizes and ranges that nodes would refuse are refused here, with the reason."""
    item = MutableItem.create(KEY, b"Hello World!", 1, SIGNATURE_1)
    with pytest.raises(ItemError):
        attrs.evolve(item, **change).check_shape()


def test_verifier_remembers() -> None:
    """Each distinct item is verified once, wrong ones too, and any change makes it another item."""
    key = Ed25519PrivateKey.generate()
    good = MutableItem.sign(key, b"a", 1)
    verifier = Verifier(size=8)
    assert verifier.check(good)
    assert verifier.check(attrs.evolve(good))
    assert verifier.verified == 1
    for change in (
        {"seq": 2},
        {"salt": b"s"},
        {"encoded": b"1:b"},
        {"public_key": bytes(32)},
        {"signature": bytes(64)},
    ):
        forged = attrs.evolve(good, **change)
        assert not verifier.check(forged)
        assert not verifier.check(forged)
    assert verifier.verified == 6
    for seq in range(20):
        verifier.check(attrs.evolve(good, seq=100 + seq))
    assert len(verifier._known) <= 8
