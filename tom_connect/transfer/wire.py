"""The frames of the transfer protocol: 1 byte type, 4 bytes length, payload; all numbers big-endian.

From sender to receiver

    1  OFFER    4 bytes: how many entries follow
    2  ENTRIES  entries, as `encode_entries` writes them; as many frames as it takes
    3  FILE     4 bytes: index of an entry; 8 bytes: at which byte the data begins
    4  DATA     bytes of that file, at most 1 MiB
    5  END      32 bytes: SHA-256 of the whole file, also of what was not sent
    6  BUSY     nothing: the sender reads a long file and is still there

From receiver to sender

    17 HAVE     for each file of which something is there: 4 bytes index, 8 bytes size, 32 bytes SHA-256 of that
    18 BEGIN    nothing: the offer is taken
    19 DONE     nothing: every file is verified and stored

From both

    32 FAIL     1 byte code, then the reason in UTF-8, at most 1000 bytes

A sender offers; the receiver answers HAVE frames and BEGIN, or FAIL. Then the sender sends, in the order of the
entries, FILE, DATA and END for each file without waiting; a FILE begins where the receiver's HAVE ends if the SHA-256
fits, else at 0. The receiver ends it all with DONE, or either side with FAIL.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Iterator

import attrs

from tom_connect.transfer.errors import (
    DiskFullError,
    SourceError,
    StoreError,
    TransferError,
    TransferInterruptedError,
    TransferProtocolError,
    TransferRefusedError,
    UnsafeNameError,
    VerificationError,
)

ALPN = "tom-transfer/1"
MAX_CONTROL = 64 * 1024
MAX_DATA = 1024 * 1024
MAX_REASON = 1000
DIGEST_SIZE = 32

HEADER = struct.Struct(">BI")
_OFFER = struct.Struct(">I")
_FILE = struct.Struct(">IQ")
_HAVE = struct.Struct(">IQ32s")


class FrameType(enum.IntEnum):
    """The first byte of a frame."""

    OFFER = 1
    ENTRIES = 2
    FILE = 3
    DATA = 4
    END = 5
    BUSY = 6
    HAVE = 17
    BEGIN = 18
    DONE = 19
    FAIL = 32


_EXACT = {
    FrameType.OFFER: _OFFER.size,
    FrameType.FILE: _FILE.size,
    FrameType.END: DIGEST_SIZE,
    FrameType.BUSY: 0,
    FrameType.BEGIN: 0,
    FrameType.DONE: 0,
}


class FailureCode(enum.IntEnum):
    """Why a side ends a transfer."""

    REFUSED = 1
    DISK_FULL = 2
    STORE = 3
    VERIFICATION = 4
    SOURCE = 5
    PROTOCOL = 6
    INTERRUPTED = 7
    UNSAFE_NAME = 8


_ERRORS: dict[FailureCode, type[TransferError]] = {
    FailureCode.REFUSED: TransferRefusedError,
    FailureCode.DISK_FULL: DiskFullError,
    FailureCode.STORE: StoreError,
    FailureCode.VERIFICATION: VerificationError,
    FailureCode.SOURCE: SourceError,
    FailureCode.PROTOCOL: TransferProtocolError,
    FailureCode.INTERRUPTED: TransferInterruptedError,
    FailureCode.UNSAFE_NAME: UnsafeNameError,
}


@attrs.frozen
class Have:
    """How much of a file is there already: its first `size` bytes, whose SHA-256 is `digest`."""

    index: int
    size: int
    digest: bytes


@attrs.frozen
class Frame:
    """A frame of any type but DATA, whole."""

    type: FrameType
    payload: bytes


@attrs.frozen
class DataPiece:
    """Some bytes of a DATA frame."""

    data: memoryview


def frame(kind: FrameType, payload: bytes = b"") -> bytes:
    """A whole frame."""
    return HEADER.pack(kind, len(payload)) + payload


def offer_frame(entries: int) -> bytes:
    """Begin an offer of so many entries."""
    return frame(FrameType.OFFER, _OFFER.pack(entries))


def read_offer(payload: bytes) -> int:
    """How many entries an offer announces."""
    (entries,) = _OFFER.unpack(payload)
    return int(entries)


def file_frame(index: int, offset: int) -> bytes:
    """Begin the data of an entry at a byte."""
    return frame(FrameType.FILE, _FILE.pack(index, offset))


def read_file(payload: bytes) -> tuple[int, int]:
    """Index and offset of a FILE frame."""
    index, offset = _FILE.unpack(payload)
    return int(index), int(offset)


def have_frames(haves: list[Have]) -> bytes:
    """Say what is there already; as many frames as it takes."""
    per_frame = MAX_CONTROL // _HAVE.size
    return b"".join(
        frame(
            FrameType.HAVE,
            b"".join(_HAVE.pack(have.index, have.size, have.digest) for have in haves[at : at + per_frame]),
        )
        for at in range(0, len(haves), per_frame)
    )


def read_haves(payload: bytes) -> list[Have]:
    """What a HAVE frame says; raises TransferProtocolError."""
    if len(payload) % _HAVE.size:
        raise TransferProtocolError("a HAVE frame has a wrong length")
    return [Have(index, size, digest) for index, size, digest in _HAVE.iter_unpack(payload)]


def fail_frame(error: TransferError) -> bytes:
    """Tell the other side why this one ends the transfer."""
    code = next((code for code, cls in _ERRORS.items() if isinstance(error, cls)), FailureCode.STORE)
    reason = str(error).encode("utf-8", "replace")[:MAX_REASON]
    return frame(FrameType.FAIL, bytes((code,)) + reason)


def read_failure(payload: bytes) -> TransferError:
    """The error that the other side reports; an unknown code is a TransferError."""
    if not 1 <= len(payload) <= 1 + MAX_REASON:
        raise TransferProtocolError("a FAIL frame has a wrong length")
    text = payload[1:].decode("utf-8", "replace")
    shown = "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text)
    message = f"the other side says: {shown}"
    try:
        return _ERRORS[FailureCode(payload[0])](message)
    except ValueError:
        return TransferError(message)


class FrameParser:
    """Takes bytes as they come and gives frames; DATA in pieces, everything else whole. Buffers at most 64 KiB."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._data_left = 0

    @property
    def is_between_frames(self) -> bool:
        """Whether the bytes so far end with a whole frame."""
        return not self._buffer and not self._data_left

    def feed(self, data: bytes) -> Iterator[Frame | DataPiece]:
        """The frames that these bytes complete; raises TransferProtocolError. Use it up before feeding again.

        The pieces of DATA are views of `data`.
        """
        view = memoryview(data)
        while view:
            if self._data_left:
                piece, view = view[: self._data_left], view[self._data_left :]
                self._data_left -= len(piece)
                yield DataPiece(piece)
                continue
            view = self._fill(view, HEADER.size)
            if len(self._buffer) < HEADER.size:
                return
            kind, length = self._header()
            if kind is FrameType.DATA:
                self._buffer.clear()
                self._data_left = length
                continue
            view = self._fill(view, HEADER.size + length)
            if len(self._buffer) == HEADER.size + length:
                payload = bytes(self._buffer[HEADER.size :])
                self._buffer.clear()
                yield Frame(kind, payload)

    def _fill(self, view: memoryview, size: int) -> memoryview:
        """Bring the buffer to `size` bytes as far as there are some; returns the rest."""
        missing = max(0, size - len(self._buffer))
        self._buffer += view[:missing]
        return view[missing:]

    def _header(self) -> tuple[FrameType, int]:
        number, length = HEADER.unpack_from(self._buffer)
        try:
            kind = FrameType(number)
        except ValueError:
            raise TransferProtocolError(f"a frame of unknown type {number}") from None
        if length > (MAX_DATA if kind is FrameType.DATA else MAX_CONTROL) or length != _EXACT.get(kind, length):
            raise TransferProtocolError(f"a {kind.name} frame of {length} bytes")
        return kind, length
