"""The file that keeps a node's secret key: one line of 64 hex digits, the 32-byte seed of RFC 8032.

It lives in the platform's configuration directory unless another path is given, is made on first use, and is
readable by its owner alone. Two programs that start at once agree on one key.
"""

from __future__ import annotations

import os
import re
import secrets
import shlex
import stat
from pathlib import Path

import platformdirs

from tom_connect.exceptions import KeyFileError
from tom_connect.keys import SecretKey
from tom_connect.noreplace import rename_without_replacing

FILE_NAME = "secret.key"
_SEED_LINE = re.compile(rb"\s*([0-9a-fA-F]{64})\s*")
_READ_LIMIT = 4096
_POSIX = os.name == "posix"


def default_key_path() -> Path:
    """Where the key lives if no path is given, for instance `~/.config/tom-connect/secret.key`."""
    return platformdirs.user_config_path("tom-connect", appauthor=False) / FILE_NAME


def load_or_create_secret_key(path: Path | None = None) -> SecretKey:
    """Read the key from `path` (None: the default place), or make a fresh one there, of mode 0600.

    A symbolic link is followed. Raises KeyFileError with the file's name and the fix: the file is malformed, is not a
    regular file, can be read by others (POSIX only), or can't be read or made.
    """
    path = default_key_path() if path is None else path
    try:
        return load_secret_key(path)
    except FileNotFoundError:
        pass
    except OSError as exc:
        raise KeyFileError(f"can't read the key file {path}: {exc.strerror}") from exc
    try:
        _create(path, SecretKey.generate())
    except OSError as exc:
        raise KeyFileError(f"can't make the key file {path}: {exc.strerror}; name another place for it") from exc
    try:
        # Also after making it: if another program was faster, its key is the one.
        return load_secret_key(path)
    except OSError as exc:
        if path.is_symlink():
            raise KeyFileError(
                f"the key file {path} is a symbolic link to {path.readlink()}, which is not there; remove the link"
            ) from exc
        raise KeyFileError(f"can't read the key file {path}: {exc.strerror}") from exc


def load_secret_key(path: Path) -> SecretKey:
    """Read the key from `path`. Raises KeyFileError as `load_or_create_secret_key`, OSError if it can't be opened."""
    # A pipe without a writer would block the opening; a directory opens on POSIX and is refused below.
    fd = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0))
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise KeyFileError(f"the key file {path} is not a regular file; name one, or a place where to make one")
        if _POSIX and status.st_mode & 0o077:
            raise KeyFileError(
                f"others can read the key file {path} (mode {stat.S_IMODE(status.st_mode):04o}); "
                f"make it yours alone: chmod 600 {shlex.quote(str(path))}"
            )
        text = os.read(fd, _READ_LIMIT + 1)
    finally:
        os.close(fd)
    match = _SEED_LINE.fullmatch(text)
    if match is None or len(text) > _READ_LIMIT:
        raise KeyFileError(
            f"the key file {path} is malformed: it should hold 64 hex digits and nothing else; "
            "move it away and a fresh key is made"
        )
    return SecretKey(bytes.fromhex(match[1].decode()))


def _create(path: Path, key: SecretKey) -> None:
    """Make the file whole or not at all, and never in the place of one that is there already."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    line = key.seed().hex().encode() + b"\n"
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        _write_new(temporary, line)
        rename_without_replacing(temporary, path)
    except FileExistsError:
        return
    finally:
        temporary.unlink(missing_ok=True)


def _write_new(path: Path, data: bytes) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o600)
    with os.fdopen(fd, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(fd)
