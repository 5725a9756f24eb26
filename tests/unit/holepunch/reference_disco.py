"""Disco written a second time, from docs/reference/disco.md alone and with nothing of the project: for the tests."""

from __future__ import annotations

import hashlib
import hmac

from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

P = 2**255 - 19


def ed25519_to_montgomery(public: bytes) -> int:
    """RFC 7748 section 4.1."""
    y = int.from_bytes(public, "little") & (2**255 - 1)
    return (1 + y) * pow(1 - y, P - 2, P) % P


def scalar(seed: bytes) -> int:
    """RFC 8032 section 5.1.5."""
    k = bytearray(hashlib.sha512(seed).digest()[:32])
    k[0] &= 248
    k[31] = k[31] & 127 | 64
    return int.from_bytes(k, "little")


def x25519(k: int, u: int) -> bytes:
    """The Montgomery ladder of RFC 7748 section 5."""
    x1, x2, z2, x3, z3, swap = u, 1, 0, u, 1, 0
    for t in reversed(range(255)):
        bit = k >> t & 1
        if swap ^ bit:
            x2, x3, z2, z3 = x3, x2, z3, z2
        swap = bit
        a, b = x2 + z2, x2 - z2
        aa, bb = a * a, b * b
        e = aa - bb
        c, d = x3 + z3, x3 - z3
        da, cb = d * a, c * b
        x3, z3 = (da + cb) ** 2 % P, x1 * (da - cb) ** 2 % P
        x2, z2 = aa * bb % P, e * (aa + 121665 * e) % P
    if swap:
        x2, z2 = x3, z3
    return (x2 * pow(z2, P - 2, P) % P).to_bytes(32, "little")


def hkdf32(salt: bytes, secret: bytes, info: bytes) -> bytes:
    """RFC 5869 with SHA-256, one block."""
    extracted = hmac.digest(salt, secret, "sha256")
    return hmac.digest(extracted, info + b"\x01", "sha256")


def seal(
    seed: bytes, sender: bytes, receiver: bytes, session: bytes, counter: int, message: bytes, cookie: bytes = b""
) -> bytes:
    shared = x25519(scalar(seed), ed25519_to_montgomery(receiver))
    key = hkdf32(session, shared, b"tom-connect disco v1" + sender + receiver)
    count = counter.to_bytes(8, "big")
    start = bytes((5 if cookie else 4, 1)) + session + count
    mask = hashlib.blake2b(start, key=receiver, digest_size=40, person=b"tom-disco-mask-1").digest()
    header = start + mask[:8] + bytes(a ^ b for a, b in zip(sender, mask[8:], strict=True))
    return header + cookie + ChaCha20Poly1305(key).encrypt(bytes(4) + count, message, header)


def challenge(challenger: bytes, stamp: bytes, cookie: bytes) -> bytes:
    check = hashlib.blake2b(stamp + cookie, key=challenger, digest_size=8, person=b"tom-disco-chal-1").digest()
    return b"\x06\x01" + stamp + check + cookie
