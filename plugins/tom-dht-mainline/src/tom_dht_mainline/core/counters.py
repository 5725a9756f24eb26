"""Counts of what a node sent, received and dropped, by reason."""

from __future__ import annotations

from collections import Counter

import attrs


@attrs.define
class Counters:
    """Totals since the start; every key of the dicts comes from a fixed set, so they are bounded."""

    received: int = 0
    received_bytes: int = 0
    sent: int = 0
    sent_bytes: int = 0
    queries_in: Counter[str] = attrs.field(factory=Counter)
    """Queries answered, by method."""
    queries_out: Counter[str] = attrs.field(factory=Counter)
    """Queries sent, by method, retransmissions included."""
    replies_in: int = 0
    late_replies: int = 0
    """Replies that came after their query's RTT-based time-out and were still used."""
    timeouts: int = 0
    retransmits: int = 0
    errors_in: Counter[int] = attrs.field(factory=Counter)
    """KRPC errors received, by code; unknown codes count as 0."""
    errors_out: Counter[int] = attrs.field(factory=Counter)
    dropped: Counter[str] = attrs.field(factory=Counter)
    """Datagrams or items not used, by reason: `too-large`, `not-krpc`, `bencode`, `unsolicited`, `wrong-source`,
    `rate-ip`, `rate-total`, `reply-budget`, `client-mode`, `bad-node-id`, `bad-signature`, `bad-key`, `bad-target`,
    `stale`, `bad-value`, `excluded`, `queue-full`."""
