"""The packets of a relay in SQLite: one file, or memory; bounded in number, bytes and time."""

from __future__ import annotations

import pathlib
import sqlite3
from collections.abc import Collection, Iterable, Sequence

import attrs

from tom_pkarr.core.rules import Conditions, Packet, Verdict, judge
from tom_pkarr.errors import PkarrServerError, StoreError

SCHEMA = 1
ROW_OVERHEAD = 64
"""Bytes that a row takes beside its payload, about: they count too."""
_EVICTED_AT_ONCE = 256
"""Rows that go together where there are too many, so that a full store does not sort for each packet."""


@attrs.frozen
class Kept:
    """A packet in the store. `seen_at`: when it was last put or found in the DHT, seconds since 1970."""

    packet: Packet
    seen_at: float


@attrs.frozen
class PutOrder:
    """A packet to be judged and perhaps kept, and the z-base-32 letters of its key.

    `publishing`: what is held is on its way into the DHT.
    """

    packet: Packet
    z32: str
    conditions: Conditions = attrs.Factory(Conditions)
    publishing: bool = False


class PacketStore:
    """The database. Its methods block, one at a time: call them in one thread. They raise StoreError.

    `max_packets`, `max_bytes`: bounds, at which the least recently used packets go; `keep`: seconds after which a
    packet that nobody has put again is as good as gone.
    """

    def __init__(self, path: pathlib.Path | None, *, max_packets: int, max_bytes: int, keep: float) -> None:
        self._path = path
        self._max_packets = max_packets
        self._max_bytes = max_bytes
        self._keep = keep
        self._database: sqlite3.Connection | None = None
        self._clock = 0
        # Who was used lately enough is not moved again: a read is then a read, and the order stays nearly right.
        self._slack = max_packets // 16
        self.packets = 0
        self.bytes = 0
        self.evicted = 0
        self.expired = 0

    def open(self) -> None:
        """Make the database if it is missing; raises PkarrServerError if the file can't be used."""
        try:
            # The thread is not the one that made this object, but it is always the same.
            self._database = database = sqlite3.connect(
                self._path or ":memory:", check_same_thread=False, isolation_level=None
            )
            (version,) = database.execute("PRAGMA user_version").fetchone()
            if version not in (0, SCHEMA):
                raise PkarrServerError(f"{self._path}: written by another version (schema {version}); move it away")
            database.execute("PRAGMA journal_mode = WAL")
            database.execute("PRAGMA synchronous = NORMAL")  # a power cut costs what its sender puts again
            database.execute(
                "CREATE TABLE IF NOT EXISTS packet (key BLOB PRIMARY KEY, timestamp INTEGER NOT NULL, "
                "payload BLOB NOT NULL, ttl INTEGER NOT NULL, seen_at REAL NOT NULL, used INTEGER NOT NULL)"
            )
            database.execute("CREATE INDEX IF NOT EXISTS packet_used ON packet (used)")
            database.execute(f"PRAGMA user_version = {SCHEMA}")
            self.packets, size, clock = database.execute(
                "SELECT count(*), sum(length(payload)), max(used) FROM packet"
            ).fetchone()
            self.bytes = (size or 0) + self.packets * ROW_OVERHEAD
            self._clock = clock or 0
        except (sqlite3.Error, TypeError, ValueError) as exc:
            self.close()
            why = str(exc)
            if self._path is not None and not self._path.parent.is_dir():
                why = f"there is no folder {self._path.parent}"
            raise PkarrServerError(f"{self._path}: can't be used for packets: {why}") from None
        except PkarrServerError:
            self.close()
            raise

    def close(self) -> None:
        """Close the database."""
        if self._database is not None:
            self._database.close()
            self._database = None

    def work(
        self, puts: Sequence[PutOrder], gets: Iterable[bytes], used: Collection[bytes], now: float
    ) -> tuple[list[tuple[Verdict, Kept | None]], list[Kept | None]]:
        """Puts in their order, in one transaction, then gets; `now`: seconds since 1970.

        Returns for each put the verdict and what is held after it, and for each get what is held. `used`: keys that
        were asked for meanwhile.
        """
        database = self._live()
        try:
            outcomes = self._change(database, puts, used, now) if puts or used else []
            found: list[Kept | None] = []
            aged: list[bytes] = []
            for key in gets:
                kept, used_at = self._read(database, key, now)
                found.append(kept)
                if kept is not None and used_at < self._clock - self._slack:
                    aged.append(key)
            if aged:
                self._change(database, (), aged, now)
        except sqlite3.Error as exc:
            raise StoreError(f"the packets can't be reached: {exc}") from None
        return outcomes, found

    def expire(self, now: float, limit: int = 1000) -> int:
        """Delete up to `limit` packets that are past their time; returns how many there were."""
        database = self._live()
        try:
            gone = database.execute(
                "DELETE FROM packet WHERE key IN (SELECT key FROM packet WHERE seen_at < ? LIMIT ?) "
                "RETURNING length(payload)",
                (now - self._keep, limit),
            ).fetchall()
        except sqlite3.Error as exc:
            raise StoreError(f"the packets can't be reached: {exc}") from None
        self._forget(gone)
        self.expired += len(gone)
        return len(gone)

    def _live(self) -> sqlite3.Connection:
        if self._database is None:
            raise StoreError("the store is closed")
        return self._database

    def _count(self, database: sqlite3.Connection) -> None:
        self.packets, size = database.execute("SELECT count(*), sum(length(payload)) FROM packet").fetchone()
        self.bytes = (size or 0) + self.packets * ROW_OVERHEAD

    def _forget(self, rows: list[tuple[int]]) -> None:
        self.packets -= len(rows)
        self.bytes -= sum(size + ROW_OVERHEAD for (size,) in rows)

    def _tick(self) -> int:
        self._clock += 1
        return self._clock

    def _change(
        self, database: sqlite3.Connection, puts: Sequence[PutOrder], used: Iterable[bytes], now: float
    ) -> list[tuple[Verdict, Kept | None]]:
        database.execute("BEGIN")
        try:
            since = self._clock - self._slack
            database.executemany(
                "UPDATE packet SET used = ? WHERE key = ? AND used < ?", [(self._tick(), key, since) for key in used]
            )
            outcomes = [self._put(database, order, now) for order in puts]
            self._evict(database)
            database.execute("COMMIT")
        except BaseException:
            database.execute("ROLLBACK")
            self._count(database)
            raise
        return outcomes

    def _read(self, database: sqlite3.Connection, key: bytes, now: float) -> tuple[Kept | None, int]:
        """What is held of a key, and when it was last used."""
        row = database.execute(
            "SELECT timestamp, payload, ttl, seen_at, used FROM packet WHERE key = ?", (key,)
        ).fetchone()
        if row is None or row[3] < now - self._keep:
            return None, 0
        return Kept(Packet(key, row[0], row[1], row[2]), row[3]), row[4]

    def _put(self, database: sqlite3.Connection, order: PutOrder, now: float) -> tuple[Verdict, Kept | None]:
        new = order.packet
        kept, _ = self._read(database, new.key, now)
        held = None if kept is None else kept.packet
        verdict = judge(new, held, order.conditions, publishing=order.publishing)
        if verdict not in (Verdict.STORED, Verdict.UNCHANGED):
            return verdict, kept
        old = database.execute("SELECT length(payload) FROM packet WHERE key = ?", (new.key,)).fetchall()
        database.execute(
            "INSERT OR REPLACE INTO packet (key, timestamp, payload, ttl, seen_at, used) VALUES (?, ?, ?, ?, ?, ?)",
            (new.key, new.timestamp_us, new.payload, new.ttl, now, self._tick()),
        )
        self._forget(old)
        self.packets += 1
        self.bytes += len(new.payload) + ROW_OVERHEAD
        return verdict, Kept(new, now)

    def _evict(self, database: sqlite3.Connection) -> None:
        while self.packets > self._max_packets or self.bytes > self._max_bytes:
            excess = self.packets - self._max_packets
            count = max(excess, min(_EVICTED_AT_ONCE, self._max_packets // 16), 1)
            gone = database.execute(
                "DELETE FROM packet WHERE key IN (SELECT key FROM packet ORDER BY used LIMIT ?) "
                "RETURNING length(payload)",
                (count,),
            ).fetchall()
            if not gone:
                return
            self._forget(gone)
            self.evicted += len(gone)
