"""Contribution statistics: what each node gave and took, its score and its role. Sans-IO; times are wall-clock seconds.

The score is `(relayed*1 + success*5 + uptime_h*0.5 + MiB_relayed*0.2 + ratio*1.5) * exp(-0.05*idle_h)`: `relayed`, the
packets it relayed for others; `success`, the share of packets that arrived, 0 to 1; `uptime_h`, hours connected in
all; `ratio`, bytes for others by bytes for itself; `idle_h`, hours since it last gave or took.
"""

from __future__ import annotations

import enum
import math
from collections import OrderedDict
from collections.abc import Iterable

import attrs

PROMOTE_AT = 10.0
DEMOTE_UNDER = 2.0
MIB = 1 << 20
MAX_RATIO = 10.0
"""A node that takes nothing for itself must not outweigh everything by its ratio alone."""


class Role(enum.Enum):
    """What a node is trusted to be: a peer, or a relay for others."""

    PEER = "peer"
    RELAY = "relay"


@attrs.define
class Contribution:
    """One node's. `relayed_*`: for others; `own_*`: for itself; `delivered`, `failed`: its packets, by outcome."""

    relayed_packets: int = 0
    relayed_bytes: int = 0
    own_packets: int = 0
    own_bytes: int = 0
    delivered: int = 0
    failed: int = 0
    sessions: int = 0
    uptime: float = 0.0
    last_active: float = 0.0
    role: Role = Role.PEER

    @property
    def success_rate(self) -> float:
        """The share of packets that arrived, 0 to 1; 0 before the first."""
        total = self.delivered + self.failed
        return self.delivered / total if total else 0.0

    @property
    def ratio(self) -> float:
        """Bytes for others by bytes for itself, at most MAX_RATIO."""
        if not self.own_bytes:
            return MAX_RATIO if self.relayed_bytes else 0.0
        return min(self.relayed_bytes / self.own_bytes, MAX_RATIO)

    def score(self, now: float) -> float:
        """See the module."""
        idle_h = max(0.0, now - self.last_active) / 3600
        gained = (
            self.relayed_packets * 1
            + self.success_rate * 5
            + self.uptime / 3600 * 0.5
            + self.relayed_bytes / MIB * 0.2
            + self.ratio * 1.5
        )
        return gained * math.exp(-0.05 * idle_h)

    def update_role(self, now: float) -> Role:
        """Promote or demote by the score, with the gap between both as hysteresis; returns the role."""
        score = self.score(now)
        if self.role is Role.PEER and score >= PROMOTE_AT:
            self.role = Role.RELAY
        elif self.role is Role.RELAY and score < DEMOTE_UNDER:
            self.role = Role.PEER
        return self.role


class Ledger:
    """The contributions of at most `limit` nodes, by their 32-byte keys; the longest idle are forgotten first.

    `relay` is the entry of the relay itself, which is never forgotten.
    """

    def __init__(self, limit: int = 10_000) -> None:
        self.limit = limit
        self.relay = Contribution()
        self.forgotten = 0
        self._nodes: OrderedDict[bytes, Contribution] = OrderedDict()
        self._changed: set[bytes] = set()

    def __len__(self) -> int:
        return len(self._nodes)

    def get(self, key: bytes) -> Contribution | None:
        """A node's entry, None if it has none."""
        return self._nodes.get(key)

    def items(self) -> Iterable[tuple[bytes, Contribution]]:
        """Keys and entries, the longest idle first."""
        return self._nodes.items()

    def touch(self, key: bytes, now: float) -> Contribution:
        """A node's entry, made if it is new, as active now."""
        entry = self._nodes.get(key)
        if entry is None:
            entry = self._nodes[key] = Contribution()
            if len(self._nodes) > self.limit:
                oldest, _ = self._nodes.popitem(last=False)
                self._changed.discard(oldest)
                self.forgotten += 1
        self._nodes.move_to_end(key)
        self._changed.add(key)
        entry.last_active = now
        return entry

    def restore(self, key: bytes, entry: Contribution) -> None:
        """Take an entry over from storage; call in the order of last activity."""
        if len(self._nodes) < self.limit:
            self._nodes[key] = entry

    def take_changed(self) -> list[tuple[bytes, Contribution]]:
        """Copies of the entries that changed since the last call, for storage."""
        changed, self._changed = self._changed, set()
        return [(key, attrs.evolve(self._nodes[key])) for key in changed if key in self._nodes]
