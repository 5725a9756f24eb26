"""A prober behind a NAT and servers that tell addresses, over a bad network on a virtual clock."""

from __future__ import annotations

import heapq
import itertools
import random
from collections.abc import Callable

from tom_connect.abc import ProbeServer
from tom_connect.addr import RelayUrl, SocketAddr
from tom_connect.netreport.observations import Kind, Observations
from tom_connect.netreport.prober import Prober, Target
from tom_connect.netreport.stun import BindingRequest, StunError, binding_success

INSIDE = SocketAddr("192.168.1.5", 4000)
PUBLIC = "203.0.113.1"


def cone(_dest: SocketAddr) -> SocketAddr:
    """One mapping for all."""
    return SocketAddr(PUBLIC, 40000)


def symmetric(dest: SocketAddr) -> SocketAddr:
    """A mapping for each destination."""
    return SocketAddr(PUBLIC, 10000 + (int(dest.ip) * 31 + dest.port) % 50000)


def stun(name: str, number: int, *, certain: bool = True) -> Target:
    """A STUN server of a relay of its own."""
    server = ProbeServer(RelayUrl.parse(f"https://{name}.test/"), f"{name}.test", certain=certain)
    return Target(Kind.STUN, server, SocketAddr(f"192.0.2.{number}", 3478))


class World:
    """`mapping(dest)`: the NAT; `lies`: what a server says instead of the truth; `down`: servers that are silent."""

    def __init__(self, seed: int = 0, *, mapping: Callable[[SocketAddr], SocketAddr] = cone, loss: float = 0.0) -> None:
        self.now = 1000.0
        self.rng = random.Random(seed)
        self.mapping = mapping
        self.loss = loss
        self.hairpin = False
        self.in_use = True
        self.lies: dict[SocketAddr, SocketAddr] = {}
        self.down: set[SocketAddr] = set()
        self.sent: list[tuple[float, SocketAddr]] = []
        self.observations = Observations()
        self.prober = Prober(
            self.observations,
            in_use=lambda: self.in_use,
            random_bytes=self.rng.randbytes,
            uniform=self.rng.uniform,
        )
        self._flying: list[tuple[float, int, bytes, SocketAddr]] = []
        self._order = itertools.count()

    def run(self, seconds: float) -> None:
        """Let time pass."""
        end = self.now + seconds
        self._flush()
        while True:
            due = self.prober.get_timer()
            at = min(due if due is not None else end, self._flying[0][0] if self._flying else end)
            if at >= end:
                break
            self.now = max(self.now, at)
            if self._flying and self._flying[0][0] <= self.now:
                _, _, data, source = heapq.heappop(self._flying)
                self.prober.receive(data, source, self.now)
            else:
                self.prober.handle_timer(self.now)
            self._flush()
        self.now = end

    def _flush(self) -> None:
        for data, dest in self.prober.take_outbox():
            self.sent.append((self.now, dest))
            if self.rng.random() < self.loss:
                continue
            source = self.mapping(dest)
            if dest.host == PUBLIC:
                if self.hairpin:
                    self._deliver(data, source)
            elif dest not in self.down:
                try:
                    request = BindingRequest.decode(data)
                except StunError:
                    continue
                told = self.lies.get(dest, source)
                if self.rng.random() >= self.loss:
                    self._deliver(binding_success(request.transaction_id, told), dest)

    def _deliver(self, data: bytes, source: SocketAddr) -> None:
        delay = 0.02 + 0.06 * self.rng.random()
        heapq.heappush(self._flying, (self.now + delay, next(self._order), data, source))
