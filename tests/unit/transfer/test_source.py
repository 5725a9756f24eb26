"""What the sender reads: trees, links, files that change, places to resume from."""

from __future__ import annotations

import hashlib
import os
import pathlib

import pytest

from tom_connect.transfer import source as source_module
from tom_connect.transfer.errors import SourceError
from tom_connect.transfer.manifest import Entry
from tom_connect.transfer.protocol import SenderProtocol
from tom_connect.transfer.source import BATCH, Outgoing, scan
from tom_connect.transfer.wire import DataPiece, Frame, FrameParser, FrameType, Have, read_file

posix = pytest.mark.skipif(os.name != "posix", reason="needs POSIX file types")


def frames_of(path: pathlib.Path, haves: dict[int, Have] | None = None) -> list[tuple[FrameType, bytes]]:
    """All that is sent of a file or folder after the offer was taken."""
    source = scan(path)
    outgoing = Outgoing(source, SenderProtocol(source.manifest), haves or {})
    parser = FrameParser()
    found: list[tuple[FrameType, bytes]] = []
    try:
        while (batch := outgoing.next_batch()) is not None:
            for piece in batch.pieces:
                for got in parser.feed(piece):
                    if isinstance(got, Frame):
                        found.append((got.type, got.payload))
                    elif found[-1][0] is FrameType.DATA:
                        found[-1] = (FrameType.DATA, found[-1][1] + bytes(got.data))
                    else:
                        assert isinstance(got, DataPiece)
                        found.append((FrameType.DATA, bytes(got.data)))
    finally:
        outgoing.close()
    assert parser.is_between_frames
    return found


def test_a_tree_is_listed_in_order(tmp_path: pathlib.Path) -> None:
    """Folders before what they hold, by name, empty ones too; the name is the folder's own, however it is written."""
    root = tmp_path / "photos"
    (root / "b" / "c").mkdir(parents=True)
    (root / "empty").mkdir()
    (root / "b" / "two").write_bytes(b"22")
    (root / "a").write_bytes(b"1")
    expected = [
        Entry("photos", 0, True), Entry("photos/a", 1), Entry("photos/b", 0, True), Entry("photos/b/c", 0, True),
        Entry("photos/b/two", 2), Entry("photos/empty", 0, True),
    ]  # fmt: skip
    for path in (root, root / "b" / "..", pathlib.Path(f"{root}/")):
        assert list(scan(path).manifest.entries) == expected


def test_a_file_is_sent_whole(tmp_path: pathlib.Path) -> None:
    """FILE, its bytes, and the SHA-256 of all of them."""
    data = os.urandom(3 * BATCH + 17)
    (tmp_path / "f").write_bytes(data)
    frames = frames_of(tmp_path / "f")
    assert [kind for kind, _payload in frames] == [FrameType.FILE, FrameType.DATA, FrameType.END]
    assert frames[1][1] == data
    assert frames[2][1] == hashlib.sha256(data).digest()


@pytest.mark.parametrize("had", [1, 1000, BATCH, 3 * BATCH])
def test_a_matching_beginning_is_not_sent_again(tmp_path: pathlib.Path, had: int) -> None:
    """Sending begins where the receiver's part ends; the SHA-256 is still that of all."""
    data = os.urandom(3 * BATCH)
    (tmp_path / "f").write_bytes(data)
    frames = frames_of(tmp_path / "f", {0: Have(0, had, hashlib.sha256(data[:had]).digest())})
    assert read_file(frames[0][1]) == (0, had)
    assert b"".join(payload for kind, payload in frames if kind is FrameType.DATA) == data[had:]
    assert frames[-1] == (FrameType.END, hashlib.sha256(data).digest())


def test_another_beginning_is_sent_anew(tmp_path: pathlib.Path) -> None:
    """A part that is not the beginning of this file counts for nothing."""
    (tmp_path / "f").write_bytes(b"hello world")
    frames = frames_of(tmp_path / "f", {0: Have(0, 5, hashlib.sha256(b"hullo").digest())})
    assert read_file(frames[0][1]) == (0, 0)
    assert frames[1][1] == b"hello world"


def test_a_long_look_gives_the_loop_a_turn(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While a long beginning is compared the receiver hears that we are busy."""
    monkeypatch.setattr(source_module, "PAUSE", 1024 * 1024)
    data = bytes(4 * 1024 * 1024)
    (tmp_path / "f").write_bytes(data)
    frames = frames_of(tmp_path / "f", {0: Have(0, len(data), hashlib.sha256(data).digest())})
    assert [kind for kind, _payload in frames] == [FrameType.BUSY] * 4 + [FrameType.FILE, FrameType.END]


@posix
def test_links_and_devices_in_a_folder_are_left_out_and_told(tmp_path: pathlib.Path) -> None:
    """A link could lead anywhere; a pipe has no end."""
    root = tmp_path / "d"
    root.mkdir()
    (root / "file").write_bytes(b"x")
    (root / "link").symlink_to("/etc/passwd")
    (root / "folder").symlink_to(tmp_path)
    os.mkfifo(root / "pipe")
    found = scan(root)
    assert [entry.path for entry in found.manifest.entries] == ["d", "d/file"]
    assert {path.name for path in found.skipped} == {"link", "folder", "pipe"}


@posix
def test_a_link_that_is_named_is_followed(tmp_path: pathlib.Path) -> None:
    """Under its own name."""
    (tmp_path / "target").write_bytes(b"abc")
    (tmp_path / "name").symlink_to(tmp_path / "target")
    assert scan(tmp_path / "name").manifest.entries == (Entry("name", 3),)
    assert frames_of(tmp_path / "name")[1] == (FrameType.DATA, b"abc")


@posix
def test_a_file_that_became_a_link_is_not_followed(tmp_path: pathlib.Path) -> None:
    """Between the look and the reading somebody may have changed it."""
    root = tmp_path / "d"
    root.mkdir()
    (root / "f").write_bytes(b"abc")
    (tmp_path / "secret").write_bytes(b"xyz")
    found = scan(root)
    (root / "f").unlink()
    (root / "f").symlink_to(tmp_path / "secret")
    outgoing = Outgoing(found, SenderProtocol(found.manifest), {})
    with pytest.raises(SourceError):
        outgoing.next_batch()
    outgoing.close()


@pytest.mark.parametrize("change", ["longer", "shorter", "gone", "folder"])
def test_a_file_that_changed_is_named(tmp_path: pathlib.Path, change: str) -> None:
    """Another size or kind than was offered ends the transfer."""
    path = tmp_path / "f"
    path.write_bytes(b"12345")
    found = scan(path)
    path.unlink()
    if change == "folder":
        path.mkdir()
    elif change != "gone":
        path.write_bytes(b"123456789" if change == "longer" else b"123")
    outgoing = Outgoing(found, SenderProtocol(found.manifest), {})
    with pytest.raises(SourceError, match="f"):
        outgoing.next_batch()
    outgoing.close()


@pytest.mark.timeout(20)
def test_a_file_that_shrinks_while_it_is_sent_is_named(tmp_path: pathlib.Path) -> None:
    """The rest can't be invented."""
    path = tmp_path / "f"
    path.write_bytes(bytes(3 * BATCH))
    found = scan(path)
    outgoing = Outgoing(found, SenderProtocol(found.manifest), {})
    assert outgoing.next_batch() is not None
    os.truncate(path, 10)
    with pytest.raises(SourceError, match="shorter"):
        list(iter(outgoing.next_batch, None))
    outgoing.close()


@pytest.mark.parametrize("name", ["gone", ""])
def test_what_is_not_there_is_named(tmp_path: pathlib.Path, name: str) -> None:
    """One line with the path and the reason; the root folder has no name to be sent under."""
    path = tmp_path / name if name else pathlib.Path(tmp_path.anchor)
    with pytest.raises(SourceError, match=r"gone|has no name"):
        scan(path)


@posix
def test_links_in_a_circle_are_named(tmp_path: pathlib.Path) -> None:
    """Whatever this Python's error for them is."""
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(SourceError, match="loop"):
        scan(tmp_path / "loop")


@posix
@pytest.mark.parametrize("name", [b"not\xffutf8", b"back\\slash", b"new\nline", b"x.tom-part"])
def test_names_that_can_not_be_sent_are_named_before_anything_is(tmp_path: pathlib.Path, name: bytes) -> None:
    """Rather than after half the folder."""
    root = tmp_path / "d"
    root.mkdir()
    try:
        (root / os.fsdecode(name)).write_bytes(b"x")
    except OSError:
        pytest.skip("needs a file system that takes any bytes as a name")
    with pytest.raises(SourceError, match="can't send"):
        scan(root)


def test_many_small_files_come_in_batches(tmp_path: pathlib.Path) -> None:
    """No batch grows without bound, however small the files are."""
    root = tmp_path / "d"
    root.mkdir()
    for n in range(1000):
        (root / f"{n:04}").write_bytes(b"x")
    found = scan(root)
    outgoing = Outgoing(found, SenderProtocol(found.manifest), {})
    batches = []
    while (batch := outgoing.next_batch()) is not None:
        batches.append(batch)
    outgoing.close()
    assert len(batches) >= 4
    assert sum(batch.data for batch in batches) == 1000
