"""Contribution statistics in an SQLite file, so that they survive a restart."""

from __future__ import annotations

import pathlib
import sqlite3
from collections.abc import Sequence
from typing import Any

from tom_relay.errors import RelayServerError
from tom_relay.server.contributions import Contribution, Ledger, Role

SCHEMA = 1
_COLUMNS = (
    "relayed_packets",
    "relayed_bytes",
    "own_packets",
    "own_bytes",
    "delivered",
    "failed",
    "sessions",
    "uptime",
    "last_active",
)


class StatsFile:
    """The file. Its methods block, one at a time: call them in a thread. The relay's own entry has the empty key."""

    def __init__(self, path: pathlib.Path) -> None:
        self._path = path
        self._database: sqlite3.Connection | None = None
        self._limit = 0

    def open(self, ledger: Ledger) -> None:
        """Make the file if it is missing, and read the newest entries; raises RelayServerError."""
        self._limit = ledger.limit
        try:
            # The thread differs from call to call, but there is one call at a time.
            self._database = database = sqlite3.connect(self._path, check_same_thread=False)
            (version,) = database.execute("PRAGMA user_version").fetchone()
            if version not in (0, SCHEMA):
                raise RelayServerError(f"{self._path}: written by another version (schema {version}); move it away")
            columns = ", ".join(f"{name} NOT NULL" for name in _COLUMNS)
            with database:
                database.execute(
                    f"CREATE TABLE IF NOT EXISTS contribution (key BLOB PRIMARY KEY, {columns}, role NOT NULL)"
                )
                database.execute(f"PRAGMA user_version = {SCHEMA}")
            self._read(database, ledger)
        except (sqlite3.Error, ValueError, TypeError) as exc:
            self._let_go()
            raise RelayServerError(f"{self._path}: can't be used for statistics: {exc}") from None
        except RelayServerError:
            self._let_go()
            raise

    def _read(self, database: sqlite3.Connection, ledger: Ledger) -> None:
        names = ", ".join(("key", "role", *_COLUMNS))
        query = f"SELECT {names} FROM contribution WHERE key = x''"  # noqa: S608 - ours
        for row in database.execute(query):
            ledger.relay = self._entry(row)
        query = f"SELECT {names} FROM contribution WHERE length(key) = 32 ORDER BY last_active DESC LIMIT ?"  # noqa: S608
        for row in reversed(database.execute(query, (ledger.limit,)).fetchall()):
            ledger.restore(bytes(row[0]), self._entry(row))

    @staticmethod
    def _entry(row: tuple[Any, ...]) -> Contribution:
        return Contribution(**dict(zip(_COLUMNS, row[2:], strict=True)), role=Role(row[1]))

    def save(self, entries: Sequence[tuple[bytes, Contribution]]) -> None:
        """Write entries, and forget what is too much; raises OSError."""
        if self._database is None:
            return
        rows = [(key, entry.role.value, *(getattr(entry, name) for name in _COLUMNS)) for key, entry in entries]
        marks = ", ".join("?" * (len(_COLUMNS) + 2))
        try:
            with self._database as database:
                names = ", ".join(("key", "role", *_COLUMNS))
                database.executemany(f"INSERT OR REPLACE INTO contribution ({names}) VALUES ({marks})", rows)  # noqa: S608
                database.execute(
                    "DELETE FROM contribution WHERE key != x'' AND key NOT IN "
                    "(SELECT key FROM contribution WHERE key != x'' ORDER BY last_active DESC LIMIT ?)",
                    (self._limit,),
                )
        except sqlite3.Error as exc:
            raise OSError(f"{self._path}: {exc}") from exc

    def close(self, entries: Sequence[tuple[bytes, Contribution]]) -> None:
        """Write entries and close the file."""
        if self._database is None:
            return
        try:
            self.save(entries)
        finally:
            self._let_go()

    def _let_go(self) -> None:
        if self._database is not None:
            self._database.close()
            self._database = None
