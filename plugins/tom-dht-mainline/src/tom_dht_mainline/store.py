"""What a node keeps between runs: its routing table and id, and the newest timestamps it published.

Files are as `tom_connect.statefile` has them. Timestamps keep rising without theirs too, as the clock does; the file
helps where a clock was set back.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import pathlib
from collections.abc import Sequence

from tom_connect.keys import NodeId
from tom_connect.statefile import StateFile

from .core import DhtUsageError, FamilySnapshot, Snapshot

_MAX_TABLES = 4
"""Routing tables kept for different sets of bootstrap nodes; the oldest go first."""
_MAX_TIMESTAMPS = 256
_MAX_SEQ = 2**63 - 1
_PUBLISHED = "published.json"


class StateStore:
    """The files of one node in a directory of its own; every method survives a full, read-only or damaged one.

    There is one routing table for each set of bootstrap nodes, so that a private DHT never mixes with the public one.
    While another process uses the same one, `load` gives its nodes without its node id, and `save` does nothing.
    """

    def __init__(self, directory: pathlib.Path, bootstrap: Sequence[str], logger: logging.Logger) -> None:
        self._dir = directory
        self._logger = logger
        digest = hashlib.sha256("\n".join(sorted(bootstrap)).encode()).hexdigest()[:12]
        self._table = directory / f"table-{digest}.json"
        self._lock: int | None = None

    def open(self) -> None:
        """Make the directory and claim the table for this process, if no other has it."""
        if self._lock is not None:
            return
        try:
            self._dir.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._lock = _claim(self._table.with_suffix(".lock"))
        except OSError as exc:
            self._logger.warning("the DHT's state can't be kept in %s: %s", self._dir, exc)

    @property
    def is_owner(self) -> bool:
        """Whether this process may write the routing table."""
        return self._lock is not None

    def load(self) -> Snapshot | None:
        """The saved routing table and id, None if there is none."""
        data = self._file(self._table).read()
        if data is None:
            return None
        try:
            snapshot = Snapshot.from_plain(data)
        except DhtUsageError as exc:
            self._file(self._table).set_aside(str(exc))
            return None
        if self.is_owner:
            return snapshot
        # Two nodes with one id on one host would displace each other in other nodes' tables.
        return Snapshot(
            {family: FamilySnapshot(os.urandom(20), None, part.nodes) for family, part in snapshot.families.items()}
        )

    def save(self, snapshot: Snapshot) -> None:
        """Replace the saved routing table, unless this one is empty."""
        self.open()  # whoever had it may have gone
        if not self.is_owner or not any(part.nodes for part in snapshot.families.values()):
            return
        self._file(self._table).write(snapshot.to_plain())
        self._drop_old_tables()

    def _drop_old_tables(self) -> None:
        with contextlib.suppress(OSError):
            tables = sorted(self._dir.glob("table-*.json"), key=lambda path: path.stat().st_mtime)
            for path in tables[:-_MAX_TABLES]:
                path.unlink(missing_ok=True)
                path.with_suffix(".lock").unlink(missing_ok=True)

    def last_published(self, node_id: NodeId, salt: bytes = b"") -> int:
        """The highest sequence number noted for an item of ours, 0 if none."""
        return self._published().get(_entry(node_id, salt), 0)

    def note_published(self, node_id: NodeId, seq: int, salt: bytes = b"") -> None:
        """Remember a sequence number; lower ones than the noted one change nothing."""
        noted = self._published()
        entry = _entry(node_id, salt)
        if seq <= noted.get(entry, 0):
            return
        noted.pop(entry, None)
        noted[entry] = seq
        self._file(self._dir / _PUBLISHED).write(dict(list(noted.items())[-_MAX_TIMESTAMPS:]))

    def _published(self) -> dict[str, int]:
        file = self._file(self._dir / _PUBLISHED)
        data = file.read()
        if data is None:
            return {}
        if not all(type(v) is int and 0 <= v <= _MAX_SEQ for v in data.values()):
            file.set_aside("it holds other things than sequence numbers")
            return {}
        return data

    def close(self) -> None:
        """Leave the table to others."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _file(self, path: pathlib.Path) -> StateFile:
        return StateFile(path, self._logger)


def _entry(node_id: NodeId, salt: bytes) -> str:
    return f"{node_id}:{salt.hex()}"


def _claim(path: pathlib.Path) -> int | None:
    """An open descriptor that holds the lock of a file until closed, None if another process has it."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            import fcntl
        except ImportError:
            import msvcrt  # Windows

            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined,unused-ignore]
        else:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return None
    return descriptor
