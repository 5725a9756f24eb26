"""Which of the addresses that a directory gives are tried, and when; sans-IO.

Nobody vouches for an address. An attacker can have any number of ports at one IP address and any number of addresses in
one network, and nodes of the DHT may invent more; so each host and each network gets few places, those that are kept
are tried in random order, and one that failed is left alone for a while. Its place stays taken as long: the next search
would try further ports of the same host.
"""

from __future__ import annotations

import random
from collections import Counter, OrderedDict
from typing import Final

from tom_connect.addr import SocketAddr
from tom_relay.volunteer.topics import network_of

PER_HOST: Final = 2
"""Ports of one IP address: a household's two volunteers behind one router."""
PER_NETWORK: Final = 4
"""Addresses of one IPv4 /24 or IPv6 /48."""
MAX_CANDIDATES: Final = 256
FAILED_FOR: Final = 600.0
"""Seconds for which an address that failed is not tried again."""
MAX_FAILED: Final = 2048


class Candidates:
    """The addresses that wait to be tried. `spread`: False where all are of one network, as in a laboratory."""

    def __init__(self, rng: random.Random, *, spread: bool = True) -> None:
        self.refused = 0
        """Addresses that were not taken: too many of their host or network, or failed not long ago."""
        self._rng = rng
        self._spread = spread
        self._waiting: dict[SocketAddr, None] = {}
        self._hosts: Counter[str] = Counter()
        self._networks: Counter[str] = Counter()
        self._failed: OrderedDict[SocketAddr, float] = OrderedDict()
        self._failed_hosts: Counter[str] = Counter()
        self._failed_networks: Counter[str] = Counter()
        self._taken: set[SocketAddr] = set()

    def __len__(self) -> int:
        return len(self._waiting)

    def offer(self, addr: SocketAddr, now: float) -> bool:
        """Take an address in; whether it was."""
        network = network_of(addr)
        self._forgive(now)
        of_host = self._hosts[addr.host] + self._failed_hosts[addr.host]
        of_network = self._networks[network] + self._failed_networks[network]
        if (
            addr in self._waiting
            or addr in self._taken
            or len(self._waiting) >= MAX_CANDIDATES
            or self.has_failed(addr, now)
            or (self._spread and (of_host >= PER_HOST or of_network >= PER_NETWORK))
        ):
            self.refused += 1
            return False
        self._waiting[addr] = None
        self._hosts[addr.host] += 1
        self._networks[network] += 1
        return True

    def take(self) -> SocketAddr | None:
        """One that is to be tried now, at random."""
        if not self._waiting:
            return None
        addr = self._rng.choice(list(self._waiting))
        del self._waiting[addr]
        self._taken.add(addr)
        return addr

    def failed(self, addr: SocketAddr, now: float) -> None:
        """An address was no relay, or a bad one."""
        if addr not in self._failed:
            self._failed_hosts[addr.host] += 1
            self._failed_networks[network_of(addr)] += 1
            if addr in self._taken:
                # It has one place, not two: that of this search becomes that of the failure.
                self._taken.discard(addr)
                self._hosts[addr.host] -= 1
                self._networks[network_of(addr)] -= 1
        self._failed[addr] = now
        self._failed.move_to_end(addr)
        if len(self._failed) > MAX_FAILED:
            self._forget()

    def _forgive(self, now: float) -> None:
        while self._failed and now - next(iter(self._failed.values())) >= FAILED_FOR:
            self._forget()

    def _forget(self) -> None:
        addr, _at = self._failed.popitem(last=False)
        for counts, name in ((self._failed_hosts, addr.host), (self._failed_networks, network_of(addr))):
            counts[name] -= 1
            if counts[name] <= 0:
                del counts[name]

    def has_failed(self, addr: SocketAddr, now: float) -> bool:
        """Whether an address failed not long ago."""
        failed_at = self._failed.get(addr)
        return failed_at is not None and now - failed_at < FAILED_FOR

    def begin(self) -> None:
        """A new search: places are given anew, failures are remembered."""
        self._waiting.clear()
        self._hosts.clear()
        self._networks.clear()
        self._taken.clear()
