"""Discovery from what we know already: the last records by which peers were reached, kept between runs."""

from __future__ import annotations

import asyncio
import base64
import binascii
import logging
import pathlib
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from typing import Any, Final

import attrs

from tom_connect.abc import Discovery, FoundAddr
from tom_connect.exceptions import RecordError
from tom_connect.keys import KEY_SIZE, SIGNATURE_SIZE, NodeId
from tom_connect.record import SignedRecord
from tom_connect.statefile import StateFile

FILE: Final = "known-records.json"
MAX_RECORDS: Final = 512
"""Peers that are remembered, those met last: at most 1,100 bytes each, in a file below one megabyte."""
MAX_AGE: Final = 30 * 24 * 3600.0
"""Seconds after which a peer that was not met again is forgotten: few addresses last as long."""
SAVE_AFTER: Final = 5.0
"""Seconds after which what was learned is written: what a crash may cost."""
_MAX_SIZE: Final = 1 << 20
#: Bytes before the DNS packet: key, signature, timestamp.
_HEAD: Final = KEY_SIZE + SIGNATURE_SIZE + 8

logger = logging.getLogger(__name__)


@attrs.frozen
class _Known:
    """The bytes of a signed record, not verified before somebody asks; `met`: seconds since 1970."""

    packet: bytes
    met: float


class KnownRecords(Discovery):
    """Remembers the signed record of each peer that was reached, and answers look-ups with it at once.

    Only what a peer has signed is kept, so that a newer record of its own always wins over it, wherever that comes
    from, and a damaged or forged file can't send anybody elsewhere. `wall`: seconds since 1970.
    """

    name = "known"
    serverless = True
    asks_nobody = True

    def __init__(self, directory: pathlib.Path, *, wall: Callable[[], float] = time.time) -> None:
        self._file = StateFile(directory / FILE, logger, _MAX_SIZE)
        self._wall = wall
        self._records: OrderedDict[NodeId, _Known] = OrderedDict()
        self._timer: asyncio.TimerHandle | None = None
        self._changed = False
        self._records.update(self._read())

    def __contains__(self, node_id: NodeId) -> bool:
        return node_id in self._records

    def __len__(self) -> int:
        return len(self._records)

    async def resolve(self, node_id: NodeId) -> AsyncIterator[FoundAddr]:
        """See `Discovery`."""
        known = self._records.get(node_id)
        if known is None or self._wall() - known.met > MAX_AGE:
            return
        try:
            record = SignedRecord.from_bytes(known.packet)
            addr = record.addr
        except RecordError as exc:
            logger.warning("what was kept of %s is no record of its: %s", node_id.short(), exc)
            del self._records[node_id]
            return
        yield FoundAddr(addr, self.name, record.timestamp_us, record)

    def keep(self, record: SignedRecord) -> None:
        """Remember that a peer was reached by a record; an older one than is known changes nothing but the time."""
        known = self._records.pop(record.node_id, None)
        packet = record.to_bytes()
        if known is not None and _timestamp(known.packet) > record.timestamp_us:
            packet = known.packet
        self._records[record.node_id] = _Known(packet, self._wall())
        while len(self._records) > MAX_RECORDS:
            self._records.popitem(last=False)
        self._changed = True
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(SAVE_AFTER, self.save)

    def save(self) -> None:
        """Write what was learned, beside what other programs have written since; nothing if nothing was."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if not self._changed:
            return
        self._changed = False
        for node_id, theirs in self._read().items():
            ours = self._records.get(node_id)
            if ours is None or _timestamp(theirs.packet) > _timestamp(ours.packet):
                self._records[node_id] = theirs
        newest = sorted(self._records.items(), key=lambda item: item[1].met)[-MAX_RECORDS:]
        self._records = OrderedDict(newest)
        kept = [[base64.b64encode(known.packet).decode(), round(known.met)] for known in self._records.values()]
        self._file.write({"records": kept})

    def _read(self) -> dict[NodeId, _Known]:
        data = self._file.read()
        if data is None:
            return {}
        try:
            entries = [self._entry(entry) for entry in data["records"][-MAX_RECORDS:]]
        except (KeyError, TypeError, ValueError, binascii.Error) as exc:
            self._file.set_aside(str(exc) or type(exc).__name__)
            return {}
        oldest = self._wall() - MAX_AGE
        return {node_id: known for node_id, known in entries if known.met >= oldest}

    @staticmethod
    def _entry(entry: Any) -> tuple[NodeId, _Known]:
        text, met = entry
        packet = base64.b64decode(text, validate=True)
        if not isinstance(met, (int, float)) or isinstance(met, bool) or len(packet) < _HEAD:
            raise ValueError("an entry is not a record and a time")
        return NodeId(packet[:KEY_SIZE]), _Known(packet, met)


def _timestamp(packet: bytes) -> int:
    return int.from_bytes(packet[_HEAD - 8 : _HEAD], "big")
