"""What a node keeps between runs: its routing table and id, and the newest timestamps it published.

Files are small JSON, replaced atomically. They are caches: one that can't be read is reported and replaced, and none is
flushed to the disk by force, since a power cut costs no more than a cold start. Timestamps keep rising all the same, as
the clock does; the file helps where a clock was set back.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import pathlib
import tempfile
from collections.abc import Sequence
from typing import Any

from tom_connect.keys import NodeId

from .core import DhtUsageError, FamilySnapshot, Snapshot

_MAX_FILE = 1 << 20
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
            self._dir.mkdir(parents=True, exist_ok=True)
            self._lock = _claim(self._table.with_suffix(".lock"))
        except OSError as exc:
            self._logger.warning("the DHT's state can't be kept in %s: %s", self._dir, exc)

    @property
    def is_owner(self) -> bool:
        """Whether this process may write the routing table."""
        return self._lock is not None

    def load(self) -> Snapshot | None:
        """The saved routing table and id, None if there is none."""
        data = self._read(self._table)
        if data is None:
            return None
        try:
            snapshot = Snapshot.from_plain(data)
        except DhtUsageError as exc:
            self._logger.warning("%s is damaged and will be replaced: %s", self._table, exc)
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
        self._write(self._table, snapshot.to_plain())
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
        self._write(self._dir / _PUBLISHED, dict(list(noted.items())[-_MAX_TIMESTAMPS:]))

    def _published(self) -> dict[str, int]:
        data = self._read(self._dir / _PUBLISHED)
        if data is None:
            return {}
        if not all(type(v) is int and 0 <= v <= _MAX_SEQ for v in data.values()):
            self._logger.warning("%s is damaged and will be replaced", self._dir / _PUBLISHED)
            return {}
        return data

    def close(self) -> None:
        """Leave the table to others."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _read(self, path: pathlib.Path) -> dict[str, Any] | None:
        try:
            with path.open("rb") as file:
                data = file.read(_MAX_FILE + 1)
            if len(data) > _MAX_FILE:
                raise ValueError("it is too large")
            found = json.loads(data)
            if not isinstance(found, dict):
                raise ValueError("it holds no object")
            return found
        except FileNotFoundError:
            return None
        except OSError as exc:
            self._logger.warning("%s can't be read: %s", path, exc)
        except (ValueError, RecursionError) as exc:
            self._logger.warning("%s is damaged and will be replaced: %s", path, exc)
        return None

    def _write(self, path: pathlib.Path, data: Any) -> None:
        temporary = None
        try:
            descriptor, temporary = tempfile.mkstemp(dir=self._dir, prefix=path.name, suffix=".tmp")
            with open(descriptor, "w", encoding="ascii") as file:  # noqa: PTH123 - takes the open descriptor
                json.dump(data, file, separators=(",", ":"))
            os.replace(temporary, path)  # noqa: PTH105 - plain names on both sides
        except OSError as exc:  # Windows refuses while another process reads the file; the next time will do
            self._logger.warning("%s can't be written: %s", path, exc)
            if temporary is not None:
                with contextlib.suppress(OSError):
                    os.unlink(temporary)  # noqa: PTH108


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
