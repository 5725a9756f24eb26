"""Where others see us (BEP 42): votes by the `ip` of replies, believed when separate searches agree."""

from __future__ import annotations

from collections import Counter, OrderedDict

from .address import Address, prefix_key

_MAX_VOTES = 40
_MIN_VOTERS = 4
_MIN_SEARCHES = 2
_VOTE_LIFETIME = 1800.0
"""A NAT mapping may change while the IP stays; older votes say nothing about now."""


class ExternalAddress:
    """The votes of one family: one for each network that voted, the last 40."""

    def __init__(self) -> None:
        self._votes: OrderedDict[bytes, tuple[Address, int, float]] = OrderedDict()
        self.address: Address | None = None
        """Where others see us; after a restart, where they saw us before, until votes say it again."""
        self._voted = False

    def vote(self, voter: Address, seen: Address, search: int, now: float, *, by_address: bool) -> bool:
        """Note that a voter, in the course of a search, sees us at an address; True if `address` is news.

        One voice a network, so that nobody outvotes the rest with many ids; `by_address` counts each address instead.
        """
        key = repr(voter).encode() if by_address else prefix_key(voter[0])
        before = self._votes.pop(key, None)
        self._votes[key] = (seen, search, now)
        if len(self._votes) > _MAX_VOTES:
            self._votes.popitem(last=False)
        if before is not None and before[0] == seen == self.address and self._voted:
            return False
        return self._count(now)

    def _count(self, now: float) -> bool:
        votes = [vote for vote in self._votes.values() if now - vote[2] < _VOTE_LIFETIME]
        ips = Counter(seen[0] for seen, _, _ in votes)
        if not ips:
            return False
        ip, voters = ips.most_common(1)[0]
        mine = [(seen, search) for seen, search, _ in votes if seen[0] == ip]
        if voters < _MIN_VOTERS or 2 * voters <= len(votes) or len({search for _, search in mine}) < _MIN_SEARCHES:
            return False
        port, same = Counter(seen[1] for seen, _ in mine).most_common(1)[0]
        # Nodes that see differing ports tell of a NAT that maps by destination: no port is ours for strangers.
        address = (ip, port if 2 * same > len(mine) else 0)
        if address == self.address and self._voted:
            return False
        self.address, self._voted = address, True
        return True

    def clear(self) -> None:
        """Forget all votes and the outcome."""
        self._votes.clear()
        self.address, self._voted = None, False
