"""What operations of a node return."""

from __future__ import annotations

import attrs

from .core import Address


@attrs.frozen
class PutResult:
    """Where an item was stored: `acknowledged` nodes hold it so far; `target`, 20 bytes; `seq`, None if immutable."""

    target: bytes
    acknowledged: int
    seq: int | None = None


@attrs.frozen
class PingResult:
    """A node that answered: its address, 20-byte id and round-trip time in seconds."""

    address: Address
    node_id: bytes
    rtt: float


@attrs.frozen
class NodeStats:
    """Where a node stands; counts are since its start.

    `table`: good nodes in the routing table by family; `dht_size`: how many nodes the DHT has, estimated, 0 if unknown;
    `external`: where others see us by family, port 0 if they see differing ports; `dropped`: datagrams or items not
    used, by reason; `failures`: faults of our own that were caught, 0 unless there is a bug.
    """

    node_ids: dict[str, bytes]
    table: dict[str, int]
    dht_size: dict[str, int]
    external: dict[str, Address]
    serving: bool
    received: int
    sent: int
    received_bytes: int
    sent_bytes: int
    queries_in: dict[str, int]
    queries_out: dict[str, int]
    timeouts: int
    dropped: dict[str, int]
    lost_here: int
    """Datagrams that the node's own queue or the system's buffers had no room for."""
    failures: int
    bootstrap: dict[str, str]
    """Each bootstrap node with what became of it."""
