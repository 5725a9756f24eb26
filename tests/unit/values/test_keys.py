"""NodeId and SecretKey: texts, curve points, signatures and key agreement."""

from __future__ import annotations

import base64
import json
import pathlib

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from hypothesis import given
from hypothesis import strategies as st

from tom_connect.exceptions import InvalidKeyError, TomError
from tom_connect.keys import _LOW_ORDER_Y, NodeId, SecretKey, signature_of

VECTORS = json.loads((pathlib.Path(__file__).parents[2] / "vectors" / "pkarr.json").read_text())["vectors"]
P = 2**255 - 19
KEY = SecretKey(bytes(31) + b"\x01")
seeds = st.binary(min_size=32, max_size=32)


@pytest.mark.parametrize("vector", VECTORS, ids=lambda v: v["what"][:20])
def test_a_seed_gives_the_key_that_other_programs_derive(vector: dict[str, str]) -> None:
    """Public key and z-base-32 name are those that npm pkarr and libsodium made of the same seed."""
    key = SecretKey(bytes.fromhex(vector["seed"]))
    assert str(key.node_id) == vector["public_key"]
    assert key.node_id.z32() == vector["z32"]
    assert NodeId.from_z32(vector["z32"]) == key.node_id


@given(seeds)
def test_every_text_form_reads_back(seed: bytes) -> None:
    """Hex and base32, in either case and with blanks around, and z-base-32 give the same NodeId again."""
    node_id = SecretKey(seed).node_id
    base32 = base64.b32encode(node_id.raw).decode().rstrip("=")
    for text in (str(node_id), str(node_id).upper(), base32, base32.lower(), f"  {node_id}\n"):
        assert NodeId.parse(text) == node_id
    assert NodeId.from_z32(node_id.z32()) == node_id


def test_the_text_is_64_lower_case_hex_digits() -> None:
    """`str` is the whole key, `repr` and `short` its first ten digits."""
    assert str(KEY.node_id) == "4cb5abf6ad79fbf5abbccafcc269d85cd2651ed4b885b5869f241aedf0a5ba29"
    assert KEY.node_id.short() == "4cb5abf6ad"
    assert repr(KEY.node_id) == "NodeId(4cb5abf6ad…)"
    assert bytes(KEY.node_id) == KEY.node_id.raw


@given(st.text(max_size=70))
def test_any_text_is_read_or_refused(text: str) -> None:
    """No text raises anything but InvalidKeyError."""
    for parse in (NodeId.parse, NodeId.from_z32):
        try:
            parse(text)
        except InvalidKeyError:
            pass


@pytest.mark.parametrize("length", [0, 1, 51, 53, 63, 65, 128])
def test_a_text_of_another_length_is_refused(length: int) -> None:
    """The message says what was expected."""
    with pytest.raises(InvalidKeyError, match="64 hex digits or 52 base32"):
        NodeId.parse("a" * length)


def test_stray_bits_of_the_last_base32_letter_are_refused() -> None:
    """52 letters hold 260 bits: the last four must be zero, so that each key has one base32 text."""
    base32 = base64.b32encode(KEY.node_id.raw).decode().rstrip("=")
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"
    strayed = base32[:-1] + alphabet[alphabet.index(base32[-1]) | 1]
    with pytest.raises(InvalidKeyError, match="stray bits"):
        NodeId.parse(strayed)
    z32 = "ybndrfg8ejkmcpqxot1uwisza345h769"
    name = KEY.node_id.z32()
    with pytest.raises(InvalidKeyError, match="stray bits"):
        NodeId.from_z32(name[:-1] + z32[z32.index(name[-1]) | 1])


def _order(y: int, sign: int) -> int:
    """The order of a point, by plain doubling; 0 if it is not 1, 2, 4 or 8. Independent of the code under test."""
    d = -121665 * pow(121666, -1, P) % P
    xx = (y * y - 1) * pow(d * y * y + 1, -1, P) % P
    x = pow(xx, (P + 3) // 8, P)
    if (x * x - xx) % P:
        x = x * pow(2, (P - 1) // 4, P) % P
    if (x * x - xx) % P:
        return 0
    if x % 2 != sign:
        x = (P - x) % P
    for order in (1, 2, 4, 8):
        if (x, y) == (0, 1):
            return order
        k = d * x * x * y * y % P
        x, y = 2 * x * y * pow(1 + k, -1, P) % P, (y * y + x * x) * pow(1 - k, -1, P) % P
    return 0


def test_every_low_order_point_is_refused() -> None:
    """All eight points of order 1, 2, 4 and 8, found by doubling, with either sign bit."""
    eighth = [
        2707385501144840649318225287225658788936804267575313519463743609750303402022,
        55188659117513257062467267217118295137698188065244968500265048394206261417927,
    ]
    ys = [0, 1, P - 1, *eighth]
    assert sorted({_order(y, sign) for y in ys for sign in (0, 1)}) == [1, 2, 4, 8]
    for y in ys:
        for sign in (0, 1):
            with pytest.raises(InvalidKeyError, match="low order"):
                NodeId((y | sign << 255).to_bytes(32, "little"))


@pytest.mark.parametrize("excess", range(19))
def test_non_canonical_encodings_are_refused(excess: int) -> None:
    """A y coordinate of p or more encodes a point that has another, shorter encoding (RFC 8032 section 5.1.3)."""
    with pytest.raises(InvalidKeyError, match="canonical"):
        NodeId((P + excess).to_bytes(32, "little"))


def test_points_off_the_curve_are_refused() -> None:
    """About half of all y coordinates have no point; y = 2 is the smallest."""
    with pytest.raises(InvalidKeyError, match="not on the curve"):
        NodeId((2).to_bytes(32, "little"))


@given(st.integers(2, P - 2).filter(lambda y: y not in _LOW_ORDER_Y), st.booleans())
def test_a_key_is_taken_where_its_point_has_a_root(y: int, sign: bool) -> None:
    """A y coordinate is a key exactly where x² has a root by Euler's criterion (RFC 8032 section 5.1.3)."""
    d = -121665 * pow(121666, -1, P) % P
    root = pow((y * y - 1) * pow(d * y * y + 1, -1, P), (P - 1) // 2, P) == 1
    encoded = (y | sign << 255).to_bytes(32, "little")
    if root:
        assert NodeId(encoded).raw == encoded
    else:
        with pytest.raises(InvalidKeyError, match="not on the curve"):
            NodeId(encoded)


@given(st.binary(max_size=40))
def test_any_bytes_are_a_key_or_refused(data: bytes) -> None:
    """Nothing but InvalidKeyError is raised, and what is accepted is stored as it was."""
    try:
        assert NodeId(data).raw == data
    except InvalidKeyError:
        pass


@given(st.binary(max_size=40) | st.integers(0, P + 18).map(lambda y: y.to_bytes(32, "little")), st.booleans())
def test_a_signature_is_judged_without_a_node_id_as_with_one(key: bytes, zeros: bool) -> None:
    """Bytes that are no key have no signatures: not on the curve, not canonical, or of low order."""
    signature = bytes(64) if zeros else KEY.sign(b"m")
    try:
        expected = NodeId(key).verify(signature, b"m")
    except InvalidKeyError:
        expected = False
    assert signature_of(key, signature, b"m") is expected


@pytest.mark.parametrize("sign", [0, 0x80])
@pytest.mark.parametrize("y", sorted(_LOW_ORDER_Y))
def test_a_key_of_low_order_signs_nothing(y: int, sign: int) -> None:
    """The signature that holds for any message under such a key (R the neutral element, S zero) is refused."""
    key = bytearray(y.to_bytes(32, "little"))
    key[31] |= sign
    neutral = bytes([1]) + bytes(31)
    assert not signature_of(bytes(key), neutral + bytes(32), b"anything")


@given(seeds, st.binary(max_size=200), st.integers(0, 63), st.integers(1, 255))
def test_signatures_bind_key_and_message(seed: bytes, message: bytes, at: int, flip: int) -> None:
    """A signature verifies; with one byte changed, another message, another key or length it does not."""
    key = SecretKey(seed)
    signature = key.sign(message)
    assert key.node_id.verify(signature, message)
    assert signature_of(key.node_id.raw, signature, message)
    forged = bytearray(signature)
    forged[at] ^= flip
    assert not key.node_id.verify(bytes(forged), message)
    assert not signature_of(key.node_id.raw, bytes(forged), message)
    assert not key.node_id.verify(signature, message + b"x")
    assert not key.node_id.verify(signature[:-1], message)
    other = SecretKey(bytes(b ^ 1 for b in seed))
    assert not other.node_id.verify(signature, message)


@given(seeds, seeds)
def test_key_agreement_works_from_both_sides(one: bytes, two: bytes) -> None:
    """The Montgomery forms of two identities agree on one secret, and each public form fits its secret form."""
    a, b = SecretKey(one), SecretKey(two)

    def agree(mine: SecretKey, theirs: NodeId) -> bytes:
        private = X25519PrivateKey.from_private_bytes(mine.to_x25519())
        return private.exchange(X25519PublicKey.from_public_bytes(theirs.to_x25519()))

    public = X25519PrivateKey.from_private_bytes(a.to_x25519()).public_key().public_bytes_raw()
    assert public == a.node_id.to_x25519()
    assert agree(a, b.node_id) == agree(b, a.node_id)


def test_a_secret_key_does_not_show_itself() -> None:
    """Neither `repr` nor `str` nor formatting holds the seed."""
    key = SecretKey.generate()
    for text in (repr(key), str(key), f"{key}", f"{[key]}"):
        assert key.seed().hex() not in text
        assert key.node_id.short() in text


def test_secret_keys_compare_by_value() -> None:
    """Same seed, same key, same hash; a fresh one differs, and a key equals nothing else."""
    assert SecretKey(KEY.seed()) == KEY
    assert hash(SecretKey(KEY.seed())) == hash(KEY)
    assert SecretKey.generate() != SecretKey.generate()
    assert KEY.seed() != KEY


@pytest.mark.parametrize("length", [0, 31, 33, 64])
def test_a_seed_of_another_length_is_refused(length: int) -> None:
    """A seed has 32 bytes."""
    with pytest.raises(InvalidKeyError, match="32 bytes"):
        SecretKey(bytes(length))


def test_bad_keys_are_value_errors_too() -> None:
    """Callers that know nothing of tom-connect catch ValueError; those that do, TomError."""
    with pytest.raises(ValueError, match="node id") as caught:
        NodeId.parse("nonsense")
    assert isinstance(caught.value, TomError)


def test_node_ids_sort_and_serve_as_keys() -> None:
    """Order is that of the bytes, and equal ids are one dictionary key."""
    ids = [SecretKey(bytes([n]) * 32).node_id for n in range(10)]
    assert [i.raw for i in sorted(ids)] == sorted(i.raw for i in ids)
    assert len({NodeId(i.raw) for i in ids + ids}) == 10
