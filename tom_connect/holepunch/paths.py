"""The paths to one remote node: which are probed, proven, used, doubted and left.

The life of a path:

    candidate --pong, or QUIC on a given path--> proven --chosen by `best`--> active
    active --silent under traffic--> doubted: pinged, its traffic doubled on another path
    doubted --hears again--> active        doubted --another path answers--> lost (a candidate again)
    standby --three pings unanswered--> lost        candidate --ten pings, never an answer--> forgotten

Nothing is sent to a peer that nobody holds, and proven paths are pinged only while there is traffic. All of it is
synchronous: `now` in; pings, events and the next time to `tick` out through `PathsOwner`.
"""

from __future__ import annotations

from collections.abc import Collection
from math import inf

from tom_connect.abc import PathInfo
from tom_connect.holepunch import pathrules as rules
from tom_connect.holepunch.addrfilter import SOURCE_CALL, SOURCE_PEER, SOURCE_QUIC
from tom_connect.holepunch.events import (
    PathAdded,
    PathDoubted,
    PathForgotten,
    PathLost,
    PathProven,
    PathRestored,
    PathSelected,
)
from tom_connect.holepunch.path import Path, RelayPath
from tom_connect.holepunch.pathchoice import Lead, chosen_by, kept
from tom_connect.holepunch.pathprobing import given_up, ping_interval
from tom_connect.holepunch.pathroom import make_room
from tom_connect.holepunch.pathsilence import Silence
from tom_connect.holepunch.pathsowner import PathsOwner
from tom_connect.holepunch.pathstate import HYSTERESIS, PathState, best
from tom_connect.holepunch.pathtargets import doubted_targets, first_targets
from tom_connect.keys import NodeId


class RemotePaths:
    """All paths to one node, and the choice among them."""

    def __init__(self, node_id: NodeId, owner: PathsOwner, *, follows: bool) -> None:
        self.node_id = node_id
        self.follows = follows
        """Whether we use the path that the peer uses, where both are about as good."""
        self.paths: dict[Path, PathState] = {}
        self.active: PathState | None = None
        self.targets: tuple[PathState, ...] = ()
        """Where QUIC packets go now; more than one before the first answer and while in doubt."""
        self.version = 0
        """Grows whenever `targets` changes."""
        self.holders = 0
        self.speaks_disco: bool | None = None
        self.due = inf
        self.switches = self.doubts = self.outages = 0
        """How often traffic changed its path, the one in use was doubted, and none answered."""
        self._owner = owner
        self._tick_at = inf
        self._last_sent = self._last_traffic = -inf
        self._silence = Silence()
        self._lead = Lead()

    # --- what the owner tells ---------------------------------------------------------------------------------

    def hold(self, now: float) -> None:
        """One more user. The first one after a pause finds only paths that are still fresh, and all are probed."""
        self.holders += 1
        if self.holders > 1:
            return
        for state in self.paths.values():
            if state.heard is None or now - state.heard > rules.HEARTBEAT * rules.LOST_AFTER:
                state.proven = False
            self._probe(state, now)
        if self.active is not None and not self.active.proven:
            self.active = None
        self._calm()
        self._retarget()

    def release(self) -> None:
        """One user less; without any nothing is sent any more."""
        self.holders -= 1

    def add(self, path: Path, source: str, now: float, *, given: bool) -> PathState | None:
        """Take a candidate that the address filter has passed and probe it; None if there are too many.

        A relay counts as given whoever names it: it passes packets on to those alone who proved to it that they have
        the key they are for, so that a forged record makes nobody a victim.
        """
        if isinstance(path, RelayPath):
            if path.node_id != self.node_id:
                return None
            given = True
        state = self.paths.get(path)
        if state is None:
            room = make_room(self.paths, source, given=given, active=self.active)
            if room is None:
                return None
            for evicted in room:
                self._forget(evicted, now)
            state = self.paths[path] = PathState(path=path, source=source, given=given, added=now)
            self._owner.emit(PathAdded(self.node_id, path, now, source))
            self._probe(state, now)
        elif given and not state.given:
            state.given = True
            self._probe(state, now)
        elif state.next_ping == inf and not state.proven:
            self._probe(state, now)
        self._retarget()
        return state

    def sent(self, now: float, *, asks: bool = True, keeps: bool = False) -> None:
        """QUIC sent something to `targets`. Called for every batch.

        `asks`: it waits for an acknowledgment. `keeps`: all that it waits for is that of a keep-alive.
        """
        lull, self._last_sent = now - self._last_sent > rules.TRAFFIC, now
        if asks and self._silence.unanswered is None:
            self._silence.unanswered = now
        if lull and (keeps or not asks):
            # A keep-alive, or what acknowledges one: no reason to prove all paths anew. If it is lost, QUIC asks again,
            # and that is traffic.
            return
        paused, self._last_traffic = now - self._last_traffic > rules.TRAFFIC, now
        if paused and self._silence.outage is not None:
            self._search(now)
        if self.due > now + rules.ACTIVE_TICK:
            self._wake(now)

    def quic_heard(self, path: Path, now: float, size: int) -> None:
        """QUIC authenticated `size` bytes from `path`. Called for every batch."""
        state = self.paths.get(path)
        if state is None:
            state = self.add(path, SOURCE_QUIC, now, given=False)
            if state is None:
                return
        state.bytes_received += size
        if state is self.active:
            state.heard = self._lead.active_spoke = now
            self._silence.unanswered = None
            self._silence.patience = 1
            if state.credit is not None:
                self._earn(state, now, size)
            if self._silence.doubted is not None and not self._silence.needs_pong:
                self._calm(now)
                self._retarget()
            return
        self._quic_heard_elsewhere(state, now, size)

    def handshake_done(self, path: Path, now: float) -> None:
        """A whole handshake went through `path`: QUIC has validated it (RFC 9000 section 8.1)."""
        state = self.paths.get(path) or self.add(path, SOURCE_QUIC, now, given=False)
        if state is None:
            return
        state.heard = now
        state.credit = None
        self._prove(state, "quic", now)
        active = self.active
        silent = active is None or active.heard is None or now - active.heard > rules.DOUBT_AFTER
        if active is not state and silent:
            self._doubt(now, "the peer may have started anew elsewhere")
        self._choose(now)
        self._owner.arm(self, now)

    def quic_confirmed(self, path: Path) -> None:
        """QUIC got an acknowledgment of what went to `path` alone: the peer does receive there."""
        state = self.paths.get(path)
        if state is not None:
            state.credit = None

    def ping_received(self, path: Path, now: float) -> None:
        """An authentic ping came from `path`: if that is no proven path, it is one to try, at once."""
        self.speaks_disco = True
        state = self.paths.get(path)
        if state is None:
            self.add(path, SOURCE_PEER, now, given=False)
            return
        state.heard = now
        pinged_lately = state.last_ping is not None and now - state.last_ping < rules.PROBES[0]
        # The limits of an address and of a node hold all the same.
        state.lifetime_pings = min(state.lifetime_pings, rules.UNPROVEN_PINGS - 1)
        if not state.proven and not pinged_lately and state.next_ping > now:
            if state.next_ping == inf:
                state.attempts = 0
            state.next_ping = now
            self._owner.arm(self, now)

    def pong_received(self, state: PathState, rtt: float, now: float) -> None:
        """The pong to a ping of `state` came from where the ping went; `rtt` in seconds."""
        if self.paths.get(state.path) is not state:
            return
        self.speaks_disco = True
        state.last_pong = state.heard = now
        state.unanswered = state.attempts = 0
        state.credit = None
        first = state.rtt is None
        state.answered(rtt, now)
        state.next_ping = now + (rules.SECOND_SAMPLE if first else rules.HEARTBEAT)
        self._prove(state, "disco", now)
        if state is self.active:
            if self._silence.doubted is not None:
                self._silence.patience = min(2 * self._silence.patience, rules.MOST_PATIENCE)
                self._silence.settle(now)
            self._calm(now)
            self._retarget()
        else:
            self._judge(now)
        self._choose(now)
        if self.holders:
            self._owner.arm(self, state.next_ping)

    def called_from(self, addrs: Collection[Path], now: float) -> None:
        """The peer said where it is now: what only earlier calls named is of no use any more."""
        for state in list(self.paths.values()):
            known = state.given or state.proven or state is self.active or state.path in addrs
            if state.source == SOURCE_CALL and not known:
                self._forget(state, now)

    def withdrawn(self, addrs: Collection[Path], source: str, now: float) -> None:
        """What `source` has named is out of date: the node has signed something newer since, that names others.

        Whoever replays an old record would fill all places otherwise. What has given a sign of life stays.
        """
        for addr in addrs:
            state = self.paths.get(addr)
            if state is None or state.source != source or state.given or state is self.active:
                continue
            if not state.proven and state.heard is None:
                self._forget(state, now)
        self._retarget()

    def network_changed(self, now: float) -> None:
        """The network is another one: ask every path again, and go down those that answer."""
        for state in self.paths.values():
            state.forget_rtt()
            state.lifetime_pings = 0
            if self.holders:
                self._probe(state, now)
        if self.holders:
            self._doubt(now, "our network has changed", needs_pong=True)

    def punch(self, now: float) -> None:
        """Both ends probe now: begin again with every direct path that is not proven."""
        for state in self.paths.values():
            if state.direct and not state.proven:
                state.lifetime_pings = 0
                self._probe(state, now)

    def drop(self, path: Path, now: float) -> None:
        """Forget a path that can't come back, unless it is in use."""
        if path in self.paths and self.paths[path] is not self.active:
            self._forget(self.paths[path], now)
            self._retarget()

    @property
    def relayed(self) -> bool:
        """Whether there is no direct path that carries the traffic."""
        return self.active is None or not self.active.direct

    def in_use(self, now: float) -> bool:
        """Whether somebody waits for a path or uses one."""
        # Of a silent connection the keep-alives count too.
        used = self._traffic(now) if self.in_outage else now - self._last_sent < rules.TRAFFIC
        return self.holders > 0 and (self.active is None or used)

    @property
    def can_be_called(self) -> bool:
        """Whether there is a way on which calls get to the peer, so that both ends can act together."""
        relays = any(not state.direct for state in self.paths.values())
        return relays or (self.active is not None and self._silence.doubted is None)

    @property
    def in_outage(self) -> bool:
        """Whether traffic is under way and no path answers."""
        return self._silence.outage is not None

    def usable(self) -> bool:
        """Whether there is somewhere to send."""
        return bool(self.targets)

    def infos(self, now: float) -> list[PathInfo]:
        """All paths, the active one first."""
        states = sorted(self.paths.values(), key=lambda s: (s is not self.active, not s.proven, s.score(), s.added))
        return [state.info(now, active=state is self.active) for state in states]

    # --- time -------------------------------------------------------------------------------------------------

    def tick(self, now: float) -> None:
        """Do what is due, and arm for what comes next."""
        # By what this said itself: others may want a tick for what was due long ago.
        late, self._tick_at, self.due = now - self._tick_at, inf, inf
        if not self.holders:
            return
        if late > rules.STALL:
            self._silence.forgive(late, now)
        traffic = self._traffic(now)
        if traffic:
            self._judge(now)
        for state in list(self.paths.values()):
            if state.next_ping <= now:
                self._ping_due(state, now, traffic=traffic)
        self._choose(now)
        due = min((state.next_ping for state in self.paths.values()), default=inf)
        if traffic:
            verdict = self._silence.next_verdict(self.active, now) if self.active is not None else inf
            due = min(due, now + rules.ACTIVE_TICK, verdict)
        if due < inf:
            self._tick_at = max(due, now + 0.001)
            self._owner.arm(self, self._tick_at)

    def _traffic(self, now: float) -> bool:
        if self._silence.outage is not None:
            return now - self._silence.searched < rules.OUTAGE
        return now - self._last_traffic < rules.TRAFFIC

    def _wake(self, now: float) -> None:
        """Traffic after a pause: what was proven then may be gone."""
        for state in self._kept():
            if state.last_pong is None or now - state.last_pong > rules.HEARTBEAT:
                state.next_ping = min(state.next_ping, now)
        active = self.active
        if self.speaks_disco and active is not None and active.heard is not None and now - active.heard > rules.STALE:
            self._doubt(now, "long silence")
        self._owner.arm(self, now)

    # --- pings ------------------------------------------------------------------------------------------------

    def _probe(self, state: PathState, now: float) -> None:
        state.attempts = state.unanswered = 0
        state.next_ping = now
        if self.holders:
            self._owner.arm(self, now)

    def _ping_due(self, state: PathState, now: float, *, traffic: bool) -> None:
        state.next_ping = inf
        if state.proven:
            if not traffic and state.last_pong is not None and state.rtt is not None and state.unanswered == 0:
                return
            if not traffic and state.unanswered >= rules.LOST_AFTER:
                return
            if self._lost_on_standby(state, now):
                return
        elif given_up(
            state,
            now,
            traffic=traffic,
            dialing=self.active is None,
            silent=self.in_outage,
            punching=self.relayed and self.speaks_disco is True,
        ):
            return
        if state is self.active and traffic and state.unanswered > 1 and self.speaks_disco:
            self._doubt(now, "pings without a pong", needs_pong=True)
        state.attempts += 1
        state.lifetime_pings += 1
        state.unanswered += 1
        if self._owner.ping(self, state, now):
            state.pinged(now)
        state.last_ping = now
        state.next_ping = now + ping_interval(
            state,
            speaks_disco=self.speaks_disco,
            doubted=self._silence.doubted is not None,
            silent=self.in_outage,
        )
        if state.attempts > len(rules.PROBES) and state.proven and self.speaks_disco is None:
            self.speaks_disco = False

    def _lost_on_standby(self, state: PathState, now: float) -> bool:
        if state is self.active or not self.speaks_disco:
            return False
        if state.unanswered >= rules.LOST_AFTER:
            self._lose(state, now, "no answer")
            state.next_ping = now + rules.REPROBE
            self._owner.arm(self, state.next_ping)
            return True
        if self._silence.doubted is None and state not in self._kept():
            self._lose(state, now, "better ones are kept")
            return True
        return False

    # --- proof, doubt, choice ---------------------------------------------------------------------------------

    def _prove(self, state: PathState, by: str, now: float) -> None:
        if state.proven:
            return
        state.proven = state.ever_proven = True
        state.proven_at = now
        state.why = "answers"
        self._owner.emit(PathProven(self.node_id, state.path, now, by, state.rtt))

    def _lose(self, state: PathState, now: float, why: str) -> None:
        state.proven = False
        state.why = why
        state.first_heard = None
        state.attempts = len(rules.PROBES)
        state.forget_rtt()
        self._owner.emit(PathLost(self.node_id, state.path, now, why))

    def _quic_heard_elsewhere(self, state: PathState, now: float, size: int) -> None:
        state.heard = now
        newly = state.first_heard is None
        if newly:
            state.first_heard = now
        if state.proven:
            if self._silence.doubted is not None:
                if state.next_ping > now + rules.DOUBT_PING:
                    self._probe(state, now)
                self._judge(now)
            elif self.active is not None:
                self._used_by_peer(state, self.active, now)
            return
        active = self.active
        if active is None:
            if state.given:
                # An address of the caller's answered. Others only get pings: before the handshake is done, all that
                # QUIC's authentication shows is that somebody saw our first packet.
                self.handshake_done(state.path, now)
            return
        if newly:
            if not state.given and not self.speaks_disco:
                state.credit = 0
            state.next_ping = min(state.next_ping, now)
            self._doubt(now, "the peer sends from elsewhere")
        self._earn(state, now, size)
        if not self.speaks_disco and (active.heard is None or active.heard < (state.first_heard or now) < now):
            self._prove(state, "quic", now)
            self._switch(state, "the peer moved", now)
        self._retarget()
        self._owner.arm(self, now)

    def _used_by_peer(self, state: PathState, active: PathState, now: float) -> None:
        """The peer's traffic comes on a proven path that is not ours.

        It uses another one, which we follow if ours is hardly better; or it doubts ours, since it hears nothing there.
        """
        alike = state.direct == active.direct and state.rtt is not None
        if alike and self.follows and state.score() < active.score() + HYSTERESIS:
            if self._lead.followed(state, now) and self._chosen_by_plugin(now) is None:
                self._switch(state, "the peer uses it", now)
        elif state.direct <= active.direct and self.speaks_disco and now >= self._silence.at_ease_until:
            self._doubt(now, "the peer uses another", needs_pong=True)
            self._silence.ease(now)

    def _earn(self, state: PathState, now: float, size: int) -> None:
        if state.credit is None:
            return
        if state.proven and now - (state.first_heard or now) >= rules.CONFIRMED_AFTER:
            state.credit = None
        else:
            state.credit += rules.MOVE_CREDIT * size

    def _doubt(self, now: float, why: str, *, needs_pong: bool = False) -> None:
        """Begin to doubt the active path: ask it and all others whether they live."""
        if self.active is None:
            return
        self._silence.needs_pong = self._silence.needs_pong or (needs_pong and self.speaks_disco is True)
        if self._silence.doubted is not None:
            return
        self.doubts += 1
        self._silence.doubted = now
        if self._silence.unanswered is None:
            self._silence.unanswered = now
        for state in self.paths.values():
            if state.proven:
                state.next_ping = min(state.next_ping, now)
        self._owner.arm(self, now)
        self._retarget()
        self._owner.emit(PathDoubted(self.node_id, self.active.path, now, why))

    def _calm(self, now: float | None = None) -> None:
        """The active path lives, or is another."""
        doubted = self._silence.doubted is not None
        began = self._silence.ended()
        if self.active is not None:
            self.active.unanswered = 0
        # Where pings are answered and QUIC's packets are not, again and again, its back-off is right.
        back = doubted and self._silence.patience < rules.MOST_PATIENCE
        if now is not None and back and self.active is not None:
            self._owner.emit(PathRestored(self.node_id, self.active.path, now, now - began))

    def _judge(self, now: float) -> None:
        active = self.active
        if active is None:
            return
        if self._silence.doubted is None:
            if self._silence.unanswered is None:
                return
            # A last acknowledgment is answered by nobody. Where no ping can tell, only sending on and on (QUIC's
            # retransmissions) without an answer means anything.
            silent = now >= self._silence.unanswered + self._silence.patience * rules.doubt_after(
                active
            ) and self._traffic(now)
            if silent and (self.speaks_disco or self._last_sent - self._silence.unanswered >= rules.DOUBT_AFTER):
                self._doubt(now, "silent under traffic")
            return
        since = self._silence.doubted
        if now < since + rules.leave_after(active):
            return
        alive = [s for s in self.paths.values() if s.proven and s is not active and (s.heard or -inf) >= since]
        if self.speaks_disco:
            alive = [s for s in alive if (s.last_pong or -inf) >= since]
        winner, _why = best(None, alive, now)
        if winner is not None:
            outage = self._silence.outage
            self._switch(winner, "the path in use went silent", now)
            self._lose(active, now, "silent")
            active.next_ping = now + rules.RETRY
            self._owner.arm(self, active.next_ping)
            if outage is not None:
                self._owner.emit(PathRestored(self.node_id, winner.path, now, now - outage))
        elif self._silence.outage is None and now >= since + rules.outage_after(active):
            unanswered = self._silence.unanswered
            self._silence.outage = since if unanswered is None else min(unanswered, since)
            self.outages += 1
            self._search(now)
            self._retarget()

    def _search(self, now: float) -> None:
        """No path answers while there is traffic: ask all, for some time."""
        self._silence.searched = now
        for state in self.paths.values():
            # Another family, or a way that was shut until now, may be all that is left.
            state.lifetime_pings = 0
            self._probe(state, now)
        self._owner.outage(self, now)

    def _choose(self, now: float) -> None:
        if self._silence.doubted is not None and self.active is not None:
            return
        chosen = self._chosen_by_plugin(now)
        if chosen is not None:
            winner, why = chosen, "chosen by plugin"
        else:
            found, why = best(self.active, self.paths.values(), now)
            if found is None:
                return
            winner = found
        if winner is not self.active:
            self._switch(winner, why, now)

    def _chosen_by_plugin(self, now: float) -> PathState | None:
        return chosen_by(self._owner.selector, self.node_id, self.paths.values(), self.active, now)

    def _switch(self, winner: PathState, why: str, now: float) -> None:
        old = self.active
        if old is not None:
            self.switches += 1
        if old is not None and old.proven:
            old.why = "answers, another one is used"
        self.active = winner
        winner.why = why
        self._silence.settle(now)
        self._silence.patience = 1
        self._calm()
        self._retarget()
        self._owner.emit(PathSelected(self.node_id, winner.path, now, old.path if old else None, why))

    def _kept(self) -> list[PathState]:
        """The active path and the best others, which are kept proven."""
        return kept(self.active, self.paths.values())

    def _retarget(self) -> None:
        active = self.active
        if active is not None and self._silence.doubted is None:
            new: tuple[PathState, ...] = (active,)
        elif active is None:
            new = first_targets(self.paths.values())
        else:
            silent, moved = self.in_outage, not self.speaks_disco
            new = doubted_targets(active, self._kept()[1:], self.paths.values(), silent=silent, moved=moved)
        if new != self.targets:
            self.targets = new
            self.version += 1

    def _forget(self, state: PathState, now: float) -> None:
        del self.paths[state.path]
        self._owner.emit(PathForgotten(self.node_id, state.path, now))
