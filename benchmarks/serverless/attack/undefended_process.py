"""A node without some of its defences, to see what each of them is worth: `undefended_process NAME,NAME`.

No setting of the library does this. What is taken away is taken away in this process alone.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from typing import Any, Final

from benchmarks.serverless.tom_process import main
from tom_connect.rendezvous import knocks
from tom_dht_mainline.core import external, items, lookup
from tom_dht_mainline.core.limits import Limits
from tom_dht_mainline.core.rendezvous import call, callee


def _replace(owner: Any, name: str, value: Any) -> None:
    """Put something in the place of what a module or class has."""
    getattr(owner, name)
    setattr(owner, name, value)


def _without_signatures() -> None:
    """Believe every item."""
    _replace(items.Verifier, "check", lambda self, item: True)


def _without_knock_limits() -> None:
    """Knock wherever a mailbox says."""
    for name in ("BURST", "RATE", "OF_HOST", "OF_CALL"):
        _replace(knocks, name, 1_000_000)
    _replace(knocks, "HOST_AGAIN", 0.001)


def _without_moving() -> None:
    """Stay in a mailbox that is flooded."""
    _replace(callee.Callee, "crowded", lambda self, *arguments: False)


def _without_shares() -> None:
    """Look at whatever addresses come first."""
    _replace(callee.Callee, "_refused", lambda self, fresh, now: set())


def _without_crowds() -> None:
    """Take the nodes nearest to a target for those that belong there."""
    _replace(lookup.Lookup, "is_crowded", lambda self, width, reach: False)
    _replace(lookup.Lookup, "knows_size", True)


def _without_votes() -> None:
    """Believe whoever says last where we are seen."""

    def count(self: external.ExternalAddress, now: float) -> bool:
        seen = next(reversed(self._votes.values()))[0]
        changed = seen != self.address
        self.address, self._voted = seen, True
        return changed

    _replace(external.ExternalAddress, "_count", count)


def _without_locks() -> None:
    """Leave sealed calls with a sequence number that anybody can exceed."""
    _replace(call, "SEQ", 1)


def _without_query_limits() -> None:
    """Answer every query of the DHT."""
    _replace(Limits, "admit_query", lambda self, ip, now: True)
    _replace(Limits, "admit_reply", lambda self, ip, size, now: True)


WITHOUT: Final[dict[str, Callable[[], None]]] = {
    "signatures": _without_signatures,
    "knocks": _without_knock_limits,
    "shares": _without_shares,
    "moving": _without_moving,
    "crowds": _without_crowds,
    "votes": _without_votes,
    "locks": _without_locks,
    "queries": _without_query_limits,
}


if __name__ == "__main__":
    for defence in filter(None, sys.argv[1].split(",")):
        WITHOUT[defence]()
    asyncio.run(main())
