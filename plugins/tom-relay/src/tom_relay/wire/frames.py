"""The frames of the relay protocol: one binary WebSocket message each, a type and a payload.

Keys are the 32 raw bytes here: a datagram's is looked up in a table and need not be a valid point for that.
"""

from __future__ import annotations

import enum
import ipaddress
from collections.abc import Sequence
from typing import ClassVar

import attrs

from tom_relay.errors import FrameUsageError, WireError
from tom_relay.wire.dialect import Dialect
from tom_relay.wire.varint import decode_leb128, decode_quic, encode_leb128, encode_quic

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address

KEY_SIZE = 32
SIGNATURE_SIZE = 64
CHALLENGE_SIZE = 16
PING_SIZE = 8
MAX_PAYLOAD = 65_536
"""Bytes of a frame after its type, at most."""
MAX_DATA = MAX_PAYLOAD - KEY_SIZE - 3
"""Bytes of datagrams in one batch, at most."""
MAX_TEXT = 1024
"""Bytes of a reason or problem that we write; what others write may fill a frame."""


class FrameType(enum.IntEnum):
    """The types; 11, 13, 14 and 15 depend on the dialect."""

    SERVER_CHALLENGE = 0
    CLIENT_AUTH = 1
    SERVER_CONFIRMS_AUTH = 2
    SERVER_DENIES_AUTH = 3
    SEND_DATAGRAM = 4
    SEND_BATCH = 5
    RECEIVED_DATAGRAM = 6
    RECEIVED_BATCH = 7
    ENDPOINT_GONE = 8
    PING = 9
    PONG = 10
    HEALTH = 11
    RESTARTING = 12
    STATUS_OR_PEER_PRESENT = 13
    ASK_ADDRESS = 14
    PEER_ADDRESS = 15


_ADDRESS_SIZES = {4: 4, 6: 16}

FROM_CLIENT = frozenset({1, 4, 5, 9, 10, 14})
FROM_SERVER = frozenset({0, 2, 3, 6, 7, 8, 9, 10, 11, 12, 13, 15})


class StatusCode(enum.IntEnum):
    """What a Status frame says; other numbers may come from newer servers."""

    HEALTHY = 0
    SAME_ID_CONNECTED = 1
    RATE_LIMITED = 2


@attrs.frozen
class ServerChallenge:
    """16 random bytes that a client is to sign."""

    challenge: bytes


@attrs.frozen
class ClientAuth:
    """A client's key and its signature of the challenge."""

    key: bytes
    signature: bytes


@attrs.frozen
class ServerConfirmsAuth:
    """The client is let in."""


@attrs.frozen
class ServerDeniesAuth:
    """The client is refused, and why."""

    reason: str


@attrs.frozen
class _Datagrams:
    """`key`: of the other node; `ecn`: the byte as it is; `segment_size`: bytes of each datagram but the last, or None.

    `data`: one datagram, or a batch of them joined.
    """

    key: bytes
    data: bytes
    ecn: int = 0
    segment_size: int | None = None

    single: ClassVar[FrameType]
    batch: ClassVar[FrameType]

    def datagrams(self) -> list[bytes]:
        """The datagrams one by one."""
        size = self.segment_size
        if size is None:
            return [self.data]
        return [self.data[start : start + size] for start in range(0, len(self.data), size)]


@attrs.frozen
class SendDatagrams(_Datagrams):
    """From a client: datagrams for the node `key`."""

    single = FrameType.SEND_DATAGRAM
    batch = FrameType.SEND_BATCH


@attrs.frozen
class ReceivedDatagrams(_Datagrams):
    """From the relay: datagrams of the node `key`."""

    single = FrameType.RECEIVED_DATAGRAM
    batch = FrameType.RECEIVED_BATCH


@attrs.frozen
class EndpointGone:
    """The node `key` is not connected to this relay (any more)."""

    key: bytes


@attrs.frozen
class Ping:
    """To be answered by a Pong with the same 8 bytes."""

    data: bytes


@attrs.frozen
class Pong:
    """The answer to a Ping."""

    data: bytes


@attrs.frozen
class Health:
    """A problem of the connection, in words; empty: it is over."""

    problem: str


@attrs.frozen
class Status:
    """The state of the connection: a `StatusCode`, or a number that we don't know."""

    code: int


@attrs.frozen
class PeerPresent:
    """The node `key` is connected to this relay."""

    key: bytes


@attrs.frozen
class Restarting:
    """The relay restarts: wait `reconnect_in_ms`, then try for `try_for_ms`, both milliseconds."""

    reconnect_in_ms: int
    try_for_ms: int


@attrs.frozen
class AskAddress:
    """From a client: which IP address is the node `key` connected from?"""

    key: bytes


@attrs.frozen
class PeerAddress:
    """From the relay: the IP address from which the node `key` is connected, as the relay itself sees it."""

    key: bytes
    address: IPAddress


ClientFrame = ClientAuth | SendDatagrams | Ping | Pong | AskAddress
ServerFrame = (
    ServerChallenge
    | ServerConfirmsAuth
    | ServerDeniesAuth
    | ReceivedDatagrams
    | EndpointGone
    | Ping
    | Pong
    | Health
    | Status
    | PeerPresent
    | Restarting
    | PeerAddress
)
Frame = ClientFrame | ServerFrame


def encode(frame: Frame, dialect: Dialect) -> bytes:
    """The message of a frame; raises FrameUsageError if the dialect lacks it or it is too large or ill-formed."""
    frame_type, payload = _payload(frame, dialect)
    if len(payload) > MAX_PAYLOAD:
        raise FrameUsageError(f"a frame of {len(payload)} bytes is larger than the {MAX_PAYLOAD} that are allowed")
    return encode_quic(frame_type) + payload


def _payload(frame: Frame, dialect: Dialect) -> tuple[FrameType, bytes]:
    match frame:
        case SendDatagrams() | ReceivedDatagrams():
            return _datagrams_payload(frame)
        case Ping(data):
            return FrameType.PING, _sized(data, PING_SIZE)
        case Pong(data):
            return FrameType.PONG, _sized(data, PING_SIZE)
        case EndpointGone(key):
            return FrameType.ENDPOINT_GONE, _sized(key, KEY_SIZE)
        case ServerChallenge(challenge):
            return FrameType.SERVER_CHALLENGE, _sized(challenge, CHALLENGE_SIZE)
        case ClientAuth(key, signature):
            length = encode_leb128(SIGNATURE_SIZE)
            return FrameType.CLIENT_AUTH, _sized(key, KEY_SIZE) + length + _sized(signature, SIGNATURE_SIZE)
        case ServerConfirmsAuth():
            return FrameType.SERVER_CONFIRMS_AUTH, b""
        case ServerDeniesAuth(reason):
            text = _text(reason)
            return FrameType.SERVER_DENIES_AUTH, encode_leb128(len(text)) + text
        case Health(problem) if dialect.has_health:
            return FrameType.HEALTH, _text(problem)
        case Status(code) if dialect.has_status and 0 <= code <= 255:
            return FrameType.STATUS_OR_PEER_PRESENT, bytes((code,))
        case PeerPresent(key) if dialect.has_peer_present:
            return FrameType.STATUS_OR_PEER_PRESENT, _sized(key, KEY_SIZE)
        case Restarting(reconnect_in, try_for) if 0 <= reconnect_in < 1 << 32 and 0 <= try_for < 1 << 32:
            return FrameType.RESTARTING, reconnect_in.to_bytes(4, "big") + try_for.to_bytes(4, "big")
        case AskAddress(key) if dialect.has_peer_address:
            return FrameType.ASK_ADDRESS, _sized(key, KEY_SIZE)
        case PeerAddress(key, address) if dialect.has_peer_address:
            return FrameType.PEER_ADDRESS, b"%b%c%b" % (_sized(key, KEY_SIZE), address.version, address.packed)
    raise FrameUsageError(f"{frame!r} can't be sent in {dialect.value}")


def _datagrams_payload(frame: _Datagrams) -> tuple[FrameType, bytes]:
    head = _sized(frame.key, KEY_SIZE)
    if not 0 <= frame.ecn <= 255:
        raise FrameUsageError(f"ECN {frame.ecn} is not a byte")
    if frame.segment_size is None:
        return frame.single, b"%b%c%b" % (head, frame.ecn, frame.data)
    if not 0 < frame.segment_size <= 65_535:
        raise FrameUsageError(f"a segment size of {frame.segment_size} bytes is not in 1 to 65,535")
    return frame.batch, b"%b%c%b%b" % (head, frame.ecn, frame.segment_size.to_bytes(2, "big"), frame.data)


def _sized(data: bytes, size: int) -> bytes:
    if len(data) != size:
        raise FrameUsageError(f"expected {size} bytes, got {len(data)}")
    return data


def _text(text: str) -> bytes:
    data = text.encode("utf-8", "replace")
    return data if len(data) <= MAX_TEXT else data[:MAX_TEXT].decode("utf-8", "ignore").encode()


def decode_from_client(message: bytes, dialect: Dialect) -> ClientFrame:
    """Read what a client sent; raises WireError that says what is wrong."""
    frame_type, payload = _split(message, FROM_CLIENT, FROM_SERVER, "a client")
    if frame_type == FrameType.CLIENT_AUTH:
        return _client_auth(payload)
    if frame_type in (FrameType.SEND_DATAGRAM, FrameType.SEND_BATCH):
        return SendDatagrams(*_datagrams(payload, batch=frame_type == FrameType.SEND_BATCH))
    if frame_type == FrameType.ASK_ADDRESS:
        if not dialect.has_peer_address:
            raise WireError("dialect", f"{dialect.value} has no frame of type {frame_type}")
        return AskAddress(_exactly(payload, KEY_SIZE, "AskAddress"))
    return _ping_or_pong(frame_type, payload)


def decode_from_server(message: bytes, dialect: Dialect) -> ServerFrame:
    """Read what a relay sent; raises WireError that says what is wrong, and for what the dialect lacks."""
    frame_type, payload = _split(message, FROM_SERVER, FROM_CLIENT, "a relay")
    match frame_type:
        case FrameType.RECEIVED_DATAGRAM | FrameType.RECEIVED_BATCH:
            return ReceivedDatagrams(*_datagrams(payload, batch=frame_type == FrameType.RECEIVED_BATCH))
        case FrameType.SERVER_CHALLENGE:
            return ServerChallenge(_exactly(payload, CHALLENGE_SIZE, "ServerChallenge"))
        case FrameType.SERVER_CONFIRMS_AUTH:
            _exactly(payload, 0, "ServerConfirmsAuth")
            return ServerConfirmsAuth()
        case FrameType.SERVER_DENIES_AUTH:
            length, start = decode_leb128(payload)
            if len(payload) - start < length:
                raise WireError("truncated", "ServerDeniesAuth ends within its reason")
            return ServerDeniesAuth(_decoded(_exactly(payload[start:], length, "ServerDeniesAuth's reason")))
        case FrameType.ENDPOINT_GONE:
            return EndpointGone(_exactly(payload, KEY_SIZE, "EndpointGone"))
        case FrameType.RESTARTING:
            data = _exactly(payload, 8, "Restarting")
            return Restarting(int.from_bytes(data[:4], "big"), int.from_bytes(data[4:], "big"))
        case FrameType.HEALTH if dialect.has_health:
            return Health(_decoded(payload))
        case FrameType.STATUS_OR_PEER_PRESENT if dialect.has_status:
            if not payload:
                raise WireError("truncated", "Status is empty")
            return Status(payload[0])
        case FrameType.STATUS_OR_PEER_PRESENT if dialect.has_peer_present:
            return PeerPresent(_exactly(payload, KEY_SIZE, "PeerPresent"))
        case FrameType.PEER_ADDRESS if dialect.has_peer_address:
            return _peer_address(payload)
        case FrameType.PING | FrameType.PONG:
            return _ping_or_pong(frame_type, payload)
    raise WireError("dialect", f"{dialect.value} has no frame of type {frame_type}")


def _split(message: bytes, expected: frozenset[int], others: frozenset[int], who: str) -> tuple[int, bytes]:
    frame_type, start = decode_quic(message)
    if frame_type not in expected:
        if frame_type in others:
            name = FrameType(frame_type).name
            raise WireError("direction", f"frame type {frame_type} ({name}) never comes from {who}")
        raise WireError("unknown", f"frame type {frame_type} is unknown")
    if len(message) - start > MAX_PAYLOAD:
        raise WireError("too-large", f"the frame has {len(message) - start} bytes; at most {MAX_PAYLOAD} are allowed")
    return frame_type, message[start:]


def _datagrams(payload: bytes, *, batch: bool) -> tuple[bytes, bytes, int, int | None]:
    head = KEY_SIZE + (3 if batch else 1)
    if len(payload) < head:
        raise WireError("truncated", f"a datagram frame of {len(payload)} bytes ends within its head of {head}")
    size = None
    if batch:
        size = int.from_bytes(payload[KEY_SIZE + 1 : head], "big")
        if not size:
            raise WireError("malformed", "a datagram batch has segments of no bytes")
    return payload[:KEY_SIZE], payload[head:], payload[KEY_SIZE], size


def _client_auth(payload: bytes) -> ClientAuth:
    if len(payload) <= KEY_SIZE:
        raise WireError("truncated", f"ClientAuth of {len(payload)} bytes ends within its key")
    length, start = decode_leb128(payload, KEY_SIZE)
    if length != SIGNATURE_SIZE:
        raise WireError("malformed", f"ClientAuth has a signature of {length} bytes, not {SIGNATURE_SIZE}")
    signature = payload[start:]
    if len(signature) < SIGNATURE_SIZE:
        raise WireError("truncated", "ClientAuth ends within its signature")
    return ClientAuth(payload[:KEY_SIZE], _exactly(signature, SIGNATURE_SIZE, "ClientAuth's signature"))


def _peer_address(payload: bytes) -> PeerAddress:
    if len(payload) <= KEY_SIZE:
        raise WireError("truncated", f"PeerAddress of {len(payload)} bytes ends within its head")
    version, data = payload[KEY_SIZE], payload[KEY_SIZE + 1 :]
    if version not in _ADDRESS_SIZES:
        raise WireError("malformed", f"PeerAddress has an address of IP version {version}, not 4 or 6")
    address = ipaddress.ip_address(_exactly(data, _ADDRESS_SIZES[version], "PeerAddress's address"))
    return PeerAddress(payload[:KEY_SIZE], address)


def _ping_or_pong(frame_type: int, payload: bytes) -> Ping | Pong:
    if frame_type == FrameType.PING:
        return Ping(_exactly(payload, PING_SIZE, "Ping"))
    return Pong(_exactly(payload, PING_SIZE, "Pong"))


def _exactly(payload: bytes, size: int, what: str) -> bytes:
    if len(payload) != size:
        kind = "truncated" if len(payload) < size else "malformed"
        raise WireError(kind, f"{what} has {len(payload)} bytes, not {size}")
    return payload


def _decoded(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise WireError("malformed", "a text is not UTF-8") from None


def batches(datagrams: Sequence[bytes]) -> list[tuple[bytes, int | None]]:
    """Join datagrams into as few payloads as fit: pairs of data and segment size (None: a single datagram).

    The order is kept. Those of a batch have one size, but the last, which may be shorter. Raises FrameUsageError for a
    datagram that is too large.
    """
    made: list[tuple[bytes, int | None]] = []
    start = 0
    while start < len(datagrams):
        size = len(datagrams[start])
        if size > MAX_DATA:
            raise FrameUsageError(f"a datagram of {size} bytes is larger than the {MAX_DATA} that fit")
        end, total = start + 1, size
        while (
            size
            and end < len(datagrams)
            and 0 < len(datagrams[end]) <= size
            and total + len(datagrams[end]) <= MAX_DATA
        ):
            total += len(datagrams[end])
            end += 1
            if len(datagrams[end - 1]) < size:
                break
        made.append((datagrams[start], None) if end == start + 1 else (b"".join(datagrams[start:end]), size))
        start = end
    return made
