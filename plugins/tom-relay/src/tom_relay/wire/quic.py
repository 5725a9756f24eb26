"""The relay protocol over QUIC, sans-IO: how frames stand on the stream and in datagrams.

The client opens one bidirectional stream. On it each frame has its length before it (RFC 9000 section 16). Frames with
one relayed datagram go in QUIC datagrams (RFC 9221) where they fit, each alone and without a length. Keys are proven by
the connection itself, so there is no challenge: the relay's first frame lets the client in or refuses it.
"""

from __future__ import annotations

import enum
from typing import Final

from tom_relay.errors import WireError
from tom_relay.wire.dialect import Dialect
from tom_relay.wire.frames import KEY_SIZE, MAX_PAYLOAD, FrameType
from tom_relay.wire.varint import decode_quic, encode_quic

ALPN: Final = "tom-relay/1"
DIALECT: Final = Dialect.TOM_V2
"""The dialect that is spoken over QUIC."""
MAX_FRAME: Final = MAX_PAYLOAD + 1
"""Bytes of a frame on the stream, its type included."""
ALWAYS_CARRIED: Final = 1200
"""Bytes of a relayed datagram that must pass on any path (RFC 9000 section 14): on the stream where it fits no
datagram. A larger one that does not fit is dropped, as a path with that MTU would, so that the ends find what fits."""
_DATAGRAMS = frozenset((FrameType.SEND_DATAGRAM, FrameType.RECEIVED_DATAGRAM))
_BATCHES = frozenset((FrameType.SEND_BATCH, FrameType.RECEIVED_BATCH))
_HEAD = 1 + KEY_SIZE + 1
_BATCH_HEAD = _HEAD + 2


class CloseCode(enum.IntEnum):
    """The application error codes of a relay's connection."""

    DONE = 0
    """The client leaves, or its relay ends."""
    PROTOCOL = 1
    """A breach of the protocol; the reason says which."""
    REFUSED = 2
    """The client may not use the relay."""
    SILENT = 3
    """No answer to a ping, or nothing taken, for too long."""
    RESTARTING = 4
    """The relay goes away; come back as its Restarting frame says, if it could still send one."""


class Way(enum.Enum):
    """How a message travels."""

    DATAGRAM = "datagram"
    STREAM = "stream"
    NONE = "none"
    """It is dropped: too large for the path, and nothing that must pass."""


def way_of(message: bytes, max_datagram: int) -> Way:
    """How a frame travels over a connection whose datagrams may have `max_datagram` bytes. Batches are to be split."""
    if message[0] not in _DATAGRAMS:
        return Way.STREAM
    if len(message) <= max_datagram:
        return Way.DATAGRAM
    return Way.STREAM if len(message) - _HEAD <= ALWAYS_CARRIED else Way.NONE


def split(message: bytes) -> list[bytes]:
    """The frames of one datagram each that a batch stands for; any other frame as it is."""
    if message[0] not in _BATCHES:
        return [message]
    segment = int.from_bytes(message[_HEAD:_BATCH_HEAD], "big")
    single = bytes((message[0] - 1,)) + message[1:_HEAD]
    data = message[_BATCH_HEAD:]
    return [single + data[start : start + segment] for start in range(0, len(data), segment)]


def in_datagram(message: bytes) -> bytes:
    """Check a frame that came in a QUIC datagram, before it is decoded; raises WireError."""
    if not message or message[0] not in _DATAGRAMS:
        raise WireError("malformed", "a QUIC datagram holds something else than a frame with one relayed datagram")
    return message


def on_stream(message: bytes) -> bytes:
    """A frame as it stands on the stream."""
    return encode_quic(len(message)) + message


class FrameReader:
    """Cuts a stream into frames: give it bytes, take frames. Holds at most one frame and what came with it."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        """The frames that are complete now; raises WireError for one that is empty or too large."""
        buffer = self._buffer
        buffer += data
        frames: list[bytes] = []
        start = 0
        while start < len(buffer):
            if start + (1 << (buffer[start] >> 6)) > len(buffer):
                break
            size, body = decode_quic(bytes(buffer[start : start + 8]))
            if not size:
                raise WireError("malformed", "a frame without a type")
            if size > MAX_FRAME:
                raise WireError("too-large", f"the frame has {size} bytes; at most {MAX_FRAME} are allowed")
            end = start + body + size
            if end > len(buffer):
                break
            frames.append(bytes(buffer[start + body : end]))
            start = end
        del buffer[:start]
        return frames
