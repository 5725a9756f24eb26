"""An hour of everything that happens to networks, at random, and what must hold all the time."""

from __future__ import annotations

import random
from collections import Counter

from tests.sim.nodes import Flow, Node, Stun
from tom_connect.addr import is_local
from tom_connect.holepunch.pathrules import HEARTBEAT, MAX_PATHS, TRAFFIC
from tom_connect.testing.fakenet import Depends, FakeNet, Firewall, Link, Nat, Router
from tom_connect.testing.fakerelay import FakeRelay

LOOK = 0.25
"""Seconds between two looks at what must hold."""
BACK_WITHIN = 2.0
"""Seconds after which traffic flows where a way is there, besides what the way itself takes."""
QUIET_AFTER = TRAFFIC + 3 * HEARTBEAT
"""Seconds after the last packet of the application after which nothing may be sent any more."""

A_CHANGE = 40
"""Packets that a change of candidates may cost an end of an idle connection: a call, and pings in answer to one."""

KINDS = (
    None,
    Nat.OPEN,
    Nat.RESTRICTED,
    Nat.MODERATE,
    Nat.MODERATE,
    Nat.MODERATE,
    Nat(preserve=False, ports=(10000, 13999)),
    Nat(timeout=30.0, inbound_refreshes=False),
    Nat(tracks_unsolicited=True),
    Nat(hairpin=True),
    Nat.STRICT,
    Nat(mapping=Depends.ADDRESS, filtering=Depends.ADDRESS, preserve=False),
)


class Stuck(AssertionError):
    """What must hold did not."""


class Side:
    """One end: a node, and the networks between which it moves."""

    def __init__(self, weather: Weather, name: str, places: list[Router | None]) -> None:
        self.places = places
        host = weather.net.host(name, places[0], link=weather.link(0.005))
        self.node = Node(host, relays=weather.relays, stun=weather.stun)
        self.stalled = 0.0

    @property
    def flow(self) -> Flow:
        return next(iter(self.node.flows.values()))

    def reflexive_kind(self) -> tuple[Depends, Depends] | None:
        """How strict the NATs before it are, taken together; None where UDP does not pass."""
        order = list(Depends)
        mapping = filtering = Depends.NOTHING
        for router in self.node.host.routers():
            if router.block_udp:
                return None
            if router.box is not None:
                mapping = max(mapping, router.box.kind.mapping, key=order.index)
                filtering = max(filtering, router.box.kind.filtering, key=order.index)
        return mapping, filtering


class Weather:
    """A world from one seed; `run` it for some seconds, and it raises Stuck if something must hold and does not."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.without_relay = seed % 5 == 4
        """Then one side stays where everybody can reach it; only the other side's networks change."""
        self.net = FakeNet(seed, core_delay=0.0)
        self.rng = random.Random(seed)
        rng = self.rng
        relays = 0 if self.without_relay else rng.choice((1, 1, 1, 2))
        self.relays = [FakeRelay(self.net, f"relay{i}", self.link(0.02)) for i in range(relays)]
        self.stun = Stun(self.net)
        self.log: list[str] = []
        self.worst = 0.0
        self.lossy_until = 0.0
        self.ok_since: float | None = None
        self.counts: Counter[str] = Counter()
        self._next_place = 0
        shared = self.place()
        self.sides = [Side(self, name, [self.place() for _ in range(3)]) for name in ("a", "b")]
        if self.without_relay:
            public = rng.choice((None, self.net.router("public", None, ipv6=True, link=self.link(0.02))))
            self.sides[1] = Side(self, "server", [public])
        elif rng.random() < 0.2:
            for side in self.sides:
                side.places.append(shared)
        self.net.advance(2.0)

    # --- building ---------------------------------------------------------------------------------------------

    def link(self, most: float) -> Link:
        rng = self.rng
        bad = rng.random() < 0.3
        return Link(
            delay=rng.uniform(0.0002, most),
            jitter=rng.uniform(0, most / 4),
            loss=rng.choice((0.005, 0.02)) if bad else 0.0,
            duplicate=0.01 if bad else 0.0,
        )

    def place(self) -> Router | None:
        rng = self.rng
        self._next_place += 1
        name = f"r{self._next_place}"
        if rng.random() < 0.08:
            return None
        carrier = None
        if rng.random() < 0.15:
            # Openers do not reach a second router; carriers hold nothing against a packet that nobody asked for.
            kind = rng.choice([kind for kind in KINDS if kind is not None and not kind.tracks_unsolicited])
            carrier = self.net.router(f"{name}-carrier", kind, ipv6=True, link=self.link(0.02))
        ipv6 = rng.choice((False, False, False, True, Firewall(timeout=60.0), Firewall(Depends.NOTHING)))
        kind = rng.choice(KINDS)
        return self.net.router(
            name,
            kind,
            behind=carrier,
            link=self.link(rng.choice((0.005, 0.02, 0.08))),
            lan=rng.choice((None, "192.168.1")),
            ipv4=not (ipv6 and rng.random() < 0.2) or kind is None,
            ipv6=ipv6,
        )

    # --- what happens -----------------------------------------------------------------------------------------

    def note(self, text: str) -> None:
        self.log.append(f"{self.net.now - 1000:9.3f} {text}")

    def event(self) -> None:
        """Something happens to one side, or to both at once."""
        rng = self.rng
        what = rng.choice(self.CHANGES)
        sides = rng.choice((self.sides[:1], self.sides[1:], self.sides))
        if self.without_relay and what in (Weather.relay_down, Weather.block):
            return
        self.counts[what.__name__] += 1
        for side in sides:
            what(self, side)

    def _routers(self, side: Side) -> list[Router]:
        return [router for router in side.node.host.routers() if router.box is not None or router.firewall is not None]

    def rebind(self, side: Side) -> None:
        for router in self._routers(side)[:1]:
            self.note(f"{side.node.host.name}: NAT of {router.name} forgets")
            router.rebind(new_ports=self.rng.random() < 0.7)

    def new_address(self, side: Side) -> None:
        for router in self._routers(side)[:1]:
            if router.box is not None and router.wan is not None:
                router.new_address()
                self.note(f"{side.node.host.name}: {router.name} is now {router.wan}")

    def move(self, side: Side) -> None:
        place = self.rng.choice(side.places)
        host = side.node.host
        if host.asleep or place is host.router:
            return
        host.move(place)
        self.note(f"{host.name}: moves to {place.name if place else 'the open'}: {host.v4} {host.v6}")
        side.node.noticed()

    def flap(self, side: Side, seconds: float = 2.0) -> None:
        link = side.node.host.link
        if not link.up:
            return
        self.note(f"{side.node.host.name}: link down for {seconds:.1f}")
        link.up = False

        def back() -> None:
            link.up = True
            self.note(f"{side.node.host.name}: link up")
            side.node.noticed()

        if self.rng.random() < 0.7:
            side.node.noticed()
        self.net.at(self.net.now + seconds, back)

    def cut(self, side: Side) -> None:
        self.flap(side, self.rng.choice((5.0, 20.0, 100.0)))

    def block(self, side: Side) -> None:
        """UDP is blocked on the way out, or the direct way between the two is dead."""
        for router in side.node.host.routers()[:1]:
            router.block_udp = not router.block_udp
            self.note(f"{side.node.host.name}: UDP at {router.name} {'blocked' if router.block_udp else 'free'}")

    def relay_down(self, side: Side) -> None:
        relay = self.rng.choice(self.relays)
        if not relay.up:
            return
        relay.kill()
        self.note(f"{relay.url} killed")

        def back() -> None:
            relay.restart()
            self.note(f"{relay.url} restarted")

        self.net.at(self.net.now + self.rng.uniform(0.5, 30), back)

    def sleep(self, side: Side) -> None:
        host = side.node.host
        if host.asleep:
            return
        seconds = self.rng.choice((1.0, 5.0, 60.0))
        self.note(f"{host.name}: sleeps {seconds}")
        host.sleep()
        stood = self.rng.random() < 0.5

        def back() -> None:
            host.wake(clock_stood=stood)
            self.note(f"{host.name}: wakes (clock {'stood' if stood else 'ran'})")
            side.node.noticed()

        self.net.at(self.net.now + seconds, back)

    def lossy(self, side: Side) -> None:
        link, before, seconds = side.node.host.link, side.node.host.link.loss, self.rng.uniform(1, 5)
        if before > 0.1:
            return
        link.loss = self.rng.uniform(0.2, 0.6)
        # What a relay's connection has to repeat holds up what comes after it.
        self.lossy_until = max(self.lossy_until, self.net.now + seconds + 2.0)
        self.note(f"{side.node.host.name}: loses {link.loss:.2f} for {seconds:.1f}")
        self.net.at(self.net.now + seconds, lambda: setattr(link, "loss", before))

    def half_dead(self, side: Side) -> None:
        """For a while no UDP gets from this host to the other."""
        host = side.node.host
        self.note(f"{host.name}: UDP to the other dies")
        others = {other.node.host for other in self.sides if other is not side}
        self.net.censor = lambda sender, dst: sender is host and dst.port != 3478
        assert others
        self.net.at(self.net.now + self.rng.uniform(3, 30), lambda: setattr(self.net, "censor", None))

    CHANGES = (rebind, rebind, new_address, move, move, flap, cut, block, relay_down, sleep, lossy, half_dead)

    # --- what must hold ---------------------------------------------------------------------------------------

    def way_is_there(self) -> bool:
        """Whether there is a way by which both could talk now, if they know of it."""
        if self.without_relay:
            a, b = (side.node.host for side in self.sides)
            places = [a, b, *a.routers(), *b.routers()]
            families = (a.v4 is not None) or (a.v6 is not None)
            return (
                families
                and self.net.censor is None
                and not (a.asleep or b.asleep)
                and all(place.link.up for place in places)
                and not any(router.block_udp for router in (*a.routers(), *b.routers()))
            )
        return any(all(side.node.clients[relay.url].works() for side in self.sides) for relay in self.relays)

    def allowance(self) -> float:
        """Seconds that the way itself may take: a few round trips, and repetitions where it loses."""
        places = [place for side in self.sides for place in (side.node.host, *side.node.host.routers())]
        links = [place.link for place in [*places, *(relay.host for relay in self.relays)]]
        trip = 2 * sum(link.delay + link.jitter for link in links)
        return 3 * trip + (1.5 if any(link.loss for link in links) else 0.0)

    def look(self) -> None:
        """Whether all is as it must be; called all the time while both ends send."""
        now = self.net.now
        if not self.way_is_there() or now < self.lossy_until:
            self.ok_since = None
            return
        if self.ok_since is None:
            self.ok_since = now
        for side in self.sides:
            flow = side.flow
            if flow.over or not flow.waiting_for_answer():
                continue
            stalled = min(now - self.ok_since, flow.waits())
            self.worst = max(self.worst, stalled - self.allowance())
            if stalled > BACK_WITHIN + self.allowance():
                raise Stuck(self.report(f"{side.node.host.name} got no answer for {stalled:.2f} s"))

    def bounded(self) -> None:
        for side in self.sides:
            core = side.node.core
            assert all(len(remote.paths) <= MAX_PATHS for remote in core.remotes())
            assert len(core._asked) <= 200, len(core._asked)
            assert len(core._asked._by_stamp) == len(core._asked)
            assert len(core._heap) <= 500, len(core._heap)

    def report(self, what: str) -> str:
        lines = [f"seed {self.seed}: {what} at {self.net.now - 1000:.3f}", *self.log[-25:]]
        for side in self.sides:
            host, remote = side.node.host, side.flow.remote
            behind = [(router.name, router.wan, router.box and router.box.kind) for router in host.routers()]
            lines.append(f"{host.name} at {host.v4} {host.v6} behind {behind}")
            lines.append(
                f"  active {remote.active and remote.active.path}, targets {[str(t.path) for t in remote.targets]}"
            )
            for state in remote.paths.values():
                lines.append(
                    f"  {state.path} proven={state.proven} rtt={state.rtt} heard={state.heard} next={state.next_ping} "
                    f"attempts={state.attempts} {state.source} {state.why}"
                )
            lines.extend(
                f"  {event.at - 1000:9.3f} {type(event).__name__} {event.path} {getattr(event, 'why', '')}"
                for event in side.node.events[-12:]
            )
        return "\n".join(lines)

    # --- the hour ---------------------------------------------------------------------------------------------

    def dial(self) -> None:
        """Both ends hold each other anew, as a dial and its acceptance do."""
        nodes = [side.node for side in self.sides]
        for node in nodes:
            for flow in node.flows.values():
                if not flow.over:
                    flow.end()
        found = [addr for addr in (*nodes[1].local(), *nodes[1].reflexive.values()) if not is_local(addr)]
        nodes[0].connect(nodes[1], found)
        nodes[1].connect(nodes[0])

    def traffic(self, seconds: float) -> None:
        """Both ends send, and something may happen at any moment of it."""
        rng = self.rng
        if any(side.flow.over for side in self.sides):
            while any(side.node.host.asleep for side in self.sides):
                self.net.advance(10.0)
            self.note("a new dial")
            self.dial()
        for side in self.sides:
            if not side.node.host.asleep:
                side.node.look()
        self.net.advance(0.5)
        interval = rng.choice((0.25, 0.5, 0.9))
        # Nobody can reach what a NAT keeps shut, unless a relay tells it to open.
        mute = self.sides[:1] if self.without_relay else self.sides[1:]
        for side in rng.choice((self.sides, self.sides, self.sides[:1], mute)):
            side.flow.busy(seconds, interval)
        self.ok_since = None
        end = self.net.now + seconds
        while self.net.now < end:
            self.net.advance(LOOK)
            self.look()
        self.bounded()

    def idle(self, seconds: float) -> None:
        """Nobody sends; after a while nothing at all is sent."""
        while any(side.node.host.asleep or side.flow.in_use() for side in self.sides):
            self.net.advance(10.0)
        self.net.advance(QUIET_AFTER)
        before = [(sum(side.node.sent.values()), side.node.offers) for side in self.sides]
        self.net.advance(seconds)
        offers = sum(side.node.offers - offered for side, (_sent, offered) in zip(self.sides, before, strict=True))
        for side, (sent, _offered) in zip(self.sides, before, strict=True):
            more = sum(side.node.sent.values()) - sent
            if more > offers * A_CHANGE and side.flow.remote.active is not None:
                raise Stuck(self.report(f"{side.node.host.name} sent {more} packets on an idle connection"))

    def run(self, seconds: float) -> None:
        self.dial()
        self.traffic(10.0)
        end = self.net.now + seconds
        while self.net.now < end:
            if self.rng.random() < 0.3:
                self.idle(self.rng.uniform(10, 400))
            for _ in range(self.rng.choice((1, 1, 2))):
                at = self.net.now + self.rng.uniform(0, 4)
                self.net.at(at, self.event)
            self.traffic(self.rng.uniform(7, 11))
            self.net.advance(self.rng.uniform(0, 500))

    def settle(self) -> None:
        """At last everything works and stays as it is: both ends must come to the best that there is."""
        for relay in self.relays:
            relay.restart()
        for side in self.sides:
            for router in side.node.host.routers():
                router.block_udp = False
        self.net.advance(330.0)
        self.net.censor = None
        self.note("everything works again")
        for _ in range(10 if self.must_be_direct() else 2):
            self.traffic(10.0)
            if all(side.flow.remote.active is not None and side.flow.remote.active.direct for side in self.sides):
                break
        active = [side.flow.remote.active for side in self.sides]
        assert all(state is not None for state in active)
        kinds = ["direct" if state is not None and state.direct else "relay" for state in active]
        if kinds[0] != kinds[1]:
            raise Stuck(self.report("the ends disagree"))
        self.counts[f"settled {kinds[0]}"] += 1
        if kinds[0] == "relay" and self.must_be_direct():
            raise Stuck(self.report("it could be direct"))

    def must_be_direct(self) -> bool:
        """Whether there is a way that ordinary punching finds."""
        a, b = self.sides
        if a.node.host.v6 and b.node.host.v6:
            return True
        if not (a.node.host.v4 and b.node.host.v4):
            return False
        kinds = [side.reflexive_kind() for side in self.sides]
        if kinds[0] is None or kinds[1] is None:
            return False
        if set(a.node.host.routers()) & set(b.node.host.routers()):
            return a.node.host.router is b.node.host.router
        (mapping_a, filtering_a), (mapping_b, filtering_b) = kinds
        if mapping_a is mapping_b is Depends.NOTHING:
            return True
        if mapping_a is Depends.NOTHING:
            return filtering_a is not Depends.ADDRESS_AND_PORT
        if mapping_b is Depends.NOTHING:
            return filtering_b is not Depends.ADDRESS_AND_PORT
        return False


def an_hour(seed: int) -> Weather:
    """Live through an hour; raises Stuck."""
    weather = Weather(seed)
    weather.run(3600.0)
    weather.settle()
    return weather
