"""The connection to one relay: kept up, fed from a bounded queue, given up only by its owner.

Where the relay may be dead another connection is opened at once, and whichever answers first is kept: the old one if
anything comes from the relay, the new one when its WebSocket is open. Nothing is registered at the relay before that is
decided, so that it never sees two connections take turns. What is queued meanwhile goes down the one that is kept.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import deque
from collections.abc import Sequence
from math import inf
from typing import Any, Final, Protocol

import attrs

from tom_connect.addr import RelayUrl
from tom_connect.keys import NodeId
from tom_relay.client.backoff import Backoff
from tom_relay.client.carrier import Carrier
from tom_relay.client.config import SCHEME
from tom_relay.client.leg import Leg
from tom_relay.client.maps import RelayEntry
from tom_relay.client.session import USUAL, VOLUNTEER, Attested, Registered, RelayLostError, RelaySession, Told
from tom_relay.client.standing import Standing
from tom_relay.errors import RelayDeniedError, RelayError
from tom_relay.wire import ReceivedDatagrams, Restarting, SendDatagrams, batches, encode

QUEUE_PACKETS: Final = 512
"""Datagrams that wait for one relay; further ones are dropped, and QUIC slows down."""
QUEUE_BYTES: Final = 1 << 20
WANTED_FOR: Final = 15.0
"""Seconds after the last datagram to a relay in which somebody waits for it."""
STABLE_AFTER: Final = 5.0
"""Seconds of connection after which a loss starts the back-off anew."""
DENIED_WAIT: Final = 30.0
"""Seconds before a relay that refused us is asked again: its lists change rarely."""
MAX_RESTART_WAIT: Final = 60.0
STANDING_AFTER: Final = 3.0
"""Seconds of connection before a relay is asked how it stands: a command that is over by then does not ask."""
STANDING_EVERY: Final = 600.0
"""Seconds, up to half as many fewer, between questions for a relay's standing, which changes within hours."""


class Dialer(Protocol):
    """Opens connections to relays of certain schemes."""

    async def open(self, url: RelayUrl, *, configured: bool, trusted: bool) -> Carrier:
        """A connection; raises RelayError. `configured`: it gets our token; `trusted`: it may be in our networks."""


class Owner(Protocol):
    """What a connection needs from the transport."""

    node_id: NodeId
    has_choice: bool
    """Whether there are several configured relays, of which one is to be the home relay."""

    def dialer_for(self, url: RelayUrl) -> Dialer:
        """What opens connections to a relay."""

    async def standing(self, url: RelayUrl) -> Standing | None:
        """How a relay stands, as it says itself."""

    def sign(self, digest: bytes) -> bytes:
        """Sign what a relay's challenge makes."""

    def now(self) -> float:
        """Seconds that only grow."""

    def arrived(self, connection: RelayConnection, received: ReceivedDatagrams) -> None:
        """Take datagrams."""

    def attested(self, connection: RelayConnection, key: bytes, address: str) -> None:
        """The relay says where a node is connected from, as it was asked."""

    def changed(self, connection: RelayConnection) -> None:
        """The connection came, went, or was measured."""


@attrs.define(eq=False)
class RelayConnection:
    """One relay. `run` connects again and again until cancelled."""

    entry: RelayEntry
    owner: Owner
    kind: str
    trusted: bool
    last_used: float
    problem: str | None = None
    connected_at: float | None = None
    lost_at: float | None = None
    rtt: float | None = None
    dropped: int = 0
    """Datagrams that were not sent: the queue was full, or the connection was lost."""
    services: dict[str, int] | None = None
    """Ports of the UDP services that the relay says it has, None as long as it says nothing."""
    last_sent: float = -inf
    received: int = 0
    """Bytes of datagrams that came through it."""
    leaves: bool = False
    """Whether the relay has said that it goes away, and we are not connected to it again."""
    replaced: int = 0
    """Connections in whose place newer ones came, since those answered first."""
    _leg: Leg | None = None
    """The connection that datagrams go to."""
    _second: asyncio.Task[Carrier] | None = None
    """A newer one that is being opened."""
    _queue: deque[tuple[NodeId, bytes, int | None, int, int]] = attrs.Factory(deque)
    _packets: int = 0
    _bytes: int = 0
    _retry: asyncio.Event = attrs.Factory(asyncio.Event)
    _up: asyncio.Event = attrs.Factory(asyncio.Event)
    _backoff: Backoff = attrs.Factory(Backoff)
    _attempt: asyncio.Timeout | None = None
    _at_once: bool = False

    @property
    def url(self) -> RelayUrl:
        """The relay's URL."""
        return self.entry.url

    @property
    def connected(self) -> bool:
        """Whether datagrams pass."""
        return self.connected_at is not None

    def send(self, node_id: NodeId, datagrams: Sequence[bytes], ecn: int) -> bool:
        """Queue datagrams; False if some were dropped."""
        self.last_used = self.last_sent = self.owner.now()
        whole = True
        # Over QUIC each travels alone, so that the loss of one holds up no other.
        alone = self.url.scheme == SCHEME
        for data, segment in [(data, None) for data in datagrams] if alone else batches(datagrams):
            packets = 1 if segment is None else -(-len(data) // segment)
            if self._packets + packets > QUEUE_PACKETS or self._bytes + len(data) > QUEUE_BYTES:
                self.dropped += packets
                whole = False
                continue
            self._queue.append((node_id, data, segment, ecn, packets))
            self._packets += packets
            self._bytes += len(data)
        if self._leg is not None:
            self._leg.wake.set()
        if not self.connected:
            self._retry_soon()
        return whole

    def now(self) -> float:
        """Seconds that only grow."""
        return self.owner.now()

    def ask_address(self, node_id: NodeId) -> None:
        """Ask the relay where a node is connected from; nothing while we are not connected ourselves."""
        if self._leg is not None:
            self._leg.session.ask_address(node_id.raw)
            self._leg.wake.set()

    def network_changed(self) -> None:
        """See whether the connection lives, and open another meanwhile; leave it at once if nothing can reach it."""
        self._backoff.reset()
        self._retry.set()
        if self._attempt is not None:
            # What was begun in the old network may hang until it times out.
            self._at_once = True
            self._attempt.reschedule(asyncio.get_running_loop().time())
        if self._leg is None:
            return
        if self._leg.carrier.address_is_gone():
            self._at_once = True
            self._leg.carrier.abort()
        else:
            self._leg.check()

    def ask_for_life(self) -> None:
        """Have the relay answer at once, or be taken for lost."""
        if self._leg is not None:
            self._leg.check()

    def _retry_soon(self) -> None:
        # Who sends again after a long pause does not wait for a back-off that grew in it.
        if self.owner.now() - self.last_sent > WANTED_FOR:
            self._backoff.reset()
            self._retry.set()

    async def run(self) -> None:
        """Keep the connection up until cancelled."""
        try:
            while True:
                wait = await self._once()
                if wait is not None:
                    await self._drop_second()
                if self._at_once or self._second is not None:
                    self._at_once, wait = False, 0.0
                if wait is None:
                    wanted = self.owner.now() - self.last_sent < WANTED_FOR or self.kind == "configured"
                    wait = self._backoff.next(wanted=wanted)
                if wait > 0:
                    self._forget_queue()
                self._retry.clear()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(wait):
                        await self._retry.wait()
        finally:
            await self._drop_second()

    async def _once(self) -> float | None:
        """Connect and serve until that ends; returns seconds to wait, None for those of the back-off."""
        try:
            if self._second is None:
                self._second = self._opening()
            await asyncio.wait((self._second,))
            return await self._serve(self._claim())
        except RelayDeniedError as exc:
            self.problem = str(exc)
            return DENIED_WAIT
        except RelayError as exc:
            self.problem = str(exc)
            return None
        finally:
            self._lost()

    def _opening(self) -> asyncio.Task[Carrier]:
        return asyncio.create_task(self._open(), name=f"connecting to {self.url}")

    async def _open(self) -> Carrier:
        try:
            async with asyncio.timeout(None) as self._attempt:
                return await self.owner.dialer_for(self.url).open(
                    self.url, configured=self.kind == "configured", trusted=self.trusted
                )
        except TimeoutError:
            raise RelayLostError("the network changed while it was connected to") from None
        finally:
            self._attempt = None

    def _claim(self) -> Carrier:
        """What was opened; raises RelayError if that failed."""
        assert self._second is not None
        second, self._second = self._second, None
        return second.result()

    async def _drop_second(self) -> None:
        second, self._second = self._second, None
        if second is not None:
            second.cancel()
            await asyncio.gather(second, return_exceptions=True)
            if not second.cancelled() and second.exception() is None:
                second.result().abort()

    def _lost(self) -> None:
        now = self.owner.now()
        self._leg = None
        self._up.clear()
        if self.connected_at is not None:
            if now - self.connected_at > STABLE_AFTER:
                self._backoff.reset()
            self.connected_at, self.lost_at = None, now
        self.owner.changed(self)

    def _forget_queue(self) -> None:
        """Nobody is connected to soon: QUIC sends again, and old packets are of no use."""
        self.dropped += self._packets
        self._queue.clear()
        self._packets = self._bytes = 0

    # One connection after the other

    async def _serve(self, carrier: Carrier) -> float | None:
        """Run a connection, and those that take its place, to the end; returns seconds to wait if the relay says so."""
        leg = self._leg = self._start(carrier)
        standing = None
        if self.kind == "configured" and self.owner.has_choice and self.url.scheme != SCHEME:
            standing = asyncio.create_task(self._ask_standing(), name=f"asking for the standing of {self.url}")
        try:
            while await self._raced(leg):
                leg = await self._hand_over(leg, self._claim())
            return leg.ended.result()
        finally:
            if standing is not None:
                standing.cancel()
                await asyncio.gather(standing, return_exceptions=True)
            await leg.aclose()

    def _start(self, carrier: Carrier) -> Leg:
        self.services = None if carrier.services is None else dict(carrier.services)
        owner = self.owner
        session = RelaySession(
            carrier.dialect,
            owner.node_id,
            owner.sign,
            owner.now(),
            proven=carrier.proven,
            signs_of_life=VOLUNTEER if self.kind == "volunteer" else USUAL,
        )
        leg = Leg(carrier, session, self)
        leg.start()
        return leg

    async def _raced(self, leg: Leg) -> bool:
        """Open another connection whenever the relay may be dead; True if that answers first, False if the leg ends.

        Where the leg ends first, what is being opened stays under way, for what comes next. A connection that proves
        our key by itself is not raced: the relay would take the newer one at once, and QUIC finds another path alone.
        """
        if leg.carrier.proven:
            await asyncio.wait((leg.ended,))
            return False
        while True:
            await _any_of(leg.ended, leg.doubted)
            if not leg.ended.done():
                self._second = self._second or self._opening()
                await _any_of(leg.ended, leg.calm, self._second)
            if leg.ended.done():
                return False
            if not leg.session.doubtful:
                await self._drop_second()
                self._at_once = False
            elif self._second is not None and self._second.done():
                error = self._second.exception()
                if error is None:
                    return True
                self._second = None
                if not isinstance(error, RelayError):
                    raise error
                if not self._at_once:
                    await _any_of(leg.ended, leg.calm)
                self._at_once = False

    async def _hand_over(self, old: Leg, carrier: Carrier) -> Leg:
        """Let a newer connection take the place: the relay sends there from when it is registered, and so do we."""
        old.leaving = True
        newer = self._start(carrier)
        try:
            await _any_of(newer.ended, newer.up)
            if newer.ended.done():
                newer.ended.result()
                raise RelayLostError("it restarts")
            self._leg = newer
        except BaseException:
            await newer.aclose()
            raise
        newer.wake.set()
        self.replaced += 1
        self._backoff.reset()
        await old.aclose()
        return newer

    def took(self, leg: Leg, event: object) -> float | None:
        """See `LegOwner`."""
        if isinstance(event, ReceivedDatagrams):
            self.last_used = self.owner.now()
            self.received += len(event.data)
            self.owner.arrived(self, event)
        elif isinstance(event, Restarting):
            self.problem, self.leaves = "it restarts", True
            self._backoff.reset()
            return min(event.reconnect_in_ms / 1000, MAX_RESTART_WAIT)
        elif isinstance(event, Attested):
            self.owner.attested(self, event.key, event.address)
        elif isinstance(event, Told):
            if not leg.leaving:
                self.problem = event.problem
                self.owner.changed(self)
        elif isinstance(event, Registered):
            self.problem, self.leaves = None, False
            if self.connected_at is None:
                self.connected_at = self.owner.now()
                self._up.set()
            self.owner.changed(self)
        rtt = leg.session.rtt
        if rtt is not None and rtt != self.rtt and not leg.leaving:
            self.rtt = rtt
            self.owner.changed(self)
        return None

    def next_message(self, leg: Leg) -> bytes | None:
        """See `LegOwner`."""
        if leg is not self._leg or not self._queue:
            return None
        node_id, data, segment, ecn, packets = self._queue.popleft()
        self._packets -= packets
        self._bytes -= len(data)
        return encode(SendDatagrams(node_id.raw, data, ecn, segment), leg.session.dialect)

    async def _ask_standing(self) -> None:
        """Keep the relay's score and role as it counts them itself; while it does not say, what its map says stays."""
        await self._up.wait()
        await asyncio.sleep(STANDING_AFTER)
        while True:
            standing = await self.owner.standing(self.url)
            if standing is not None and standing != self.entry.standing:
                self.entry = attrs.evolve(self.entry, standing=standing)
                self.owner.changed(self)
            await asyncio.sleep(STANDING_EVERY * random.uniform(0.5, 1.0))


async def _any_of(*what: asyncio.Task[Any] | asyncio.Event) -> None:
    """Wait until a task has ended or an event is set, whichever comes first."""
    events = [asyncio.ensure_future(each.wait()) for each in what if isinstance(each, asyncio.Event)]
    tasks = [each for each in what if not isinstance(each, asyncio.Event)]
    try:
        await asyncio.wait((*tasks, *events), return_when=asyncio.FIRST_COMPLETED)
    finally:
        for event in events:
            event.cancel()
        await asyncio.gather(*events, return_exceptions=True)
