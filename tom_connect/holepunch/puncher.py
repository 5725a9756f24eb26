"""Punching towards one node: who tells whom what, when both probe, and how far the first packets may travel.

A round begins with a call-me-maybe and is answered by one, so that both ends probe at the same time:

    caller  --call--> callee           (through a relay, or any path that works)
    callee: pings every candidate of the caller, then sends  --pong, call--> caller
    caller: pings every candidate of the callee, then sends  --pong--> callee: pings again

Until its call is confirmed an end *opens*: its pings to addresses beyond a NAT get a TTL that takes them through our
own router and no further. A full ping that reached the other's router before the other's own packets went out there may
be taken by that router for a packet to itself; its connection tracking then gives the other's packets to us another
port, and they never get through (measured: 0 of 38; with opening 20 of 20). A pong to our call says that the other has
opened towards each of our candidates, and from then on full pings can only find an open door. No end ever waits for the
other without a limit: an opening ends after `OPENING` anyhow, and much sooner where no relay answers.

A round that leads nowhere is repeated ever more rarely, later than NATs and routers forget what an earlier one left in
them, and at once when either end has new candidates. A direct path ends it all.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from math import inf
from typing import Final

from tom_connect.addr import RelayUrl, SocketAddr, is_local
from tom_connect.holepunch import disco
from tom_connect.holepunch.disco import CallMeMaybe, Mapping
from tom_connect.holepunch.path import Path, RelayPath

CALL_RETRY: Final = (0.5, 1.0, 2.0, 4.0)
"""Seconds after each call-me-maybe until it is sent again, if no pong came."""
UNSURE_CALLS: Final = 2
"""Calls to a node of which we do not know whether it speaks disco."""
ANSWER_AFTER: Final = 5.0
"""Seconds after a call of ours in which the other's call is no reason for another: it is the answer to ours."""
OPENING: Final = 2.5
"""Seconds after which pings travel in full although no pong to our call has come; before the last of `paths.PROBES`."""
DEAF_OPENING: Final = 0.5
"""The same where nothing at all has come from the node yet: the relay may be dead, and the address a public one."""
OPENING_TTLS: Final = (2, 3, 2, 4)
"""By rounds. One hop to our router, one more so that it sends the packet on: what lies behind sees it expire. Where
that is a carrier's NAT, it has to be opened too; where it is the other's router, opening further spoils the round."""
BEHIND_CARRIER: Final = 1
"""Hops more where a carrier's NAT is known to stand behind our router."""
ROUND: Final = 7.0
"""Seconds that a round takes, to its last ping and a little more."""
ROUNDS: Final = (40.0, 60.0, 120.0, 300.0)
"""Seconds between rounds while relayed: more than the 30 s for which routers keep an entry that nobody answered."""
JITTER: Final = 0.1
"""Part of such a time that is random, so that many nodes do not keep step."""

PORTS_AFTER: Final = (0.1, 0.4)
"""Bounds of the seconds after a confirmed call in which ordinary punching either succeeds or is not going to: one and a
half times as long as the call and its pong took through the relay. A port probing that is needless ends by itself."""
PORTS_AGAIN: Final = (8.0, 60.0, 300.0)
"""Seconds between attempts at port probing; an attempt takes up to 6, and is worth another within 15 s."""

Offer = tuple[tuple[SocketAddr, ...], tuple[RelayUrl, ...], Mapping]
"""What a call-me-maybe tells: candidates, relays and how our NAT maps."""
NOTHING: Final[Offer] = ((), (), Mapping.UNKNOWN)


@functools.lru_cache(maxsize=4096)
def beyond_nat(path: Path) -> bool:
    """Whether a NAT may stand before `path`: not in our own networks, and IPv6 routers keep ports as they are."""
    return not isinstance(path, RelayPath) and ":" not in path.host and not is_local(path)


class Puncher:
    """The rounds of punching towards one node, and the calls in them. Times are seconds of the caller's clock."""

    def __init__(self, random: Callable[[int], bytes]) -> None:
        self.started = -inf
        """When the present round began."""
        self.confirmed_at: float | None = None
        """When a call of the present round was confirmed: the node has opened towards all that we offered."""
        self.call_due = inf
        self.next_round = inf
        self.ports_due = inf
        """When port probing may be tried."""
        self.their_mapping = Mapping.UNKNOWN
        """How the node says that its NAT maps."""
        self.news = False
        """Whether its last call named other candidates than the one before."""
        self.candidates: tuple[SocketAddr, ...] = ()
        """What its last call named."""
        self._random = random
        self._rounds = 0
        self._attempts = 0
        self._told: Offer | None = NOTHING
        self._telling: Offer = NOTHING
        self._tx: bytes | None = None
        self._tries = 0
        self._called = -inf
        self._opening = False

    # --- rounds -----------------------------------------------------------------------------------------------

    def begin(self, now: float, *, fresh: bool) -> None:
        """Start a round: the node is called, whatever it knows. `fresh`: something has changed since the last one."""
        self._rounds = 0 if fresh else self._rounds + 1
        if fresh:
            self.ports_due = inf
            self._attempts = 0
        self.started = now
        self.confirmed_at = None
        self._opening = True
        self.tell_again(now)
        spread = 1.0 + JITTER * (2 * int.from_bytes(self._random(2), "big") / 65535 - 1)
        self.next_round = now + ROUNDS[min(self._rounds, len(ROUNDS) - 1)] * spread

    def stop(self) -> None:
        """A direct path carries the traffic."""
        self.started = -inf
        self.next_round = self.ports_due = inf
        self._rounds = 0
        self._opening = False

    def under_way(self, now: float) -> bool:
        """Whether the present round may still succeed."""
        return now - self.started < ROUND

    @property
    def opening_ttl(self) -> int:
        """How many hops an opening of the present round goes."""
        return OPENING_TTLS[self._rounds % len(OPENING_TTLS)]

    def opening(self, now: float, *, heard: bool) -> bool:
        """Whether pings to addresses beyond a NAT must not reach the other's router yet.

        `heard`: anything has come from the node on any path, so that a call reaches it.
        """
        return self._opening and now < self._opened_by(heard=heard)

    def opening_over(self, now: float, *, heard: bool) -> bool:
        """Whether the opening has just ended without a pong: True once, and all that opened is then pinged in full."""
        if self._opening and now >= self._opened_by(heard=heard):
            self._opening = False
            return True
        return False

    def _opened_by(self, *, heard: bool) -> float:
        return self.started + (OPENING if heard else DEAF_OPENING)

    def due(self, *, heard: bool) -> float:
        """When something is to be done next, besides the next round."""
        return min(self.call_due, self._opened_by(heard=heard) if self._opening else inf)

    # --- calls ------------------------------------------------------------------------------------------------

    def tell_again(self, now: float) -> None:
        """What the node knows of us may be old."""
        self._told = None
        self._tries = 0
        self.call_due = now

    def knows(self, own: Offer) -> bool:
        """Whether the node has confirmed `own`, or there is nothing to tell."""
        return own == (self._told or NOTHING) or not (own[0] or own[1])

    def call(self, own: Offer, now: float, *, sure: bool) -> CallMeMaybe | None:
        """The call to send now, if one is due. `sure`: the node is known to speak disco."""
        if self.knows(own):
            self.call_due = inf
            return None
        if own != self._telling:
            self._telling, self._tries, self.call_due = own, 0, now
        if now < self.call_due:
            return None
        if self._tries >= (len(CALL_RETRY) if sure else UNSURE_CALLS):
            self.call_due = inf
            return None
        self._tx = self._random(disco.TX_SIZE)
        self.call_due = now + CALL_RETRY[self._tries]
        self._tries += 1
        self._called = now
        return CallMeMaybe(self._tx, *own)

    def confirmed(self, tx: bytes, now: float, rtt: float) -> bool:
        """A pong came, `rtt` seconds after what it answers: whether it confirms the last call."""
        if tx != self._tx:
            return False
        self._told, self._tx = self._telling, None
        self.call_due = inf
        self.confirmed_at = now
        self._opening = False
        if not self._attempts:
            self.ports_due = now + min(max(1.5 * rtt, PORTS_AFTER[0]), PORTS_AFTER[1])
        return True

    def ports_tried(self, now: float) -> None:
        """Port probing is tried now."""
        self.ports_due = now + PORTS_AGAIN[min(self._attempts, len(PORTS_AGAIN) - 1)]
        self._attempts += 1

    def heard(self, call: CallMeMaybe) -> None:
        """The node called us."""
        self.their_mapping = call.mapping
        self.news = self.candidates != call.candidates
        self.candidates = call.candidates

    def called(self, now: float) -> None:
        """It called while no direct path is there: it probes now, so it must know where we are now."""
        if now - self._called >= ANSWER_AFTER:
            self.begin(now, fresh=self.news)
        elif self.news:
            self._rounds = 0
