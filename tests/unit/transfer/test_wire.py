"""Frames: the bytes of each, any splitting, hostile bytes, bounds."""

from __future__ import annotations

import itertools
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

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
from tom_connect.transfer.wire import (
    MAX_CONTROL,
    MAX_DATA,
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

DIGEST = bytes(range(32))
STREAM = (
    offer_frame(3)
    + frame(FrameType.ENTRIES, b"some")
    + file_frame(1, 2**40)
    + frame(FrameType.DATA, b"x" * 300)
    + frame(FrameType.DATA)
    + frame(FrameType.END, DIGEST)
    + frame(FrameType.BUSY)
)


def parsed(pieces: list[bytes]) -> list[tuple[FrameType, bytes]]:
    """The frames of a stream that comes in pieces, data put together."""
    parser = FrameParser()
    found: list[tuple[FrameType, bytes]] = []
    for piece in pieces:
        for got in parser.feed(piece):
            if isinstance(got, Frame):
                found.append((got.type, got.payload))
            elif found and found[-1][0] is FrameType.DATA:
                found[-1] = (FrameType.DATA, found[-1][1] + bytes(got.data))
            else:
                found.append((FrameType.DATA, bytes(got.data)))
    return found


def test_the_bytes_are_those_of_the_format() -> None:
    """Type, length and payload, big-endian."""
    assert offer_frame(258) == b"\x01\0\0\0\x04\0\0\x01\x02"
    assert file_frame(2, 3) == b"\x03\0\0\0\x0c\0\0\0\x02" + bytes(7) + b"\x03"
    assert frame(FrameType.BEGIN) == b"\x12\0\0\0\0"
    assert have_frames([Have(1, 2, DIGEST)]) == b"\x11\0\0\0\x2c\0\0\0\x01" + bytes(7) + b"\x02" + DIGEST
    assert fail_frame(DiskFullError("é")) == b"\x20\0\0\0\x03\x02\xc3\xa9"


@given(st.lists(st.integers(0, len(STREAM)), max_size=30))
def test_any_splitting_gives_the_same_frames(cuts: list[int]) -> None:
    """Frames don't depend on how the bytes come."""
    bounds = [0, *sorted(cuts), len(STREAM)]
    pieces = [STREAM[a:b] for a, b in itertools.pairwise(bounds)]
    assert parsed(pieces) == parsed([STREAM])
    assert parsed([bytes((byte,)) for byte in STREAM]) == parsed([STREAM])


def test_what_frames_say_reads_back() -> None:
    """Offers, places and lists; long lists take several frames, each within the bound."""
    frames = parsed([STREAM])
    assert read_offer(frames[0][1]) == 3
    assert read_file(frames[2][1]) == (1, 2**40)
    haves = [Have(n, n * n, DIGEST) for n in range(5000)]
    several = parsed([have_frames(haves)])
    assert len(several) == 4
    assert all(len(payload) <= MAX_CONTROL for _kind, payload in several)
    assert [have for _kind, payload in several for have in read_haves(payload)] == haves
    assert have_frames([]) == b""


def test_every_prefix_waits_for_more() -> None:
    """No prefix of a valid stream is an error, and only whole frames are given."""
    whole = parsed([STREAM])
    for size in range(len(STREAM)):
        parser = FrameParser()
        got = list(parser.feed(STREAM[:size]))
        assert len(got) <= len(whole)
        assert [(g.type, g.payload) for g in got if isinstance(g, Frame)] == [
            pair for pair in whole if pair[0] is not FrameType.DATA
        ][: sum(isinstance(g, Frame) for g in got)]


@pytest.mark.parametrize(
    "head",
    [b"\0\0\0\0\0", b"\x07\0\0\0\0", b"\xff\0\0\0\0", b"\x01\0\0\0\x05", b"\x01\0\0\0\0", b"\x02\0\x01\0\x01",
     b"\x04\0\x10\0\x01", b"\x04\xff\xff\xff\xff", b"\x05\0\0\0\x1f", b"\x12\0\0\0\x01", b"\x20\x7f\xff\xff\xff"],
)  # fmt: skip
def test_impossible_headers_are_refused_before_any_payload(head: bytes) -> None:
    """Unknown types and lengths that can't be: nothing is buffered for them."""
    with pytest.raises(TransferProtocolError):
        list(FrameParser().feed(head))


def test_data_is_not_buffered() -> None:
    """A piece of data is a view of the input; a frame of the largest size costs no memory."""
    parser = FrameParser()
    header = frame(FrameType.DATA)[:1] + MAX_DATA.to_bytes(4, "big")
    assert list(parser.feed(header)) == []
    data = b"y" * 1000
    (piece,) = parser.feed(data)
    assert isinstance(piece, DataPiece)
    assert piece.data.obj is data
    assert not parser.is_between_frames


@given(st.binary(max_size=300))
def test_any_bytes_raise_nothing_but_a_protocol_error(data: bytes) -> None:
    """Also what the payloads say."""
    for start in (b"", STREAM):
        try:
            for kind, payload in parsed([start + data]):
                if kind is FrameType.HAVE:
                    read_haves(payload)
                elif kind is FrameType.FAIL:
                    read_failure(payload)
        except TransferProtocolError:
            pass


def test_changed_bytes_raise_nothing_but_a_protocol_error() -> None:
    """Real streams with bytes changed."""
    rng = random.Random(7)
    for _ in range(3000):
        broken = bytearray(STREAM)
        broken[rng.randrange(len(STREAM))] = rng.randrange(256)
        try:
            parsed([bytes(broken)])
        except TransferProtocolError:
            pass


@pytest.mark.parametrize(
    "cls",
    [TransferRefusedError, DiskFullError, StoreError, VerificationError, SourceError, TransferProtocolError,
     TransferInterruptedError, UnsafeNameError],
)  # fmt: skip
def test_an_error_arrives_as_the_same_class(cls: type[TransferError]) -> None:
    """Each way to fail stays apart from the others on its way to the other side."""
    ((_kind, payload),) = parsed([fail_frame(cls("because"))])
    error = read_failure(payload)
    assert type(error) is cls
    assert str(error) == "the other side says: because"


def test_hostile_reasons_are_defused() -> None:
    """No control characters, cut UTF-8 or unknown codes get through; a reason too long is cut by its sender."""
    assert str(read_failure(b"\x02\x1b[31mred\n")) == "the other side says: \ufffd[31mred\ufffd"
    assert "\ufffd" in str(read_failure(b"\x02\xff\xc3"))
    assert type(read_failure(b"\xc8later")) is TransferError
    assert len(fail_frame(StoreError("é" * 5000))) == 5 + 1 + 1000
    for payload in (b"", bytes(1002)):
        with pytest.raises(TransferProtocolError):
            read_failure(payload)
