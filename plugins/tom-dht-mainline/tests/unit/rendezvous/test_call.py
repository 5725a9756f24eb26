"""Nonces and sealed calls."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from tom_dht_mainline.core import ItemError
from tom_dht_mainline.core.rendezvous.call import (
    FIRST_PORT,
    PADDED,
    SIZE,
    Nonce,
    draw_nonce,
    nonces,
    open_call,
    seal_call,
)

VECTORS = json.loads((Path(__file__).parents[2] / "vectors" / "rendezvous.json").read_text())
CALLEE = X25519PrivateKey.from_private_bytes(bytes(range(32)))
KEY = CALLEE.public_key().public_bytes_raw()
IP = "198.18.0.7"

contents = st.binary(max_size=PADDED - 2)


@given(contents, st.binary(min_size=4, max_size=4), st.sampled_from([IP, "2001:db8::7"]))
def test_what_is_sealed_is_opened(content: bytes, random: bytes, ip: str) -> None:
    """A round trip, always of one length."""
    nonce = draw_nonce(KEY, ip, random)
    value = seal_call(nonce, KEY, content, X25519PrivateKey.generate())
    assert len(value) == SIZE == 849
    assert open_call(nonce, CALLEE, value) == content


@given(st.integers(FIRST_PORT, 65535), st.integers(FIRST_PORT, 65535))
def test_a_call_opens_for_its_nonce_alone(port: int, other: int) -> None:
    """Put under another place, even of the same IP, it is refused."""
    value = seal_call(Nonce.of(KEY, IP, port), KEY, b"hello", X25519PrivateKey.generate())
    if other != port:
        with pytest.raises(ItemError):
            open_call(Nonce.of(KEY, IP, other), CALLEE, value)
    with pytest.raises(ItemError):
        open_call(Nonce.of(KEY, "198.18.0.8", port), CALLEE, value)


@given(st.integers(0, SIZE - 1))
def test_every_prefix_is_refused(size: int) -> None:
    """A truncated call is none."""
    nonce = draw_nonce(KEY, IP, b"abcd")
    value = seal_call(nonce, KEY, b"hello", X25519PrivateKey.from_private_bytes(bytes(32)))
    with pytest.raises(ItemError):
        open_call(nonce, CALLEE, value[:size])


@given(st.integers(0, SIZE * 8 - 1))
def test_perturbed_bytes_are_refused(bit: int) -> None:
    """Whatever bit is wrong."""
    nonce = draw_nonce(KEY, IP, b"abcd")
    value = bytearray(seal_call(nonce, KEY, b"hello", X25519PrivateKey.from_private_bytes(bytes(32))))
    if bit == 33 * 8 - 1:  # X25519 ignores the last bit of a key, but the key itself is part of the salt
        bit -= 1
    value[bit // 8] ^= 1 << bit % 8
    with pytest.raises(ItemError):
        open_call(nonce, CALLEE, bytes(value))


@pytest.mark.parametrize("value", [None, 7, [], {}, b"", bytes(SIZE), b"\x01" + bytes(SIZE - 1)])
def test_rubbish_is_refused(value: object) -> None:
    """Anyone who has read the mailbox may put anything there; a key of zeros allows no agreement."""
    with pytest.raises(ItemError):
        open_call(draw_nonce(KEY, IP, b"abcd"), CALLEE, value)


def test_what_is_too_long_is_refused_before_it_is_sealed() -> None:
    """The length never tells anything, so there is one bound."""
    with pytest.raises(ItemError, match="at most 798 bytes"):
        seal_call(draw_nonce(KEY, IP, b"abcd"), KEY, bytes(PADDED - 1), X25519PrivateKey.generate())


@given(st.lists(st.integers(1, 65535), max_size=100), st.binary(min_size=4, max_size=4))
def test_a_nonce_is_found_among_other_ports(ports: list[int], random: bytes) -> None:
    """Both ports together show it; either alone, or under another key or IP, does not."""
    nonce = draw_nonce(KEY, IP, random)
    assert nonce in nonces(KEY, IP, [*ports, nonce.check, nonce.port])
    assert nonce not in nonces(KEY, IP, [port for port in [*ports, nonce.port] if port != nonce.check])
    assert nonce not in nonces(KEY, IP, [port for port in [*ports, nonce.check] if port != nonce.port])


def test_hardly_any_other_port_looks_like_a_nonce() -> None:
    """A hundred ports of one IP, none of them meant so, cost a look-up once in many times."""
    assert len(nonces(KEY, IP, range(20000, 20100))) <= 1


@pytest.mark.parametrize("vector", VECTORS["calls"], ids=lambda vector: vector["ip"])
def test_vectors(vector: dict[str, str]) -> None:
    """The vectors of the page."""
    callee = X25519PrivateKey.from_private_bytes(bytes.fromhex(vector["callee_secret"]))
    key = callee.public_key().public_bytes_raw()
    nonce = Nonce.of(key, vector["ip"], int(vector["port"]))
    assert nonce.check == int(vector["check_port"])
    item_key = nonce.signing_key(key)
    assert item_key.private_bytes_raw().hex() == vector["item_seed"]
    caller = X25519PrivateKey.from_private_bytes(bytes.fromhex(vector["caller_secret"]))
    content = bytes.fromhex(vector["content"])
    assert seal_call(nonce, key, content, caller).hex() == vector["value"]
    assert open_call(nonce, callee, bytes.fromhex(vector["value"])) == content
