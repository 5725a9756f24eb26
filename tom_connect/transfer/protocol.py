"""Both ends of the transfer protocol without input and output: bytes in, events out; see `tom_connect.transfer.wire`.

The sender goes OFFERED -> ACCEPTED -> DONE, the receiver LISTING -> DECIDING -> RECEIVING -> DONE. Either may send
FAIL, which is raised as an error at the other end; nothing may follow it.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator, Sequence

import attrs

from tom_connect.transfer.errors import TransferError, TransferInterruptedError, TransferProtocolError
from tom_connect.transfer.manifest import MAX_ENTRIES, MAX_LIST, Entry, Manifest, decode_entries, encode_entries
from tom_connect.transfer.wire import (
    HEADER,
    MAX_CONTROL,
    DataPiece,
    Frame,
    FrameParser,
    FrameType,
    Have,
    fail_frame,
    file_frame,
    frame,
    have_frames,
    offer_frame,
    read_failure,
    read_file,
    read_haves,
    read_offer,
)


@attrs.frozen
class Accepted:
    """The receiver takes the offer; `haves` says by index what it has already."""

    haves: dict[int, Have]


@attrs.frozen
class Completed:
    """The receiver has verified and stored everything."""


@attrs.frozen
class Offered:
    """The sender offers something."""

    manifest: Manifest


@attrs.frozen
class FileStarted:
    """The data of an entry follows, from byte `offset` on."""

    index: int
    offset: int


@attrs.frozen
class FileData:
    """Data of the file that was started last."""

    data: memoryview


@attrs.frozen
class FileEnded:
    """The file that was started last is whole; `digest`: SHA-256 of all of it, as its sender read it."""

    digest: bytes


SenderEvent = Accepted | Completed
ReceiverEvent = Offered | FileStarted | FileData | FileEnded


class SenderState(enum.Enum):
    """What the sender waits for."""

    OFFERED = "an answer to the offer"
    ACCEPTED = "the receiver's word that all is stored"
    DONE = "nothing"


class SenderProtocol:
    """The sender's end: gives the bytes to send for what it is told, and events for the bytes that come."""

    def __init__(self, manifest: Manifest) -> None:
        self._manifest = manifest
        self._parser = FrameParser()
        self._haves: dict[int, Have] = {}
        self.state = SenderState.OFFERED

    def offer(self) -> bytes:
        """The bytes that begin the transfer."""
        pieces = [offer_frame(len(self._manifest.entries))]
        batch: list[bytes] = []
        size = 0
        for entry in self._manifest.entries:
            encoded = encode_entries((entry,))
            if size + len(encoded) > MAX_CONTROL:
                pieces.append(frame(FrameType.ENTRIES, b"".join(batch)))
                batch, size = [], 0
            batch.append(encoded)
            size += len(encoded)
        pieces.append(frame(FrameType.ENTRIES, b"".join(batch)))
        return b"".join(pieces)

    def start_file(self, index: int, offset: int) -> bytes:
        """Begin a file at a byte."""
        return file_frame(index, offset)

    def data_header(self, size: int) -> bytes:
        """What goes before `size` bytes of data, at most 1 MiB."""
        return HEADER.pack(FrameType.DATA, size)

    def end_file(self, digest: bytes) -> bytes:
        """End a file with the SHA-256 of all of it."""
        return frame(FrameType.END, digest)

    def busy(self) -> bytes:
        """Say that we are still there."""
        return frame(FrameType.BUSY)

    def fail(self, error: TransferError) -> bytes:
        """End the transfer and say why."""
        return fail_frame(error)

    def receive(self, data: bytes) -> Iterator[SenderEvent]:
        """Take bytes from the receiver; raises TransferProtocolError, or the failure that it reports."""
        for got in self._parser.feed(data):
            if isinstance(got, DataPiece):
                raise TransferProtocolError("the receiver sent data")
            if got.type is FrameType.FAIL:
                raise read_failure(got.payload)
            if self.state is SenderState.OFFERED and got.type is FrameType.HAVE:
                self._note_haves(read_haves(got.payload))
            elif self.state is SenderState.OFFERED and got.type is FrameType.BEGIN:
                self.state = SenderState.ACCEPTED
                yield Accepted(self._haves)
            elif self.state is SenderState.ACCEPTED and got.type is FrameType.DONE:
                self.state = SenderState.DONE
                yield Completed()
            else:
                raise TransferProtocolError(f"the receiver sent {got.type.name} while we wait for {self.state.value}")

    def eof(self) -> None:
        """The receiver's bytes end; raises TransferInterruptedError unless it was done."""
        if self.state is not SenderState.DONE:
            raise TransferInterruptedError(f"the receiver went away; we waited for {self.state.value}")

    def _note_haves(self, haves: Sequence[Have]) -> None:
        entries = self._manifest.entries
        for have in haves:
            if have.index >= len(entries) or entries[have.index].is_folder or have.index in self._haves:
                raise TransferProtocolError(f"the receiver has something of entry {have.index}, which can't be")
            if have.size > entries[have.index].size:
                raise TransferProtocolError(f"the receiver has more of {entries[have.index].path!r} than there is")
            self._haves[have.index] = have


class ReceiverState(enum.Enum):
    """What the receiver waits for."""

    LISTING = "an offer"
    DECIDING = "our own answer"
    RECEIVING = "files"
    DONE = "nothing"


class ReceiverProtocol:
    """The receiver's end: gives the bytes to send for what it is told, and events for the bytes that come."""

    def __init__(self) -> None:
        self._parser = FrameParser()
        self._expected: int | None = None
        self._listed: list[Entry] = []
        self._list_size = 0
        self._files: list[tuple[int, Entry]] = []
        self._haves: dict[int, int] = {}
        self._next = 0
        self._left: int | None = None  # bytes of the current file that are still to come; None between files
        self.state = ReceiverState.LISTING

    @property
    def is_complete(self) -> bool:
        """Whether every file has been received to its end."""
        return self.state is ReceiverState.RECEIVING and self._left is None and self._next == len(self._files)

    def accept(self, haves: Sequence[Have]) -> bytes:
        """Take the offer, and say what is there already."""
        assert self.state is ReceiverState.DECIDING
        self._haves = {have.index: have.size for have in haves}
        self.state = ReceiverState.RECEIVING
        return have_frames(list(haves)) + frame(FrameType.BEGIN)

    def done(self) -> bytes:
        """Say that all is verified and stored."""
        assert self.is_complete
        self.state = ReceiverState.DONE
        return frame(FrameType.DONE)

    def fail(self, error: TransferError) -> bytes:
        """End the transfer and say why."""
        return fail_frame(error)

    def receive(self, data: bytes) -> Iterator[ReceiverEvent]:
        """Take bytes from the sender; raises TransferProtocolError, or the failure that it reports."""
        for got in self._parser.feed(data):
            if isinstance(got, DataPiece):
                yield self._data(got.data)
            elif got.type is FrameType.FAIL:
                raise read_failure(got.payload)
            elif got.type is not FrameType.BUSY:
                yield from self._control(got)

    def eof(self) -> None:
        """The sender's bytes end; raises TransferInterruptedError unless everything had come."""
        if not (self.is_complete or self.state is ReceiverState.DONE):
            raise TransferInterruptedError(f"the sender went away; we waited for {self.state.value}")

    def _control(self, got: Frame) -> Iterator[ReceiverEvent]:
        if got.type is FrameType.OFFER and self.state is ReceiverState.LISTING and self._expected is None:
            self._expected = read_offer(got.payload)
            if not 1 <= self._expected <= MAX_ENTRIES:
                raise TransferProtocolError(f"an offer of {self._expected} entries; 1 to {MAX_ENTRIES} are taken")
        elif got.type is FrameType.ENTRIES and self.state is ReceiverState.LISTING and self._expected is not None:
            self._list_size += len(got.payload)
            if self._list_size > MAX_LIST:
                raise TransferProtocolError(f"the list of files has more than {MAX_LIST} bytes")
            yield from self._list(self._expected, decode_entries(got.payload))
        elif got.type is FrameType.FILE and self.state is ReceiverState.RECEIVING and self._left is None:
            yield self._start(*read_file(got.payload))
        elif got.type is FrameType.END and self._left == 0:
            self._left = None
            yield FileEnded(got.payload)
        else:
            raise TransferProtocolError(f"the sender sent {got.type.name} while we wait for {self.state.value}")

    def _list(self, expected: int, entries: Sequence[Entry]) -> Iterator[ReceiverEvent]:
        self._listed += entries
        if len(self._listed) > expected or not entries:
            raise TransferProtocolError("the offer announced another number of entries")
        if len(self._listed) == expected:
            manifest = Manifest(self._listed)
            self._files = [(index, entry) for index, entry in enumerate(manifest.entries) if not entry.is_folder]
            self.state = ReceiverState.DECIDING
            yield Offered(manifest)

    def _start(self, index: int, offset: int) -> FileStarted:
        if self._next == len(self._files) or self._files[self._next][0] != index:
            raise TransferProtocolError(f"the sender sent file {index} out of turn")
        if offset not in (0, self._haves.get(index, 0)):
            raise TransferProtocolError(f"the sender began file {index} at a place that was not agreed")
        self._left = self._files[self._next][1].size - offset
        self._next += 1
        return FileStarted(index, offset)

    def _data(self, data: memoryview) -> FileData:
        if self._left is None or len(data) > self._left:
            raise TransferProtocolError("the sender sent more data than it announced")
        self._left -= len(data)
        return FileData(data)
