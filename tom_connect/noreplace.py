"""Giving a file its final name in one step, and never that of a file that is there already."""

from __future__ import annotations

import errno
import os
from pathlib import Path

# What systems say of a file system that has no hard links.
_NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EACCES}


def rename_without_replacing(source: Path, destination: Path) -> None:
    """Rename a file within a file system; whoever looks at `destination` sees all of it or nothing.

    Raises FileExistsError, and leaves both as they are, if `destination` exists, even as a dangling link.
    """
    if os.name == "nt":
        source.rename(destination)  # unlike on POSIX this replaces nothing
        return
    try:
        os.link(source, destination)
    except OSError as exc:
        if exc.errno not in _NO_LINKS:
            raise
        os.close(os.open(destination, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        source.replace(destination)
    else:
        source.unlink()
