"""What a node has itself seen of each volunteer: how near it is, what it has done, how often it failed; sans-IO.

No volunteer's own word counts here, and nobody else's.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from typing import Any, Final

import attrs

from tom_connect.addr import RelayUrl
from tom_connect.exceptions import InvalidAddrError
from tom_connect.keys import NodeId
from tom_relay.client.standing import Standing

MAX_KNOWN: Final = 64
PROVEN_AFTER: Final = 1800.0
"""Seconds of service after which a volunteer counts as a relay rather than as a peer that may soon be gone."""
FORGET_AFTER: Final = 14 * 86_400.0
"""Seconds after which one that was not seen alive is forgotten."""
MAX_FILE: Final = 256 << 10
_HALF_LIFE: Final = 7 * 86_400.0


@attrs.define
class Known:
    """One volunteer. Times are seconds; `alive`: how long it served us in all; `seen`: when last, since 1970.

    `relayed`: bytes of others that it brought us; `failures`: tests it failed, and connections that it lost unasked,
    halved with each week of good service.
    """

    url: RelayUrl
    rtt: float | None = None
    alive: float = 0.0
    relayed: int = 0
    failures: float = 0.0
    seen: float = 0.0

    @property
    def score(self) -> float:
        """Grows with service: 1 for each tenfold of minutes and of megabytes, less 1 for each failure."""
        served = math.log10(1 + self.alive / 60) + math.log10(1 + self.relayed / 1e6)
        return served - self.failures

    @property
    def standing(self) -> Standing:
        """The same, as relays are compared."""
        proven = self.alive >= PROVEN_AFTER and self.failures < 1
        return Standing(self.score, "relay" if proven else "peer")


class VolunteerBook:
    """What is known of volunteers, by key; those that have served best are kept."""

    def __init__(self) -> None:
        self.level = 0
        """The level of topics at which volunteers were found last."""
        self.changed = False
        self._known: dict[NodeId, Known] = {}

    def __len__(self) -> int:
        return len(self._known)

    def of(self, url: RelayUrl) -> Known:
        """The entry of a volunteer, made if it is new; its address is the one at which it was seen last."""
        assert url.node_id is not None
        entry = self._known.get(url.node_id)
        if entry is None:
            entry = self._known[url.node_id] = Known(url)
            if len(self._known) > MAX_KNOWN:
                worst = min((key for key in self._known if key != url.node_id), key=lambda key: self._known[key].score)
                del self._known[worst]
        elif url.node_addr is not None:
            entry.url = url
        self.changed = True
        return entry

    def served(self, url: RelayUrl, seconds: float, relayed: int, rtt: float | None, wall: float) -> None:
        """A volunteer has served us for so long, and has brought us so many bytes."""
        entry = self.of(url)
        entry.alive += seconds
        entry.relayed += relayed
        entry.failures *= 0.5 ** (seconds / _HALF_LIFE)
        entry.rtt = rtt if rtt is not None else entry.rtt
        entry.seen = wall

    def failed(self, url: RelayUrl) -> None:
        """A volunteer failed a test, or was lost without having said that it goes."""
        self.of(url).failures += 1

    def best(self, wall: float, without: Iterable[NodeId | None] = ()) -> list[RelayUrl]:
        """Those worth another try, the best first."""
        left_out = set(without)
        usable = [
            entry
            for key, entry in self._known.items()
            if key not in left_out and entry.failures < 3 and 0 <= wall - entry.seen < FORGET_AFTER
        ]
        usable.sort(key=lambda entry: (-entry.score, entry.rtt if entry.rtt is not None else math.inf))
        return [entry.url for entry in usable if entry.url.node_addr is not None]

    def standing(self, url: RelayUrl) -> Standing:
        """How a volunteer stands with us."""
        entry = self._known.get(url.node_id) if url.node_id is not None else None
        return Standing() if entry is None else entry.standing

    def dump(self) -> bytes:
        """All of it, as JSON."""
        self.changed = False
        entries = [{**attrs.asdict(entry), "url": str(entry.url)} for entry in self._known.values()]
        return json.dumps({"level": self.level, "volunteers": entries}).encode()

    @classmethod
    def load(cls, data: bytes) -> VolunteerBook:
        """Read what `dump` wrote; entries that make no sense are left out, and nothing is raised."""
        book = cls()
        try:
            kept = json.loads(data[:MAX_FILE])
            level, entries = kept["level"], kept["volunteers"]
        except (ValueError, TypeError, LookupError, RecursionError):
            return book
        if isinstance(level, int) and 0 <= level <= 64:
            book.level = level
        for fields in entries[:MAX_KNOWN] if isinstance(entries, list) else ():
            entry = _entry(fields)
            if entry is not None and entry.url.node_id is not None:
                book._known[entry.url.node_id] = entry
        return book


def _entry(fields: Any) -> Known | None:
    try:
        url = RelayUrl.parse(fields["url"])
        rtt = fields["rtt"]
        numbers = [fields[name] for name in ("alive", "relayed", "failures", "seen")]
        sound = all(isinstance(n, (int, float)) and 0 <= n < 1e18 for n in [*numbers, 0.0 if rtt is None else rtt])
        return Known(url, rtt, *numbers) if sound and url.node_id is not None else None
    except (InvalidAddrError, TypeError, LookupError, AttributeError):
        return None
