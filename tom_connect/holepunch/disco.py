"""Disco packets: small sealed datagrams by which two nodes find, prove and keep paths (docs/reference/disco.md).

This module is the codec alone: the outer envelope that travels in clear, and the messages sealed inside. Keys, replay
and load are in `sealing`, what the messages mean is in `core` and `paths`.
"""

from __future__ import annotations

import enum
import hashlib
import ipaddress
import socket
import struct
from typing import Final

import attrs

from tom_connect.addr import MAX_RELAY_URL, RelayUrl, SocketAddr
from tom_connect.exceptions import InvalidAddrError, ProtocolError

VERSION: Final = 1
KIND_SEALED: Final = 0x04
KIND_SEALED_WITH_COOKIE: Final = 0x05
KIND_CHALLENGE: Final = 0x06
KIND_KNOCK: Final = 0x07

STAMP_SIZE: Final = 16
COOKIE_SIZE: Final = 16
TX_SIZE: Final = 12
TAG_SIZE: Final = 16
_HEADER: Final = struct.Struct("!BB16s8s32s")
HEADER_SIZE: Final = _HEADER.size
_CHALLENGE: Final = struct.Struct("!BB16s8s16s")
CHALLENGE_SIZE: Final = _CHALLENGE.size
PROBE_SIZE: Final = 32
"""Bytes of a ping and of a pong before sealing: equal, so that an answer is never larger than its question."""
MAX_CANDIDATES: Final = 24
MAX_RELAYS: Final = 2
"""Relays in a call-me-maybe: the home relay, and the next one while it is changed."""
MAX_PACKET: Final = 1200

KNOCK: Final = bytes((KIND_KNOCK, VERSION)) + bytes(14)
"""What a node sends to an address that it lets in and of which it does not know whose it is: nothing is in it."""

_PING, _PONG, _CALL, _PORTS = 1, 2, 3, 4
_RELAYS, _MAPPING = 1, 2
"""What may follow the candidates of a call-me-maybe."""
_ADDR_SIZE = 18
_NO_ADDR = bytes(_ADDR_SIZE)
_V4_MAPPED = bytes(10) + b"\xff\xff"
_PERSON_MASK = b"tom-disco-mask-1"
_PERSON_CHALLENGE = b"tom-disco-chal-1"


class DiscoError(ProtocolError):
    """Bytes that are not a valid disco packet for us. `reason`: one word for counters."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"not a valid disco packet: {reason}")
        self.reason = reason


@attrs.frozen
class Ping:
    """Asks for a pong. `tx`: 12 random bytes."""

    tx: bytes


@attrs.frozen
class Pong:
    """Answers a ping or call-me-maybe. `observed`: where that came from, None if it came through a relay."""

    tx: bytes
    observed: SocketAddr | None


class Mapping(enum.IntEnum):
    """How the NAT before a node maps its IPv4 socket to ports (RFC 4787 section 4.1)."""

    UNKNOWN = 0
    INDEPENDENT = 1
    """One port whatever the destination, or no NAT at all."""
    DEPENDENT = 2
    """Another port for each destination."""


@attrs.frozen
class CallMeMaybe:
    """Says where its sender may be reached, and asks to be pinged there; answered by a pong.

    `mapping`: how the sender's NAT maps, as far as it knows.
    """

    tx: bytes
    candidates: tuple[SocketAddr, ...]
    relays: tuple[RelayUrl, ...] = ()
    mapping: Mapping = Mapping.UNKNOWN


class PortStep(enum.IntEnum):
    """What a message about port probing says."""

    OFFER = 1
    """I am behind endpoint-dependent mapping, at this IP: will you probe my ports, if I open many?"""
    ACCEPT = 2
    """I will; open them towards this address of mine."""
    REFUSE = 3
    OVER = 4
    """I stop: it succeeded, or took too long."""


@attrs.frozen
class PortProbing:
    """One step in agreeing on port probing. `tx`: of the offer, in every step; `addr`: None in the last two."""

    tx: bytes
    step: PortStep
    addr: SocketAddr | None


Message = Ping | Pong | CallMeMaybe | PortProbing
_MAPPINGS = frozenset(Mapping)


def _pack_addr(addr: SocketAddr) -> bytes:
    ip = addr.ip
    raw = _V4_MAPPED + ip.packed if ip.version == 4 else ip.packed
    return raw + addr.port.to_bytes(2, "big")


def _unpack_addr(data: bytes) -> SocketAddr:
    port = int.from_bytes(data[16:18], "big")
    if data[:12] == _V4_MAPPED:
        return SocketAddr(socket.inet_ntoa(data[12:16]), port)
    return SocketAddr(str(ipaddress.IPv6Address(data[:16])), port)


def encode_message(message: Message) -> bytes:
    """The plaintext of a message; raises InvalidAddrError for more than MAX_CANDIDATES or MAX_RELAYS."""
    if len(message.tx) != TX_SIZE:
        raise InvalidAddrError(f"a transaction id has {TX_SIZE} bytes")
    if isinstance(message, Ping):
        return bytes((_PING,)) + message.tx + bytes(PROBE_SIZE - 1 - TX_SIZE)
    if isinstance(message, Pong):
        observed = _NO_ADDR if message.observed is None else _pack_addr(message.observed)
        return bytes((_PONG,)) + message.tx + observed + b"\0"
    if isinstance(message, PortProbing):
        addr = _NO_ADDR if message.addr is None else _pack_addr(message.addr)
        return bytes((_PORTS,)) + message.tx + bytes((message.step,)) + addr
    if len(message.candidates) > MAX_CANDIDATES:
        raise InvalidAddrError(f"a call-me-maybe carries at most {MAX_CANDIDATES} candidates")
    if len(message.relays) > MAX_RELAYS:
        raise InvalidAddrError(f"a call-me-maybe carries at most {MAX_RELAYS} relays")
    body = b"".join(map(_pack_addr, message.candidates))
    if message.relays:
        urls = [url.url.encode("ascii") for url in message.relays]
        body += bytes((_RELAYS, len(urls))) + b"".join(bytes((len(url),)) + url for url in urls)
    if message.mapping is not Mapping.UNKNOWN:
        body += bytes((_MAPPING, message.mapping))
    plain = bytes((_CALL,)) + message.tx + bytes((len(message.candidates),)) + body
    return plain.ljust(PROBE_SIZE, b"\0")


def decode_message(plain: bytes) -> Message | None:
    """Read a message; None for a type of a later version. Bytes after what is known are ignored. Raises DiscoError."""
    if len(plain) < PROBE_SIZE:
        raise DiscoError("short")
    kind, tx = plain[0], plain[1 : 1 + TX_SIZE]
    if kind == _PING:
        return Ping(tx)
    at = 1 + TX_SIZE
    if kind == _PONG:
        raw = plain[at : at + _ADDR_SIZE]
        return Pong(tx, None if raw == _NO_ADDR else _unpack_addr(raw))
    if kind == _CALL:
        count = plain[at]
        if count > MAX_CANDIDATES:
            raise DiscoError("too many candidates")
        at += 1
        if len(plain) < at + count * _ADDR_SIZE:
            raise DiscoError("short")
        raws = (plain[i : i + _ADDR_SIZE] for i in range(at, at + count * _ADDR_SIZE, _ADDR_SIZE))
        relays, at = _unpack_relays(plain, at + count * _ADDR_SIZE)
        return CallMeMaybe(tx, tuple(dict.fromkeys(map(_unpack_addr, raws))), relays, _unpack_mapping(plain, at))
    if kind == _PORTS:
        return _unpack_ports(plain, tx)
    return None


def _unpack_ports(plain: bytes, tx: bytes) -> PortProbing | None:
    at = 1 + TX_SIZE
    try:
        step = PortStep(plain[at])
    except ValueError:
        return None
    raw = plain[at + 1 : at + 1 + _ADDR_SIZE]
    return PortProbing(tx, step, None if raw == _NO_ADDR else _unpack_addr(raw))


def _unpack_mapping(plain: bytes, at: int) -> Mapping:
    if len(plain) < at + 2 or plain[at] != _MAPPING or plain[at + 1] not in _MAPPINGS:
        return Mapping.UNKNOWN
    return Mapping(plain[at + 1])


def _unpack_relays(plain: bytes, at: int) -> tuple[tuple[RelayUrl, ...], int]:
    """The relays at `at` and where they end: a mark, how many, then each one's length and ASCII text.

    An older sender ends before.
    """
    if len(plain) < at + 2 or plain[at] != _RELAYS:
        return (), at
    count = plain[at + 1]
    if count > MAX_RELAYS:
        raise DiscoError("too many relays")
    at += 2
    urls: list[RelayUrl] = []
    for _ in range(count):
        size = plain[at] if len(plain) > at else 0
        raw = plain[at + 1 : at + 1 + size]
        if not 0 < size <= MAX_RELAY_URL or len(raw) < size:
            raise DiscoError("short")
        try:
            urls.append(RelayUrl.parse(raw.decode("ascii")))
        except ValueError:
            raise DiscoError("relay") from None
        at += 1 + size
    return tuple(dict.fromkeys(urls)), at


@attrs.frozen
class Envelope:
    """A sealed packet, taken apart. `header` is what the AEAD authenticates besides `sealed`."""

    header: bytes
    stamp: bytes
    """8 bytes session, 8 bytes counter (big-endian): unique for each packet of a sender."""
    sender: bytes
    """The 32 bytes that claim to be the sender's NodeId; not checked at all."""
    cookie: bytes | None
    sealed: bytes


def _mask(start: bytes, receiver: bytes) -> bytes:
    """8 bytes that show knowledge of the receiver's NodeId, then 32 bytes that hide the sender's."""
    return hashlib.blake2b(start, key=receiver, digest_size=40, person=_PERSON_MASK).digest()


def _xor32(a: bytes, b: bytes) -> bytes:
    return (int.from_bytes(a, "big") ^ int.from_bytes(b, "big")).to_bytes(32, "big")


def pack_header(stamp: bytes, sender: bytes, receiver: bytes, *, with_cookie: bool) -> bytes:
    """The 58 bytes before the cookie or ciphertext."""
    kind = KIND_SEALED_WITH_COOKIE if with_cookie else KIND_SEALED
    mask = _mask(bytes((kind, VERSION)) + stamp, receiver)
    return _HEADER.pack(kind, VERSION, stamp, mask[:8], _xor32(sender, mask[8:]))


def read_envelope(data: bytes, receiver: bytes) -> Envelope:
    """Take a sealed packet apart; raises DiscoError unless it was made for `receiver` (our 32-byte NodeId).

    Costs one hash, so that noise and packets for others never reach a key agreement.
    """
    if len(data) > MAX_PACKET:
        raise DiscoError("long")
    if len(data) < HEADER_SIZE + PROBE_SIZE + TAG_SIZE:
        raise DiscoError("short")
    kind, version, stamp, check, masked = _HEADER.unpack_from(data)
    if version != VERSION:
        raise DiscoError("version")
    if kind not in (KIND_SEALED, KIND_SEALED_WITH_COOKIE):
        raise DiscoError("kind")
    mask = _mask(data[:18], receiver)
    if check != mask[:8]:
        raise DiscoError("not for us")
    cookie, at = None, HEADER_SIZE
    if kind == KIND_SEALED_WITH_COOKIE:
        at += COOKIE_SIZE
        cookie = data[HEADER_SIZE:at]
        if len(data) < at + PROBE_SIZE + TAG_SIZE:
            raise DiscoError("short")
    return Envelope(data[:HEADER_SIZE], stamp, _xor32(masked, mask[8:]), cookie, data[at:])


@attrs.frozen
class Challenge:
    """A loaded node asks for a cookie. `stamp`: of the packet that it did not read; `cookie`: what to send along."""

    stamp: bytes
    cookie: bytes


def _challenge_check(stamp: bytes, cookie: bytes, challenger: bytes) -> bytes:
    return hashlib.blake2b(stamp + cookie, key=challenger, digest_size=8, person=_PERSON_CHALLENGE).digest()


def encode_challenge(challenge: Challenge, challenger: bytes) -> bytes:
    """The 42 bytes of a challenge by the node `challenger` (its 32-byte NodeId)."""
    check = _challenge_check(challenge.stamp, challenge.cookie, challenger)
    return _CHALLENGE.pack(KIND_CHALLENGE, VERSION, challenge.stamp, check, challenge.cookie)


def decode_challenge(data: bytes) -> Challenge:
    """Read a challenge; raises DiscoError. Who sent it is checked by `challenge_is_from`."""
    if len(data) != CHALLENGE_SIZE:
        raise DiscoError("short" if len(data) < CHALLENGE_SIZE else "long")
    kind, version, stamp, _check, cookie = _CHALLENGE.unpack(data)
    if kind != KIND_CHALLENGE:
        raise DiscoError("kind")
    if version != VERSION:
        raise DiscoError("version")
    return Challenge(stamp, cookie)


def challenge_is_from(data: bytes, challenger: bytes) -> bool:
    """Whether a challenge was made by someone who knows the challenger's NodeId."""
    _kind, _version, stamp, check, cookie = _CHALLENGE.unpack(data)
    return bool(check == _challenge_check(stamp, cookie, challenger))
