"""What the announcements in a mailbox amount to: who calls, where it may be, and who else says so."""

from __future__ import annotations

import math
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from typing import Final

import attrs

from tom_dht_mainline.core.address import Address, prefix_key

NEW_AFTER: Final = 600.0
"""Seconds without being named after which an announced address is a new call. Nodes name an announcement for 45 minutes
and each is polled every ten seconds or so, so an address that is named all the time is one call."""
MAX_KNOWN: Final = 2048
MAX_HOSTS: Final = 2048
ADDRESSES_OF_HOST: Final = 4
"""The latest addresses of one IP that are tried when it calls again: who calls twice from one port says so by
announcing another one."""
ATTESTED_BY: Final = 3
"""Networks whose nodes must agree that an IP called, for it to be believed: each of them sees who announces."""
CROWDED: Final = 50
"""Addresses in one answer from which on a mailbox is taken for flooded: 100 at most are named, by chance."""
CROWDED_BY: Final = 3
"""Nodes that must say so: one or two that invent addresses would do so at the next mailbox too."""
CROWDED_WITHIN: Final = 30.0
"""Seconds within which they say so: each node is polled every ten or twenty."""
FRESH: Final = 30.0
"""New addresses that are looked at at once, and `FRESH_RATE` a second after that: as many as are knocked at."""
FRESH_RATE: Final = 0.5
SHARE: Final = 4
"""One answer has at most this part of the new addresses that are left. So nodes that invent some can't use up what
those that don't need for theirs; what has no room is taken as new with a later answer."""
KEPT: Final = 8.0
"""New addresses that are kept for nodes of networks that have not used up their own: who invents some has used up that,
and all the rest, before somebody calls."""
FAIR: Final = 3.0
"""New addresses that a network's nodes have for their own, and `FAIR_RATE` a second after that."""
FAIR_RATE: Final = 0.05
MAX_NETWORKS: Final = 256
MOVE_SOONEST: Final = 10.0
"""Seconds between two moves of a mailbox: each is a put, and who called in the old one must read where it is now."""
NEAR: Final = 12
"""Bytes that a mailbox has in common with the record's target: the same nodes are nearest to both."""
TARGET_SIZE: Final = 20


@attrs.frozen
class Caller:
    """Somebody calls: the addresses at which it may be, the latest first; `attested`: whether its IP is believed."""

    host: str
    addrs: tuple[Address, ...]
    attested: bool


@attrs.define(eq=False)
class _Host:
    addrs: deque[Address] = attrs.field(factory=lambda: deque(maxlen=ADDRESSES_OF_HOST))
    named_by: set[bytes] = attrs.field(factory=set)
    at: float = float("-inf")


class Callee:
    """Reads one node's mailbox. `target`: of its record, 20 bytes; `random(n)`: n bytes."""

    def __init__(self, target: bytes, random: Callable[[int], bytes]) -> None:
        self.mailbox = target
        """The infohash to poll and to publish now: the record's own target, until that is flooded."""
        self._target = target
        self._random = random
        self._moved_at = float("-inf")
        self._crowded_by: dict[str, float] = {}
        self._fresh = (FRESH, float("-inf"))
        """New addresses that may be looked at, and the time when it was so."""
        self._fair: OrderedDict[bytes, tuple[float, float]] = OrderedDict()
        """By network of a node, the new addresses that it has left for its own, and the time when it was so."""
        self._known: OrderedDict[Address, float] = OrderedDict()
        self._hosts: OrderedDict[str, _Host] = OrderedDict()

    def named(self, node: Address, peers: Sequence[Address], own: Sequence[Address], now: float) -> list[Caller]:
        """A node names who has announced to it; returns the callers that are new. `own`: where we are seen, port 0:
        at another one by each.
        """
        callers: dict[str, None] = {}
        shifting = {ip for ip, port in own if not port}
        fresh = [peer for peer in peers if now - self._known.get(peer, float("-inf")) >= NEW_AFTER]
        strange = [peer for peer in fresh if peer not in own and peer[0] not in shifting]
        refused = self._refused(prefix_key(node[0]), strange, now)
        for peer in peers:
            if peer in own or peer[0] in shifting or peer in refused:
                continue
            before = self._known.pop(peer, float("-inf"))
            self._known[peer] = now
            if len(self._known) > MAX_KNOWN:
                self._known.popitem(last=False)
            host = self._host(peer[0], now)
            named = len(host.named_by)
            host.named_by.add(prefix_key(node[0]))
            news = now - before >= NEW_AFTER
            if news:
                if peer in host.addrs:
                    host.addrs.remove(peer)
                host.addrs.appendleft(peer)
            if news or (named < ATTESTED_BY <= len(host.named_by)):
                callers[peer[0]] = None
        return [self._caller(name) for name in callers]

    def _refused(self, network: bytes, fresh: Sequence[Address], now: float) -> set[Address]:
        """Those of the new addresses of one answer that there is no room for now; `network`: of the node."""
        left, since = self._fresh
        left = min(FRESH, left + max(0.0, now - since) * FRESH_RATE)
        fair, since = self._fair.get(network, (FAIR, now))
        fair = min(FAIR, fair + max(0.0, now - since) * FAIR_RATE)
        free = left if fair >= 1 else left - KEPT
        room = min(len(fresh), math.ceil(free / SHARE) if free >= 1 else 0)
        self._fresh = (left - room, now)
        if room:
            self._fair.pop(network, None)
            self._fair[network] = (max(0.0, fair - room), now)
            if len(self._fair) > MAX_NETWORKS:
                self._fair.popitem(last=False)
        if room == len(fresh):
            return set()
        # By lot, or who fills a list could see to it that his come first; and who has announced many ports, here or
        # before, comes after who announces one.
        heard = {ip: len(host.addrs) for ip, host in self._hosts.items() if now - host.at < NEW_AFTER}
        ranked = []
        for peer in sorted(fresh, key=lambda peer: self._random(4)):
            ranked.append((heard.get(peer[0], 0), peer))
            heard[peer[0]] = heard.get(peer[0], 0) + 1
        ranked.sort(key=lambda each: each[0])
        return {peer for _, peer in ranked[room:]}

    def is_attested(self, ip: str) -> bool:
        """Whether nodes of several networks have named an IP lately."""
        host = self._hosts.get(ip)
        return host is not None and len(host.named_by) >= ATTESTED_BY

    @staticmethod
    def ports(peers: Sequence[Address]) -> dict[str, list[int]]:
        """The ports of each IP that has announced several."""
        found: dict[str, list[int]] = {}
        for ip, port in peers:
            found.setdefault(ip, []).append(port)
        return {ip: ports for ip, ports in found.items() if len(ports) > 1}

    def _host(self, name: str, now: float) -> _Host:
        host = self._hosts.pop(name, None)
        if host is None or now - host.at >= NEW_AFTER:
            host = _Host()
        host.at = now
        self._hosts[name] = host
        if len(self._hosts) > MAX_HOSTS:
            self._hosts.popitem(last=False)
        return host

    def _caller(self, name: str) -> Caller:
        host = self._hosts[name]
        return Caller(name, tuple(host.addrs), len(host.named_by) >= ATTESTED_BY)

    def crowded(self, node: Address, peers: Sequence[Address], now: float) -> bool:
        """Whether a mailbox in which a node names these addresses is flooded; it is then another one from now on."""
        if len(peers) < CROWDED:
            self._crowded_by.pop(node[0], None)
            return False
        self._crowded_by = {by: at for by, at in self._crowded_by.items() if now - at < CROWDED_WITHIN}
        self._crowded_by[node[0]] = now
        if len(self._crowded_by) < CROWDED_BY or now - self._moved_at < MOVE_SOONEST:
            return False
        self._moved_at = now
        self._crowded_by.clear()
        self.mailbox = self._target[:NEAR] + self._random(TARGET_SIZE - NEAR)
        return True
