"""The child that runs libtorrent sessions: DHT nodes of a lab, and clients whose operations are timed.

Settings: the lab's nodes have distinct loopback addresses that libtorrent's protections would otherwise refuse, and
its rate limits (5 packets a second from one address, 8000 B/s up) would measure themselves; `protections` keeps them.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import random
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any, cast

import attrs
import libtorrent as lt
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from tests.interop.peers.lines import serve

OPEN_SETTINGS: dict[str, Any] = {
    "dht_restrict_routing_ips": False,
    "dht_restrict_search_ips": False,
    "dht_prefer_verified_node_ids": False,
    "dht_enforce_node_id": False,
    "dht_ignore_dark_internet": False,
    "dht_block_ratelimit": 1_000_000,
    "dht_upload_rate_limit": 100_000_000,
}
#: Settings of every session: the DHT and nothing else, with as few threads as libtorrent takes.
SETTINGS: dict[str, Any] = {
    "enable_dht": True,
    "enable_lsd": False,
    "enable_upnp": False,
    "enable_natpmp": False,
    "dht_bootstrap_nodes": "",
    "aio_threads": 1,
    "hashing_threads": 1,
}
QUERIES = ("ping", "find_node", "get_peers", "announce_peer", "get", "put")
ALERTS = lt.alert.category_t.dht_notification | lt.alert.category_t.error_notification
#: Seconds after which libtorrent itself has given up every query of a lookup twice over.
OPERATION_TIMEOUT = 90.0

Endpoint = tuple[str, int]


def expanded_key(seed: bytes) -> tuple[bytes, bytes]:
    """Return libtorrent's private key, the clamped SHA-512 of the seed, and the public key."""
    digest = bytearray(hashlib.sha512(seed).digest())
    digest[0] &= 248
    digest[31] = digest[31] & 63 | 64
    return bytes(digest), Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw()


def is_signed(key: bytes, salt: bytes, seq: int, value: bytes, signature: bytes) -> bool:
    """Check the signature of a mutable item whose value is a byte string (BEP 44)."""
    salted = b"4:salt%d:%b" % (len(salt), salt) if salt else b""
    try:
        message = b"%b3:seqi%de1:v%d:%b" % (salted, seq, len(value), value)
        Ed25519PublicKey.from_public_bytes(key).verify(signature, message)
    except InvalidSignature:
        return False
    return True


@attrs.define(eq=False)
class Node:
    """One session with a DHT node on one address; its operations take turns."""

    address: Endpoint
    session: lt.session
    busy: asyncio.Lock = attrs.field(factory=asyncio.Lock)

    @classmethod
    def open(cls, address: Endpoint, extra: Mapping[str, Any]) -> Node:
        """Start a session that listens on the address."""
        settings = {**SETTINGS, "listen_interfaces": f"{address[0]}:{address[1]}", "alert_mask": ALERTS, **extra}
        return cls(address, lt.session(cast(Any, settings)))

    def wait_running(self, timeout: float = 20.0) -> None:
        """Block until the DHT answers: a get before that is dropped in silence."""
        deadline = time.monotonic() + timeout
        while not self.session.is_dht_running():
            if time.monotonic() > deadline:
                raise TimeoutError("libtorrent's DHT did not start")
            time.sleep(0.001)
        if self.session.listen_port() != self.address[1]:
            raise OSError(f"libtorrent listens on {self.session.listen_port()} and not on {self.address}")

    def add(self, node: Endpoint) -> None:
        """Tell the routing table of a node."""
        self.session.add_dht_node((node[0], node[1]))

    def counters(self) -> dict[str, int]:
        """Return libtorrent's own counters, names without the leading dht."""
        self.session.pop_alerts()
        self.session.post_session_stats()
        values = self._await(lt.session_stats_alert, lambda alert: dict(alert.values))
        return {name[len("dht.") :]: value for name, value in values.items() if name.startswith("dht.")}

    def queries(self) -> int:
        """Return how many queries this node has sent."""
        counters = self.counters()
        return sum(counters[f"dht_{query}_out"] for query in QUERIES)

    def put_mutable(self, seed: bytes, value: bytes, salt: bytes) -> dict[str, Any]:
        """Put a mutable item; libtorrent chooses seq itself, old + 1."""
        private, public = expanded_key(seed)
        before = self.queries()
        start = time.monotonic()
        self.session.dht_put_mutable_item(private, public, value, salt)

        def reply(alert: Any) -> dict[str, Any] | None:
            if alert.public_key != public or alert.salt != salt:
                return None
            return {"stored": alert.num_success, "seq": alert.seq, "signature": alert.signature.hex()}

        result: dict[str, Any] = self._await(lt.dht_put_alert, reply)
        result["ms"] = (time.monotonic() - start) * 1000
        result["packets"] = self.queries() - before
        return result

    def put_immutable(self, value: bytes) -> dict[str, Any]:
        """Put an immutable item, a byte string."""
        before = self.queries()
        start = time.monotonic()
        target = self.session.dht_put_immutable_item(value)
        result = self._await(lt.dht_put_alert, lambda a: {"stored": a.num_success} if a.target == target else None)
        ms = (time.monotonic() - start) * 1000
        return {**result, "ms": ms, "target": target.to_bytes().hex(), "packets": self.queries() - before}

    def get_mutable(self, key: bytes, salt: bytes, start: float | None = None) -> dict[str, Any]:
        """Look a mutable item up to the end; say when the first value came and when the lookup ended.

        With a `start` (the clock's seconds) times count from there, and the first value is enough.
        """
        only_first = start is not None
        before = 0 if only_first else self.queries()
        start = time.monotonic() if start is None else start
        self.session.dht_get_mutable_item(key, salt)
        result: dict[str, Any] = {"value": None, "first_ms": None}

        def reply(alert: Any) -> bool:
            if alert.key != key or alert.salt != salt:
                return False
            now = (time.monotonic() - start) * 1000
            # An alert for nothing found has an empty item and whatever lay in memory as its signature.
            item, seq, signature = alert.item, alert.seq, alert.signature
            if isinstance(item, bytes) and is_signed(key, salt, seq, item, signature):
                if result["first_ms"] is None:
                    result["first_ms"] = now
                if seq >= result.get("seq", seq):
                    result.update(value=item.hex(), seq=seq, signature=signature.hex())
            result["end_ms"] = now
            return bool(alert.authoritative) or (only_first and result["first_ms"] is not None)

        self._await(lt.dht_mutable_item_alert, reply)
        result["packets"] = self.queries() - before
        return result

    def warm(self, lookups: int) -> dict[str, Any]:
        """Look up random keys, all at once, to the end."""
        waiting = {os.urandom(32) for _ in range(lookups)}
        for key in waiting:
            self.session.dht_get_mutable_item(key, b"")

        def reply(alert: Any) -> bool:
            if alert.authoritative:
                waiting.discard(alert.key)
            return not waiting

        self._await(lt.dht_mutable_item_alert, reply)
        return {}

    def get_immutable(self, target: bytes) -> dict[str, Any]:
        """Look an immutable item up."""
        before = self.queries()
        start = time.monotonic()
        self.session.dht_get_immutable_item(lt.sha1_hash(target))

        def reply(alert: Any) -> dict[str, Any] | None:
            if alert.target.to_bytes() != target:
                return None
            item = alert.item
            return {"value": item.hex() if isinstance(item, bytes) and item else None}

        result = self._await(lt.dht_immutable_item_alert, reply)
        return {**result, "ms": (time.monotonic() - start) * 1000, "packets": self.queries() - before}

    def _await(self, kind: type, read: Callable[[Any], Any]) -> Any:
        deadline = time.monotonic() + OPERATION_TIMEOUT
        while time.monotonic() < deadline:
            if self.session.wait_for_alert(1000) is None:
                continue
            # Alerts die with the next pop: each is read here and now.
            for alert in self.session.pop_alerts():
                if isinstance(alert, kind) and (result := read(alert)):
                    return result
        raise TimeoutError(f"no {kind.__name__} within {OPERATION_TIMEOUT} s")


@attrs.define(eq=False)
class Net:
    """The sessions of this process, by number; a lab's come first and each client that is opened gets the next."""

    settings: dict[str, Any]
    nodes: dict[int, Node] = attrs.field(factory=dict)
    _next: int = 0

    def add(self, address: Endpoint, extra: Mapping[str, Any]) -> int:
        """Open a session and return its number."""
        number = self._next
        self._next += 1
        self.nodes[number] = Node.open(address, {**self.settings, **extra})
        return number

    def link(self, links: int, seed: int) -> None:
        """Tell each node of its ring neighbours and a few others, then let each look about until it knows enough."""
        chooser = random.Random(seed)
        nodes = list(self.nodes.values())
        for node in nodes:
            node.wait_running()
        for place, node in enumerate(nodes):
            others = [nodes[(place + 1) % len(nodes)], *chooser.sample(nodes, min(links, len(nodes)))]
            for other in others:
                if other is not node:
                    node.add(other.address)
        wanted = min(len(nodes) - 1, 12)
        deadline = time.monotonic() + 30.0
        while any(node.counters()["dht_nodes"] < wanted for node in nodes):
            if time.monotonic() > deadline:
                raise TimeoutError(f"a node still knows fewer than {wanted} others")
            for node in nodes:
                node.session.dht_get_peers(lt.sha1_hash(os.urandom(20)))
            time.sleep(0.2)

    async def _run(self, node: int, work: Callable[[Node], dict[str, Any]]) -> dict[str, Any]:
        target = self.nodes[node]
        async with target.busy:
            return await asyncio.to_thread(work, target)

    async def put_mutable(self, node: int, seed: str, value: str, salt: str = "") -> dict[str, Any]:
        """Put a mutable item from a node."""
        arguments = [bytes.fromhex(text) for text in (seed, value, salt)]
        return await self._run(node, lambda n: n.put_mutable(*arguments))

    async def get_mutable(self, node: int, key: str, salt: str = "") -> dict[str, Any]:
        """Get a mutable item from a node."""
        return await self._run(node, lambda n: n.get_mutable(bytes.fromhex(key), bytes.fromhex(salt)))

    async def put_immutable(self, node: int, value: str) -> dict[str, Any]:
        """Put an immutable item from a node."""
        return await self._run(node, lambda n: n.put_immutable(bytes.fromhex(value)))

    async def get_immutable(self, node: int, target: str) -> dict[str, Any]:
        """Get an immutable item from a node."""
        return await self._run(node, lambda n: n.get_immutable(bytes.fromhex(target)))

    async def add_node(self, node: int, host: str, port: int) -> dict[str, Any]:
        """Tell a node of another."""
        self.nodes[node].add((host, port))
        return {}

    async def warm(self, node: int, lookups: int) -> dict[str, Any]:
        """Let a node look about."""
        return await self._run(node, lambda n: n.warm(lookups))

    async def queries(self, node: int) -> dict[str, Any]:
        """Return how many queries a node has sent."""
        return await self._run(node, lambda n: {"sent": n.queries()})

    async def counters(self, node: int) -> dict[str, Any]:
        """Return a node's counters."""
        return await self._run(node, lambda n: dict(n.counters()))

    async def open(self, host: str, port: int, bootstrap: list[list[Any]], know: list[list[Any]]) -> dict[str, Any]:
        """Open a further session: `bootstrap` are libtorrent's routers, `know` go to its routing table."""

        def work() -> int:
            routers = ",".join(f"{name}:{number}" for name, number in bootstrap)
            number = self.add((host, port), {"dht_bootstrap_nodes": routers})
            self.nodes[number].wait_running()
            for other in know:
                self.nodes[number].add((other[0], other[1]))
            return number

        return {"node": await asyncio.to_thread(work)}

    async def cold_get(
        self, host: str, port: int, bootstrap: list[list[Any]], key: str, salt: str = ""
    ) -> dict[str, Any]:
        """Open a session, get at once, close it: the time counts from before the session exists."""

        def work() -> dict[str, Any]:
            start = time.monotonic()
            routers = ",".join(f"{name}:{number}" for name, number in bootstrap)
            node = Node.open((host, port), {**self.settings, "dht_bootstrap_nodes": routers})
            node.wait_running()
            return node.get_mutable(bytes.fromhex(key), bytes.fromhex(salt), start)

        return await asyncio.to_thread(work)

    async def close(self, node: int) -> dict[str, Any]:
        """Close a session, as a node that leaves the network without a word."""
        session = self.nodes.pop(node)
        async with session.busy:
            pass
        return {}


async def main(options: dict[str, Any]) -> None:
    """Start the lab that the options describe and answer until stdin ends."""
    net = Net({} if options["protections"] else OPEN_SETTINGS)
    for host, port in options["addresses"]:
        net.add((host, port), {})
    if net.nodes:
        await asyncio.to_thread(net.link, options["links"], options["seed"])
    names = "put_mutable get_mutable put_immutable get_immutable add_node counters queries warm open cold_get close"
    await serve(
        {name: getattr(net, name) for name in names.split()}, version=lt.version, addresses=options["addresses"]
    )
    net.nodes.clear()


if __name__ == "__main__":
    asyncio.run(main(json.loads(sys.argv[1])))
