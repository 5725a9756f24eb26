"""Where the receiver writes: verified, resumed, numbered, and nothing outside the folder."""

from __future__ import annotations

import errno
import hashlib
import os
import pathlib
import subprocess
import sys

import pytest

from tom_connect.transfer import store as store_module
from tom_connect.transfer.errors import DiskFullError, StoreError, VerificationError
from tom_connect.transfer.manifest import Entry, Manifest
from tom_connect.transfer.store import Store
from tom_connect.transfer.wire import Have

posix = pytest.mark.skipif(os.name != "posix", reason="needs POSIX file types")
DATA = b"hello world"


def sha(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def one(size: int = len(DATA), name: str = "f.txt") -> Manifest:
    return Manifest((Entry(name, size),))


def haves_of(store: Store) -> list[Have]:
    return [have for have in store.claims() if have is not None]


def receive(into: pathlib.Path, data: bytes = DATA, *, overwrite: bool = False, digest: bytes | None = None) -> Store:
    """One file `f.txt` from its first byte, or not at all if it is there already."""
    store = Store(one(len(data)), into, overwrite=overwrite)
    try:
        (have,) = haves_of(store) or [Have(0, 0, b"")]
        offset = have.size if have.digest == sha(data[: have.size]) else 0
        store.start(0, offset)
        if offset < len(data):
            store.write(memoryview(data)[offset:])
        store.end(digest if digest is not None else sha(data))
    finally:
        store.close()
    return store


def names(folder: pathlib.Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_a_file_gets_its_name_when_it_is_verified(tmp_path: pathlib.Path) -> None:
    """Until then it is a partial file; the folder is made."""
    into = tmp_path / "new" / "folder"
    store = Store(one(), into)
    assert haves_of(store) == []
    store.start(0, 0)
    store.write(memoryview(DATA))
    assert names(into) == ["f.txt.tom-part"]
    store.end(sha(DATA))
    assert names(into) == ["f.txt"]
    assert store.place == into / "f.txt"
    assert (into / "f.txt").read_bytes() == DATA
    store.close()


def test_a_wrong_hash_leaves_nothing(tmp_path: pathlib.Path) -> None:
    """What is not what was sent is not kept, not even in part."""
    with pytest.raises(VerificationError, match=r"f\.txt"):
        receive(tmp_path, digest=sha(b"other"))
    assert names(tmp_path) == []


def test_what_broke_off_is_taken_up_again(tmp_path: pathlib.Path) -> None:
    """The second time tells what there is, and adds the rest."""
    first = Store(one(), tmp_path)
    haves_of(first)
    first.start(0, 0)
    first.write(memoryview(DATA)[:5])
    first.close()
    assert names(tmp_path) == ["f.txt.tom-part"]
    second = Store(one(), tmp_path)
    assert haves_of(second) == [Have(0, 5, sha(DATA[:5]))]
    second.start(0, 5)
    second.write(memoryview(DATA)[5:])
    second.end(sha(DATA))
    second.close()
    assert names(tmp_path) == ["f.txt"]
    assert (tmp_path / "f.txt").read_bytes() == DATA


def test_a_part_of_something_else_is_replaced(tmp_path: pathlib.Path) -> None:
    """Where the sender begins at 0 what was there goes, also if it was longer than the new file."""
    for old in (b"hullo", b"x" * 100):
        (tmp_path / "f.txt.tom-part").write_bytes(old)
        assert receive(tmp_path, overwrite=True).stored == [tmp_path / "f.txt"]
        assert (tmp_path / "f.txt").read_bytes() == DATA
        (tmp_path / "f.txt").write_bytes(b"")


def test_a_name_that_is_taken_is_never_overwritten(tmp_path: pathlib.Path) -> None:
    """The new files are numbered before their suffix, whatever has the name."""
    (tmp_path / "f.txt").write_bytes(b"mine")
    (tmp_path / "f (1).txt").mkdir()
    if os.name == "posix":
        (tmp_path / "f (2).txt").symlink_to("nowhere")
    else:
        (tmp_path / "f (2).txt").write_bytes(b"")
    assert receive(tmp_path).stored == [tmp_path / "f (3).txt"]
    assert (tmp_path / "f.txt").read_bytes() == b"mine"
    assert (tmp_path / "f (3).txt").read_bytes() == DATA


def test_a_name_that_is_taken_is_overwritten_when_told(tmp_path: pathlib.Path) -> None:
    """The old file is there until the new one is verified."""
    (tmp_path / "f.txt").write_bytes(b"old")
    with pytest.raises(VerificationError):
        receive(tmp_path, overwrite=True, digest=sha(b"other"))
    assert (tmp_path / "f.txt").read_bytes() == b"old"
    receive(tmp_path, overwrite=True)
    assert names(tmp_path) == ["f.txt"]
    assert (tmp_path / "f.txt").read_bytes() == DATA


def test_a_folder_in_the_way_is_not_overwritten(tmp_path: pathlib.Path) -> None:
    """Not even when told: a folder is more than a file."""
    (tmp_path / "f.txt").mkdir()
    with pytest.raises(StoreError, match=r"f\.txt"):
        receive(tmp_path, overwrite=True)
    assert (tmp_path / "f.txt").is_dir()


@pytest.mark.parametrize("data", [DATA, b""])
def test_the_same_content_is_recognised(tmp_path: pathlib.Path, data: bytes) -> None:
    """A file that is there already is not received again, and nothing is numbered."""
    (tmp_path / "f.txt").write_bytes(data)
    store = receive(tmp_path, data)
    assert names(tmp_path) == ["f.txt"]
    assert store.stored == [tmp_path / "f.txt"]


def test_a_sender_can_not_take_one_file_for_another(tmp_path: pathlib.Path) -> None:
    """Who says that what we have is right must name its SHA-256."""
    (tmp_path / "f.txt").write_bytes(DATA)
    with pytest.raises(VerificationError):
        receive(tmp_path, digest=sha(b"other"))
    assert (tmp_path / "f.txt").read_bytes() == DATA


def test_folders_are_filled_up(tmp_path: pathlib.Path) -> None:
    """What is in a folder of that name stays."""
    (tmp_path / "d" / "sub").mkdir(parents=True)
    (tmp_path / "d" / "mine").write_bytes(b"mine")
    manifest = Manifest((Entry("d", 0, True), Entry("d/sub", 0, True), Entry("d/sub/f", 3), Entry("d/void", 0, True)))
    store = Store(manifest, tmp_path)
    assert haves_of(store) == []
    store.start(2, 0)
    store.write(memoryview(b"abc"))
    store.end(sha(b"abc"))
    store.close()
    assert names(tmp_path) == ["d", "d/mine", "d/sub", "d/sub/f", "d/void"]
    assert store.place == tmp_path / "d"


def test_a_file_in_the_way_of_a_folder_is_named(tmp_path: pathlib.Path) -> None:
    """It is not removed."""
    (tmp_path / "d").write_bytes(b"file")
    with pytest.raises(StoreError, match="in the way"):
        haves_of(Store(Manifest((Entry("d", 0, True),)), tmp_path))
    assert (tmp_path / "d").read_bytes() == b"file"


@posix
def test_links_below_the_folder_are_not_followed(tmp_path: pathlib.Path) -> None:
    """A link in the place of a folder, of a partial file or of the file itself leads nobody outside."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "f").write_bytes(b"theirs")
    into = tmp_path / "into"
    into.mkdir()
    (into / "d").symlink_to(outside)
    with pytest.raises(StoreError, match="symbolic link"):
        haves_of(Store(Manifest((Entry("d", 0, True), Entry("d/f", 6))), into))
    (into / "f.txt.tom-part").symlink_to(outside / "f")
    with pytest.raises(StoreError, match="symbolic link"):
        receive(into)
    (into / "f.txt.tom-part").unlink()
    (into / "f.txt").symlink_to(outside / "f")
    assert haves_of(Store(one(6), into)) == []
    receive(into, overwrite=True)
    assert not (into / "f.txt").is_symlink()
    assert (outside / "f").read_bytes() == b"theirs"
    assert names(outside) == ["f"]


@posix
@pytest.mark.timeout(10)
def test_a_pipe_in_the_place_of_a_partial_file_is_refused(tmp_path: pathlib.Path) -> None:
    """Without waiting for its other end."""
    os.mkfifo(tmp_path / "f.txt.tom-part")
    with pytest.raises(StoreError, match="not a regular file"):
        receive(tmp_path)


@posix
def test_two_transfers_of_one_file_do_not_mix(tmp_path: pathlib.Path) -> None:
    """The second is told that the first goes on, in this program or another; afterwards it may."""
    first = Store(one(), tmp_path)
    haves_of(first)
    first.start(0, 0)
    first.write(memoryview(DATA)[:3])
    with pytest.raises(StoreError, match="another transfer"):
        receive(tmp_path)
    first.close()
    assert receive(tmp_path).stored == [tmp_path / "f.txt"]


@posix
def test_a_partial_file_that_was_finished_meanwhile_is_not_written_to(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between opening and locking another transfer may give it its final name: then a new one is begun."""
    (tmp_path / "f.txt.tom-part").write_bytes(b"theirs")
    original = store_module.fcntl.flock

    def finished_first(fd: int, how: int) -> None:
        monkeypatch.setattr(store_module.fcntl, "flock", original)
        (tmp_path / "f.txt.tom-part").rename(tmp_path / "done")
        original(fd, how)

    monkeypatch.setattr(store_module.fcntl, "flock", finished_first)
    receive(tmp_path)
    assert (tmp_path / "done").read_bytes() == b"theirs"
    assert (tmp_path / "f.txt").read_bytes() == DATA


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EFBIG, errno.EDQUOT])
def test_a_full_disk_is_told_and_what_arrived_stays(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    """Its own error, with the fix; the partial file resumes."""
    real = os.write
    room = 7

    def limited(fd: int, data: memoryview) -> int:
        nonlocal room
        if not room:
            raise OSError(code, os.strerror(code))
        count = real(fd, data[:room])
        room -= count
        return count

    monkeypatch.setattr(store_module.os, "write", limited)
    with pytest.raises(DiskFullError, match="send again to resume"):
        receive(tmp_path)
    monkeypatch.undo()
    assert (tmp_path / "f.txt.tom-part").read_bytes() == DATA[:7]
    store = Store(one(), tmp_path)
    assert haves_of(store) == [Have(0, 7, sha(DATA[:7]))]
    store.close()


@posix
def test_a_real_limit_of_the_system_is_a_full_disk(tmp_path: pathlib.Path) -> None:
    """A process that may not write more than 1 MiB into a file; what fits is kept."""
    code = """
import hashlib, pathlib, resource, sys
from tom_connect.transfer.errors import DiskFullError
from tom_connect.transfer.manifest import Entry, Manifest
from tom_connect.transfer.store import Store
resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, 2**20))
store = Store(Manifest((Entry("f", 2**22),)), pathlib.Path(sys.argv[1]))
list(store.claims())
store.start(0, 0)
try:
    store.write(memoryview(bytes(2**22)))
except DiskFullError as exc:
    store.close()
    print(exc)
"""
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
    assert "no room left" in done.stdout
    assert (tmp_path / "f.tom-part").stat().st_size == 2**20


def test_a_place_that_can_not_be_written_is_named(tmp_path: pathlib.Path) -> None:
    """One line with the path."""
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StoreError, match="file"):
        haves_of(Store(one(), tmp_path / "file"))


def test_an_empty_part_is_not_left_behind(tmp_path: pathlib.Path) -> None:
    """A transfer that broke off before the first byte leaves no trace."""
    store = Store(one(), tmp_path)
    haves_of(store)
    store.start(0, 0)
    store.close()
    assert names(tmp_path) == []


def test_a_look_at_long_files_gives_the_loop_a_turn(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Now and then the look says None, so that it can be ended."""
    monkeypatch.setattr(store_module, "PAUSE", 1024 * 1024)
    (tmp_path / "f.txt").write_bytes(bytes(4 * 1024 * 1024))
    store = Store(one(4 * 1024 * 1024), tmp_path)
    found = list(store.claims())
    assert found[:4] == [None] * 4
    assert found[4] == Have(0, 4 * 1024 * 1024, sha(bytes(4 * 1024 * 1024)))
    store.close()


@posix
def test_many_parts_don_t_exhaust_file_descriptors(tmp_path: pathlib.Path) -> None:
    """Only so many partial files are taken up; the others begin anew."""
    folder = tmp_path / "d"
    folder.mkdir()
    for n in range(200):
        (folder / f"{n}.tom-part").write_bytes(b"x")
    store = Store(Manifest((Entry("d", 0, True), *(Entry(f"d/{n}", 2) for n in range(200)))), tmp_path)
    assert len(haves_of(store)) == store_module.MAX_OPEN_PARTIALS
    store.start(200, 0)
    store.close()
