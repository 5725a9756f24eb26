"""Node ids: random ones, those made from an IP address (BEP 42), and distances."""

from __future__ import annotations

import random

from .address import LOCAL, pack_ip

ID_BITS = 160
ID_BYTES = 20
_V4_MASK = bytes.fromhex("030f3fff")
_V6_MASK = bytes.fromhex("0103070f1f3f7fff")


def _crc_table() -> tuple[int, ...]:
    table = []
    for byte in range(256):
        crc = byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 if crc & 1 else 0)
        table.append(crc)
    return tuple(table)


_CRC32C = _crc_table()


def crc32c(data: bytes) -> int:
    """CRC-32C (Castagnoli) of data."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = (crc >> 8) ^ _CRC32C[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF


def _prefix(ip: str, r: int) -> int:
    """CRC-32C whose first 21 bits an id for `ip` must have (BEP 42)."""
    packed = pack_ip(ip)
    mask = _V4_MASK if len(packed) == 4 else _V6_MASK
    masked = bytearray(a & b for a, b in zip(packed, mask, strict=False))
    masked[0] |= (r & 7) << 5
    return crc32c(bytes(masked))


def random_id(rng: random.Random) -> bytes:
    """A uniformly random 20-byte id."""
    return rng.randbytes(ID_BYTES)


def make_id(ip: str, rng: random.Random, r: int | None = None) -> bytes:
    """A 20-byte id that matches an IP address (BEP 42); `r` is the random byte, drawn if None."""
    if r is None:
        r = rng.getrandbits(8)
    crc = _prefix(ip, r)
    middle = ((crc >> 8) & 0xF8) | rng.getrandbits(3)
    return bytes((crc >> 24, (crc >> 16) & 0xFF, middle)) + rng.randbytes(16) + bytes((r,))


def matches_ip(node_id: bytes, ip: str) -> bool:
    """Whether an id may be used at an IP address: it matches by BEP 42, or the address is exempt."""
    if ip in LOCAL:
        return True
    crc = _prefix(ip, node_id[19])
    return int.from_bytes(node_id[:3], "big") >> 3 == crc >> 11


def as_int(node_id: bytes) -> int:
    """An id as a number, for XOR distances."""
    return int.from_bytes(node_id, "big")


def shared_prefix_bits(a: int, b: int) -> int:
    """How many leading bits two ids have in common, 160 if equal."""
    return ID_BITS - (a ^ b).bit_length()


def id_in_bucket(own: int, bucket: int, rng: random.Random) -> bytes:
    """A random id that shares exactly `bucket` leading bits with `own`."""
    rest = ID_BITS - bucket - 1
    value = own ^ (1 << rest)
    if rest:
        value = (value >> rest << rest) | rng.getrandbits(rest)
    return value.to_bytes(ID_BYTES, "big")
