"""The two ends of the protocol, fed to each other, and peers that break its rules."""

from __future__ import annotations

import hashlib
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tom_connect.transfer.errors import (
    DiskFullError,
    TransferError,
    TransferInterruptedError,
    TransferProtocolError,
    UnsafeNameError,
)
from tom_connect.transfer.manifest import MAX_ENTRIES, MAX_LIST, Entry, Manifest, encode_entries
from tom_connect.transfer.protocol import (
    Accepted,
    Completed,
    FileData,
    FileEnded,
    FileStarted,
    Offered,
    ReceiverProtocol,
    SenderProtocol,
    SenderState,
)
from tom_connect.transfer.wire import FrameType, Have, fail_frame, file_frame, frame, have_frames, offer_frame

DIGEST = hashlib.sha256(b"hello").digest()
ONE = Manifest((Entry("f", 5),))
TREE = Manifest((Entry("d", 0, True), Entry("d/a", 5), Entry("d/b", 0), Entry("d/c", 3)))


def accepting(manifest: Manifest, haves: list[Have] | None = None) -> ReceiverProtocol:
    """A receiver that has taken an offer."""
    receiver = ReceiverProtocol()
    list(receiver.receive(SenderProtocol(manifest).offer()))
    receiver.accept(haves or [])
    return receiver


def test_a_whole_transfer() -> None:
    """Offer, answer, a file that is resumed, an empty one, a new one, and the end: both agree at every step."""
    sender, receiver = SenderProtocol(TREE), ReceiverProtocol()
    (offered,) = receiver.receive(sender.offer())
    assert offered == Offered(TREE)
    have = Have(1, 2, hashlib.sha256(b"he").digest())
    assert list(sender.receive(receiver.accept([have]))) == [Accepted({1: have})]
    assert not receiver.is_complete
    assert list(receiver.receive(sender.start_file(1, 2))) == [FileStarted(1, 2)]
    assert list(receiver.receive(sender.busy())) == []
    (data,) = receiver.receive(sender.data_header(3) + b"llo")
    assert isinstance(data, FileData)
    assert bytes(data.data) == b"llo"
    assert list(receiver.receive(sender.end_file(DIGEST))) == [FileEnded(DIGEST)]
    assert list(receiver.receive(sender.start_file(2, 0) + sender.end_file(DIGEST))) == [
        FileStarted(2, 0),
        FileEnded(DIGEST),
    ]
    rest = sender.start_file(3, 0) + sender.data_header(3) + b"xyz" + sender.end_file(DIGEST)
    assert len(list(receiver.receive(rest))) == 3
    assert receiver.is_complete
    receiver.eof()
    assert list(sender.receive(receiver.done())) == [Completed()]
    assert sender.state is SenderState.DONE
    sender.eof()


@given(st.integers(1, 3000), st.integers(0, 10**9))
def test_long_lists_of_any_length_arrive(count: int, seed: int) -> None:
    """An offer of many entries is one manifest at the other side, however its bytes are cut."""
    rng = random.Random(seed)
    manifest = Manifest((Entry("d", 0, True), *(Entry(f"d/{n:0{rng.randrange(5, 99)}}", n) for n in range(count))))
    data = SenderProtocol(manifest).offer()
    receiver = ReceiverProtocol()
    cut = rng.randrange(len(data))
    assert [*receiver.receive(data[:cut]), *receiver.receive(data[cut:])] == [Offered(manifest)]


@pytest.mark.parametrize(
    "data",
    [
        frame(FrameType.ENTRIES, encode_entries([Entry("f")])),
        offer_frame(0),
        offer_frame(MAX_ENTRIES + 1),
        offer_frame(1) * 2,
        offer_frame(1) + frame(FrameType.ENTRIES),
        offer_frame(1) + frame(FrameType.ENTRIES, encode_entries(TREE.entries)),
        offer_frame(1) + frame(FrameType.ENTRIES, b"\x05"),
        offer_frame(1) + frame(FrameType.ENTRIES, encode_entries([Entry("../f")])),
        offer_frame(2) + frame(FrameType.ENTRIES, encode_entries([Entry("a"), Entry("b")])),
        file_frame(0, 0),
        frame(FrameType.DATA, b"x"),
        frame(FrameType.END, DIGEST),
        frame(FrameType.BEGIN),
        frame(FrameType.DONE),
        have_frames([Have(0, 1, DIGEST)]),
        SenderProtocol(ONE).offer() + file_frame(0, 0),
    ],
    ids=range(16),
)
def test_offers_that_break_the_rules(data: bytes) -> None:
    """Wrong counts, names, trees, or anything else before we have answered."""
    with pytest.raises(TransferError):
        list(ReceiverProtocol().receive(data))


def test_a_list_is_bounded_in_bytes_too() -> None:
    """Few entries announced, or long names: what is kept in memory has a limit."""
    receiver = ReceiverProtocol()
    list(receiver.receive(offer_frame(MAX_ENTRIES)))
    long = encode_entries([Entry("/".join(["n" * 200] * 5))] * 60)
    for _ in range(MAX_LIST // len(long)):
        assert list(receiver.receive(frame(FrameType.ENTRIES, long))) == []
    with pytest.raises(TransferProtocolError, match="more than"):
        list(receiver.receive(frame(FrameType.ENTRIES, long)))


@pytest.mark.parametrize(
    "data",
    [
        file_frame(0, 0),
        file_frame(2, 0),
        file_frame(9, 0),
        file_frame(1, 1),
        file_frame(1, 6),
        file_frame(1, 0) * 2,
        file_frame(1, 0) + frame(FrameType.END, DIGEST),
        file_frame(1, 0) + frame(FrameType.DATA, b"123456"),
        file_frame(1, 0) + frame(FrameType.DATA, b"12345") + frame(FrameType.DATA, b"6"),
        file_frame(1, 2) + frame(FrameType.DATA, b"1234"),
        frame(FrameType.DATA, b"1"),
        frame(FrameType.END, DIGEST),
        offer_frame(1),
        frame(FrameType.ENTRIES, encode_entries([Entry("f")])),
        file_frame(1, 0) + frame(FrameType.DATA, b"12345") + frame(FrameType.END, DIGEST) + file_frame(1, 0),
        file_frame(1, 0) + frame(FrameType.DATA, b"12345") + frame(FrameType.END, DIGEST) * 2,
    ],
    ids=range(16),
)
def test_files_that_break_the_rules(data: bytes) -> None:
    """Folders sent as files, wrong turns and places, too little, too much, or a second offer."""
    receiver = accepting(TREE, [Have(1, 2, DIGEST)])
    with pytest.raises(TransferProtocolError):
        list(receiver.receive(data))


@pytest.mark.parametrize(
    "data",
    [
        frame(FrameType.DONE),
        have_frames([Have(0, 0, DIGEST)]),
        have_frames([Have(9, 0, DIGEST)]),
        have_frames([Have(1, 6, DIGEST)]),
        have_frames([Have(1, 5, DIGEST)] * 2),
        frame(FrameType.HAVE, bytes(43)),
        frame(FrameType.BEGIN) * 2,
        frame(FrameType.BEGIN) + have_frames([Have(1, 5, DIGEST)]),
        frame(FrameType.BEGIN) + frame(FrameType.DONE) * 2,
        frame(FrameType.DATA, b"x"),
        frame(FrameType.BUSY),
        offer_frame(1),
    ],
    ids=range(12),
)
def test_receivers_that_break_the_rules(data: bytes) -> None:
    """Parts of folders, of what was not offered, longer than the file, told twice; words out of turn; data."""
    with pytest.raises(TransferProtocolError):
        list(SenderProtocol(TREE).receive(data))


def test_failures_are_raised_at_the_other_side() -> None:
    """At any point, by either side."""
    with pytest.raises(DiskFullError, match="the other side says: full"):
        list(SenderProtocol(ONE).receive(fail_frame(DiskFullError("full"))))
    with pytest.raises(UnsafeNameError, match="odd"):
        list(ReceiverProtocol().receive(fail_frame(UnsafeNameError("odd"))))


def test_an_early_end_is_an_interruption() -> None:
    """Each side knows whether the other had said all it had to say."""
    with pytest.raises(TransferInterruptedError):
        SenderProtocol(ONE).eof()
    with pytest.raises(TransferInterruptedError):
        ReceiverProtocol().eof()
    receiver = accepting(ONE)
    list(receiver.receive(file_frame(0, 0)))
    with pytest.raises(TransferInterruptedError):
        receiver.eof()


@given(st.binary(max_size=200), st.booleans())
def test_any_bytes_raise_nothing_but_transfer_errors(data: bytes, accepted: bool) -> None:
    """To a receiver before and after its answer, and to a sender."""
    receiver = accepting(TREE) if accepted else ReceiverProtocol()
    for end in (receiver, SenderProtocol(TREE)):
        try:
            list(end.receive(data))
        except TransferError:
            pass


def test_changed_streams_raise_nothing_but_transfer_errors() -> None:
    """Whole conversations with bytes changed."""
    rng = random.Random(8)
    sender = SenderProtocol(TREE)
    said = sender.offer() + file_frame(1, 0) + frame(FrameType.DATA, b"hello") + frame(FrameType.END, DIGEST)
    for _ in range(3000):
        broken = bytearray(said)
        broken[rng.randrange(len(said))] = rng.randrange(256)
        receiver = ReceiverProtocol()
        try:
            for event in receiver.receive(bytes(broken)):
                if isinstance(event, Offered):
                    receiver.accept([])
        except TransferError:
            pass
