"""Messages of the Port Control Protocol, version 2: ANNOUNCE and MAP (RFC 6887)."""

from __future__ import annotations

import ipaddress
import struct
from typing import Final

import attrs

from tom_portmap.errors import WireError

VERSION: Final = 2
PORT: Final = 5351
"""UDP port of the server (section 19.1)."""
ANNOUNCE: Final = 0
MAP: Final = 1
UDP: Final = 17
NONCE_SIZE: Final = 12
MAX_MESSAGE: Final = 1100  # section 7
SUCCESS: Final = 0
UNSUPPORTED_VERSION: Final = 1

RESULTS: Final = {
    1: "it speaks another version",
    2: "it does not allow mappings",
    3: "it takes our request for malformed",
    4: "it knows no mappings",
    5: "it does not know an option",
    6: "it takes an option for malformed",
    7: "its own network is down",
    8: "it has no room for mappings",
    9: "it maps no UDP",
    10: "we have too many mappings already",
    11: "it can't give that external address",
    12: "there is another NAT between it and us",
    13: "a filter has too many peers",
}
"""What result codes mean (section 7.4)."""

IP = ipaddress.IPv4Address | ipaddress.IPv6Address
_RESPONSE: Final = 0x80
_REQUEST_HEADER: Final = struct.Struct("!BBHI16s")
_RESPONSE_HEADER: Final = struct.Struct("!BBBBII12x")
_MAP: Final = struct.Struct("!12sB3xHH16s")


def _packed(ip: IP) -> bytes:
    """16 bytes; IPv4 as an IPv4-mapped IPv6 address (section 5)."""
    return ip.packed if ip.version == 6 else b"\0" * 10 + b"\xff\xff" + ip.packed


def _ip(data: bytes) -> IP:
    ip = ipaddress.IPv6Address(data)
    return ip if ip.ipv4_mapped is None else ip.ipv4_mapped


@attrs.frozen
class Mapping:
    """The 36 bytes of a MAP (section 11.1). `nonce`: 12 bytes; ports and address in a request are a suggestion.

    `protocol`: an IANA number, 17 for UDP. An external address of all zeros says that any will do.
    """

    nonce: bytes
    internal_port: int
    external_port: int
    external_ip: IP
    protocol: int = UDP

    def encode(self) -> bytes:
        """The bytes; raises ValueError where a field does not fit."""
        if len(self.nonce) != NONCE_SIZE:
            raise ValueError(f"a nonce has {NONCE_SIZE} bytes")
        try:
            return _MAP.pack(
                self.nonce, self.protocol, self.internal_port, self.external_port, _packed(self.external_ip)
            )
        except struct.error as exc:
            raise ValueError(str(exc)) from None

    @classmethod
    def decode(cls, data: bytes) -> Mapping:
        """Read the 36 bytes."""
        nonce, protocol, internal, external, ip = _MAP.unpack(data)
        return cls(nonce, internal, external, _ip(ip), protocol)


@attrs.frozen
class Request:
    """A request (section 7.1). `client`: the address that it is sent from; `lifetime` in seconds, 0 to delete."""

    opcode: int
    client: IP
    lifetime: int = 0
    mapping: Mapping | None = None

    def encode(self) -> bytes:
        """The bytes: 24, and 36 of a MAP; raises ValueError where a field does not fit."""
        try:
            head = _REQUEST_HEADER.pack(VERSION, self.opcode, 0, self.lifetime, _packed(self.client))
        except struct.error as exc:
            raise ValueError(str(exc)) from None
        return head + (self.mapping.encode() if self.mapping is not None else b"")

    @classmethod
    def decode(cls, data: bytes) -> Request:
        """Read a datagram as a server does; raises WireError."""
        rest = _checked(data, _REQUEST_HEADER.size)
        _version, opcode, _reserved, lifetime, client = _REQUEST_HEADER.unpack_from(data)
        if opcode & _RESPONSE:
            raise WireError("malformed", "a response, not a request")
        return cls(opcode, _ip(client), lifetime, _mapping(opcode, rest))


@attrs.frozen
class Response:
    """A response (section 7.2). `lifetime` in seconds: of the mapping, or how long an error will last.

    `epoch`: seconds since the server lost its state (section 8.5). `mapping` is None in an ANNOUNCE, and where an error
    came without what the request held.
    """

    opcode: int
    result: int
    lifetime: int
    epoch: int
    mapping: Mapping | None = None

    def encode(self) -> bytes:
        """The bytes; raises ValueError where a field does not fit."""
        try:
            head = _RESPONSE_HEADER.pack(VERSION, _RESPONSE | self.opcode, 0, self.result, self.lifetime, self.epoch)
        except struct.error as exc:
            raise ValueError(str(exc)) from None
        return head + (self.mapping.encode() if self.mapping is not None else b"")

    @classmethod
    def decode(cls, data: bytes) -> Response:
        """Read a datagram; raises WireError, of kind "version" for a server that knows only another one."""
        if is_version_refusal(data):
            raise WireError("version", f"the server speaks version {data[0]}")
        rest = _checked(data, _RESPONSE_HEADER.size)
        _version, opcode, _reserved, result, lifetime, epoch = _RESPONSE_HEADER.unpack_from(data)
        if not opcode & _RESPONSE:
            raise WireError("not a response", "a request, not a response")
        opcode &= ~_RESPONSE
        if result and len(rest) < _MAP.size:
            return cls(opcode, result, lifetime, epoch)
        return cls(opcode, result, lifetime, epoch, _mapping(opcode, rest))


def is_version_refusal(data: bytes) -> bool:
    """Whether a server of another version (NAT-PMP is 0) refuses ours (section 9, RFC 6886 section 3.5)."""
    return len(data) >= 8 and data[0] != VERSION and data[1] & _RESPONSE != 0 and data[3] == UNSUPPORTED_VERSION


def _checked(data: bytes, header: int) -> bytes:
    """What follows the header of a message that is sound as a whole (sections 7 and 8.3)."""
    if len(data) < header:
        raise WireError("truncated", f"a PCP message of {len(data)} bytes")
    if len(data) > MAX_MESSAGE:
        raise WireError("too large", f"a PCP message of {len(data)} bytes")
    if data[0] != VERSION:
        raise WireError("malformed", f"version {data[0]}")
    if len(data) % 4:
        raise WireError("malformed", "the length is no multiple of four")
    return data[header:]


def _mapping(opcode: int, rest: bytes) -> Mapping | None:
    if opcode != MAP:
        return None
    if len(rest) < _MAP.size:
        raise WireError("truncated", f"a MAP of {len(rest)} bytes")
    _check_options(rest[_MAP.size :])
    return Mapping.decode(rest[: _MAP.size])


def _check_options(data: bytes) -> None:
    """Options are skipped, but must end with the message (section 7.3)."""
    while data:
        size = int.from_bytes(data[2:4], "big")
        end = 4 + size + -size % 4
        if end > len(data):
            raise WireError("malformed", "an option ends after the message")
        data = data[end:]
