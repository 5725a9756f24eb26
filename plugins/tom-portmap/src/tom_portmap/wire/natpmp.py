"""Messages of the NAT Port Mapping Protocol (RFC 6886)."""

from __future__ import annotations

import ipaddress
import struct
from typing import Final

import attrs

from tom_portmap.errors import WireError

VERSION: Final = 0
PORT: Final = 5351
"""UDP port of the gateway (section 3.1)."""
EXTERNAL_ADDRESS: Final = 0
MAP_UDP: Final = 1
SUCCESS: Final = 0

RESULTS: Final = {
    1: "it speaks another version",
    2: "it does not allow mappings",
    3: "its own network is down",
    4: "it has no room for mappings",
    5: "it knows no mappings",
}
"""What result codes mean (section 3.5)."""

_RESPONSE: Final = 0x80
_HEADER: Final = struct.Struct("!BBHI")
_MAP_REQUEST: Final = struct.Struct("!BBHHHI")
_MAP_REST: Final = struct.Struct("!HHI")


def _opcode(data: bytes, least: int) -> int:
    if len(data) < least:
        raise WireError("truncated", f"a NAT-PMP message of {len(data)} bytes")
    if data[0] != VERSION:
        raise WireError("version", f"the gateway speaks version {data[0]}")
    return data[1]


def encode_address_request() -> bytes:
    """The 2 bytes that ask for the external address (section 3.2)."""
    return bytes((VERSION, EXTERNAL_ADDRESS))


@attrs.frozen
class MapRequest:
    """Asks for a UDP mapping (section 3.3). `external_port`: a suggestion; `lifetime` in seconds, 0 to delete."""

    internal_port: int
    external_port: int
    lifetime: int

    def encode(self) -> bytes:
        """The 12 bytes; raises ValueError where a field does not fit."""
        try:
            return _MAP_REQUEST.pack(VERSION, MAP_UDP, 0, self.internal_port, self.external_port, self.lifetime)
        except struct.error as exc:
            raise ValueError(str(exc)) from None

    @classmethod
    def decode(cls, data: bytes) -> MapRequest:
        """Read a datagram as a gateway does; raises WireError."""
        if _opcode(data, _MAP_REQUEST.size) != MAP_UDP:
            raise WireError("malformed", "no request for a UDP mapping")
        return cls(*_MAP_REQUEST.unpack_from(data)[3:])


@attrs.frozen
class Mapped:
    """What a response says of a mapping: ports, and its lifetime in seconds."""

    internal_port: int
    external_port: int
    lifetime: int


@attrs.frozen
class Response:
    """A response. `epoch`: seconds since the gateway lost its mappings (section 3.6).

    `address` is there in a successful answer to opcode 0, `mapped` in one to opcode 1.
    """

    opcode: int
    result: int
    epoch: int
    address: ipaddress.IPv4Address | None = None
    mapped: Mapped | None = None

    def encode(self) -> bytes:
        """The bytes, 8, 12 or 16."""
        head = _HEADER.pack(VERSION, _RESPONSE | self.opcode, self.result, self.epoch)
        if self.address is not None:
            return head + self.address.packed
        if self.mapped is not None:
            return head + _MAP_REST.pack(*attrs.astuple(self.mapped))
        return head

    @classmethod
    def decode(cls, data: bytes) -> Response:
        """Read a datagram; raises WireError, of kind "version" for a server that speaks PCP alone."""
        opcode = _opcode(data, _HEADER.size)
        if not opcode & _RESPONSE:
            raise WireError("not a response", "a request, not a response")
        opcode &= ~_RESPONSE
        _version, _op, result, epoch = _HEADER.unpack_from(data)
        rest = data[_HEADER.size :]
        if result != SUCCESS or opcode not in (EXTERNAL_ADDRESS, MAP_UDP):
            # An error may bring the fields of a success, which mean nothing then.
            return cls(opcode, result, epoch)
        if len(rest) != (4 if opcode == EXTERNAL_ADDRESS else _MAP_REST.size):
            raise WireError("truncated", f"a NAT-PMP response of {len(data)} bytes")
        if opcode == EXTERNAL_ADDRESS:
            return cls(opcode, result, epoch, address=ipaddress.IPv4Address(rest))
        return cls(opcode, result, epoch, mapped=Mapped(*_MAP_REST.unpack(rest)))
