"""Which of the addresses that calls name are knocked at, how often and when, without I/O.

Nobody vouches for them: a DHT node can invent as many as it likes, and each may be a victim's. So an address gets
`len(TIMES)` packets of 16 bytes, then nothing for `AGAIN` seconds, and all of them together no more than a budget.
"""

from __future__ import annotations

import heapq
import itertools
from collections import OrderedDict
from collections.abc import Iterable
from typing import Final

import attrs

from tom_connect.addr import SocketAddr
from tom_connect.holepunch.limits import KeyedBuckets, TokenBucket

TIMES: Final = ((0.0, True), (0.02, False), (0.6, False), (1.6, False))
"""Seconds after a call was found at which its address is knocked at, and whether only our own NAT sees it. The first
opens; those after it tell the caller, whose own opening has been under way since before it called."""
AGAIN: Final = 20.0
"""Seconds before an address is knocked at again although it calls again."""
OF_CALL: Final = 8
"""Addresses of one call that are looked at."""
OF_HOST: Final = 12
"""Addresses of one IP at once: several callers may be behind it, and one that shifts ports shows eight."""
HOST_AGAIN: Final = 5.0
"""Seconds after which one more address of it is knocked at: 13 bytes a second, for a victim."""
BURST: Final = 30.0
"""Addresses at once over all calls; `RATE`: a second after that, 30 a minute with `len(TIMES)` packets each."""
RATE: Final = 0.5
MAX_KNOWN: Final = 1024


@attrs.frozen
class Knock:
    """A knock to send now."""

    addr: SocketAddr
    opener: bool


class Knocks:
    """The knocks of an endpoint. Times are seconds of the caller's clock."""

    def __init__(self) -> None:
        self.refused = 0
        """Addresses that got nothing because of a limit."""
        self._all = TokenBucket(RATE, BURST)
        self._hosts: KeyedBuckets[str] = KeyedBuckets(1 / HOST_AGAIN, OF_HOST, MAX_KNOWN)
        self._known: OrderedDict[SocketAddr, float] = OrderedDict()
        self._due: list[tuple[float, int, Knock]] = []
        self._order = itertools.count()

    def called(self, addrs: Iterable[SocketAddr], now: float) -> None:
        """A call named these addresses, which may all be knocked at as far as the address filter goes."""
        for addr in itertools.islice(addrs, OF_CALL):
            if now - self._known.get(addr, -AGAIN) < AGAIN:
                continue
            if not self._hosts.take(addr.host, now) or not self._all.take(now):
                self.refused += 1
                continue
            self._known.pop(addr, None)
            self._known[addr] = now
            if len(self._known) > MAX_KNOWN:
                self._known.popitem(last=False)
            for after, opener in TIMES:
                heapq.heappush(self._due, (now + after, next(self._order), Knock(addr, opener)))

    @property
    def due(self) -> float | None:
        """When `take` has something, None if never."""
        return self._due[0][0] if self._due else None

    def take(self, now: float) -> list[Knock]:
        """The knocks that are due."""
        knocks = []
        while self._due and self._due[0][0] <= now:
            knocks.append(heapq.heappop(self._due)[2])
        return knocks
