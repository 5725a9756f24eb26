"""Node ids by BEP 42 and distances between them."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tom_dht_mainline.core.nodeid import as_int, crc32c, id_in_bucket, make_id, matches_ip, shared_prefix_bits

BEP42 = [
    ("124.31.75.21", 1, "5fbfbff10c5d6a4ec8a88e4c6ab4c28b95eee401"),
    ("21.75.31.124", 86, "5a3ce9c14e7a08645677bbd1cfe7d8f956d53256"),
    ("65.23.51.170", 22, "a5d43220bc8f112a3d426c84764f8c2a1150e616"),
    ("84.124.73.14", 65, "1b0321dd1bb1fe518101ceef99462b947a01ff41"),
    ("43.213.53.83", 90, "e56f6cbf5b7c4be0237986d5243b87aa6d51305a"),
]


def test_crc32c_check_value() -> None:
    """CRC-32C gives its published check value."""
    assert crc32c(b"123456789") == 0xE3069283


@pytest.mark.parametrize(("ip", "r", "node_id"), BEP42)
def test_vectors_of_bep_42(ip: str, r: int, node_id: str) -> None:
    """The five ids printed in BEP 42 match their addresses, and ours share their 21 bits."""
    expected = bytes.fromhex(node_id)
    assert matches_ip(expected, ip)
    made = make_id(ip, random.Random(1), r)
    assert made[19] == expected[19] == r
    assert as_int(made) >> 139 == as_int(expected) >> 139


@given(st.ip_addresses(), st.integers(0, 2**32))
def test_made_ids_match_their_address(ip: object, seed: int) -> None:
    """Every id that we make passes the check that others make, IPv4 and IPv6."""
    assert matches_ip(make_id(str(ip), random.Random(seed)), str(ip))


def test_other_addresses_do_not_match() -> None:
    """An id made for one address fails at almost all others."""
    rng = random.Random(3)
    node_id = make_id("124.31.75.21", rng)
    others = [f"{rng.randrange(20, 99)}.{rng.randrange(256)}.7.9" for _ in range(200)]
    assert sum(matches_ip(node_id, ip) for ip in others) < 3


@pytest.mark.parametrize("ip", ["10.0.0.1", "172.16.9.9", "192.168.1.1", "169.254.3.3", "127.0.0.1", "::1", "fe80::1"])
def test_local_networks_are_exempt(ip: str) -> None:
    """Any id will do on networks that BEP 42 exempts."""
    assert matches_ip(bytes(20), ip)


@given(st.integers(0, 2**160 - 1), st.integers(0, 159), st.integers(0, 2**32))
def test_id_in_bucket(own: int, bucket: int, seed: int) -> None:
    """An id drawn for a bucket shares exactly that many bits with ours."""
    assert shared_prefix_bits(own, as_int(id_in_bucket(own, bucket, random.Random(seed)))) == bucket
