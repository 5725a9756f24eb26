"""What the sender reads: a file or folder of this machine, and the frames that it becomes. Blocks: use a thread."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Generator
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from tom_connect.transfer.errors import SourceError, TransferError
from tom_connect.transfer.manifest import MAX_ENTRIES, MAX_LIST, Entry, Manifest, check_path, encode_entries
from tom_connect.transfer.protocol import SenderProtocol
from tom_connect.transfer.wire import Have

if TYPE_CHECKING:
    from hashlib import _Hash

CHUNK = 512 * 1024
"""Bytes read, hashed and sent at a time."""
BATCH = 1024 * 1024
"""Bytes prepared for one visit of the event loop, so that going to a thread and back costs next to nothing."""
PAUSE = 64 * 1024 * 1024
"""Bytes hashed without anything to send before the event loop gets a turn; some 50 ms."""
_Piece = tuple[int, int, bytes]
_Pieces = Generator[_Piece, None, None]
_READ = os.O_RDONLY | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0)
_NO_FOLLOW = getattr(os, "O_NOFOLLOW", 0)


@attrs.frozen
class Source:
    """A file or folder to send: what it holds, where each entry is, and what was left out.

    `skipped`: symbolic links, devices and the like inside the folder, which are not sent.
    """

    manifest: Manifest
    paths: tuple[Path, ...]
    skipped: tuple[Path, ...] = ()


def scan(path: Path) -> Source:
    """Look at a file or folder, and at all that is in it; raises SourceError, which names what can't be sent.

    `path` itself may be a symbolic link; those inside a folder are left out.
    """
    name = Path(os.path.abspath(path)).name  # noqa: PTH100 - resolve() would follow a link, whose name is not meant
    if not name:
        raise SourceError(f"{path} has no name under which it could be sent; name a file or folder in it")
    try:
        root = path.resolve(strict=True)
        status = root.stat()
    except OSError as exc:
        raise SourceError(f"can't read {path}: {exc.strerror or exc}") from exc
    except RuntimeError as exc:  # what Python before 3.13 says of links that lead in a circle
        raise SourceError(f"can't read {path}: {exc}") from exc
    walk = _Walk()
    try:
        if stat.S_ISDIR(status.st_mode):
            walk.add(Entry(name, is_folder=True), root)
            walk.folder(name, root)
        elif stat.S_ISREG(status.st_mode):
            walk.add(Entry(name, status.st_size), root)
        else:
            raise SourceError(f"{path} is neither a file nor a folder")
        return Source(Manifest(walk.entries), tuple(walk.paths), tuple(walk.skipped))
    except OSError as exc:
        raise _unreadable(exc, path) from exc


def _unreadable(exc: OSError, path: Path) -> SourceError:
    return SourceError(f"can't read {exc.filename or path}: {exc.strerror or exc}")


class _Walk:
    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.paths: list[Path] = []
        self.skipped: list[Path] = []
        self._list_size = 0

    def add(self, entry: Entry, path: Path) -> None:
        try:
            # Names that only Windows can't store are for the receiver to refuse.
            check_path(entry.path, windows=False)
            self._list_size += len(encode_entries((entry,)))
        except TransferError as exc:
            raise SourceError(f"can't send {path}: {exc}") from None
        self.entries.append(entry)
        self.paths.append(path)
        if len(self.entries) > MAX_ENTRIES or self._list_size > MAX_LIST:
            raise SourceError(f"too many files: at most {MAX_ENTRIES} can be sent at once; pack them into one archive")

    def folder(self, name: str, path: Path) -> None:
        with os.scandir(path) as found:
            children = sorted(found, key=lambda child: child.name)
        for child in children:
            child_name, child_path = f"{name}/{child.name}", Path(child.path)
            if child.is_dir(follow_symlinks=False):
                self.add(Entry(child_name, is_folder=True), child_path)
                self.folder(child_name, child_path)
            elif child.is_file(follow_symlinks=False):
                self.add(Entry(child_name, child.stat(follow_symlinks=False).st_size), child_path)
            else:
                self.skipped.append(child_path)


@attrs.frozen
class Batch:
    """Bytes to send, and how far they bring the transfer: `data` bytes of files, `had` bytes not sent again."""

    pieces: list[bytes]
    data: int
    had: int
    path: str


class Outgoing:
    """Reads the files of a source and gives the frames to send, some at a time; close it in the end."""

    def __init__(self, source: Source, protocol: SenderProtocol, haves: dict[int, Have]) -> None:
        self._source = source
        self._protocol = protocol
        self._haves = haves
        self._had = 0
        self._path = source.manifest.name
        self._frames = self._all()
        self.last_digest: bytes | None = None
        """SHA-256 of the file that was read last."""

    def next_batch(self) -> Batch | None:
        """About a MiB to send, None at the end; raises SourceError if a file can't be read or has changed."""
        pieces: list[bytes] = []
        size = data = 0
        before = self._had
        for cost, content, piece in self._frames:
            pieces.append(piece)
            size += cost
            data += content
            if size >= BATCH:
                break
        if not pieces:
            return None
        return Batch(pieces, data, self._had - before, self._path)

    def close(self) -> None:
        """Let go of the file that is being read."""
        self._frames.close()

    def _all(self) -> _Pieces:
        """(what it counts towards a batch, bytes of a file in it, bytes to send) again and again."""
        for index, (entry, path) in enumerate(zip(self._source.manifest.entries, self._source.paths, strict=True)):
            if not entry.is_folder:
                self._path = entry.path
                try:
                    yield from self._file(index, entry, path)
                except OSError as exc:
                    raise _unreadable(exc, path) from exc

    def _file(self, index: int, entry: Entry, path: Path) -> _Pieces:
        fd = os.open(path, _READ | _NO_FOLLOW)
        try:
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode) or status.st_size != entry.size:
                raise SourceError(f"{path} has changed since the transfer began; send it again")
            offset, digest = yield from self._begin(fd, path, self._haves.get(index))
            self._had += offset
            yield 0, 0, self._protocol.start_file(index, offset)
            left = entry.size - offset
            while left:
                chunk = _read(fd, path, min(CHUNK, left))
                digest.update(chunk)
                left -= len(chunk)
                yield 0, 0, self._protocol.data_header(len(chunk))
                yield len(chunk), len(chunk), chunk
            self.last_digest = digest.digest()
            # A small cost for each file, so that many small ones don't make an endless batch.
            yield 4096, 0, self._protocol.end_file(self.last_digest)
        finally:
            os.close(fd)

    def _begin(self, fd: int, path: Path, have: Have | None) -> Generator[_Piece, None, tuple[int, _Hash]]:
        """Where to begin, after a look at whether the receiver's part is the beginning of this file."""
        digest = hashlib.sha256()
        left = have.size if have is not None else 0
        since_pause = 0
        while left:
            chunk = _read(fd, path, min(CHUNK, left))
            digest.update(chunk)
            left -= len(chunk)
            since_pause += len(chunk)
            if since_pause >= PAUSE:
                since_pause = 0
                yield BATCH, 0, self._protocol.busy()
        if have is None or digest.digest() == have.digest:
            return (have.size if have is not None else 0), digest
        os.lseek(fd, 0, os.SEEK_SET)
        return 0, hashlib.sha256()


def _read(fd: int, path: Path, size: int) -> bytes:
    chunk = os.read(fd, size)
    if not chunk:
        raise SourceError(f"{path} became shorter while it was sent; send it again")
    return chunk
