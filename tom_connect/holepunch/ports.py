"""Port probing: a path between endpoint-dependent mapping on one side and port-restricted filtering on the other.

The *hard* end, whose NAT gives each destination another port, opens many sockets towards the other's mapped address, so
that its NAT lets that address in at many random ports. The *easy* end probes random ports of the hard end's IP until
one is hit (the birthday paradox: 256 sockets and 2,048 probes fail once in 3,400 attempts):

    hard --offer: my IP-->  easy: probes allowed? is that IP the peer's? budget left?
    hard <--accept: my mapped address--  easy: probes, 600 a second
    hard: is that IP the peer's? opens 256 sockets, a ping from each dies before the easy end's router (see `puncher`)
    hard <--ping that got through--  easy
    hard --pong, ping--> easy: a path like any other from here on; the hard end closes the other sockets

It begins only after ordinary punching failed and both ends agreed. An IP gets probes or openings only if somebody other
than the peer attests that the peer is there, and no more than a budget over all peers together.
"""

from __future__ import annotations

import itertools
import random as random_module
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from math import inf
from typing import Final, Protocol

import attrs

from tom_connect.addr import SocketAddr
from tom_connect.holepunch import disco
from tom_connect.holepunch.disco import Mapping, PortProbing, PortStep
from tom_connect.holepunch.limits import KeyedBuckets
from tom_connect.holepunch.path import ViaSocket
from tom_connect.keys import NodeId

SOCKETS: Final = 256
FEWEST: Final = 32
"""Sockets with which an attempt is still worth its probes: two of three succeed."""
PROBES: Final = 2048
RATE: Final = 600.0
"""Probes a second, 64 kB: what a video call sends. Half of the successes come within 0.3 s."""
BURST: Final = 32
"""Probes at once, where the event loop was late."""
PACE: Final = 0.02
PORTS: Final = range(1024, 65536)
OPEN_FOR: Final = 5.5
"""Seconds that the hard end's sockets wait: for all probes, and a slow relay."""
MEET_FOR: Final = 12.0
"""The same where nobody has agreed on the moment: for an end that has yet to read the call, too."""
OPENING_TTLS: Final = (2, 2, 3, 4)
"""Hops that the first openings go, by sockets in turn: a carrier's NAT may stand behind our router. Where the easy
end's router is as near as that, and remembers such packets, they spoil these ports; the others are left."""
FULL_OPENINGS: Final = (1.2, 2.4)
"""Seconds after which one half of the sockets, then the other, open in full: our own NAT may be further away than the
first opening got. Until the first a third of the probes is sent, and another until the second."""
OFFER_RETRY: Final = (0.5, 1.0, 2.0)
"""Seconds after each offer until it is made again, if no answer came."""
ATTEST_PATIENCE: Final = 5.0
"""Seconds that the other's step waits for somebody to attest its IP."""
LOST_FOR: Final = 30.0
"""Seconds without an answer after which a path through a further socket is given up: NATs have forgotten it then."""
ATTESTED_FOR: Final = 300.0
MAX_ATTESTED: Final = 1024
MAX_WAITING: Final = 64
"""Nodes with an unfinished agreement."""
TARGET_BURST: Final = 2.0 * PROBES
"""Packets that one IP may get from us over all peers, then as many as in an attempt every ten minutes."""
TARGET_RATE: Final = PROBES / 600
OFFER_BURST: Final = 4.0
OFFER_RATE: Final = 0.1
"""Offers a second that one node may make us consider."""


class PortsOwner(Protocol):
    """What port probing needs from the core."""

    def tell(self, node_id: NodeId, message: PortProbing) -> None:
        """Send a step to a node on the path in use."""

    def probe(self, node_id: NodeId, path: SocketAddr, *, ttl: int | None = None) -> None:
        """Send a ping that nobody waits for. `ttl`: of how many hops, if that can be said; None: as usual."""

    def open_socket(self, via: int) -> bool:
        """Open a further socket under that number; False if there can't be more."""

    def close_socket(self, via: int) -> None:
        """Close it."""

    def drop_path(self, node_id: NodeId, path: ViaSocket, now: float) -> None:
        """Forget a path whose NAT mapping is gone for good."""

    def ask_attestation(self, node_id: NodeId) -> None:
        """Ask whoever may know from which IP the node comes; the answer goes to `attested`."""


@attrs.define(eq=False)
class _Offered:
    """Hard end: an offer of ours. `there`: the address that the other accepted with, until its IP is attested."""

    tx: bytes
    tries: int
    due: float
    there: SocketAddr | None = None


@attrs.define(eq=False)
class _Asked:
    """Easy end: an offer of the other's, until its IP is attested."""

    tx: bytes
    ip: str
    due: float


@attrs.define(eq=False)
class _Opening:
    """Hard end: sockets that wait for a hit."""

    node_id: NodeId
    there: SocketAddr
    vias: list[int]
    started: float
    lasts: float
    waves: int = 0

    def due(self) -> float:
        """When it goes on, or is over."""
        return self.started + (*FULL_OPENINGS, self.lasts)[self.waves]


@attrs.define(eq=False)
class _Spraying:
    """Easy end: probes under way."""

    node_id: NodeId
    tx: bytes
    ip: str
    ports: Iterator[int]
    last: float
    left: int = PROBES


class PortProber:
    """Port probing with all nodes of an endpoint; one attempt at a time on each side. After every call see `due`."""

    def __init__(self, owner: PortsOwner, random: Callable[[int], bytes]) -> None:
        self.enabled = True
        self.mapping = Mapping.UNKNOWN
        self.addr: SocketAddr | None = None
        """Where others see our main socket (IPv4)."""
        self.further_hops = 0
        """How many more hops openings go."""
        self.due = inf
        self._owner = owner
        self._random = random
        self._attested: OrderedDict[tuple[NodeId, str], float] = OrderedDict()
        self._targets: KeyedBuckets[str] = KeyedBuckets(TARGET_RATE, TARGET_BURST, MAX_ATTESTED)
        self._offers: KeyedBuckets[NodeId] = KeyedBuckets(OFFER_RATE, OFFER_BURST, MAX_ATTESTED)
        self._offered: OrderedDict[NodeId, _Offered] = OrderedDict()
        self._asked: OrderedDict[NodeId, _Asked] = OrderedDict()
        self._opening: _Opening | None = None
        self._spraying: _Spraying | None = None
        self._kept: dict[int, NodeId] = {}
        self._lost: dict[int, tuple[NodeId, ViaSocket, float]] = {}
        self._next_via = 1

    # --- who may be aimed at ----------------------------------------------------------------------------------

    def attested(self, node_id: NodeId, ip: str, now: float) -> None:
        """Somebody other than the node says that it is at `ip`: a relay of ours, or a pong that came from there."""
        self._attested.pop((node_id, ip), None)
        self._attested[node_id, ip] = now + ATTESTED_FOR
        if len(self._attested) > MAX_ATTESTED:
            self._attested.popitem(last=False)
        asked = self._asked.get(node_id)
        if asked is not None and asked.ip == ip:
            del self._asked[node_id]
            self._accept(node_id, asked.tx, ip, now)
        offered = self._offered.get(node_id)
        if offered is not None and offered.there is not None and offered.there.host == ip:
            self._open(node_id, offered, offered.there, now)
        self._arm()

    def _is_attested(self, node_id: NodeId, ip: str, now: float) -> bool:
        return self._attested.get((node_id, ip), -inf) > now

    # --- the hard end -----------------------------------------------------------------------------------------

    def hard(self, theirs: Mapping) -> bool:
        """Whether we are the hard end of a pair that port probing may help."""
        hard = self.mapping is Mapping.DEPENDENT and theirs is not Mapping.DEPENDENT
        return hard and self.enabled and self.addr is not None

    def easy(self, theirs: Mapping) -> bool:
        """Whether we are the easy end of such a pair."""
        easy = theirs is Mapping.DEPENDENT and self.mapping is not Mapping.DEPENDENT
        return easy and self.enabled and self.addr is not None

    def busy_with(self, node_id: NodeId) -> bool:
        """Whether an attempt with that node is under way or being agreed on."""
        attempts = (self._opening, self._spraying)
        running = any(attempt is not None and attempt.node_id == node_id for attempt in attempts)
        return running or node_id in self._offered or node_id in self._asked

    def offer(self, node_id: NodeId, now: float) -> None:
        """Ordinary punching has failed: offer port probing to a node, if we are not in the middle of it."""
        if self._opening is not None or node_id in self._offered or self.addr is None:
            return
        self._offered[node_id] = _Offered(self._random(disco.TX_SIZE), 0, now)
        if len(self._offered) > MAX_WAITING:
            self._offered.popitem(last=False)
        self._owner.ask_attestation(node_id)
        self.tick(now)

    def _answered(self, node_id: NodeId, message: PortProbing, now: float) -> None:
        offered = self._offered.get(node_id)
        if offered is None or offered.tx != message.tx:
            return
        if message.step is not PortStep.ACCEPT or message.addr is None or ":" in message.addr.host:
            del self._offered[node_id]
        elif self._is_attested(node_id, message.addr.host, now):
            self._open(node_id, offered, message.addr, now)
        else:
            offered.there, offered.due = message.addr, now + ATTEST_PATIENCE

    def _open(self, node_id: NodeId, offered: _Offered, there: SocketAddr, now: float, lasts: float = OPEN_FOR) -> None:
        del self._offered[node_id]
        vias: list[int] = []
        if self._opening is None:
            while len(vias) < SOCKETS and self._owner.open_socket(self._next_via):
                vias.append(self._next_via)
                self._next_via += 1
        if len(vias) < FEWEST:
            for via in vias:
                self._owner.close_socket(via)
            self._owner.tell(node_id, PortProbing(offered.tx, PortStep.OVER, None))
            return
        self._opening = _Opening(node_id, there, vias, now, lasts)
        ttls = itertools.cycle(ttl + self.further_hops for ttl in OPENING_TTLS)
        self._knock(self._opening, zip(vias, ttls, strict=False), now)

    def _knock(self, opening: _Opening, knocks: Iterable[tuple[int, int | None]], now: float) -> None:
        for via, ttl in knocks:
            if self._targets.take(opening.there.host, now):
                self._owner.probe(opening.node_id, ViaSocket.of(opening.there, via), ttl=ttl)

    def _close(self, *, but: int | None = None) -> None:
        opening, self._opening = self._opening, None
        for via in opening.vias if opening is not None else ():
            if via != but:
                self._owner.close_socket(via)

    # --- the easy end -----------------------------------------------------------------------------------------

    def _requested(self, node_id: NodeId, message: PortProbing, now: float, *, sendable: bool) -> None:
        spraying, addr = self._spraying, message.addr
        if spraying is not None and spraying.tx == message.tx and spraying.node_id == node_id:
            # Our accept was lost.
            self._owner.tell(node_id, PortProbing(message.tx, PortStep.ACCEPT, self.addr))
            return
        if not self._offers.take(node_id, now):
            return
        willing = self.enabled and self.mapping is not Mapping.DEPENDENT and self.addr is not None
        if not willing or not sendable or addr is None or ":" in addr.host or spraying is not None:
            self._owner.tell(node_id, PortProbing(message.tx, PortStep.REFUSE, None))
        elif self._is_attested(node_id, addr.host, now):
            self._accept(node_id, message.tx, addr.host, now)
        else:
            self._asked[node_id] = _Asked(message.tx, addr.host, now + ATTEST_PATIENCE)
            if len(self._asked) > MAX_WAITING:
                self._asked.popitem(last=False)
            self._owner.ask_attestation(node_id)

    def _accept(self, node_id: NodeId, tx: bytes, ip: str, now: float) -> None:
        if self._spraying is not None or self.addr is None:
            self._owner.tell(node_id, PortProbing(tx, PortStep.REFUSE, None))
            return
        order = random_module.Random(self._random(16)).sample(PORTS, PROBES)
        self._spraying = _Spraying(node_id, tx, ip, iter(order), now)
        self._owner.tell(node_id, PortProbing(tx, PortStep.ACCEPT, self.addr))

    def _spray(self, spraying: _Spraying, now: float) -> None:
        due = int((now - spraying.last) * RATE + 1e-6)
        count = min(due, BURST, spraying.left)
        if count <= 0:
            return
        # What a late timer has missed is made up for, unless that would be a flood.
        spraying.last = now if due > BURST else spraying.last + count / RATE
        for _ in range(count):
            if not self._targets.take(spraying.ip, now):
                self._spraying = None
                return
            spraying.left -= 1
            self._owner.probe(spraying.node_id, SocketAddr(spraying.ip, next(spraying.ports)))
        if not spraying.left:
            self._spraying = None

    def meet(self, node_id: NodeId, there: SocketAddr, now: float) -> None:
        """Do our part of an attempt that both ends know of by other means than a path; at most one at a time.

        `there`: the easy end's mapped address, or the hard end's IP with any port; it must be attested.
        """
        if not self.enabled or self.addr is None or ":" in there.host or self.busy_with(node_id):
            return
        if not self._is_attested(node_id, there.host, now):
            return
        if self.mapping is Mapping.DEPENDENT and there.port:
            if self._opening is not None and now >= self._opening.started + OPEN_FOR:
                # Patience with one end is not to cost another its turn.
                self._close()
            offered = self._offered[node_id] = _Offered(self._random(disco.TX_SIZE), 0, now)
            self._open(node_id, offered, there, now, MEET_FOR)
        elif self.mapping is not Mapping.DEPENDENT and self._spraying is None:
            self._accept(node_id, self._random(disco.TX_SIZE), there.host, now)
        self._arm()

    # --- both -------------------------------------------------------------------------------------------------

    def received(self, node_id: NodeId, message: PortProbing, now: float, *, sendable: bool) -> None:
        """A step of a node that we deal with and have no direct path to. `sendable`: its address may be sent to."""
        if message.step is PortStep.OFFER:
            self._requested(node_id, message, now, sendable=sendable)
        elif message.step is PortStep.OVER:
            self._asked.pop(node_id, None)
            if self._spraying is not None and self._spraying.tx == message.tx and self._spraying.node_id == node_id:
                self._spraying = None
        else:
            self._answered(node_id, message, now)
        self._arm()

    def proven(self, node_id: NodeId, path: SocketAddr) -> None:
        """A direct path to a node answers: whatever was tried with it is over, and its other sockets are closed."""
        via = path.via if isinstance(path, ViaSocket) else None
        if self._opening is not None and self._opening.node_id == node_id:
            self._close(but=via)
            if via is not None:
                self._kept[via] = node_id
        if via is not None:
            self._lost.pop(via, None)
        if self._spraying is not None and self._spraying.node_id == node_id:
            self._spraying = None
        self._offered.pop(node_id, None)
        self._asked.pop(node_id, None)
        self._arm()

    def lost(self, node_id: NodeId, path: ViaSocket, now: float) -> None:
        """A path through a further socket answers no more: if it stays so, its mapping is another one or gone."""
        self._lost[path.via] = (node_id, path, now + LOST_FOR)
        self._arm()

    def forgotten(self, path: ViaSocket) -> None:
        """A path through a further socket is given up."""
        self._lost.pop(path.via, None)
        if self._kept.pop(path.via, None) is not None:
            self._owner.close_socket(path.via)

    def released(self, node_id: NodeId) -> None:
        """Nobody deals with a node any more."""
        self._offered.pop(node_id, None)
        self._asked.pop(node_id, None)
        if self._opening is not None and self._opening.node_id == node_id:
            self._close()
        if self._spraying is not None and self._spraying.node_id == node_id:
            self._spraying = None
        self._arm()

    def dropped(self, node_id: NodeId) -> None:
        """A node is forgotten, with all its paths."""
        self.released(node_id)
        for via in [via for via, owner in self._kept.items() if owner == node_id]:
            del self._kept[via]
            self._owner.close_socket(via)

    def tick(self, now: float) -> None:
        """Do what is due."""
        for node_id, offered in list(self._offered.items()):
            if now < offered.due:
                continue
            if offered.tries >= len(OFFER_RETRY) or offered.there is not None or self.addr is None:
                del self._offered[node_id]
                if offered.there is not None:
                    self._owner.tell(node_id, PortProbing(offered.tx, PortStep.OVER, None))
                continue
            offered.due = now + OFFER_RETRY[offered.tries]
            offered.tries += 1
            here = SocketAddr(self.addr.host, 0)
            self._owner.tell(node_id, PortProbing(offered.tx, PortStep.OFFER, here))
        for node_id, asked in list(self._asked.items()):
            if now >= asked.due:
                del self._asked[node_id]
                self._owner.tell(node_id, PortProbing(asked.tx, PortStep.REFUSE, None))
        for node_id, path, due in list(self._lost.values()):
            if now >= due:
                del self._lost[path.via]
                self._owner.drop_path(node_id, path, now)
        opening = self._opening
        if opening is not None and now >= opening.due():
            if opening.waves < len(FULL_OPENINGS):
                wave = opening.vias[opening.waves :: len(FULL_OPENINGS)]
                self._knock(opening, ((via, None) for via in wave), now)
                opening.waves += 1
            else:
                self._close()
        if self._spraying is not None:
            self._spray(self._spraying, now)
        self._arm()

    def _arm(self) -> None:
        due = [offered.due for offered in self._offered.values()]
        due += [asked.due for asked in self._asked.values()]
        due += [lost[2] for lost in self._lost.values()]
        if self._opening is not None:
            due.append(self._opening.due())
        if self._spraying is not None:
            due.append(self._spraying.last + PACE)
        self.due = min(due, default=inf)
