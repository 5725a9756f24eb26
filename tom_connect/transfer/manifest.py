"""What is transferred: a file, or a folder with all that is in it, as a list of names and sizes."""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Iterable, Sequence

import attrs

from tom_connect.transfer.errors import TransferProtocolError, UnsafeNameError

MAX_ENTRIES = 100_000
MAX_LIST = 16 * 1024 * 1024
"""Bytes of all entries as `encode_entries` writes them."""
MAX_PATH = 1024
"""Bytes of UTF-8 of a whole path; what Linux allows less the place where it is put."""
MAX_NAME = 240
"""Bytes of UTF-8 of one name: 255 less what a partial file's name or a number adds."""
MAX_DEPTH = 64
MAX_SIZE = 2**63 - 1
PARTIAL_SUFFIX = ".tom-part"
"""Ends the name of a file that has not wholly arrived; no file may be sent under such a name."""

_HEAD = struct.Struct(">BQH")
_FILE, _FOLDER = 0, 1
_FORBIDDEN = re.compile(r"[\\\x00-\x1f\x7f-\x9f]")
_WINDOWS_FORBIDDEN = re.compile(r'[<>:"|?*]|[. ]$')
_WINDOWS_RESERVED = re.compile(r"(con|prn|aux|nul|com[0-9¹²³]|lpt[0-9¹²³]|conin\$|conout\$)(\..*)?", re.IGNORECASE)


def check_path(path: str, *, windows: bool = os.name == "nt") -> None:
    """Raise UnsafeNameError unless a path of the manifest can be stored below a folder and nowhere else.

    Names are separated by `/`. With `windows`, what Windows gives a meaning of its own is refused as well.
    """
    try:
        size = len(path.encode())
    except UnicodeEncodeError:
        raise UnsafeNameError(f"the name {path!r} is not UTF-8") from None
    names = path.split("/")
    if size > MAX_PATH or len(names) > MAX_DEPTH:
        raise UnsafeNameError(f"the path {path[:60]!r}… is too long or too deep")
    for name in names:
        if reason := _fault(name, windows=windows):
            raise UnsafeNameError(f"the path {path[:MAX_NAME]!r} is refused: {reason}")


def _fault(name: str, *, windows: bool) -> str | None:
    if name in ("", ".", ".."):
        return "it is absolute or leads elsewhere"
    if _FORBIDDEN.search(name):
        return "it holds a backslash or a control character"
    if len(name.encode()) > MAX_NAME:
        return f"a name has more than {MAX_NAME} bytes"
    if name.lower().endswith(PARTIAL_SUFFIX):
        return f"names that end in {PARTIAL_SUFFIX} are kept for partial files"
    if windows and (_WINDOWS_FORBIDDEN.search(name) or _WINDOWS_RESERVED.fullmatch(name)):
        return "Windows can't store such a name"
    return None


@attrs.frozen
class Entry:
    """One file or folder: its path below the place where it goes, separated by `/`; `size` in bytes, 0 for a folder."""

    path: str
    size: int = 0
    is_folder: bool = False


def _tuple(entries: Iterable[Entry]) -> tuple[Entry, ...]:
    return tuple(entries)


@attrs.frozen
class Manifest:
    """The file or folder that is transferred, first, and all that is in it, folders before what they hold.

    Raises UnsafeNameError or TransferProtocolError if it is not one tree of allowed names.
    """

    entries: tuple[Entry, ...] = attrs.field(converter=_tuple)

    def __attrs_post_init__(self) -> None:
        if not 1 <= len(self.entries) <= MAX_ENTRIES:
            raise TransferProtocolError(f"{len(self.entries)} files and folders; from 1 to {MAX_ENTRIES} can be sent")
        seen: dict[str, bool] = {}
        for position, entry in enumerate(self.entries):
            check_path(entry.path)
            if not 0 <= entry.size <= MAX_SIZE or (entry.is_folder and entry.size):
                raise TransferProtocolError(f"{entry.path!r} has an impossible size")
            if entry.path in seen:
                raise TransferProtocolError(f"{entry.path!r} is in the list twice")
            parent = entry.path.rpartition("/")[0]
            if bool(parent) is (position == 0) or (parent and not seen.get(parent, False)):
                raise TransferProtocolError(f"{entry.path!r} is not in a folder of the list")
            seen[entry.path] = entry.is_folder
        if self.total_size > MAX_SIZE:
            raise TransferProtocolError("the files together have an impossible size")

    @property
    def name(self) -> str:
        """The name of the file or folder."""
        return self.entries[0].path

    @property
    def is_folder(self) -> bool:
        """Whether it is a folder."""
        return self.entries[0].is_folder

    @property
    def file_count(self) -> int:
        """How many files it holds."""
        return sum(not entry.is_folder for entry in self.entries)

    @property
    def total_size(self) -> int:
        """Bytes of all files together."""
        return sum(entry.size for entry in self.entries)


def encode_entries(entries: Iterable[Entry]) -> bytes:
    """Each entry as: 1 byte 0 file or 1 folder, 8 bytes size, 2 bytes length, path in UTF-8; numbers big-endian."""
    pieces = []
    for entry in entries:
        path = entry.path.encode()
        pieces.append(_HEAD.pack(_FOLDER if entry.is_folder else _FILE, entry.size, len(path)) + path)
    return b"".join(pieces)


def decode_entries(data: bytes) -> Sequence[Entry]:
    """Read what `encode_entries` wrote; raises TransferProtocolError."""
    entries = []
    at = 0
    while at < len(data):
        try:
            kind, size, length = _HEAD.unpack_from(data, at)
        except struct.error:
            raise TransferProtocolError("a list of files ends within an entry") from None
        at += _HEAD.size
        raw = data[at : at + length]
        at += length
        if len(raw) < length or kind not in (_FILE, _FOLDER):
            raise TransferProtocolError("a list of files is malformed")
        try:
            entries.append(Entry(raw.decode(), size, kind == _FOLDER))
        except UnicodeDecodeError:
            raise TransferProtocolError("a name in a list of files is not UTF-8") from None
    return entries
