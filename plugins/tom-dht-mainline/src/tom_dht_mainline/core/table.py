"""Routing table of one family: k-buckets with candidates in reserve (BEP 5), bounded per address (against sybils)."""

from __future__ import annotations

import enum
import random
from collections import OrderedDict

from .address import Address, Networks, host_key, prefix_key
from .config import DhtConfig
from .nodeid import ID_BITS, as_int, id_in_bucket, shared_prefix_bits

_BUCKETS = ID_BITS + 1
_MAX_CANDIDATES = 32
_MAX_FAILURES = 2
"""Unanswered queries in a row after which a node is bad: with 5% loss a live one gets there once in 400."""

_FILL_INTERVAL = 4.0
_FILLED_BUCKETS = 4
"""While a table is young, its wide buckets are refreshed every few seconds: they decide how far the first hop gets."""


class State(enum.Enum):
    """BEP 5's three states of a node."""

    GOOD = "good"
    QUESTIONABLE = "questionable"
    BAD = "bad"


class Node:
    """A node that we know of; `key` is its id as a number, times are seconds."""

    __slots__ = ("address", "compact", "failures", "key", "last_reply", "last_seen", "node_id", "pinged_at")

    def __init__(self, node_id: bytes, address: Address, compact: bytes) -> None:
        self.node_id = node_id
        self.key = as_int(node_id)
        self.address = address
        self.compact = compact
        """Id and address as in `nodes`: 26 or 38 bytes."""
        self.last_reply = float("-inf")
        """When it last answered us; minus infinity if it never did."""
        self.last_seen = float("-inf")
        """When it last answered or queried us."""
        self.failures = 0
        self.pinged_at = float("-inf")

    @property
    def answered(self) -> bool:
        """Whether it ever answered us, from this address."""
        return self.last_reply != float("-inf")


class _Bucket:
    __slots__ = ("candidates", "capacity", "nodes", "refreshed_at")

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.nodes: list[Node] = []
        self.candidates: OrderedDict[bytes, Node] = OrderedDict()
        self.refreshed_at = float("-inf")


class RoutingTable:
    """Nodes by the length of the prefix that they share with us."""

    def __init__(self, own_id: bytes, config: DhtConfig, trusted: Networks) -> None:
        self._config = config
        self._trusted = trusted
        self._own_id = own_id
        self._own = as_int(own_id)
        self._buckets: list[_Bucket] = []
        self._nodes: dict[bytes, Node] = {}
        self._by_address: dict[Address, Node] = {}
        self._hosts: dict[bytes, int] = {}
        self._prefixes: dict[bytes, int] = {}
        self._make_buckets()

    def _make_buckets(self) -> None:
        k = self._config.k
        # Wide first buckets cost a few KiB and spare most lookups a round trip (libtorrent's extended table).
        self._buckets = [_Bucket(max(k, 128 >> i)) for i in range(_BUCKETS)]
        self._nodes = {}
        self._by_address = {}
        self._hosts = {}
        self._prefixes = {}

    def __len__(self) -> int:
        """Nodes held, bad ones included."""
        return len(self._nodes)

    @property
    def alive(self) -> int:
        """Nodes that have answered and are not bad."""
        return sum(node.answered and node.failures < _MAX_FAILURES for node in self._nodes.values())

    @property
    def has_alive(self) -> bool:
        """Whether `alive` is above 0, without counting."""
        return any(node.answered and node.failures < _MAX_FAILURES for node in self._nodes.values())

    @property
    def own_id(self) -> bytes:
        """Our id, 20 bytes."""
        return self._own_id

    def nodes(self) -> list[Node]:
        """All nodes, bad ones included, in no order."""
        return list(self._nodes.values())

    def find(self, address: Address) -> Node | None:
        """The table's node at an address."""
        return self._by_address.get(address)

    def change_own_id(self, own_id: bytes) -> None:
        """Sort all nodes anew around another id (BEP 42)."""
        nodes = sorted(self._nodes.values(), key=lambda node: -node.last_reply)
        candidates = [node for bucket in self._buckets for node in bucket.candidates.values()]
        self._own_id = own_id
        self._own = as_int(own_id)
        self._make_buckets()
        for node in nodes:
            self._insert(node)
        for node in candidates:
            self._add_candidate(self._bucket(node.key), node)

    def _bucket(self, key: int) -> _Bucket:
        return self._buckets[shared_prefix_bits(self._own, key)]

    def state(self, node: Node, now: float) -> State:
        """Good: answered in the last 15 minutes, or ever and queried us since; bad: 2 failures in a row."""
        if node.failures >= _MAX_FAILURES:
            return State.BAD
        if node.answered and node.failures == 0 and now - node.last_seen < self._config.refresh_interval:
            return State.GOOD
        return State.QUESTIONABLE

    def restore(self, node_id: bytes, address: Address, compact: bytes) -> None:
        """Take a node saved by an earlier run: questionable, and gone at its first silence."""
        if node_id != self._own_id and node_id not in self._nodes and address not in self._by_address:
            self._insert(Node(node_id, address, compact))

    def responded(self, node_id: bytes, address: Address, compact: bytes, now: float) -> bool:
        """Note a reply; True if the node is new in the table."""
        node = self._nodes.get(node_id)
        if node is not None and node.address == address:
            node.last_reply = node.last_seen = now
            node.failures = 0
            return False
        if node_id == self._own_id:
            return False
        if node is not None:
            # The id at another address: the old one stays unless it is gone, or ids could be stolen.
            if self.state(node, now) is not State.BAD:
                return False
            self._remove(node)
        stale = self._by_address.get(address)
        if stale is not None:
            # The address answered under a new id: its old one is dead.
            self._remove(stale)
        bucket = self._bucket(as_int(node_id))
        fresh = bucket.candidates.pop(node_id, None)
        if fresh is None or fresh.address != address:
            fresh = Node(node_id, address, compact)
        fresh.last_reply = fresh.last_seen = now
        fresh.failures = 0
        if self._insert(fresh):
            return True
        bad = next((other for other in bucket.nodes if self.state(other, now) is State.BAD), None)
        if bad is not None:
            self._remove(bad)
            if self._insert(fresh):
                return True
        self._add_candidate(bucket, fresh)
        return False

    def heard_of(self, node_id: bytes, address: Address, compact: bytes) -> None:
        """Remember a node that someone named or that queried us, until it has answered."""
        if node_id == self._own_id or node_id in self._nodes or address in self._by_address:
            return
        bucket = self._bucket(as_int(node_id))
        if node_id not in bucket.candidates and self._has_room_for(address):
            self._add_candidate(bucket, Node(node_id, address, compact))

    def queried_us(self, node_id: bytes, address: Address, now: float) -> bool:
        """Note a query; True if its sender is in the table."""
        node = self._nodes.get(node_id)
        if node is None or node.address != address:
            return False
        node.last_seen = now
        return True

    def failed(self, node_id: bytes | None, address: Address) -> None:
        """Note an unanswered query; a bad node goes as soon as another can take its place, a candidate at once."""
        node = self._by_address.get(address)
        if node is None:
            if node_id is not None:
                self.forget(node_id, address)
        else:
            node.failures += 1
            if not node.answered:
                self._remove(node)
            elif node.failures >= _MAX_FAILURES:
                bucket = self._bucket(node.key)
                ready = next((other for other in bucket.candidates.values() if other.answered), None)
                if ready is not None:
                    self._remove(node)
                    del bucket.candidates[ready.node_id]
                    self._insert(ready)
                elif node.failures > 2 * _MAX_FAILURES:
                    self._remove(node)

    def forget(self, node_id: bytes, address: Address) -> None:
        """Drop a node, or candidate, that is known to be gone or to lie."""
        node = self._nodes.get(node_id)
        if node is not None and node.address == address:
            self._remove(node)
        candidates = self._bucket(as_int(node_id)).candidates
        candidate = candidates.get(node_id)
        if candidate is not None and candidate.address == address:
            del candidates[node_id]

    def _has_room_for(self, address: Address) -> bool:
        ip = address[0]
        if ip in self._trusted:
            return True
        config = self._config
        return (
            self._hosts.get(host_key(ip), 0) < config.max_nodes_per_ip
            and self._prefixes.get(prefix_key(ip), 0) < config.max_nodes_per_prefix
        )

    def _insert(self, node: Node) -> bool:
        bucket = self._bucket(node.key)
        if len(bucket.nodes) >= bucket.capacity or not self._has_room_for(node.address):
            return False
        bucket.nodes.append(node)
        self._nodes[node.node_id] = node
        self._by_address[node.address] = node
        if node.address[0] not in self._trusted:
            host, prefix = host_key(node.address[0]), prefix_key(node.address[0])
            self._hosts[host] = self._hosts.get(host, 0) + 1
            self._prefixes[prefix] = self._prefixes.get(prefix, 0) + 1
        return True

    def _remove(self, node: Node) -> None:
        self._bucket(node.key).nodes.remove(node)
        del self._nodes[node.node_id]
        del self._by_address[node.address]
        if node.address[0] not in self._trusted:
            for counts, key in (
                (self._hosts, host_key(node.address[0])),
                (self._prefixes, prefix_key(node.address[0])),
            ):
                counts[key] -= 1
                if not counts[key]:
                    del counts[key]

    @staticmethod
    def _add_candidate(bucket: _Bucket, node: Node) -> None:
        bucket.candidates[node.node_id] = node
        if len(bucket.candidates) > _MAX_CANDIDATES:
            unproven = next((node_id for node_id, other in bucket.candidates.items() if not other.answered), None)
            bucket.candidates.pop(unproven if unproven is not None else next(iter(bucket.candidates)))

    def closest(self, target: int, count: int, *, include_candidates: bool = False) -> list[Node]:
        """The nodes nearest to a target that are not bad, nearest first; candidates are nodes that never answered."""
        buckets = self._buckets
        home = shared_prefix_bits(self._own, target)
        found: list[Node] = []
        # Whole groups at growing distance: our bucket that holds the target, all deeper ones, then shallower ones.
        groups: list[list[_Bucket]] = [[buckets[home]], buckets[home + 1 :]]
        groups.extend([bucket] for bucket in reversed(buckets[:home]))
        for group in groups:
            part = [node for bucket in group for node in bucket.nodes if node.failures < _MAX_FAILURES]
            if include_candidates:
                part.extend(node for bucket in group for node in bucket.candidates.values())
            if part:
                part.sort(key=lambda node: node.key ^ target)
                found.extend(part)
                if len(found) >= count:
                    break
        return found[:count]

    # Upkeep

    def bucket_to_refresh(self, now: float, rng: random.Random, *, filling: bool) -> bytes | None:
        """A random id in the bucket that has gone unrefreshed for longest, if that is over 15 minutes; marks it.

        With `filling`, buckets with room are due much sooner.
        """
        config = self._config
        deepest = max((i for i, bucket in enumerate(self._buckets) if bucket.nodes), default=-1)
        oldest, since = None, now - _FILL_INTERVAL
        for i in range(min(deepest + 1, ID_BITS)):
            bucket = self._buckets[i]
            due_after = config.refresh_interval
            if filling and len(bucket.nodes) < bucket.capacity and i < _FILLED_BUCKETS:
                due_after = _FILL_INTERVAL
            if bucket.refreshed_at <= since and now - bucket.refreshed_at >= due_after:
                oldest, since = i, bucket.refreshed_at
        if oldest is None:
            return None
        self._buckets[oldest].refreshed_at = now
        return id_in_bucket(self._own, oldest, rng)

    def mark_refreshed(self, target: bytes, now: float) -> None:
        """A lookup of this target has just refreshed its bucket."""
        self._bucket(as_int(target)).refreshed_at = now

    def mark_all_stale(self) -> None:
        """Have every bucket refreshed soon."""
        for bucket in self._buckets:
            bucket.refreshed_at = float("-inf")

    def nodes_to_ping(self, now: float, count: int) -> list[Node]:
        """Nodes worth a ping: questionable ones that a proven candidate waits for or that have been silent for longest,
        and candidates of buckets with room. Marks them, so that each is named once a minute at most."""
        wanted: list[Node] = []
        for bucket in self._buckets:
            if not bucket.nodes and not bucket.candidates:
                continue
            for node in bucket.nodes:
                if self.state(node, now) is not State.GOOD and now - node.pinged_at > 60.0:
                    wanted.append(node)
            room = bucket.capacity - len(bucket.nodes)
            if room > 0:
                for node in list(bucket.candidates.values())[:room]:
                    if node.pinged_at == float("-inf"):
                        wanted.append(node)
        wanted = wanted[:count]
        for node in wanted:
            node.pinged_at = now
        return wanted
