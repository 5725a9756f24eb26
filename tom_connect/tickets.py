"""Tickets: one copy-and-paste string that carries a NodeAddr.

A ticket is `tom1` and then lower-case base32 (RFC 4648, no padding) of

    32 bytes   the NodeId
    1 byte     how many relays; each: 1 byte length, the URL in ASCII
    1 byte     how many direct addresses; each: 1 byte 4 or 6, 4 or 16 bytes IP, 2 bytes port, big-endian
    1 byte     0 without user data, 1 with; then 1 byte length, UTF-8
    4 bytes    the first of SHA-256 over `tom-connect ticket 1` and all bytes before

The one digit after `tom` is the version; base32 has no letter 1, so no node id can be taken for a ticket. A NodeAddr
has one ticket only, and no other text reads as that NodeAddr, but for case and white space.
"""

from __future__ import annotations

import base64
import hashlib
import ipaddress
import re

from tom_connect.addr import NodeAddr, RelayUrl, SocketAddr, is_shareable
from tom_connect.exceptions import InvalidAddrError, InvalidInputError
from tom_connect.keys import KEY_SIZE, NodeId

PREFIX = "tom1"
MAX_RELAYS = 8
MAX_ADDRS = 32
MAX_TICKET = 5000
"""Characters; a ticket with everything at its largest has fewer."""

_CHECKSUM_SIZE = 4
_CHECKSUM_DOMAIN = b"tom-connect ticket 1"
_VERSIONED = re.compile(r"tom([0-9])")
_BASE32 = re.compile(r"[a-z2-7]*")


def encode_ticket(addr: NodeAddr) -> str:
    """The ticket of an address: its first 8 relays and first 32 direct addresses; no scoped ones, none of port 0."""
    body = bytearray(addr.node_id.raw)
    relays = addr.relay_urls[:MAX_RELAYS]
    body.append(len(relays))
    for relay in relays:
        body += _short_bytes(str(relay).encode("ascii"))
    direct = [a for a in addr.direct_addrs if is_shareable(a)][:MAX_ADDRS]
    body.append(len(direct))
    for a in direct:
        body.append(a.ip.version)
        body += a.ip.packed + a.port.to_bytes(2, "big")
    body.append(addr.user_data is not None)
    if addr.user_data is not None:
        body += _short_bytes(addr.user_data.encode())
    body += _checksum(body)
    return PREFIX + base64.b32encode(body).decode().rstrip("=").lower()


def parse_ticket(text: str) -> NodeAddr:
    """Read a ticket, in any case and with white space anywhere. Raises InvalidAddrError with the reason."""
    letters = "".join(text.split()).lower()
    if len(letters) > MAX_TICKET:
        raise InvalidAddrError(f"not a ticket: {len(letters)} characters, at most {MAX_TICKET} are possible")
    if not letters.startswith(PREFIX):
        versioned = _VERSIONED.match(letters)
        if versioned:
            raise InvalidAddrError(f"this ticket has version {versioned[1]}, this program reads only version 1")
        raise InvalidAddrError(f"not a ticket: it does not begin with {PREFIX}")
    digits = letters.removeprefix(PREFIX)
    good = _BASE32.match(digits)
    if good is not None and good.end() < len(digits):
        at = len(PREFIX) + good.end()
        raise InvalidAddrError(f"not a ticket: {letters[at]!r}, character {at + 1}, has no place in one")
    if len(digits) % 8 in (1, 3, 6):
        raise InvalidAddrError("the ticket is damaged: a character is missing or one too many")
    data = base64.b32decode(digits.upper() + "=" * (-len(digits) % 8))
    body, checksum = data[:-_CHECKSUM_SIZE], data[-_CHECKSUM_SIZE:]
    if len(body) < KEY_SIZE or _checksum(body) != checksum:
        raise InvalidAddrError("the ticket is damaged: its checksum does not fit; was all of it copied?")
    addr = _decode(body)
    if encode_ticket(addr) != letters:
        raise InvalidAddrError("the ticket is malformed: its maker wrote it in another way than the format says")
    return addr


def parse_target(text: str) -> NodeAddr:
    """Read what a user gives to say whom to dial: a ticket or the text of a NodeId. Raises InvalidInputError."""
    if _VERSIONED.match(text.strip().lower()):
        return parse_ticket(text)
    return NodeAddr(NodeId.parse(text))


def _checksum(body: bytes | bytearray) -> bytes:
    return hashlib.sha256(_CHECKSUM_DOMAIN + body).digest()[:_CHECKSUM_SIZE]


def _short_bytes(data: bytes) -> bytes:
    return bytes((len(data),)) + data


def _decode(body: bytes) -> NodeAddr:
    reader = _Reader(body)
    try:
        node_id = NodeId(reader.take(KEY_SIZE))
        relays = [RelayUrl.parse(reader.short_bytes().decode("ascii")) for _ in range(reader.byte(MAX_RELAYS))]
        direct = [reader.socket_addr() for _ in range(reader.byte(MAX_ADDRS))]
        user_data = reader.short_bytes().decode() if reader.byte(1) else None
        reader.end()
        return NodeAddr(node_id, relays, direct, user_data)
    except (InvalidInputError, UnicodeDecodeError) as exc:
        raise InvalidAddrError(f"the ticket is malformed: {exc}") from None


class _Reader:
    """Takes fields off a byte string; raises InvalidAddrError where they don't fit."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def take(self, size: int) -> bytes:
        piece = self._data[self._at : self._at + size]
        if len(piece) < size:
            raise InvalidAddrError("it ends too early")
        self._at += size
        return piece

    def byte(self, most: int) -> int:
        (value,) = self.take(1)
        if value > most:
            raise InvalidAddrError(f"a count of {value} where at most {most} is allowed")
        return value

    def short_bytes(self) -> bytes:
        return self.take(self.byte(255))

    def socket_addr(self) -> SocketAddr:
        version = self.byte(6)
        if version not in (4, 6):
            raise InvalidAddrError(f"an address of IP version {version}")
        ip = ipaddress.ip_address(self.take(4 if version == 4 else 16))
        port = int.from_bytes(self.take(2), "big")
        return SocketAddr.parse(f"[{ip}]:{port}" if version == 6 else f"{ip}:{port}")

    def end(self) -> None:
        if self._at != len(self._data):
            raise InvalidAddrError("bytes follow its end")
