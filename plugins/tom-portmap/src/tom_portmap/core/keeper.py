"""The life of one mapping, as a state machine: who is asked, which grant is kept, when it is renewed; sans-IO.

    idle      nothing is held and nothing under way; begins a race when a timer says so or the network changes
    racing    every candidate is probed; those that answer are asked for the mapping, one after the other in the order
              of their answers, until one grants. One after the other, since the protocols of one gateway share one
              table: two that grant at once would map one port twice, and giving one back would end both
    held      the mapping is offered; it is prolonged at half of its time, the gateway is looked at in between

A mapping that is not prolonged, is gone, or whose gateway is silent three times, is held no more: a new race begins.
"""

from __future__ import annotations

import enum
import random
from collections import deque
from collections.abc import Sequence
from typing import Final

import attrs

from tom_connect.addr import SocketAddr
from tom_portmap.core.eligible import is_public
from tom_portmap.core.epoch import EpochClock
from tom_portmap.core.values import Candidate, Grant, Probed

CHECK_EVERY: Final = 300.0
"""Seconds between looks at the gateway: how long a mapping may be offered that a restart of it has ended."""
SILENT_RETRY: Final = 10.0
"""Seconds until a silent gateway is asked again: it may be restarting."""
MAX_SILENT: Final = 3
RETRY_FIRST: Final = 30.0
RETRY_MOST: Final = 1800.0
"""Seconds until gateways that grant nothing are asked again, doubled each time: somebody may switch UPnP on."""
RACE_PAUSE: Final = 1.0
"""Seconds between the begins of two races at least, however often the network changes."""
DOUBLE_NAT: Final = "double NAT"


class State(enum.Enum):
    """Where a mapping stands."""

    IDLE = "idle"
    RACING = "racing"
    HELD = "held"


@attrs.frozen
class Probe:
    """To do: ask a gateway about itself. `held`: the mapping to look for, where we hold one there."""

    number: int
    candidate: Candidate
    held: Grant | None = None


@attrs.frozen
class Map:
    """To do: ask for the mapping, or prolong it. `probed`: what the gateway said of itself last."""

    number: int
    candidate: Candidate
    probed: Probed
    suggested: SocketAddr | None
    lifetime: int


@attrs.frozen
class Release:
    """To do: give a mapping back. Nothing is told of what becomes of it."""

    number: int
    candidate: Candidate
    grant: Grant


Action = Probe | Map | Release


class Keeper:
    """Keeps one port mapped; `now` in seconds.

    Call `network_changed` to begin, do what `actions` yields, and tell `probed`, `granted` or `failed` by the number
    of the action; call `handle_timer` when `get_timer` says. `mapping` is what may be offered.
    """

    def __init__(self, lifetime: int, rng: random.Random) -> None:
        """`lifetime`: seconds to ask for."""
        self.state = State.IDLE
        self.problem: str | None = None
        """Why nothing is held, in words; None while all is well or nothing is known yet."""
        self.outside: str | None = None
        """The address that a gateway has outside, where the world can't reach it; None as far as is known."""
        self.expires: float | None = None
        """When the mapping that is held ends; None: without an end."""
        self._lifetime = lifetime
        self._rng = rng
        self._candidates: tuple[Candidate, ...] = ()
        self._held: tuple[Candidate, Grant] | None = None
        self._known = Probed()
        self._epochs: dict[Candidate, EpochClock] = {}
        self._number = 0
        self._probing: dict[int, Candidate] = {}
        self._asked: tuple[int, Candidate] | None = None
        self._stale: dict[int, Candidate] = {}
        self._ready: deque[tuple[Candidate, Probed]] = deque()
        self._reasons: dict[Candidate, str] = {}
        self._actions: deque[Action] = deque()
        self._raced_at = self._looked_at = float("-inf")
        self._race_at: float | None = None
        self._renew_at: float | None = None
        self._check_at: float | None = None
        self._retry = RETRY_FIRST
        self._silent = 0

    @property
    def mapping(self) -> SocketAddr | None:
        """The external address that is mapped to us now."""
        return None if self._held is None else self._held[1].external

    @property
    def gateway(self) -> Candidate | None:
        """Who granted it."""
        return None if self._held is None else self._held[0]

    def actions(self) -> Sequence[Action]:
        """What is to be done now; each is given once."""
        given = tuple(self._actions)
        self._actions.clear()
        return given

    def get_timer(self) -> float | None:
        """When `handle_timer` is due, None: not before something else happens."""
        times = [self._race_at]
        if self._held is not None:
            times.append(self.expires)
            if not self._busy:
                times += [self._renew_at, self._check_at]
        return min((at for at in times if at is not None), default=None)

    @property
    def _busy(self) -> bool:
        return bool(self._probing) or self._asked is not None

    # What happens

    def network_changed(self, candidates: Sequence[Candidate], now: float) -> None:
        """These are the ways to ask now: ask at once, for the mapping that is held too."""
        self._candidates = tuple(candidates)
        self._retry = RETRY_FIRST
        if self._held is not None and self._held[0] in self._candidates:
            # The same gateway, or another one with its address: asking again tells, and one silence is enough.
            self._silent = MAX_SILENT - 1
            self._renew(now)
            return
        self._lose()
        self._plan_race(now)

    def set_candidates(self, candidates: Sequence[Candidate]) -> None:
        """These are the ways to ask from now on; nothing is asked before it is due."""
        self._candidates = tuple(candidates)

    def handle_timer(self, now: float) -> None:
        """Do what is due."""
        if self._held is not None and self.expires is not None and now >= self.expires:
            self._lose()
            self._plan_race(now)
        if self._race_at is not None and now >= self._race_at:
            self._race(now)
        if self._held is not None and not self._busy:
            if self._renew_at is not None and now >= self._renew_at:
                self._renew(now)
            elif self._check_at is not None and now >= self._check_at:
                self._looked_at, self._check_at = now, None
                self._probe(*self._held)

    def probed(self, number: int, answer: Probed, now: float) -> None:
        """A gateway answered a Probe."""
        candidate = self._probing.pop(number, None)
        if candidate is None:
            return
        lost = answer.epoch is not None and self._clock(candidate).lost(answer.epoch, now)
        if self._held is not None:
            self._silent = 0
            self._check_again(now + CHECK_EVERY)
            moved = answer.external is not None and answer.external != self._held[1].external.ip
            self._known = answer
            if lost or moved or answer.gone:
                self._renew(now)
        elif answer.external is not None and not is_public(answer.external):
            self._behind_another(candidate, str(answer.external))
            self._go_on(now)
        else:
            self._ready.append((candidate, answer))
            self._go_on(now)

    def granted(self, number: int, grant: Grant, now: float) -> None:
        """A gateway granted a Map."""
        if (stale := self._stale.pop(number, None)) is not None:
            self._release(stale, grant)
            return
        if self._asked is None or self._asked[0] != number:
            return
        candidate = self._asked[1]
        self._asked = None
        if grant.epoch is not None:
            self._clock(candidate).lost(grant.epoch, now)
        if not is_public(grant.external.ip):
            self._behind_another(candidate, grant.external.host)
            self._release(candidate, grant)
            if self._held is not None:
                self._lose()
                self._plan_race(now)
            else:
                self._go_on(now)
            return
        self._hold(candidate, grant, now)

    def failed(self, number: int, reason: str, now: float, *, silent: bool) -> None:
        """An action came to nothing. `silent`: nobody answered, rather than refused."""
        self._stale.pop(number, None)
        mapping = self._asked is not None and self._asked[0] == number
        if self._asked is not None and mapping:
            candidate, self._asked = self._asked[1], None
        elif (probed := self._probing.pop(number, None)) is not None:
            candidate = probed
        else:
            return
        if self._held is None:
            self._reasons[candidate] = f"{candidate}: {reason}"
            self._go_on(now)
            return
        self._silent += 1
        if silent and self._silent < MAX_SILENT:
            if mapping:
                self._renew_at = now + SILENT_RETRY
            else:
                self._check_again(now + SILENT_RETRY)
            return
        self._lose()
        self._plan_race(now)

    def announced(self, gateway: str, now: float) -> bool:
        """A gateway said something to everyone, as they do after a restart: look at it, or ask it again.

        Returns whether that is planned now. Anybody near can forge it: it costs a request a second at most.
        """
        if self._held is not None:
            if self._held[0].gateway != gateway:
                return False
            self._check_at = max(now, self._looked_at + RACE_PAUSE)
            return True
        if self.state is State.IDLE and any(candidate.gateway == gateway for candidate in self._candidates):
            self._race_at = max(now, self._raced_at + RACE_PAUSE)
            return True
        return False

    def close(self) -> Sequence[Action]:
        """Hold nothing any more; returns what is to be given back."""
        held, self._held = self._held, None
        self._actions.clear()
        self._probing.clear()
        if self._asked is not None:
            # It may be granted and never be heard of; giving back what was not granted does no harm.
            self._release(self._asked[1], Grant(SocketAddr("0.0.0.0", 0), None))  # noqa: S104
        self._asked = None
        if held is not None:
            self._actions.clear()
            self._release(*held)
        self.state = State.IDLE
        self._race_at = None
        return self.actions()

    # What is done

    def _next(self) -> int:
        self._number += 1
        return self._number

    def _clock(self, candidate: Candidate) -> EpochClock:
        clock = self._epochs.get(candidate)
        if clock is None:
            clock = self._epochs[candidate] = EpochClock(candidate.protocol)
        return clock

    def _plan_race(self, now: float) -> None:
        self._race_at = max(now, self._raced_at + RACE_PAUSE)
        if self._race_at <= now:
            self._race(now)

    def _race(self, now: float) -> None:
        self._race_at = None
        self._raced_at = now
        self._abandon()
        self._ready.clear()
        self._reasons.clear()
        self.outside = None
        self._epochs.clear()
        self.state = State.RACING
        for candidate in self._candidates:
            self._probe(candidate, None)
        self._go_on(now)

    def _abandon(self) -> None:
        """Wait no more for what is under way; a mapping that is granted late is given back."""
        self._probing.clear()
        if self._asked is not None:
            self._stale[self._asked[0]] = self._asked[1]
            self._asked = None

    def _check_again(self, at: float) -> None:
        """Look at the gateway once more, sooner where it announced itself while it was looked at."""
        self._check_at = at if self._check_at is None else min(at, self._check_at)

    def _probe(self, candidate: Candidate, held: Grant | None) -> None:
        number = self._next()
        self._probing[number] = candidate
        self._actions.append(Probe(number, candidate, held))

    def _map(self, candidate: Candidate, probed: Probed, suggested: SocketAddr | None) -> None:
        number = self._next()
        self._asked = (number, candidate)
        self._known = probed
        self._actions.append(Map(number, candidate, probed, suggested, self._lifetime))

    def _release(self, candidate: Candidate, grant: Grant) -> None:
        self._actions.append(Release(self._next(), candidate, grant))

    def _go_on(self, now: float) -> None:
        """In a race: ask the next that answered, or give up when nobody is left."""
        if self.state is not State.RACING or self._asked is not None:
            return
        if self._ready:
            self._map(*self._ready.popleft(), None)
        elif not self._probing:
            self.state = State.IDLE
            self.problem = self._summary()
            self._race_at = now + self._retry * self._rng.uniform(0.9, 1.1)
            self._retry = min(self._retry * 2, RETRY_MOST)

    def _summary(self) -> str:
        if not self._candidates:
            return "no gateway was found"
        for reason in self._reasons.values():
            if reason.startswith(DOUBLE_NAT):
                return reason
        return "no gateway grants a mapping: " + "; ".join(self._reasons.values())

    def _hold(self, candidate: Candidate, grant: Grant, now: float) -> None:
        self._probing.clear()
        self._ready.clear()
        self._held = (candidate, grant)
        self.state = State.HELD
        self.problem = None
        self._retry = RETRY_FIRST
        self._silent = 0
        self._check_at = now + CHECK_EVERY
        if grant.lifetime is None:
            self.expires = None
            self._renew_at = None
        else:
            self.expires = now + grant.lifetime
            # RFC 6887 section 11.2.1: at a random time between a half and five eighths.
            self._renew_at = now + grant.lifetime * self._rng.uniform(0.5, 0.625)

    def _renew(self, now: float) -> None:
        if self._held is None or self._asked is not None:
            return
        self._probing.clear()
        candidate, grant = self._held
        self._renew_at = None
        if self._known.external is None:
            self._map(candidate, self._known, grant.external)
        else:
            self._map(candidate, self._known, SocketAddr(str(self._known.external), grant.external.port))

    def _behind_another(self, candidate: Candidate, external: str) -> None:
        self.outside = external
        self._reasons[candidate] = (
            f"{DOUBLE_NAT}: the gateway {candidate.gateway} has the address {external} itself, "
            "which the world can't reach"
        )

    def _lose(self) -> None:
        self._held = None
        self.expires = self._renew_at = self._check_at = None
        self._silent = 0
        self.state = State.IDLE
        self._abandon()
