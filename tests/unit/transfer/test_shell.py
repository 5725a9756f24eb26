"""Whole transfers between two ends in memory or over sockets: success, resumption and every way to fail."""

from __future__ import annotations

import asyncio
import hashlib
import os
import pathlib
import random
import socket
import threading
from collections.abc import Coroutine
from typing import Any

import pytest

from tests.unit.transfer.pipes import Pipe
from tom_connect.transfer import (
    DiskFullError,
    Manifest,
    Progress,
    SourceError,
    TransferInterruptedError,
    TransferProtocolError,
    TransferRefusedError,
    TransferResult,
    UnsafeNameError,
    VerificationError,
    receive_stream,
    scan,
    send_stream,
)
from tom_connect.transfer import shell as shell_module
from tom_connect.transfer import source as source_module
from tom_connect.transfer import store as store_module
from tom_connect.transfer.manifest import Entry, encode_entries
from tom_connect.transfer.wire import FrameType, frame, offer_frame

pytestmark = pytest.mark.timeout(60)
SIZE = 3_000_017


class Line:
    """A sender's and a receiver's end, joined by two pipes."""

    def __init__(self, forth: Pipe | None = None, back: Pipe | None = None) -> None:
        self.forth = forth or Pipe()
        self.back = back or Pipe()

    def send(self, source: pathlib.Path, **more: Any) -> Coroutine[Any, Any, TransferResult]:
        return send_stream(self.back.reader, self.forth, source, **more)

    def receive(self, into: pathlib.Path, **more: Any) -> Coroutine[Any, Any, TransferResult]:
        return receive_stream(self.forth.reader, self.back, into, **more)

    async def both(
        self, source: pathlib.Path, into: pathlib.Path, **more: Any
    ) -> tuple[TransferResult | BaseException, TransferResult | BaseException]:
        """What each side returned or raised."""
        sent, received = await asyncio.gather(self.send(source), self.receive(into, **more), return_exceptions=True)
        return sent, received


@pytest.fixture
def file(tmp_path: pathlib.Path) -> pathlib.Path:
    path = tmp_path / "from" / "film.mkv"
    path.parent.mkdir()
    path.write_bytes(random.Random(9).randbytes(SIZE))
    return path


@pytest.fixture
def into(tmp_path: pathlib.Path) -> pathlib.Path:
    return tmp_path / "into"


def tree(root: pathlib.Path) -> dict[str, bytes | None]:
    return {str(p.relative_to(root)): p.read_bytes() if p.is_file() else None for p in sorted(root.rglob("*"))}


async def test_a_file_arrives(file: pathlib.Path, into: pathlib.Path) -> None:
    """Both sides tell the same numbers; the content is equal; nothing else is left."""
    sent, received = await Line().both(file, into)
    assert isinstance(sent, TransferResult)
    assert isinstance(received, TransferResult)
    assert tree(into) == {"film.mkv": file.read_bytes()}
    assert (sent.moved, sent.had) == (received.moved, received.had) == (SIZE, 0)
    assert received.place == into / "film.mkv"
    assert received.stored == (into / "film.mkv",)
    assert sent.sha256 == received.sha256 == hashlib.sha256(file.read_bytes()).digest()


async def test_a_folder_arrives(tmp_path: pathlib.Path, into: pathlib.Path) -> None:
    """With all that is in it: many small files, empty ones, empty folders, a large one."""
    root = tmp_path / "photos"
    (root / "deep" / "er").mkdir(parents=True)
    (root / "empty").mkdir()
    rng = random.Random(10)
    for n in range(300):
        (root / "deep" / f"{n}.jpg").write_bytes(rng.randbytes(rng.randrange(3000)))
    (root / "deep" / "er" / "large").write_bytes(rng.randbytes(2_000_000))
    (root / "nothing").write_bytes(b"")
    sent, received = await Line().both(root, into)
    assert isinstance(sent, TransferResult)
    assert isinstance(received, TransferResult)
    assert tree(into) == {"photos": None} | {f"photos/{name}": data for name, data in tree(root).items()}
    assert received.place == into / "photos"
    assert len(received.stored) == 302
    again, _ = await Line().both(root, into)
    assert isinstance(again, TransferResult)
    assert (again.moved, again.had) == (0, sent.moved)


async def test_it_works_over_asyncio_streams(file: pathlib.Path, into: pathlib.Path) -> None:
    """StreamReader and StreamWriter of a socket will do."""
    here, there = socket.socketpair()
    reader, writer = await asyncio.open_connection(sock=here)
    other_reader, other_writer = await asyncio.open_connection(sock=there)
    try:
        await asyncio.gather(send_stream(reader, writer, file), receive_stream(other_reader, other_writer, into))
    finally:
        for end in (writer, other_writer):
            end.close()
            await end.wait_closed()
    assert tree(into) == {"film.mkv": file.read_bytes()}


async def test_progress_is_told(file: pathlib.Path, into: pathlib.Path) -> None:
    """It grows to the total at both sides, and names the file."""
    told: dict[str, list[Progress]] = {"sent": [], "received": []}
    line = Line()
    await asyncio.gather(
        line.send(file, on_progress=told["sent"].append), line.receive(into, on_progress=told["received"].append)
    )
    for steps in told.values():
        assert [step.done for step in steps] == sorted(step.done for step in steps)
        assert steps[-1].done == steps[-1].total == SIZE
        assert {step.path for step in steps} == {"film.mkv"}


@pytest.mark.parametrize("cut_after", [1, 60, 70, 1000, 600_000, 2_999_000, SIZE + 60])
async def test_a_transfer_that_broke_off_resumes(file: pathlib.Path, into: pathlib.Path, cut_after: int) -> None:
    """Wherever it breaks, each side says so; what arrived stays, and the second time only the rest goes over."""
    line = Line(forth=Pipe(cut_after=cut_after))
    sending = asyncio.create_task(line.send(file))
    received = await asyncio.gather(line.receive(into), return_exceptions=True)
    line.back.break_off()
    sent = await asyncio.gather(sending, return_exceptions=True)
    assert [type(error) for error in (*sent, *received)] == [TransferInterruptedError] * 2
    partial = into / "film.mkv.tom-part"
    arrived = partial.stat().st_size if partial.exists() else 0
    assert arrived >= cut_after - 200 - 5 * (cut_after // source_module.CHUNK)
    assert not (into / "film.mkv").exists()
    sent, received = await Line().both(file, into)  # type: ignore[assignment]
    assert isinstance(sent, TransferResult)
    assert (sent.had, sent.moved) == (arrived, SIZE - arrived)
    assert tree(into) == {"film.mkv": file.read_bytes()}


async def test_a_receiver_that_goes_away_is_told_from_others(file: pathlib.Path, into: pathlib.Path) -> None:
    """The sender says how far it was and what to do."""
    line = Line()
    sending = asyncio.create_task(line.send(file))
    receiving = asyncio.create_task(line.receive(into, on_progress=lambda _: line.back.break_off()))
    await asyncio.wait((receiving,))
    line.forth.break_off()
    with pytest.raises(TransferInterruptedError, match=r"of 3000017 bytes had gone over.*again resumes"):
        await sending
    with pytest.raises(TransferInterruptedError):
        await receiving


def flip(data: bytes) -> bytes:
    """Change a byte in the middle of anything long."""
    return data if len(data) < 100_000 else data[:50_000] + bytes((data[50_000] ^ 1,)) + data[50_001:]


async def test_changed_data_is_an_error_of_its_own(file: pathlib.Path, into: pathlib.Path) -> None:
    """At both sides; nothing of it is kept."""
    sent, received = await Line(forth=Pipe(tamper=flip)).both(file, into)
    assert type(sent) is VerificationError
    assert type(received) is VerificationError
    assert tree(into) == {}


async def test_a_full_disk_is_an_error_of_its_own(
    file: pathlib.Path, into: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At both sides; what arrived stays and resumes when there is room."""
    real = os.write

    def limited(fd: int, data: memoryview) -> int:
        if os.fstat(fd).st_size >= 1_000_000:
            raise OSError(28, "No space left on device")
        return real(fd, data[:300_000])

    monkeypatch.setattr(store_module.os, "write", limited)
    sent, received = await Line().both(file, into)
    assert type(sent) is DiskFullError
    assert str(sent).startswith("the other side says: no room left")
    assert type(received) is DiskFullError
    monkeypatch.undo()
    assert (into / "film.mkv.tom-part").stat().st_size >= 1_000_000
    sent, received = await Line().both(file, into)
    assert isinstance(received, TransferResult)
    assert received.had >= 1_000_000
    assert tree(into) == {"film.mkv": file.read_bytes()}


async def test_an_offer_can_be_declined(file: pathlib.Path, into: pathlib.Path) -> None:
    """The sender hears it; nothing is made."""
    asked: list[Manifest] = []

    async def decline(manifest: Manifest) -> bool:
        asked.append(manifest)
        return False

    sent, received = await Line().both(file, into, decide=decline)
    assert type(sent) is TransferRefusedError
    assert type(received) is TransferRefusedError
    assert asked == [Manifest((Entry("film.mkv", SIZE),))]
    assert not into.exists()


async def test_a_source_that_changes_is_told_to_both(file: pathlib.Path, into: pathlib.Path) -> None:
    """The receiver does not take it for a lost connection."""
    found = scan(file)
    file.write_bytes(b"shorter")
    line = Line()
    sent, received = await asyncio.gather(
        send_stream(line.back.reader, line.forth, found), line.receive(into), return_exceptions=True
    )
    assert type(sent) is SourceError
    assert type(received) is SourceError
    assert str(received).startswith("the other side says:")


async def test_what_is_not_there_can_not_be_sent(tmp_path: pathlib.Path) -> None:
    """Nothing goes over the line."""
    line = Line()
    with pytest.raises(SourceError, match="gone"):
        await line.send(tmp_path / "gone")
    assert line.forth.passed == 0


async def test_an_unsafe_name_is_refused_and_told(into: pathlib.Path) -> None:
    """A sender that is not ours offers a way out of the folder."""
    line = Line()
    line.forth.write(offer_frame(1) + frame(FrameType.ENTRIES, encode_entries([Entry("../evil", 1)])))
    with pytest.raises(UnsafeNameError):
        await line.receive(into)
    said = await line.back.reader.read()
    assert said[0] == FrameType.FAIL
    assert b"../evil" in said
    assert not into.exists()


@pytest.mark.parametrize("data", [b"GET / HTTP/1.1\r\n\r\n", bytes(64), b"\xff" * 64])
async def test_a_stranger_s_protocol_is_refused(into: pathlib.Path, file: pathlib.Path, data: bytes) -> None:
    """Whoever speaks something else is told so, by receiver and sender."""
    line = Line()
    line.forth.write(data)
    with pytest.raises(TransferProtocolError):
        await line.receive(into)
    line = Line()
    line.back.write(data)
    with pytest.raises(TransferProtocolError):
        await line.send(file)


async def test_a_silent_sender_is_given_up(into: pathlib.Path) -> None:
    """Before its offer and after it."""
    with pytest.raises(TransferInterruptedError, match=r"offered nothing for 0\.05 s"):
        await Line().receive(into, offer_timeout=0.05)
    line = Line()
    line.forth.write(offer_frame(1) + frame(FrameType.ENTRIES, encode_entries([Entry("f", 1)])))
    with pytest.raises(TransferInterruptedError, match=r"silent for 0\.05 s"):
        await line.receive(into, stall_timeout=0.05)


async def test_being_stopped_tells_the_other_side(file: pathlib.Path, into: pathlib.Path) -> None:
    """Either side may be cancelled at any time; the other hears an interruption, and no thread or file stays open."""
    for stopped in ("sender", "receiver"):
        line = Line()
        gate = asyncio.Event()
        ends = {
            "sender": asyncio.create_task(line.send(file, on_progress=lambda _, gate=gate: gate.set())),
            "receiver": asyncio.create_task(line.receive(into)),
        }
        await gate.wait()
        ends[stopped].cancel()
        outcomes = await asyncio.gather(*ends.values(), return_exceptions=True)
        by_name = dict(zip(ends, outcomes, strict=True))
        assert isinstance(by_name.pop(stopped), asyncio.CancelledError)
        (other,) = by_name.values()
        assert type(other) is TransferInterruptedError
        assert "was stopped" in str(other)


async def test_a_failing_receiver_is_heard_although_sending_fails_first(
    file: pathlib.Path, into: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the receiver says why and closes, the sender may notice the closing first: it waits for the reason."""
    line = Line()

    async def offer_taken() -> None:
        await line.forth.reader.read(1)
        line.back.write(frame(FrameType.BEGIN))
        line.forth.cut.set()
        line.forth.reader.was_read.set()
        asyncio.get_running_loop().call_later(0.05, line.back.write, frame(FrameType.FAIL, b"\x02no room left"))

    monkeypatch.setattr(shell_module, "LAST_WORD", 5.0)
    sent, _ = await asyncio.gather(line.send(file), offer_taken(), return_exceptions=True)
    assert type(sent) is DiskFullError


async def test_memory_is_bounded_by_backpressure(file: pathlib.Path, into: pathlib.Path) -> None:
    """A receiver that stores slowly stops the sender within a few MiB."""
    large = file.with_name("large")
    with large.open("wb") as out:
        out.truncate(40_000_000)
    line = Line()
    held = asyncio.Event()

    store_write = store_module.Store.write
    release = threading.Event()
    loop = asyncio.get_running_loop()

    def slow(self: store_module.Store, data: memoryview) -> None:
        loop.call_soon_threadsafe(held.set)
        release.wait(20)
        store_write(self, data)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store_module.Store, "write", slow)
        both = asyncio.create_task(line.both(large, into))
        await held.wait()
        await asyncio.sleep(0.2)  # what could pass in this time is a hundred times the bound
        assert line.forth.passed < 8_000_000
        release.set()
        await both
    assert hashlib.sha256((into / "large").read_bytes()).digest() == hashlib.sha256(bytes(40_000_000)).digest()
