"""Simulated networks: hosts, LANs, NATs, carriers and relays in memory, on a virtual clock, all from one seed.

    net = FakeNet(seed=7)
    home = net.router("home", Nat.MODERATE, link=Link(delay=0.010, loss=0.02))
    alice, bob = net.host("alice", home), net.host("bob")
    socket = alice.socket(receive=lambda data, source: ...)
    socket.send(b"hello", bob.addr(4433))
    net.advance(1.0)

A packet climbs from its host through the routers around it, which translate and remember, crosses the internet, and
descends through those around its receiver at the times at which it gets there. Each place has a `Link` to the next one
outside; routers count down the TTL. There is no I/O and nothing waits: an hour in which nobody sends is over at once.
"""

from __future__ import annotations

import itertools
import math
import random
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

import attrs

from tom_connect.addr import SocketAddr
from tom_connect.testing.clock import Timer, VirtualClock
from tom_connect.testing.fakenat import Depends, Firewall, Nat, NatBox

if TYPE_CHECKING:
    from tom_connect.testing.fakerelay import FakeRelay

__all__ = ["Depends", "FakeNet", "FakeSocket", "Firewall", "Host", "HostTimer", "Link", "Nat", "Router"]

TTL: Final = 64
Receiver = Callable[[bytes, SocketAddr], None]


@attrs.define(eq=False)
class Link:
    """The wire between a host or router and the next place outside. Change it at any time.

    `delay`: seconds each way; `jitter`: seconds that a packet may take longer, so that packets overtake each other;
    `loss`, `duplicate`: shares of packets; `rate`: bytes a second, None for any; `queue`: seconds that packets wait for
    that rate before they are dropped; `mtu`: bytes of UDP payload that pass. `up` is both directions; `outward` and
    `inward` are each of them.
    """

    delay: float = 0.0
    jitter: float = 0.0
    loss: float = 0.0
    duplicate: float = 0.0
    rate: float | None = None
    queue: float = 0.2
    mtu: int = 1472
    up: bool = True
    outward: bool = True
    inward: bool = True
    _free_at: list[float] = attrs.field(factory=lambda: [0.0, 0.0], init=False)

    def cross(self, size: int, now: float, rng: random.Random, *, outward: bool) -> float | None:
        """Seconds that a packet takes, None if it is lost."""
        if not self.up or not (self.outward if outward else self.inward) or size > self.mtu:
            return None
        if self.loss and rng.random() < self.loss:
            return None
        delay = self.delay
        if self.jitter:
            delay += rng.random() * self.jitter
        if self.rate is not None:
            start = max(now, self._free_at[outward])
            if start - now > self.queue:
                return None
            self._free_at[outward] = start + size / self.rate
            delay += self._free_at[outward] - now
        return delay


class FakeSocket:
    """A UDP socket of a host: one port, on all its addresses, whatever they are at the time."""

    __slots__ = ("closed", "host", "port", "receive")

    def __init__(self, host: Host, port: int, receive: Receiver) -> None:
        self.host = host
        self.port = port
        self.receive = receive
        self.closed = False

    def send(self, data: bytes, dest: SocketAddr, *, ttl: int = TTL) -> bool:
        """Send a datagram; False if the host has no address of that family."""
        source = self.host.v6 if ":" in dest.host else self.host.v4
        if source is None or self.closed:
            return False
        self.host.net.send(self.host, data, SocketAddr(source, self.port), dest, ttl=ttl)
        return True

    def close(self) -> None:
        """Receive nothing any more."""
        self.closed = True
        self.host.sockets.pop(self.port, None)


class HostTimer:
    """A timer in the time of its host: a host that sleeps wakes before it goes off. Made by `Host.timer`."""

    __slots__ = ("_host", "_timer", "when")

    def __init__(self, host: Host, action: Callable[[], None]) -> None:
        self.when: float | None = None
        self._host = host
        self._timer = host.net.clock.timer(lambda: self._fire(action))

    def set(self, when: float | None) -> None:
        """Go off at `when` (the host's time), or not at all."""
        self.when = when
        self.resume()

    def resume(self) -> None:
        """Part of `Host.wake`."""
        if self._host.asleep or self.when is None:
            self._timer.set(None)
            return
        at = self.when + self._host.slept
        while at - self._host.slept < self.when:
            # Rounding must not let it go off before its time.
            at = math.nextafter(at, math.inf)
        self._timer.set(at)

    def suspend(self) -> None:
        """Part of `Host.sleep`."""
        self._timer.set(None)

    def _fire(self, action: Callable[[], None]) -> None:
        self.when = None
        action()


class Host:
    """A machine. Made by `FakeNet.host`."""

    def __init__(self, net: FakeNet, name: str, router: Router | None, link: Link) -> None:
        self.net = net
        self.name = name
        self.router = router
        self.link = link
        self.v4: str | None = None
        self.v6: str | None = None
        self.sockets: dict[int, FakeSocket] = {}
        self.asleep = False
        self.slept = 0.0
        """Seconds by which its clock is behind, since it stood still."""
        self._asleep_since = 0.0
        self._timers: list[HostTimer] = []
        net.attach(self)

    def addr(self, port: int) -> SocketAddr:
        """Its IPv4 address with a port; raises ValueError if it has none."""
        if self.v4 is None:
            raise ValueError(f"{self.name} has no IPv4 address")
        return SocketAddr(self.v4, port)

    def addr6(self, port: int) -> SocketAddr:
        """Its IPv6 address with a port; raises ValueError if it has none."""
        if self.v6 is None:
            raise ValueError(f"{self.name} has no IPv6 address")
        return SocketAddr(self.v6, port)

    def socket(self, receive: Receiver, port: int = 0) -> FakeSocket:
        """Bind a port, 0 for any free one. Raises OSError if it is in use."""
        if not port:
            port = next(port for port in itertools.count(40000) if port not in self.sockets)
        elif port in self.sockets:
            raise OSError(f"port {port} of {self.name} is in use")
        socket = self.sockets[port] = FakeSocket(self, port, receive)
        return socket

    def now(self) -> float:
        """The time of its monotonic clock, seconds."""
        return self.net.clock.now - self.slept

    def timer(self, action: Callable[[], None]) -> HostTimer:
        """A timer in the host's time."""
        timer = HostTimer(self, action)
        self._timers.append(timer)
        return timer

    def move(self, router: Router | None) -> None:
        """Leave the network for another one (None: the open internet), with new addresses; sockets stay bound."""
        self.net.detach(self)
        self.router = router
        self.net.attach(self)

    def sleep(self) -> None:
        """Close the lid: nothing is received and no timer goes off."""
        if not self.asleep:
            self.asleep = True
            self._asleep_since = self.net.clock.now
            for timer in self._timers:
                timer.suspend()

    def wake(self, *, clock_stood: bool = True) -> None:
        """Open it. `clock_stood`: its clock did not count the sleep (Linux); or timers that are past go off at once."""
        if self.asleep:
            self.asleep = False
            if clock_stood:
                self.slept += self.net.clock.now - self._asleep_since
            for timer in self._timers:
                timer.resume()

    def routers(self) -> list[Router]:
        """The routers between it and the internet, the nearest first."""
        found: list[Router] = []
        router = self.router
        while router is not None:
            found.append(router)
            router = router.parent
        return found


class Router:
    """A router with a network inside. Made by `FakeNet.router`."""

    def __init__(
        self,
        net: FakeNet,
        name: str,
        nat: Nat | None,
        *,
        behind: Router | None,
        link: Link,
        lan: str | None,
        ipv4: bool,
        ipv6: Firewall | None,
        ipv6_routed: bool,
    ) -> None:
        self.net = net
        self.name = name
        self.parent = behind
        self.link = link
        self.lan = lan
        self.ipv4 = ipv4
        self.ipv6 = ipv6_routed
        self.block_udp = False
        self.firewall = ipv6
        self.box = None if nat is None else NatBox(nat, net.rng)
        self.wan: str | None = None
        """Its outer IPv4 address, None if it translates nothing."""
        self.prefix6 = ""
        self.inside: dict[str, Host | Router] = {}
        self.generation = 0
        """Grows with everything that ends TCP connections through it."""
        net.attach_router(self)

    def rebind(self, *, new_ports: bool = True) -> None:
        """Lose all mappings and flows, as in a restart; with `new_ports` hosts get other ports afterwards."""
        self.generation += 1
        if self.box is not None:
            self.box.rebind(new_ports=new_ports)
        if self.firewall is not None:
            self.firewall.rebind()

    def new_address(self) -> None:
        """Get another outer address from the provider."""
        self.rebind(new_ports=False)
        self.net.readdress(self)


class FakeNet:
    """The world. `core_delay`: seconds across the internet; `core_hops`: routers in it, which count down the TTL.

    `counters` says what became of packets, by reason; `dropped`, if set, is called with (reason, source, dest);
    `censor`, if set, with (host, dest) of each packet sent: it is lost if that returns True.
    """

    def __init__(self, seed: int = 1, *, core_delay: float = 0.0, core_hops: int = 4) -> None:
        self.rng = random.Random(seed)
        self.clock = VirtualClock()
        self.core_delay = core_delay
        self.core_hops = core_hops
        self.counters: Counter[str] = Counter()
        self.dropped: Callable[[str, SocketAddr, SocketAddr], None] | None = None
        self.censor: Callable[[Host, SocketAddr], bool] | None = None
        self.relays: dict[str, FakeRelay] = {}
        self._owners: dict[str, Host | Router] = {}
        self._public = itertools.count(1)
        self._networks = itertools.count(1)
        self._members = itertools.count(10)

    @property
    def now(self) -> float:
        """The present, seconds."""
        return self.clock.now

    def run(self, until: float) -> None:
        """Let time pass until then."""
        self.clock.run(until)

    def advance(self, seconds: float) -> None:
        """Let so many seconds pass."""
        self.clock.run(self.clock.now + seconds)

    def at(self, when: float, action: Callable[[], None]) -> None:
        """Do something at a time."""
        self.clock.at(when, action)

    def every(self, interval: float, until: float, action: Callable[[], None]) -> None:
        """Do something now, and again after each interval until then."""

        def again() -> None:
            action()
            if self.clock.now + interval < until:
                self.clock.at(self.clock.now + interval, again)

        self.clock.at(self.clock.now, again)

    def timer(self, action: Callable[[], None]) -> Timer:
        """A timer of the world's."""
        return self.clock.timer(action)

    # --- building ---------------------------------------------------------------------------------------------

    def router(
        self,
        name: str,
        nat: Nat | None = Nat.MODERATE,
        *,
        behind: Router | None = None,
        link: Link | None = None,
        lan: str | None = None,
        ipv4: bool = True,
        ipv6: bool | Firewall = False,
    ) -> Router:
        """A router with a network of its own inside.

        `nat`: None gives its hosts public addresses. `behind`: a carrier's router. `lan`: the first three numbers of
        the network inside; two homes may well have the same. `ipv6`: True for open, a Firewall, or none.
        """
        firewall = ipv6 if isinstance(ipv6, Firewall) else None
        return Router(
            self,
            name,
            nat,
            behind=behind,
            link=link or Link(),
            lan=lan,
            ipv4=ipv4,
            ipv6=firewall,
            ipv6_routed=bool(ipv6),
        )

    def host(self, name: str, router: Router | None = None, *, link: Link | None = None) -> Host:
        """A host in a router's network, or with public addresses of both families on the open internet."""
        return Host(self, name, router, link or Link())

    # --- addresses --------------------------------------------------------------------------------------------

    def _new_public(self) -> str:
        number = next(self._public)
        return f"198.18.{number >> 8 & 255}.{number & 255}"

    def attach_router(self, router: Router) -> None:
        """Part of `Router`."""
        number = next(self._networks)
        router.prefix6 = f"2001:db8:{number:x}"
        router.lan = router.lan or f"192.168.{number % 250}"
        if router.box is not None and router.ipv4:
            self.readdress(router)

    def readdress(self, router: Router) -> None:
        """Part of `Router.new_address`."""
        parent = router.parent
        old = router.wan
        if parent is not None and parent.box is not None:
            number = next(self._members)
            router.wan = f"100.64.{number // 250 % 250}.{number % 250 + 2}"
        else:
            router.wan = self._new_public()
        if old is not None:
            self._disown(old, parent)
        self._own(router.wan, router, parent)

    def attach(self, host: Host) -> None:
        """Part of `Host`: give it the addresses of where it is."""
        router = host.router
        member = next(self._members)
        if router is None:
            host.v4, host.v6 = self._new_public(), f"2001:db8::{member:x}"
        else:
            translated = any(above.box is not None for above in host.routers())
            private = f"{router.lan}.{2 + (member - 10) % 250}"
            while private in router.inside:
                private = f"{router.lan}.{self.rng.randrange(2, 250)}"
            host.v4 = (private if translated else self._new_public()) if router.ipv4 else None
            routed = all(above.ipv6 for above in host.routers())
            host.v6 = f"{router.prefix6}::{member:x}" if routed else None
        for addr in (host.v4, host.v6):
            if addr is not None:
                self._own(addr, host, router)

    def detach(self, host: Host) -> None:
        """Part of `Host.move`."""
        for addr in (host.v4, host.v6):
            if addr is not None:
                self._disown(addr, host.router)
        host.v4 = host.v6 = None

    def _own(self, addr: str, place: Host | Router, router: Router | None) -> None:
        while router is not None:
            router.inside[addr] = place
            if router.box is not None and ":" not in addr:
                return
            place, router = router, router.parent
        self._owners[addr] = place

    def _disown(self, addr: str, router: Router | None) -> None:
        while router is not None:
            router.inside.pop(addr, None)
            if router.box is not None and ":" not in addr:
                return
            router = router.parent
        self._owners.pop(addr, None)

    # --- packets ----------------------------------------------------------------------------------------------

    def send(self, host: Host, data: bytes, src: SocketAddr, dst: SocketAddr, *, ttl: int = TTL) -> None:
        """Let a host send one UDP datagram from an address of its own."""
        self.counters["sent"] += 1
        if host.asleep:
            self._drop("asleep", src, dst)
            return
        if dst.host in (host.v4, host.v6):
            self.clock.at(self.now, self._deliver, host, data, src, dst)
            return
        if self.censor is not None and self.censor(host, dst):
            self._drop("censored", src, dst)
            return
        copies = 1
        if host.link.duplicate and self.rng.random() < host.link.duplicate:
            copies = 2
        for _ in range(copies):
            self._climb(host, host.router, data, src, dst, ttl)

    def _drop(self, reason: str, src: SocketAddr, dst: SocketAddr) -> None:
        self.counters[reason] += 1
        if self.dropped is not None:
            self.dropped(reason, src, dst)

    def _climb(
        self, place: Host | Router, router: Router | None, data: bytes, src: SocketAddr, dst: SocketAddr, ttl: int
    ) -> None:
        """Leave `place` for what is outside of it, and go on until the packet turns."""
        now = self.clock.now
        total = 0.0
        while True:
            taken = place.link.cross(len(data), now, self.rng, outward=True)
            if taken is None:
                self._drop("lost", src, dst)
                return
            total += taken
            if router is None:
                if ttl <= self.core_hops:
                    self._drop("ttl", src, dst)
                    return
                target = self._owners.get(dst.host)
                if target is None:
                    self._drop("no such address", src, dst)
                    return
                self.clock.at(
                    now + total + self.core_delay, self._arrive, dst.host, data, src, dst, ttl - self.core_hops
                )
                return
            child = router.inside.get(dst.host)
            if child is not None:
                if child is place:
                    # Between two networks of one child, which that one did not know to be its own.
                    self._drop("no such address", src, dst)
                    return
                # Within one link nobody counts down the TTL.
                self.clock.at(now + total, self._enter, child, data, src, dst, ttl)
                return
            if ttl <= 1:
                self._drop("ttl", src, dst)
                return
            ttl -= 1
            if router.block_udp:
                self._drop("udp blocked", src, dst)
                return
            if ":" in dst.host:
                if not router.ipv6:
                    self._drop("no route", src, dst)
                    return
                if router.firewall is not None:
                    router.firewall.outbound(src, dst, now)
            elif router.box is not None and router.wan is not None:
                if dst.host == router.wan:
                    if not router.box.kind.hairpin:
                        self._drop("no hairpin", src, dst)
                        return
                    src = SocketAddr(router.wan, router.box.outbound(src, dst, now))
                    self.clock.at(now + total, self._inside, router, data, src, dst, ttl)
                    return
                src = SocketAddr(router.wan, router.box.outbound(src, dst, now))
            place, router = router, router.parent

    def _arrive(self, addr: str, data: bytes, src: SocketAddr, dst: SocketAddr, ttl: int) -> None:
        target = self._owners.get(addr)
        if target is None:
            self._drop("no such address", src, dst)
        else:
            self._enter(target, data, src, dst, ttl)

    def _enter(self, place: Host | Router, data: bytes, src: SocketAddr, dst: SocketAddr, ttl: int) -> None:
        """Cross the link of `place` inward."""
        taken = place.link.cross(len(data), self.clock.now, self.rng, outward=False)
        if taken is None:
            self._drop("lost", src, dst)
        elif taken:
            self.clock.at(self.clock.now + taken, self._inside, place, data, src, dst, ttl)
        else:
            self._inside(place, data, src, dst, ttl)

    def _inside(self, place: Host | Router, data: bytes, src: SocketAddr, dst: SocketAddr, ttl: int) -> None:
        if isinstance(place, Host):
            self._deliver(place, data, src, dst)
            return
        now = self.clock.now
        if place.block_udp:
            self._drop("udp blocked", src, dst)
            return
        if ":" in dst.host:
            if place.firewall is not None and not place.firewall.inbound(dst, src, now):
                self._drop("filtered", src, dst)
                return
        elif place.box is not None:
            inner = place.box.inbound(dst.port, src, now) if dst.host == place.wan else None
            if inner is None:
                self._drop("filtered", src, dst)
                return
            dst = inner
        if ttl <= 1:
            self._drop("ttl", src, dst)
            return
        child = place.inside.get(dst.host)
        if child is None:
            self._drop("no such address", src, dst)
        else:
            self._enter(child, data, src, dst, ttl - 1)

    def _deliver(self, host: Host, data: bytes, src: SocketAddr, dst: SocketAddr) -> None:
        socket = host.sockets.get(dst.port)
        if host.asleep or dst.host not in (host.v4, host.v6):
            self._drop("nobody there", src, dst)
        elif socket is None:
            self._drop("port closed", src, dst)
        else:
            self.counters["delivered"] += 1
            socket.receive(data, src)
