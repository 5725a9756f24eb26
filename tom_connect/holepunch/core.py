"""Disco for a whole endpoint, without I/O: datagrams, `now` and wishes in; datagrams, events and a timer out."""

from __future__ import annotations

import heapq
import itertools
import os
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Sequence
from math import inf
from typing import Final

import attrs

from tom_connect.abc import PathInfo
from tom_connect.addr import RelayUrl, SocketAddr
from tom_connect.holepunch import disco
from tom_connect.holepunch.addrfilter import (
    SOURCE_CALL,
    SOURCE_KNOCK,
    SOURCE_OWN_RELAY,
    SOURCE_PEER,
    SOURCE_QUIC,
    AddressFilter,
    normal,
)
from tom_connect.holepunch.asked import Asked, Outstanding
from tom_connect.holepunch.disco import CallMeMaybe, DiscoError, Mapping, Message, Ping, Pong, PortProbing
from tom_connect.holepunch.events import PathEvent, PathForgotten, PathLost, PathProven, PathSelected
from tom_connect.holepunch.limits import KeyedBuckets, TokenBucket
from tom_connect.holepunch.meetings import Meetings
from tom_connect.holepunch.path import Path, RelayPath, ViaSocket
from tom_connect.holepunch.pathrules import STALE
from tom_connect.holepunch.paths import RemotePaths
from tom_connect.holepunch.pathstate import PathState
from tom_connect.holepunch.ports import PortProber
from tom_connect.holepunch.portslink import PortsLink
from tom_connect.holepunch.puncher import BEHIND_CARRIER, NOTHING, Offer, Puncher, beyond_nat
from tom_connect.holepunch.sealing import COOKIE_LIFE, Sealer
from tom_connect.holepunch.whyrelayed import why_relayed
from tom_connect.keys import NodeId, SecretKey

PEER_RATE: Final = 10.0
"""Pings a second to unproven addresses of one node, after `PEER_BURST` at once."""
PEER_BURST: Final = 40.0
ADDRESS_RATE: Final = 0.1
"""Pings a second, in the long run, to one address that has not answered, whoever names it: a victim that forged
records of many nodes point to gets ten packets of 106 bytes from us and then one every ten seconds."""
ADDRESS_BURST: Final = 10.0
ADDRESS_TABLE: Final = 4096
STRANGER_PONGS: Final = 500.0
"""Pongs a second to nodes that we have no business with; a pong is as large as its ping."""
CALL_RATE: Final = 0.5
"""Call-me-maybes a second that one node may make us act upon, after `CALL_BURST` at once."""
CALL_BURST: Final = 4.0
HELD_CALLS: Final = 256
"""Calls of nodes that we do not deal with yet: a caller's first one is often faster than its handshake."""
HELD_FOR: Final = 10.0
"""Seconds that such a call is kept; handshakes that take longer have a next call in them."""
IDLE_KEPT: Final = 60.0
"""Seconds that a node's paths are remembered after its last user: a reconnection then needs no discovery."""
MAX_IDLE: Final = 256
_HEARD_FROM: Final = frozenset({SOURCE_PEER, SOURCE_QUIC, SOURCE_KNOCK})
"""Who makes a candidate of where a packet came from, so that it passed both NATs."""


@attrs.define(eq=False)
class _Known:
    """A node of the table, with what belongs to it besides paths."""

    paths: RemotePaths
    puncher: Puncher
    pings: TokenBucket = attrs.field(factory=lambda: TokenBucket(PEER_RATE, PEER_BURST))
    calls: TokenBucket = attrs.field(factory=lambda: TokenBucket(CALL_RATE, CALL_BURST))


def _heard(remote: RemotePaths) -> bool:
    """Whether anything has come from the node, so that calls reach it."""
    return remote.speaks_disco is True or remote.active is not None


@attrs.frozen
class Observed:
    """`by` sees us at `addr`."""

    addr: SocketAddr
    by: NodeId


class DiscoCore:
    """The disco protocol and the paths of all remote nodes. After every call, take `outbox`, `events`, `next_due`."""

    def __init__(
        self,
        secret_key: SecretKey,
        *,
        allow_local: bool = False,
        address_filter: AddressFilter | None = None,
        random: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self.node_id = secret_key.node_id
        self.filter = address_filter or AddressFilter(allow_local)
        self.sealer = Sealer(secret_key, random)
        self.outbox: list[tuple[Path, bytes]] = []
        self.openers: list[tuple[SocketAddr, bytes, int]] | None = None
        """Datagrams that must die soon after our own router, each with its TTL, to go out before `outbox`: see
        `puncher`. None, where such can't be sent: then everything travels in full."""
        self.events: list[PathEvent | Observed] = []
        self.counters: Counter[str] = Counter()
        self.relays_told: Callable[[RemotePaths, list[RelayUrl]], None] = lambda _paths, _urls: None
        """Called with relays that a peer has named and that will be used."""
        self.outage_told: Callable[[NodeId], None] = lambda _node_id: None
        """Called when traffic to a node finds no path any more."""
        self.selector: Callable[[NodeId, Sequence[PathInfo]], PathInfo | None] | None = None
        self.ports_link = PortsLink(self, random)
        self.ports = PortProber(self.ports_link, random)
        self.meetings = Meetings(self)
        self._random = random
        self._known: dict[NodeId, _Known] = {}
        self._idle: OrderedDict[NodeId, float] = OrderedDict()
        self._asked = Outstanding()
        self._heap: list[tuple[float, int, RemotePaths]] = []
        self._order = itertools.count()
        self._addresses: KeyedBuckets[Path] = KeyedBuckets(ADDRESS_RATE, ADDRESS_BURST, ADDRESS_TABLE)
        self._stranger_pongs = TokenBucket(STRANGER_PONGS, STRANGER_PONGS)
        self._own: Offer = NOTHING
        self._held: OrderedDict[NodeId, tuple[CallMeMaybe, Path, float]] = OrderedDict()
        self._unfiltered = False
        self.udp_blocked = False
        self.direct = True
        """Whether direct paths are wanted at all."""

    # --- nodes ------------------------------------------------------------------------------------------------

    def acquire(self, node_id: NodeId, now: float) -> RemotePaths:
        """The paths of a node, held until `release`. Raises DiscoError for a key that allows no agreement."""
        self._sweep(now)
        known = self._known.get(node_id)
        if known is None:
            self.sealer.pin(node_id)
            paths = RemotePaths(node_id, self, follows=node_id.raw < self.node_id.raw)
            known = self._known[node_id] = _Known(paths, Puncher(self._random))
        self._idle.pop(node_id, None)
        known.paths.hold(now)
        held = self._held.pop(node_id, None)
        if held is not None and now - held[2] < HELD_FOR:
            call, source, _at = held
            known.paths.ping_received(source, now)
            self._answer(node_id, call, source)
            self._called(known, call, now)
        return known.paths

    def release(self, remote: RemotePaths, now: float) -> None:
        """Undo one `acquire`; a node that nobody holds is forgotten later. More often than that does nothing."""
        if remote.holders == 0:
            return
        remote.release()
        if remote.holders == 0:
            self.ports.released(remote.node_id)
            self.meetings.end(remote.node_id)
        if remote.holders == 0 and remote.node_id in self._known:
            self._idle[remote.node_id] = now
            self._idle.move_to_end(remote.node_id)
            self._sweep(now)

    def _sweep(self, now: float) -> None:
        while self._idle:
            node_id, since = next(iter(self._idle.items()))
            if now - since < IDLE_KEPT and len(self._idle) <= MAX_IDLE:
                return
            del self._idle[node_id]
            del self._known[node_id]
            self.sealer.unpin(node_id)
            self.ports.dropped(node_id)

    def paths_of(self, node_id: NodeId) -> RemotePaths | None:
        """The paths of a node in the table, None if it is not there."""
        known = self._known.get(node_id)
        return known.paths if known is not None else None

    def why_relayed(self, remote: RemotePaths, now: float) -> str | None:
        """Why traffic to a node takes no direct path: see `whyrelayed`."""
        known = self._known.get(remote.node_id)
        if known is None:
            return None
        state = {"direct": self.direct, "blocked": self.udp_blocked}
        return why_relayed(known.paths, known.puncher, self.ports, now, **state)

    def remotes(self) -> Iterable[RemotePaths]:
        """The paths of every node in the table."""
        return (known.paths for known in self._known.values())

    def add_candidates(
        self, remote: RemotePaths, addrs: Iterable[SocketAddr], source: str, now: float, *, trusted: bool
    ) -> None:
        """Pass candidates through the address filter and probe them."""
        for raw in addrs:
            addr = normal(raw)
            if not self.filter.probeable(addr, source, trusted=trusted):
                self.counters["candidate refused by the address filter"] += 1
            elif remote.add(addr, source, now, given=trusted) is None:
                self.counters["candidate beyond the limit"] += 1

    def withdraw_candidates(self, remote: RemotePaths, addrs: Iterable[SocketAddr], source: str, now: float) -> None:
        """Take back candidates that a source named and that are out of date."""
        remote.withdrawn([normal(addr) for addr in addrs], source, now)

    def add_relays(
        self, remote: RemotePaths, relays: Iterable[RelayUrl], source: str, now: float, *, trusted: bool
    ) -> list[RelayUrl]:
        """Take relays at which a node may be reached; returns those that are used from now on."""
        used: list[RelayUrl] = []
        for url in relays:
            if not self.filter.relay_usable(url, trusted=trusted):
                self.counters["relay refused by the address filter"] += 1
            elif remote.add(RelayPath(url, remote.node_id), source, now, given=True) is None:
                self.counters["candidate beyond the limit"] += 1
            else:
                used.append(url)
        known = self._known.get(remote.node_id)
        if used and known is not None and known.puncher.started == -inf and remote.relayed:
            # The first call leaves with the first packets of a dial.
            known.puncher.begin(now, fresh=True)
        return used

    def set_own_candidates(self, addrs: Iterable[SocketAddr], now: float, relays: Sequence[RelayUrl] = ()) -> None:
        """Say where we may be reached; every held node with a proven path is told, sealed."""
        offered = dict.fromkeys(addr for addr in map(normal, addrs) if self.filter.offerable(addr))
        own = tuple(offered)[: disco.MAX_CANDIDATES], tuple(relays)[: disco.MAX_RELAYS], self._own[2]
        if own[1] != self._own[1]:
            for known in self._known.values():
                if known.paths.in_outage:
                    self.add_relays(known.paths, own[1], SOURCE_OWN_RELAY, now, trusted=True)
        self._offer(own, now)

    def _offer(self, own: Offer, now: float) -> None:
        if own == self._own:
            return
        self._own = own
        for known in self._known.values():
            if known.paths.relayed and known.puncher.started > -inf:
                known.puncher.begin(now, fresh=True)
                known.paths.punch(now)
            self.arm(known.paths, now)

    def set_own_nat(
        self,
        mapping: Mapping,
        addr: SocketAddr | None,
        now: float,
        *,
        filtered: bool = True,
        blocked: bool = False,
        carrier: bool = False,
    ) -> None:
        """Say what is before us in IPv4: how it maps, and where others see our socket.

        `filtered`: False, if anyone may send to that address unasked; `blocked`: no UDP gets through at all; `carrier`:
        there is a carrier's NAT behind our router's.
        """
        self.ports.further_hops = BEHIND_CARRIER if carrier else 0
        self._unfiltered = not filtered
        self.udp_blocked = blocked
        self.ports.mapping, self.ports.addr = mapping, addr
        if mapping is not self._own[2]:
            self._offer((self._own[0], self._own[1], mapping), now)

    # --- time -------------------------------------------------------------------------------------------------

    def next_due(self) -> float | None:
        """When `tick` is wanted next, None if never."""
        due = min(self._next_remote(), self.ports.due)
        return due if due < inf else None

    def _next_remote(self) -> float:
        heap = self._heap
        while heap and heap[0][0] != heap[0][2].due:
            heapq.heappop(heap)
        return heap[0][0] if heap else inf

    def tick(self, now: float) -> None:
        """Do all that is due."""
        if self.ports.due <= now:
            self.ports.tick(now)
        while self._next_remote() <= now:
            remote = heapq.heappop(self._heap)[2]
            remote.tick(now)
            known = self._known.get(remote.node_id)
            if known is not None and known.paths is remote and remote.holders:
                self._punch(known, now)
        self._asked.expire(now)
        self._sweep(now)

    def arm(self, remote: RemotePaths, due: float) -> None:
        """Part of `PathsOwner`."""
        if due < remote.due:
            remote.due = due
            heapq.heappush(self._heap, (due, next(self._order), remote))

    def network_changed(self, now: float) -> None:
        """The network is another one: every path must show again that it works."""
        for known in self._known.values():
            known.puncher.begin(now, fresh=True)
            known.paths.network_changed(now)

    # --- sending ----------------------------------------------------------------------------------------------

    def outage(self, remote: RemotePaths, now: float) -> None:
        """Part of `PathsOwner`: a node that is reachable nowhere else may have gone to a relay of ours."""
        self.add_relays(remote, self._own[1], SOURCE_OWN_RELAY, now, trusted=True)
        self.outage_told(remote.node_id)

    def emit(self, event: PathEvent) -> None:
        """Part of `PathsOwner`."""
        self.events.append(event)
        if isinstance(event, PathProven) and not isinstance(event.path, RelayPath):
            self.ports.proven(event.node_id, event.path)
        elif isinstance(event, PathForgotten) and isinstance(event.path, ViaSocket):
            self.ports.forgotten(event.path)
        elif isinstance(event, PathLost) and isinstance(event.path, ViaSocket):
            self.ports.lost(event.node_id, event.path, event.at)
        known = self._known.get(event.node_id)
        if known is None or not isinstance(event, PathSelected):
            return
        if not isinstance(event.path, RelayPath):
            known.puncher.stop()
            self.meetings.end(event.node_id)
        elif not isinstance(event.old, RelayPath) and (event.old is not None or known.puncher.started == -inf):
            known.puncher.begin(event.at, fresh=True)
            known.paths.punch(event.at)

    def ping(self, remote: RemotePaths, state: PathState, now: float) -> bool:
        """Part of `PathsOwner`."""
        # A relay passes pings on to whom they are for, and is where an outage ends: no limit may hold that back.
        if not state.proven and state.direct:
            known = self._known.get(remote.node_id)
            if known is not None and not known.pings.take(now):
                self.counters["ping beyond the limit of a node"] += 1
                return False
            buckets = self.meetings.buckets if self.meetings.on(remote) else self._addresses
            if not state.given and not state.ever_proven and not buckets.take(state.path, now):
                self.counters["ping beyond the limit of an address"] += 1
                return False
            if known is not None and self._opens(known, state, now):
                ttl = known.puncher.opening_ttl + self.ports.further_hops
                self._ask(remote, state, Ping(self._random(disco.TX_SIZE)), now, ttl=ttl)
                return False
        self._ask(remote, state, Ping(self._random(disco.TX_SIZE)), now)
        return True

    def _opens(self, known: _Known, state: PathState, now: float) -> bool:
        """Whether a ping only opens our own NAT. What the caller gave may be a public address that is waited for."""
        can_be_called = known.paths.can_be_called
        if self.openers is None or self._unfiltered or not (can_be_called or self.meetings.on(known.paths)):
            return False
        # What came from there lately passed both NATs.
        passed = max(state.heard or -inf, state.added if state.source in _HEARD_FROM else -inf)
        if now - passed < STALE:
            return False
        if state.given and known.paths.active is None:
            return False
        if not can_be_called:
            # Who gets another port for each destination hears no knock, and what it opens nobody can use.
            hears = self.ports.mapping is not Mapping.DEPENDENT
            return hears and beyond_nat(state.path) and self.meetings.opening(known.paths, now)
        return beyond_nat(state.path) and known.puncher.opening(now, heard=_heard(known.paths))

    def _ask(
        self,
        remote: RemotePaths,
        state: PathState,
        message: Ping | CallMeMaybe,
        now: float,
        *,
        ttl: int | None = None,
    ) -> None:
        cookie = state.cookie if now < state.cookie_until else None
        packet, stamp = self.sealer.seal(remote.node_id, disco.encode_message(message), cookie)
        self._asked.add(Asked(remote, state, message.tx, stamp, now))
        if ttl is not None and self.openers is not None and not isinstance(state.path, RelayPath):
            self.openers.append((state.path, packet, ttl))
        else:
            self.outbox.append((state.path, packet))

    def _punch(self, known: _Known, now: float) -> None:
        """What is due in the rounds of punching."""
        remote, puncher = known.paths, known.puncher
        heard = _heard(remote)
        self.meetings.tick(remote, now)
        if remote.relayed:
            if puncher.opening_over(now, heard=heard):
                remote.punch(now)
            if now >= puncher.next_round and remote.in_use(now):
                puncher.begin(now, fresh=False)
                if self.openers is not None:
                    # Otherwise whom we call pings first, and our pings then find an open door more often.
                    remote.punch(now)
            if remote.in_use(now) and self.ports_link.sockets is not None and self.ports.hard(puncher.their_mapping):
                if now >= puncher.ports_due:
                    puncher.ports_tried(now)
                    self.ports.offer(remote.node_id, now)
                self.arm(remote, puncher.ports_due)
            if remote.in_use(now):
                self.arm(remote, puncher.next_round)
        self._call(known, now)
        due = puncher.due(heard=_heard(remote))
        if due > now:
            # A call that has no way to go is tried again whenever something else happens.
            self.arm(remote, due)

    # --- port probing -----------------------------------------------------------------------------------------

    def attested(self, node_id: NodeId, ip: str, now: float) -> None:
        """Somebody whom we believe says that a node is at `ip`: a relay of ours, or a rendezvous."""
        self.ports.attested(node_id, ip, now)

    def _may_probe_ports(self, host: str) -> bool:
        return self.filter.probeable(SocketAddr(host, 1), SOURCE_CALL, trusted=False)

    def call_for(self, node_id: NodeId) -> bytes:
        """A call-me-maybe of ours, sealed, for whatever can carry it to a node."""
        message = CallMeMaybe(self._random(disco.TX_SIZE), *self._own)
        return self.sealer.seal(node_id, disco.encode_message(message))[0]

    def _call(self, known: _Known, now: float) -> None:
        """Tell a node our candidates, if it does not know them."""
        state = self._call_path(known.paths)
        if state is None:
            return
        message = known.puncher.call(self._own, now, sure=known.paths.speaks_disco is True)
        if message is not None:
            self._ask(known.paths, state, message, now)

    def _call_path(self, remote: RemotePaths) -> PathState | None:
        """What carries a call: the path in use, or the relay that a dial begins with."""
        active = remote.active
        if active is not None and active.proven and (remote.speaks_disco or not active.direct):
            return None if remote.speaks_disco is False else active
        if active is not None or remote.speaks_disco is False:
            return None
        return next((state for state in remote.targets if not state.direct), None)

    # --- receiving --------------------------------------------------------------------------------------------

    def receive(self, data: bytes, source: Path, now: float) -> None:
        """Take a datagram whose first byte is 4 to 15. Never raises; what is refused is counted."""
        if isinstance(source, SocketAddr) and not self.filter.permits(source):
            self.counters["disco: source refused by the address filter"] += 1
            return
        try:
            if data[0] == disco.KIND_KNOCK:
                self.meetings.knocked(data, source, now)
                return
            if data[0] == disco.KIND_CHALLENGE:
                self._challenged(data, source, now)
                return
            opened = self.sealer.open(data, source, now)
            if isinstance(opened, bytes):
                self.counters["disco: challenged"] += 1
                self.outbox.append((source, opened))
                return
            message = disco.decode_message(opened.plain)
        except DiscoError as exc:
            self.counters[f"disco: {exc.reason}"] += 1
            return
        if message is None:
            self.counters["disco: unknown message"] += 1
        else:
            self._take(opened.sender, message, source, now)

    def _take(self, sender: NodeId, message: Message, source: Path, now: float) -> None:
        if isinstance(source, RelayPath) and source.node_id != sender:
            self.counters["disco: relayed under another name"] += 1
            return
        known = self._known.get(sender)
        if known is not None and not known.paths.holders:
            known = None
        if isinstance(message, Pong):
            self._pong(sender, message, source, now)
            return
        if isinstance(message, PortProbing):
            if known is not None and known.paths.relayed:
                allowed = message.addr is not None and self._may_probe_ports(message.addr.host)
                self.ports.received(sender, message, now, sendable=allowed)
            return
        if known is None:
            if not self._stranger_pongs.take(now):
                self.counters["disco: pong beyond the limit"] += 1
                return
        elif isinstance(message, CallMeMaybe) and not known.calls.take(now):
            self.counters["disco: call beyond the limit"] += 1
            return
        if known is None and isinstance(message, CallMeMaybe):
            self._hold(sender, message, source, now)
            return
        self._answer(sender, message, source)
        if known is None:
            return
        if isinstance(message, Ping):
            known.paths.ping_received(source, now)
        else:
            self._called(known, message, now)
        self._call_soon(known, now)

    def _answer(self, sender: NodeId, message: Ping | CallMeMaybe, source: Path) -> None:
        observed = source if isinstance(source, SocketAddr) else None
        packet, _stamp = self.sealer.seal(sender, disco.encode_message(Pong(message.tx, observed)))
        self.outbox.append((source, packet))

    def _hold(self, sender: NodeId, call: CallMeMaybe, source: Path, now: float) -> None:
        """Keep the call of a node that we do not deal with yet. It is not answered: a pong says that we have opened."""
        self._held.pop(sender, None)
        self._held[sender] = (call, source, now)
        if len(self._held) > HELD_CALLS:
            self._held.popitem(last=False)

    def called(self, remote: RemotePaths, call: CallMeMaybe, now: float) -> None:
        """A node that we hold has called by other means than a path."""
        self._called(self._known[remote.node_id], call, now)

    def _called(self, known: _Known, call: CallMeMaybe, now: float) -> None:
        """Act upon a call: the node probes now, so do we."""
        remote, puncher = known.paths, known.puncher
        remote.speaks_disco = True
        puncher.heard(call)
        if remote.relayed:
            puncher.called(now)
            remote.punch(now)
            if self.ports.hard(call.mapping) or self.ports.easy(call.mapping):
                # An offer then need not wait for it.
                self.ports_link.ask_attestation(remote.node_id)
        remote.called_from({normal(addr) for addr in call.candidates}, now)
        self.add_candidates(remote, call.candidates, SOURCE_CALL, now, trusted=False)
        self.relays_told(remote, self.add_relays(remote, call.relays, SOURCE_CALL, now, trusted=False))
        self.arm(remote, now)

    def _pong(self, sender: NodeId, pong: Pong, source: Path, now: float) -> None:
        asked = self._asked.get(pong.tx)
        if asked is None or asked.remote.node_id != sender:
            self.counters["disco: pong for no ping"] += 1
            return
        if asked.state.path != source:
            # Its transaction stays open: the pong from the right place may still come. A host with several addresses
            # may answer from another than was asked, so that one is worth a ping of its own.
            self.counters["disco: pong from elsewhere"] += 1
            if asked.remote.holders:
                asked.remote.ping_received(source, now)
            return
        self._asked.done(asked)
        known = self._known.get(sender)
        if known is None or known.paths is not asked.remote or not asked.remote.holders:
            return
        if known.puncher.confirmed(pong.tx, now, now - asked.at) and asked.remote.relayed:
            asked.remote.punch(now)
            if self.ports.hard(known.puncher.their_mapping):
                self.arm(asked.remote, known.puncher.ports_due)
        if isinstance(source, SocketAddr):
            # A pong shows that its sender receives there; the source of a ping alone can be made up.
            self.ports.attested(sender, source.host, now)
        asked.remote.pong_received(asked.state, max(0.0, now - asked.at), now)
        if pong.observed is not None and not isinstance(source, ViaSocket):
            # Where others see a further socket says nothing about the main one.
            addr = normal(pong.observed)
            if self.filter.sendable(addr):
                self.events.append(Observed(addr, sender))
        self._call_soon(known, now)

    def _call_soon(self, known: _Known, now: float) -> None:
        if known.paths.active is not None and not known.puncher.knows(self._own):
            self._call(known, now)
            self.arm(known.paths, known.puncher.due(heard=True))

    def _challenged(self, data: bytes, source: Path, now: float) -> None:
        challenge = disco.decode_challenge(data)
        asked = self._asked.stamped(challenge.stamp)
        if asked is None or asked.state.path != source or not disco.challenge_is_from(data, asked.remote.node_id.raw):
            raise DiscoError("challenge for no packet")
        self._asked.done(asked)
        state = asked.state
        if state.cookie_until > now + COOKIE_LIFE - 1.0:
            # That was the answer to what we sent before the cookie came.
            raise DiscoError("challenged again")
        state.cookie, state.cookie_until = challenge.cookie, now + COOKIE_LIFE
        if asked.remote.holders:
            state.next_ping = now
            self.arm(asked.remote, now)
