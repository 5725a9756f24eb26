"""A network of DHT cores under a virtual clock: seeded delay, loss and dead nodes, no sockets and no waiting."""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable
from itertools import count

import attrs

from tom_dht_mainline.core import Address, DhtConfig, DhtCore, Event, Finished, Mode, Operation


@attrs.define(eq=False)
class Host:
    """One core at one address, the events it has reported and the datagrams it has sent."""

    core: DhtCore
    address: Address
    events: list[tuple[float, Event]] = attrs.field(factory=list)
    sent: int = 0
    received: int = 0
    alive: bool = True
    armed: float = float("inf")


@attrs.define
class Link:
    """How datagrams travel: RTT log-normal around `rtt` seconds and fixed for each pair, `loss` of them vanish."""

    rtt: float = 0.05
    sigma: float = 0.5
    loss: float = 0.0


class FakeNet:
    """Hosts and the datagrams between them; `now` is the virtual time in seconds."""

    def __init__(self, seed: int, link: Link | None = None) -> None:
        self.rng = random.Random(seed)
        self.link = link or Link()
        self.now = 1000.0
        self.hosts: dict[Address, Host] = {}
        self.tap: Callable[[bytes, Address, Address], bytes | None] | None = None
        """Sees every datagram as (data, source, destination) and returns what arrives instead, None for nothing."""
        self._queue: list[tuple[float, int, Address, Address | None, bytes]] = []
        self._order = count()
        self._rtts: dict[tuple[Address, Address], float] = {}
        self._addresses = count(1)

    def new_address(self) -> Address:
        """A public address in a /24 of its own."""
        n = next(self._addresses)
        return f"{20 + n // 16384}.{n // 128 % 128}.{n % 128 * 2}.{self.rng.randrange(1, 255)}", 6881

    def add(self, config: DhtConfig | None = None, address: Address | None = None, **kwargs: object) -> Host:
        """A new host; a serving node unless `config` says otherwise."""
        address = address or self.new_address()
        config = config or DhtConfig(mode=Mode.SERVER)
        core = DhtCore(config, rng=random.Random(self.rng.random()), now=self.now, **kwargs)  # type: ignore[arg-type]
        host = self.hosts[address] = Host(core, address)
        self.flush(host)
        return host

    def kill(self, host: Host) -> None:
        """The host goes silent."""
        host.alive = False

    def inject(self, data: bytes, source: Address, destination: Address, delay: float = 0.0) -> None:
        """Deliver a datagram, whatever its source claims."""
        heapq.heappush(self._queue, (self.now + delay, next(self._order), destination, source, data))

    def _delay(self, a: Address, b: Address) -> float:
        key = (a, b) if a < b else (b, a)
        rtt = self._rtts.get(key)
        if rtt is None:
            rtt = self._rtts[key] = self.link.rtt * self.rng.lognormvariate(0.0, self.link.sigma)
        return rtt / 2

    def flush(self, host: Host) -> None:
        """Send what a core wants sent, note its events, arm its timer; call it after using a core directly."""
        for data, destination in host.core.datagrams_to_send():
            host.sent += 1
            if self.rng.random() < self.link.loss:
                continue
            arriving = self.tap(data, host.address, destination) if self.tap else data
            if arriving is not None:
                self.inject(arriving, host.address, destination, self._delay(host.address, destination))
        host.events.extend((self.now, event) for event in host.core.events())
        due = host.core.next_timer()
        if due is not None and due < host.armed:
            host.armed = due
            heapq.heappush(self._queue, (due, next(self._order), host.address, None, b""))

    def step(self) -> bool:
        """Deliver the next datagram or timer; False if there is none."""
        if not self._queue:
            return False
        when, _, destination, source, data = heapq.heappop(self._queue)
        self.now = max(self.now, when)
        host = self.hosts.get(destination)
        if host is None or not host.alive:
            return True
        if source is None:
            host.armed = float("inf")
            host.core.handle_timer(self.now)
        else:
            host.received += 1
            host.core.receive(data, source, self.now)
        self.flush(host)
        return True

    def run(self, seconds: float) -> None:
        """Let time pass."""
        end = self.now + seconds
        while self._queue and self._queue[0][0] <= end:
            self.step()
        self.now = end

    def run_until(self, done: Callable[[], bool], limit: float = 60.0) -> None:
        """Let time pass until `done()`; fails after `limit` seconds."""
        end = self.now + limit
        while not done():
            assert self.now <= end, f"not done after {limit} virtual seconds"
            assert self.step(), "nothing happens any more"

    def finish(self, host: Host, operation: Operation, limit: float = 60.0) -> None:
        """Run until an operation of a host has finished; checks that it says so by exactly one event, its last."""
        self.flush(host)
        self.run_until(lambda: operation.finished, limit)
        mine = [event for _, event in host.events if getattr(event, "operation", None) is operation]
        assert isinstance(mine[-1], Finished)
        assert sum(isinstance(event, Finished) for event in mine) == 1

    def events_of(self, host: Host, operation: Operation) -> list[tuple[float, Event]]:
        """The events of one operation, with their times."""
        return [(at, event) for at, event in host.events if getattr(event, "operation", None) is operation]


def swarm(net: FakeNet, size: int, config: DhtConfig | None = None, settle: float = 60.0) -> list[Host]:
    """Hosts that have joined through the first few, all serving."""
    hosts = [net.add(config) for _ in range(size)]
    routers = [host.address for host in hosts[:4]]
    for index, host in enumerate(hosts):
        host.core.bootstrap([addr for addr in routers if addr != host.address], net.now)
        net.flush(host)
        if index % 8 == 7:
            net.run(0.2)
    net.run(settle)
    return hosts
