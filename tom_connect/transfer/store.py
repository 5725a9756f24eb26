"""Where the receiver writes: one folder of this machine, and nothing outside it. Blocks; call it in a thread.

A file arrives as `NAME.tom-part` and gets its name when its SHA-256 has been verified. What broke off stays under that
name and is taken up again. A file that has the name already is never replaced, unless overwriting is asked for: the new
one becomes `NAME (1)`. One with the same content is recognised and not received again. Folders that exist are filled
up. Symbolic links below the folder are not followed.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from tom_connect.noreplace import rename_without_replacing
from tom_connect.transfer.errors import DiskFullError, StoreError, VerificationError
from tom_connect.transfer.manifest import PARTIAL_SUFFIX, Entry, Manifest
from tom_connect.transfer.wire import Have

if TYPE_CHECKING:
    from hashlib import _Hash

if sys.platform != "win32":
    import fcntl

PAUSE = 64 * 1024 * 1024
"""Bytes hashed before the event loop gets a turn; some 50 ms."""
MAX_NUMBER = 9999
"""How many files of one name a folder can hold."""
MAX_OPEN_PARTIALS = 64
"""Partial files taken up at once; a transfer that broke off leaves one."""
_CHUNK = 1024 * 1024
_COMMON = (
    getattr(os, "O_NOFOLLOW", 0)
    | getattr(os, "O_NONBLOCK", 0)
    | getattr(os, "O_CLOEXEC", 0)
    | getattr(os, "O_BINARY", 0)
)
_FULL = {errno.ENOSPC, errno.EFBIG, *({errno.EDQUOT} if hasattr(errno, "EDQUOT") else ())}
_REPARSE_LINKS = {0xA000000C, 0xA0000003}  # Windows: IO_REPARSE_TAG_SYMLINK and IO_REPARSE_TAG_MOUNT_POINT


@attrs.define
class _Claim:
    """What is there of a file: a partial file that is open and locked, or a whole one (`fd` None)."""

    size: int
    digest: _Hash
    fd: int | None


@attrs.define
class _Current:
    """The file that is being received; `fd` None if it is there already."""

    entry: Entry
    digest: _Hash
    fd: int | None
    written: int


class Store:
    """Takes one transfer into a folder. Use: `claims`, then `start`, `write` and `end` for each file, then `close`.

    All of them raise StoreError, or DiskFullError if there is no room.
    """

    def __init__(self, manifest: Manifest, into: Path, *, overwrite: bool = False) -> None:
        self._manifest = manifest
        self._into = into
        self._overwrite = overwrite
        self._claims: dict[int, _Claim] = {}
        self._current: _Current | None = None
        self.stored: list[Path] = []
        """The files as they were named in the end, those that were there already included."""
        self.last_digest: bytes | None = None
        """SHA-256 of the file that was verified last."""

    @property
    def place(self) -> Path:
        """Where the file or folder is in the end."""
        return self._path(self._manifest.entries[0]) if self._manifest.is_folder or not self.stored else self.stored[0]

    def claims(self) -> Iterator[Have | None]:
        """Make the folders, and tell what is there of each file; None now and then where that takes long."""
        with _storing(self._into):
            self._into.mkdir(parents=True, exist_ok=True)
            for index, entry in enumerate(self._manifest.entries):
                if entry.is_folder:
                    _make_folder(self._path(entry))
                    continue
                claim = self._claim(entry)
                if claim is None:
                    continue
                self._claims[index] = claim
                yield from self._hash(entry, claim)
                yield Have(index, claim.size, claim.digest.digest())

    def _claim(self, entry: Entry) -> _Claim | None:
        partial = self._partial(entry)
        open_partials = sum(claim.fd is not None for claim in self._claims.values())
        if _is_file(partial) and open_partials < MAX_OPEN_PARTIALS:
            fd = _open_partial(partial, create=False)
            if fd is not None:
                size = os.fstat(fd).st_size
                if 0 < size <= entry.size:
                    return _Claim(size, hashlib.sha256(), fd)
                os.close(fd)
        final = self._path(entry)
        if _is_file(final) and final.lstat().st_size == entry.size:
            return _Claim(entry.size, hashlib.sha256(), None)
        return None

    def _hash(self, entry: Entry, claim: _Claim) -> Iterator[None]:
        own = None if claim.fd is not None else os.open(self._path(entry), os.O_RDONLY | _COMMON)
        fd = claim.fd if claim.fd is not None else own
        assert fd is not None
        try:
            os.lseek(fd, 0, os.SEEK_SET)
            left, since_pause = claim.size, 0
            while left:
                chunk = os.read(fd, min(_CHUNK, left))
                if not chunk:
                    raise StoreError(f"{_name_of(self._path(entry))} became shorter while it was read")
                claim.digest.update(chunk)
                left -= len(chunk)
                since_pause += len(chunk)
                if since_pause >= PAUSE:
                    since_pause = 0
                    yield None
        finally:
            if own is not None:
                os.close(own)

    def start(self, index: int, offset: int) -> None:
        """Begin a file at a byte: 0, or the end of what `claims` told."""
        entry = self._manifest.entries[index]
        claim = self._claims.pop(index, None)
        with _storing(self._path(entry)):
            if claim is not None and offset == claim.size:
                self._current = _Current(entry, claim.digest, claim.fd, offset)
                return
            if claim is None or claim.fd is None:
                fd = _open_partial(self._partial(entry), create=True)
                assert fd is not None
            else:
                fd = claim.fd
            self._current = _Current(entry, hashlib.sha256(), fd, 0)
            os.ftruncate(fd, 0)
            os.lseek(fd, 0, os.SEEK_SET)

    def write(self, data: memoryview) -> None:
        """Append to the file that was started last."""
        current = self._current
        assert current is not None
        assert current.fd is not None
        with _storing(self._partial(current.entry)):
            left = data
            while left:
                count = os.write(current.fd, left)
                current.digest.update(left[:count])
                current.written += count
                left = left[count:]

    def end(self, digest: bytes) -> None:
        """Verify and name the file that was started last; raises VerificationError, after which it is gone."""
        current = self._current
        assert current is not None
        self._current = None
        self.last_digest = digest
        with _storing(self._path(current.entry)):
            matches = current.digest.digest() == digest and current.written == current.entry.size
            if current.fd is None:
                if not matches:
                    raise VerificationError(f"the sender took {current.entry.path!r} for another file")
                self.stored.append(self._path(current.entry))
                return
            partial = self._partial(current.entry)
            try:
                if not matches:
                    partial.unlink()
                    raise VerificationError(
                        f"{current.entry.path!r} arrived with another SHA-256 than it was sent with"
                    )
                if os.name == "nt":
                    os.close(current.fd)  # an open file can't be renamed there
                    current.fd = None
                self.stored.append(self._name(partial, self._path(current.entry)))
            finally:
                if current.fd is not None:
                    os.close(current.fd)

    def _name(self, partial: Path, final: Path) -> Path:
        if self._overwrite:
            partial.replace(final)
            return final
        for number in range(MAX_NUMBER + 1):
            name = final if not number else final.with_name(f"{final.stem} ({number}){final.suffix}")
            try:
                rename_without_replacing(partial, name)
            except FileExistsError:
                continue
            return name
        raise StoreError(f"there are too many files named like {_name_of(final)}")

    def close(self) -> None:
        """Let go of every file. What arrived of one that is not whole stays; an empty one does not."""
        current, self._current = self._current, None
        if current is not None and current.fd is not None:
            self._release(current.entry, current.fd)
        claims, self._claims = self._claims, {}
        for index, claim in claims.items():
            if claim.fd is not None:
                self._release(self._manifest.entries[index], claim.fd)

    def _release(self, entry: Entry, fd: int) -> None:
        is_empty = os.fstat(fd).st_size == 0
        with contextlib.suppress(OSError):
            if is_empty and os.name != "nt":  # while it is locked; but there an open file can't be removed
                self._partial(entry).unlink()
        os.close(fd)

    def _path(self, entry: Entry) -> Path:
        return self._into.joinpath(*entry.path.split("/"))

    def _partial(self, entry: Entry) -> Path:
        path = self._path(entry)
        return path.with_name(path.name + PARTIAL_SUFFIX)


def _name_of(path: Path) -> str:
    """How errors call a file: by its name alone, for the sender is told too, and need not know where we keep things."""
    return path.name or "in the folder"


@contextlib.contextmanager
def _storing(path: Path) -> Iterator[None]:
    """Turn what the system says into errors of ours."""
    try:
        yield
    except OSError as exc:
        where = _name_of(Path(os.fsdecode(exc.filename2 or exc.filename or path)))
        reason = exc.strerror or str(exc)
        if exc.errno in _FULL:
            raise DiskFullError(f"no room left to store {where}: {reason}; free some and send again to resume") from exc
        raise StoreError(f"can't store {where}: {reason}") from exc


def _is_link(status: os.stat_result) -> bool:
    return stat.S_ISLNK(status.st_mode) or getattr(status, "st_reparse_tag", 0) in _REPARSE_LINKS


def _is_file(path: Path) -> bool:
    try:
        status = path.lstat()
    except FileNotFoundError:
        return False
    return stat.S_ISREG(status.st_mode) and not _is_link(status)


def _make_folder(path: Path) -> None:
    try:
        path.mkdir()
    except FileExistsError:
        status = path.lstat()
        if _is_link(status):
            raise StoreError(
                f"{_name_of(path)} is a symbolic link, which is not followed; remove it or receive elsewhere"
            ) from None
        if not stat.S_ISDIR(status.st_mode):
            raise StoreError(
                f"{_name_of(path)} is in the way of a folder of that name; move it or receive elsewhere"
            ) from None


def _open_partial(path: Path, *, create: bool) -> int | None:
    """Open a partial file for us alone; None if it is not there and shall not be made."""
    while True:
        try:
            fd = os.open(path, os.O_RDWR | _COMMON | (os.O_CREAT if create else 0), 0o666)
        except FileNotFoundError:
            if create:
                raise
            return None
        except OSError as exc:
            if exc.errno == errno.ELOOP:
                raise StoreError(f"{_name_of(path)} is a symbolic link, which is not followed; remove it") from None
            raise
        try:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise StoreError(f"{_name_of(path)} is not a regular file; remove it")
            if _lock(fd, path):
                return fd
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)


def _lock(fd: int, path: Path) -> bool:
    """Lock a file; False if `path` meanwhile names another, because the one that we opened got its final name."""
    if sys.platform == "win32":
        return True  # nobody can rename or remove what we hold open
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise StoreError(f"another transfer writes to {_name_of(path)} now; wait for its end") from None
    try:
        named = path.lstat()
    except FileNotFoundError:
        return False
    return os.path.samestat(named, os.fstat(fd))
