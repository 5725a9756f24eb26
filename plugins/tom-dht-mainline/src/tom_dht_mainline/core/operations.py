"""Handles of operations that a caller started, and what each has found so far."""

from __future__ import annotations

import enum
from collections.abc import Callable

import attrs

from .address import Address
from .items import Item, MutableItem

Wanted = Callable[[MutableItem], bool]
"""Whether an item counts."""


class PutOutcome(enum.Enum):
    """How a put ended."""

    PENDING = "pending"
    STORED = "stored"
    """At least one node acknowledged and no majority refused; see `acknowledged` against the quorum."""
    SUPERSEDED = "superseded"
    """A higher sequence number was shown, or more nodes hold one (error 302) than acknowledged."""
    CAS_MISMATCH = "cas-mismatch"
    """More nodes hold another sequence number than the caller expected (error 301) than acknowledged."""
    NO_NODES = "no-nodes"
    """No node that stores items answered."""


@attrs.frozen
class Contact:
    """A DHT node: its 20-byte id and its address."""

    node_id: bytes
    address: Address


@attrs.define(eq=False, kw_only=True)
class Operation:
    """What one call on a `DhtCore` started; read it at any time, `finished` becomes true once and for all."""

    target: bytes
    """20 bytes: what is looked for."""
    started_at: float
    ended_at: float | None = None
    first_result_at: float | None = None
    finished: bool = False
    cancelled: bool = False
    queries_sent: int = 0
    """Datagrams sent for it, retransmissions included; shared ones count for each sharer."""
    replies: int = 0
    timeouts: int = 0
    closest: tuple[Contact, ...] = ()
    """Nodes closest to the target that answered, nearest first; filled when the lookup ends."""

    @property
    def nodes_answered(self) -> int:
        """How many replies came."""
        return self.replies


@attrs.define(eq=False, kw_only=True)
class FindNodeOperation(Operation):
    """A lookup of the nodes closest to an id; the bootstrap is one for our own id."""


@attrs.define(eq=False, kw_only=True)
class GetOperation(Operation):
    """A get of one item; `item` is the best valid one so far."""

    item: Item | None = None
    public_key: bytes | None = None
    salt: bytes = b""
    min_seq: int = 0
    wanted: Wanted | None = None
    """Which of the mutable items count, where others may hold the key too; None: all."""
    without_bep44: int = 0
    """Nodes that answered but don't know BEP 44 (error 204)."""


@attrs.define(eq=False, kw_only=True)
class PeersOperation(Operation):
    """A get_peers; `peers` are all reported so far, bounded, unauthenticated.

    `named_by`: for each IP named, bounded too, the networks whose nodes name it (IPv4 /24, IPv6 /48).
    """

    peers: list[Address] = attrs.field(factory=list)
    named_by: dict[str, set[bytes]] = attrs.field(factory=dict)


@attrs.define(eq=False, kw_only=True)
class PutOperation(Operation):
    """A put of one item."""

    item: Item
    cas: int | None = None
    acknowledged: int = 0
    """Nodes known to hold the item, an unchanged one that they refuse to store again (302) included."""
    stored_at: float | None = None
    """When the quorum was reached."""
    outcome: PutOutcome = PutOutcome.PENDING
    newer_seq: int | None = None
    """A higher sequence number that a node claims for this target; unverified unless `newer_item` is set."""
    newer_item: Item | None = None
    error_codes: dict[int, int] = attrs.field(factory=dict)
    """KRPC error code to how many nodes returned it."""


@attrs.define(eq=False, kw_only=True)
class AnnounceOperation(PeersOperation):
    """An announce_peer; also yields the peers found on the way."""

    port: int
    implied_port: bool
    acknowledged: int = 0
    stored_at: float | None = None
    error_codes: dict[int, int] = attrs.field(factory=dict)


@attrs.define(eq=False, kw_only=True)
class MailboxOperation(Operation):
    """A watch over what is announced under an infohash; it ends when it is cancelled.

    `interval`: seconds between two polls; `nodes`: how many are polled in turn now.
    """

    interval: float
    nodes: int = 0


@attrs.define(eq=False, kw_only=True)
class PingOperation(Operation):
    """A ping of one address; `target` is empty bytes."""

    address: Address
    node_id: bytes | None = None
    rtt: float | None = None
    """Seconds, None without a reply."""
