"""STUN binding messages, and the client that asks one server for our reflexive address (RFC 8489); sans-IO.

Both ends are here, as are servers of plugins. No authentication: a binding server has none (section 12).
"""

from __future__ import annotations

import binascii
import ipaddress
import os
from collections.abc import Callable
from typing import Final

import attrs

from tom_connect.addr import SocketAddr
from tom_connect.exceptions import NetworkError, ProtocolError

COOKIE: Final = b"\x21\x12\xa4\x42"
HEADER_SIZE: Final = 20
MAX_MESSAGE: Final = 1280
"""Bytes of the largest message that is read: section 6.1 lets none be larger than the smallest IPv6 MTU."""
TRANSACTION_ID_SIZE: Final = 12
MAX_REASON: Final = 763  # bytes of an error's reason phrase (section 14.8)
MAX_SOFTWARE: Final = 763  # bytes of SOFTWARE (section 14.14)
MAX_UNKNOWN: Final = 8  # unknown attributes that an error names; each costs an answer two bytes

_BINDING: Final = 0x001
REQUEST: Final = 0x0001
SUCCESS: Final = 0x0101
ERROR: Final = 0x0111
"""Message types: the binding method with the classes request, success response and error response (section 5)."""

_CHANGE_REQUEST: Final = 0x0003
_CHANGE_PORT: Final = b"\x00\x00\x00\x02"
"""CHANGE-REQUEST with the flag for another port, and nothing else (RFC 5780 section 7.2)."""
_MESSAGE_INTEGRITY: Final = 0x0008
_ERROR_CODE: Final = 0x0009
_UNKNOWN_ATTRIBUTES: Final = 0x000A
_MESSAGE_INTEGRITY_SHA256: Final = 0x001C
_XOR_MAPPED_ADDRESS: Final = 0x0020
_SOFTWARE: Final = 0x8022
_FINGERPRINT: Final = 0x8028
_OPTIONAL: Final = 0x8000  # attributes from here on may be ignored (section 14)
# USERNAME, MESSAGE-INTEGRITY, REALM, NONCE, MESSAGE-INTEGRITY-SHA256, PASSWORD-ALGORITHM, USERHASH: understood, and of
# no consequence where nobody has credentials.
_CREDENTIALS: Final = frozenset((0x0006, 0x0008, 0x0014, 0x0015, 0x001C, 0x001D, 0x001E))
_FINGERPRINT_XOR: Final = 0x5354554E
_FAMILIES: Final = {1: 4, 2: 16}  # to the bytes of an address

UNKNOWN_ATTRIBUTE: Final = 420


class StunError(ProtocolError):
    """A datagram is not a STUN message that can be used.

    Attribute `kind`, for counting: "not stun", "too large", "malformed", "fingerprint" or "not binding".
    """

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


class StunFailedError(NetworkError):
    """A server gave no reflexive address. Attribute `code`: its error code, None where it was silent."""

    def __init__(self, message: str, code: int | None = None) -> None:
        super().__init__(message)
        self.code = code


def is_stun(head: bytes) -> bool:
    """Whether a datagram that begins with these (at least 8) bytes is STUN (RFC 8489 section 5, RFC 7983)."""
    return len(head) >= 8 and head[0] < 4 and head[4:8] == COOKIE


@attrs.frozen
class StunMessage:
    """One message with its attributes in order, as (type, value); FINGERPRINT is checked and taken off.

    `type`: class and method, of the 14 bits the 10 that RFC 7983 leaves to STUN on a shared socket;
    `transaction_id`: 12 bytes. Attributes that follow MESSAGE-INTEGRITY are left
    out, since nobody vouches for them (section 14.5).
    """

    type: int
    transaction_id: bytes
    attributes: tuple[tuple[int, bytes], ...] = ()
    fingerprint: bool = False

    def first(self, attribute: int) -> bytes | None:
        """The value of the first attribute of this type; further ones are of no consequence (section 14)."""
        return next((value for kind, value in self.attributes if kind == attribute), None)

    def unknown(self, known: frozenset[int]) -> tuple[int, ...]:
        """The types that have to be understood and are neither in `known` nor of credentials, each once."""
        return tuple(
            dict.fromkeys(t for t, _ in self.attributes if t < _OPTIONAL and t not in known and t not in _CREDENTIALS)
        )

    def encode(self) -> bytes:
        """The bytes; raises ValueError where a value is too large or the transaction id has not 12 bytes."""
        if len(self.transaction_id) != TRANSACTION_ID_SIZE or not 0 <= self.type < 1 << 10:
            raise ValueError("a STUN message has a type of 10 bits and a transaction id of 12 bytes")
        body = b"".join(
            kind.to_bytes(2, "big") + len(value).to_bytes(2, "big") + value + bytes(-len(value) % 4)
            for kind, value in self.attributes
        )
        size = len(body) + (8 if self.fingerprint else 0)
        if HEADER_SIZE + size > MAX_MESSAGE:
            raise ValueError(f"a STUN message of {HEADER_SIZE + size} bytes is larger than {MAX_MESSAGE}")
        data = self.type.to_bytes(2, "big") + size.to_bytes(2, "big") + COOKIE + self.transaction_id + body
        if self.fingerprint:
            data += b"\x80\x28\x00\x04" + _fingerprint(data)
        return data

    @classmethod
    def decode(cls, data: bytes) -> StunMessage:
        """Read a whole datagram; raises StunError and nothing else."""
        if len(data) < HEADER_SIZE or not is_stun(data[:8]):
            raise StunError("not stun", "no STUN header")
        if len(data) > MAX_MESSAGE:
            raise StunError("too large", f"a message of {len(data)} bytes")
        if int.from_bytes(data[2:4], "big") != len(data) - HEADER_SIZE or len(data) % 4:
            raise StunError("malformed", "the length in the header is not the message's")
        attributes: list[tuple[int, bytes]] = []
        fingerprint = vouched = False
        at = HEADER_SIZE
        while at < len(data):
            if fingerprint:
                raise StunError("malformed", "FINGERPRINT is not the last attribute")
            # The length is a multiple of four and so is every step, hence the four bytes are there.
            kind = int.from_bytes(data[at : at + 2], "big")
            size = int.from_bytes(data[at + 2 : at + 4], "big")
            start, end = at + 4, at + 4 + size
            at = end + -size % 4
            if at > len(data):
                raise StunError("malformed", "an attribute ends after the message")
            if kind == _FINGERPRINT:
                if size != 4 or data[start:end] != _fingerprint(data[: start - 4]):
                    raise StunError("fingerprint", "FINGERPRINT does not match the message")
                fingerprint = True
            elif not vouched or kind == _MESSAGE_INTEGRITY_SHA256:
                attributes.append((kind, data[start:end]))
                vouched = vouched or kind in (_MESSAGE_INTEGRITY, _MESSAGE_INTEGRITY_SHA256)
        return cls(int.from_bytes(data[:2], "big"), data[8:HEADER_SIZE], tuple(attributes), fingerprint)


def _fingerprint(before: bytes) -> bytes:
    return (binascii.crc32(before) ^ _FINGERPRINT_XOR).to_bytes(4, "big")


def _xor(data: bytes, transaction_id: bytes) -> bytes:
    pad = (COOKIE + transaction_id)[: len(data)]
    return (int.from_bytes(data, "big") ^ int.from_bytes(pad, "big")).to_bytes(len(data), "big")


def encode_xor_address(addr: SocketAddr, transaction_id: bytes) -> bytes:
    """The value of XOR-MAPPED-ADDRESS, 8 or 20 bytes (section 14.2); a scope id is left out."""
    ip = ipaddress.ip_address(addr.host.partition("%")[0]).packed
    port = addr.port ^ int.from_bytes(COOKIE[:2], "big")
    family = 1 if len(ip) == 4 else 2
    return bytes((0, family)) + port.to_bytes(2, "big") + _xor(ip, transaction_id)


def decode_xor_address(value: bytes, transaction_id: bytes) -> SocketAddr:
    """The address in an XOR-MAPPED-ADDRESS; raises StunError. An IPv4-mapped IPv6 address comes out as IPv4."""
    if len(value) < 4 or _FAMILIES.get(value[1]) != len(value) - 4:
        raise StunError("malformed", "XOR-MAPPED-ADDRESS has an unknown family or a wrong length")
    port = int.from_bytes(value[2:4], "big") ^ int.from_bytes(COOKIE[:2], "big")
    ip = ipaddress.ip_address(_xor(value[4:], transaction_id))
    if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped is not None:
        ip = ip.ipv4_mapped
    return SocketAddr(str(ip), port)


def binding_request(
    transaction_id: bytes, *, software: str | None = None, fingerprint: bool = True, change_port: bool = False
) -> bytes:
    """A binding request; FINGERPRINT tells it from other protocols on a shared socket (section 7).

    `change_port` asks for an answer from another port of the server (RFC 5780 section 7.2).
    """
    change = ((_CHANGE_REQUEST, _CHANGE_PORT),) if change_port else ()
    return StunMessage(REQUEST, transaction_id, (*change, *_software(software)), fingerprint).encode()


def binding_success(
    transaction_id: bytes, addr: SocketAddr, *, software: str | None = None, fingerprint: bool = False
) -> bytes:
    """The answer that tells `addr`: 32 bytes for IPv4 and 44 for IPv6, 8 more with FINGERPRINT."""
    address = (_XOR_MAPPED_ADDRESS, encode_xor_address(addr, transaction_id))
    return StunMessage(SUCCESS, transaction_id, (address, *_software(software)), fingerprint).encode()


def binding_error(
    transaction_id: bytes, code: int, *, unknown: tuple[int, ...] = (), fingerprint: bool = False
) -> bytes:
    """An error answer without a reason phrase; `unknown`: attribute types that a 420 names, at most 8."""
    attributes = [(_ERROR_CODE, bytes((0, 0, code // 100, code % 100)))]
    if unknown:
        named = b"".join(kind.to_bytes(2, "big") for kind in unknown[:MAX_UNKNOWN])
        attributes.append((_UNKNOWN_ATTRIBUTES, named))
    return StunMessage(ERROR, transaction_id, tuple(attributes), fingerprint).encode()


def _software(text: str | None) -> tuple[tuple[int, bytes], ...]:
    return ((_SOFTWARE, text.encode()[:MAX_SOFTWARE]),) if text else ()


@attrs.frozen
class BindingRequest:
    """A binding request as a server sees it. `unknown`: attributes that must be understood and are not.

    `change_port`: whether the answer is wanted from another port; CHANGE-REQUEST for another IP address is unknown.
    """

    transaction_id: bytes
    fingerprint: bool
    unknown: tuple[int, ...]
    change_port: bool = False

    @classmethod
    def decode(cls, data: bytes) -> BindingRequest:
        """Read a datagram; raises StunError, of kind "not binding" for every other method and class."""
        if len(data) >= 2 and is_stun(data[:8]) and data[:2] != b"\x00\x01":
            raise StunError("not binding", "not a binding request")
        message = StunMessage.decode(data)
        change_port = message.first(_CHANGE_REQUEST) == _CHANGE_PORT
        unknown = message.unknown(frozenset((_CHANGE_REQUEST,)) if change_port else frozenset())
        return cls(message.transaction_id, message.fingerprint, unknown, change_port)


@attrs.frozen
class BindingResponse:
    """A server's answer: our address, or an error code from 300 to 699 with its reason."""

    transaction_id: bytes
    addr: SocketAddr | None = None
    code: int | None = None
    reason: str = ""

    @classmethod
    def decode(cls, data: bytes) -> BindingResponse:
        """Read a datagram; raises StunError for all that is no answer to a binding request."""
        message = StunMessage.decode(data)
        if message.type == ERROR:
            value = message.first(_ERROR_CODE)
            if value is None or len(value) < 4 or not 3 <= value[2] & 7 <= 6 or value[3] > 99:
                raise StunError("malformed", "an error response without a valid ERROR-CODE")
            reason = value[4 : 4 + MAX_REASON].decode("utf-8", "replace")
            return cls(message.transaction_id, code=(value[2] & 7) * 100 + value[3], reason=reason)
        if message.type != SUCCESS:
            raise StunError("not binding", "not a binding response")
        if message.unknown(frozenset((_XOR_MAPPED_ADDRESS, 0x0001))):
            raise StunError("malformed", "the response has attributes that must be understood and are not")
        value = message.first(_XOR_MAPPED_ADDRESS)
        if value is None:
            raise StunError("malformed", "a success response without XOR-MAPPED-ADDRESS")
        return cls(message.transaction_id, addr=decode_xor_address(value, message.transaction_id))


@attrs.frozen
class Reflexive:
    """What a server saw: our address, and seconds to it and back, None where a request had to be repeated."""

    server: SocketAddr
    addr: SocketAddr
    rtt: float | None


class BindingTransaction:
    """Asks one server once, with the repetitions of section 6.2.1; `now` in seconds.

    Send what `start` and `handle_timer` return to `server`; give each STUN datagram to `receive`; look at `result`
    and `error` after each call. `rto`: seconds before the first repetition, doubled each time; `requests`: how many
    are sent in all; the last one is waited for `patience` times `rto`.
    """

    def __init__(
        self,
        server: SocketAddr,
        *,
        rto: float = 0.5,
        requests: int = 7,
        patience: float = 16.0,
        software: str | None = None,
        random_bytes: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self.server = server
        self.transaction_id = random_bytes(TRANSACTION_ID_SIZE)
        self.result: Reflexive | None = None
        self.error: StunFailedError | None = None
        self._request = binding_request(self.transaction_id, software=software)
        self._rto = rto
        self._left = requests
        self._patience = patience * rto
        self._started = 0.0
        self._sent = 0
        self._timer: float | None = None

    @property
    def done(self) -> bool:
        """Whether there is a `result` or an `error`."""
        return self.result is not None or self.error is not None

    def start(self, now: float) -> bytes:
        """The first request."""
        self._started = now
        return self._send(now)

    def _send(self, now: float) -> bytes:
        self._sent += 1
        self._left -= 1
        self._timer = now + (self._rto if self._left else self._patience)
        self._rto *= 2
        return self._request

    def get_timer(self) -> float | None:
        """When `handle_timer` is due, None when all is done."""
        return self._timer

    def handle_timer(self, now: float) -> bytes | None:
        """The request to send again, or None."""
        if self._timer is None or now < self._timer:
            return None
        if self._left > 0:
            return self._send(now)
        self._fail(StunFailedError(f"the STUN server {self.server} did not answer"))
        return None

    def receive(self, data: bytes, source: SocketAddr, now: float) -> bool:
        """Whether the datagram was the answer; everything else is left alone and changes nothing."""
        if self.done or source != self.server or data[8:HEADER_SIZE] != self.transaction_id:
            return False
        try:
            response = BindingResponse.decode(data)
        except StunError:
            return False
        if response.addr is not None:
            # After a repetition nobody knows which request was answered.
            rtt = max(0.0, now - self._started) if self._sent == 1 else None
            self.result = Reflexive(self.server, response.addr, rtt)
            self._timer = None
        else:
            words = f"{response.code} {response.reason}".strip()
            self._fail(StunFailedError(f"the STUN server {self.server} answered with error {words}", response.code))
        return True

    def _fail(self, error: StunFailedError) -> None:
        self.error = error
        self._timer = None
