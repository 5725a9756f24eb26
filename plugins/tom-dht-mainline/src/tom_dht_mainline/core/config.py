"""Settings of the DHT core; every default states its reason."""

from __future__ import annotations

import enum

import attrs

from .address import Networks
from .errors import DhtUsageError


class Mode(enum.Enum):
    """Whether a node answers queries."""

    ADAPTIVE = "adaptive"
    """Client (`ro=1`, BEP 43) until its voted external address is shown to be reachable, then server."""
    SERVER = "server"
    """Answers and asks to be listed from the start."""
    CLIENT = "client"
    """Never answers, and says so with `ro=1`."""


@attrs.frozen(kw_only=True)
class DhtConfig:
    """Settings of one `DhtCore`; times in seconds, sizes in bytes."""

    ipv4: bool = True
    """Take part in the IPv4 DHT."""
    ipv6: bool = True
    """Take part in the IPv6 DHT (BEP 32); costs nothing while no IPv6 node is known."""
    mode: Mode = Mode.ADAPTIVE
    version: bytes = b"TM\x00\x01"
    """The `v` of every message: exactly 4 bytes, some nodes parse nothing else."""

    # Routing table
    k: int = 20
    """Nodes per bucket beyond the first few, which hold up to 128, 64 and 32: a wider first hop saves a round trip."""
    refresh_interval: float = 900.0
    """A node or bucket silent for longer is questionable (BEP 5)."""
    max_nodes_per_ip: int = 1
    """Table entries for one IPv4 address or IPv6 /64; more let one host own a bucket."""
    max_nodes_per_prefix: int = 4
    """Table entries and lookup candidates for one IPv4 /24 or IPv6 /48."""
    trusted_networks: tuple[str, ...] = ("127.0.0.0/8", "::1/128")
    """Networks without limits by address (diversity, rate, reply bytes): a lab puts all its nodes on one host."""

    # Lookups
    get_width: int = 8
    """A get ends when this many closest nodes have answered; all known implementations store on at least 8."""
    get_confirmations: int = 5
    """With a valid item in hand, a get ends when this many closest nodes have answered: a newer one would be there."""
    replicas: int = 8
    """A put goes to this many closest nodes: BEP 5's k, with which libtorrent gets by; 20 doubles a put's packets."""
    announce_replicas: int = 8
    """An announce goes to this many closest nodes (BEP 5's k)."""
    quorum: int = 6
    """Acknowledgements after which a put reports `Stored`; the rest are repaired behind it."""
    get_burst: int = 10
    """Nodes that a get asks at once at first: the quickest of many holders answers well below the median RTT."""
    cold_burst: int = 16
    """The same while hardly any node is known: a first hop names nodes that are less close, and more of them dead."""
    alpha: int = 12
    """Queries in flight per lookup and family, not counting the ones that have outlived their RTT-based time-out."""
    max_lookup_queries: int = 120
    """A lookup that has sent this many queries ends with what it has."""

    # Time-outs
    initial_timeout: float = 0.4
    """Time-out before any RTT is known: above most Internet RTTs, and a loss costs no more than that."""
    min_timeout: float = 0.1
    max_timeout: float = 1.5
    late_reply_window: float = 4.0
    """A reply is still taken this long after its query, but nothing waits for it."""
    bootstrap_retransmits: tuple[float, ...] = (0.3, 0.9, 2.1, 4.5)
    """When an unanswered bootstrap query is sent again: one lost packet at a cold start must not cost seconds."""

    # Caches
    target_cache_size: int = 1000
    token_lifetime: float = 300.0
    """Others rotate tokens after 5 minutes (BEP 5)."""

    # Server
    item_lifetime: float = 7200.0
    """BEP 44: items may be dropped 2 h after the last put."""
    peer_lifetime: float = 2700.0
    max_items: int = 8192
    max_infohashes: int = 2048
    max_peers_per_infohash: int = 500
    queries_per_ip: float = 20.0
    """Queries a second answered per IPv4 address or IPv6 /64; four times libtorrent's limit."""
    query_burst_per_ip: int = 100
    queries_total: float = 2000.0
    """Queries a second looked at in all: the DHT must leave the loop to others."""
    reply_bytes_per_prefix: float = 16_000.0
    """Reply bytes a second per IPv4 /24 or IPv6 /48, so that nobody spoofing a victim's address gains much."""
    reply_burst_per_prefix: int = 64_000
    max_incoming: int = 4096
    """Datagrams longer than this are dropped unread; no KRPC message comes near."""
    max_operations: int = 1000
    """Operations under way at once; more are refused with `DhtUsageError`."""
    max_queued_datagrams: int = 4096
    """Outgoing datagrams kept until `datagrams_to_send`; beyond it replies are dropped first."""

    def __attrs_post_init__(self) -> None:
        if len(self.version) != 4:
            raise DhtUsageError("the DHT version string must have exactly 4 bytes")
        if not (self.ipv4 or self.ipv6):
            raise DhtUsageError("at least one of ipv4 and ipv6 must be on")
        for name in (
            "k", "get_width", "get_confirmations", "replicas", "announce_replicas", "quorum", "alpha",
            "max_lookup_queries", "initial_timeout", "min_timeout", "max_timeout", "late_reply_window",
            "target_cache_size", "max_items", "max_infohashes", "max_peers_per_infohash", "max_operations",
        ):  # fmt: skip
            if getattr(self, name) <= 0:
                raise DhtUsageError(f"the DHT setting {name} must be above 0")
        try:
            Networks(self.trusted_networks)
        except ValueError as exc:
            raise DhtUsageError(f"trusted_networks must be IP networks such as 127.0.0.0/8: {exc}") from exc
