"""The facade: one Mainline DHT node, client and server, IPv4 and IPv6, without any I/O."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable

from .address import Address, Family
from .config import DhtConfig
from .counters import Counters
from .events import Event
from .items import Item
from .operations import (
    AnnounceOperation,
    FindNodeOperation,
    GetOperation,
    Operation,
    PeersOperation,
    PingOperation,
    PutOperation,
)
from .snapshot import Snapshot


class DhtCore:
    """A sans-IO DHT node: datagrams and `now` (monotonic seconds) in, datagrams and events out.

    After every call that takes `now`, the shell sends `datagrams_to_send()`, handles `events()` and re-arms its one timer
    for `next_timer()`. `receive` and `handle_timer` never raise. `now` must never go backwards.
    """

    def __init__(
        self,
        config: DhtConfig | None = None,
        *,
        rng: random.Random,
        now: float,
        snapshot: Snapshot | None = None,
        is_excluded: Callable[[Address], bool] | None = None,
    ) -> None:
        """A node that knows nobody but the nodes of `snapshot`.

        `rng` must be unpredictable in production (`random.SystemRandom()`): transaction ids and tokens come from it.
        `is_excluded(addr)` names addresses never to be queried, such as the peers that are being punched.
        """
        raise NotImplementedError

    # Pumping

    def receive(self, data: bytes, addr: Address, now: float) -> None:
        """Take a datagram from `addr`; anything malformed is dropped and counted."""
        raise NotImplementedError

    def handle_timer(self, now: float) -> None:
        """Do what is due at `now`; calling early or late is harmless."""
        raise NotImplementedError

    def next_timer(self) -> float | None:
        """When `handle_timer` is next needed, None if never."""
        raise NotImplementedError

    def datagrams_to_send(self) -> list[tuple[bytes, Address]]:
        """The datagrams to send now, in order; each is returned once."""
        raise NotImplementedError

    def events(self) -> list[Event]:
        """What happened since the last call, in order; each event is returned once."""
        raise NotImplementedError

    # Joining

    def bootstrap(self, addresses: Iterable[Address], now: float) -> FindNodeOperation:
        """Join through addresses of unknown id, all asked at once and retransmitted; finishes when the table is filled.

        May be called again with further addresses (names that resolve late) or after a network change. The addresses are
        kept, at most 64, as first hops for lookups while the table is nearly empty. Operations may be started before it
        has finished: they go to the same addresses. Without any address or saved node it finishes at once.
        """
        raise NotImplementedError

    def network_changed(self, now: float) -> None:
        """Forget external addresses and RTTs, and refresh the table: the host has moved to another network."""
        raise NotImplementedError

    # Operations; each raises DhtUsageError for arguments that the DHT can't carry

    def ping(self, addr: Address, now: float) -> PingOperation:
        """Ask one node for its id."""
        raise NotImplementedError

    def find_node(self, target: bytes, now: float) -> FindNodeOperation:
        """Find the nodes closest to a 20-byte id."""
        raise NotImplementedError

    def get_mutable(self, public_key: bytes, now: float, *, salt: bytes = b"", min_seq: int = 0) -> GetOperation:
        """Find a key's mutable item (BEP 44): events `ValueFound` for the first valid one, and for each higher `seq`.

        Items with `seq` below `min_seq` are ignored. Concurrent gets of one target share a lookup.
        """
        raise NotImplementedError

    def get_immutable(self, target: bytes, now: float) -> GetOperation:
        """Find an immutable item by its 20-byte hash; finishes as soon as it is found."""
        raise NotImplementedError

    def put(self, item: Item, now: float, *, cas: int | None = None) -> PutOperation:
        """Store an item on the nodes closest to its target: event `Stored` at the quorum, `Finished` after repairs.

        `cas` (mutable items): store only where the stored sequence number equals it. Putting an unchanged item again
        renews it. The signature of a mutable item is checked here: `ItemError` if it is wrong.
        """
        raise NotImplementedError

    def get_peers(self, info_hash: bytes, now: float) -> PeersOperation:
        """Find peers announced for a 20-byte infohash: `PeersFound` as they come."""
        raise NotImplementedError

    def announce_peer(self, info_hash: bytes, port: int, now: float, *, implied_port: bool = True) -> AnnounceOperation:
        """Announce ourselves for an infohash; with `implied_port` nodes store the port that they see us at."""
        raise NotImplementedError

    def cancel(self, operation: Operation, now: float) -> None:
        """End an operation early; it finishes with what it has, a shared lookup goes on for its other sharers."""
        raise NotImplementedError

    # State

    @property
    def counters(self) -> Counters:
        """What was sent, received and dropped."""
        raise NotImplementedError

    @property
    def serving(self) -> bool:
        """Whether queries are answered and `ro` is left out."""
        raise NotImplementedError

    def node_id(self, family: Family = Family.IPV4) -> bytes:
        """Our 20-byte id in one family's DHT."""
        raise NotImplementedError

    def external_address(self, family: Family = Family.IPV4) -> Address | None:
        """Where nodes from separate searches see us; port 0 if they see differing ports (an address-dependent NAT)."""
        raise NotImplementedError

    def table_size(self, family: Family = Family.IPV4) -> int:
        """Nodes in the routing table that answered us and are not bad."""
        raise NotImplementedError

    def estimated_dht_size(self, family: Family = Family.IPV4) -> int:
        """How many nodes the DHT has, judged by how close the closest ones to random targets are; 0 if unknown."""
        raise NotImplementedError

    def snapshot(self, now: float) -> Snapshot:
        """Node ids, external addresses and good nodes, to be saved and given to the next constructor."""
        raise NotImplementedError
