"""The connection to one relay: kept up, fed from a bounded queue, given up only by its owner."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import deque
from collections.abc import Sequence
from math import inf
from typing import Final, Protocol

import attrs

from tom_connect.addr import RelayUrl
from tom_connect.keys import NodeId
from tom_relay.client.backoff import Backoff
from tom_relay.client.carrier import Carrier, CarrierClosedError
from tom_relay.client.maps import RelayEntry
from tom_relay.client.quic import SCHEME
from tom_relay.client.session import USUAL, VOLUNTEER, Attested, Gone, RelayLostError, RelaySession, Told
from tom_relay.client.standing import Standing
from tom_relay.errors import RelayDeniedError, RelayError
from tom_relay.wire import ReceivedDatagrams, Restarting, SendDatagrams, batches, encode

QUEUE_PACKETS: Final = 512
"""Datagrams that wait for one relay; further ones are dropped, and QUIC slows down."""
QUEUE_BYTES: Final = 1 << 20
WRITE_TIMEOUT: Final = 2.0
"""Seconds that a relay may take nothing."""
WANTED_FOR: Final = 15.0
"""Seconds after the last datagram to a relay in which somebody waits for it."""
TURN_MESSAGES: Final = 32
"""Messages handled in one turn of the loop, so that timers and other sockets get theirs."""
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
    _session: RelaySession | None = None
    _queue: deque[tuple[NodeId, bytes, int | None, int, int]] = attrs.Factory(deque)
    _packets: int = 0
    _bytes: int = 0
    _wake: asyncio.Event = attrs.Factory(asyncio.Event)
    _retry: asyncio.Event = attrs.Factory(asyncio.Event)
    _up: asyncio.Event = attrs.Factory(asyncio.Event)
    _poke: asyncio.Event = attrs.Factory(asyncio.Event)
    _backoff: Backoff = attrs.Factory(Backoff)
    _carrier: Carrier | None = None
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
        self._wake.set()
        if not self.connected:
            self._retry_soon()
        return whole

    def ask_address(self, node_id: NodeId) -> None:
        """Ask the relay where a node is connected from; nothing while we are not connected ourselves."""
        if self._session is not None:
            self._session.ask_address(node_id.raw)
            self._wake.set()

    def network_changed(self) -> None:
        """See whether the connection lives, and leave it at once if it can't; without one try at once."""
        self._backoff.reset()
        self._retry.set()
        if self._attempt is not None:
            # What was begun in the old network may hang until it times out.
            self._at_once = True
            self._attempt.reschedule(asyncio.get_running_loop().time())
        elif self._carrier is not None and self._carrier.address_is_gone():
            self._at_once = True
            self._carrier.abort()
        else:
            self.ask_for_life()

    def ask_for_life(self) -> None:
        """Have the relay answer at once, or be taken for lost."""
        if self._session is not None:
            self._session.check(self.owner.now())
            self._wake.set()
            self._poke.set()

    def _retry_soon(self) -> None:
        # Who sends again after a long pause does not wait for a back-off that grew in it.
        if self.owner.now() - self.last_sent > WANTED_FOR:
            self._backoff.reset()
            self._retry.set()

    async def run(self) -> None:
        """Keep the connection up until cancelled."""
        while True:
            wait: float | None = None
            try:
                carrier = await self._open()
                self.services = None if carrier.services is None else dict(carrier.services)
                self._carrier = carrier
                try:
                    wait = await self._serve(carrier)
                finally:
                    self._carrier = None
                    await self._close(carrier)
            except RelayDeniedError as exc:
                self.problem, wait = str(exc), DENIED_WAIT
            except RelayError as exc:
                self.problem = str(exc)
            finally:
                self._lost()
            if self._at_once:
                self._at_once, wait = False, 0.0
            if wait is None:
                wanted = self.owner.now() - self.last_sent < WANTED_FOR or self.kind == "configured"
                wait = self._backoff.next(wanted=wanted)
            self._retry.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await self._retry.wait()

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

    async def _close(self, carrier: Carrier) -> None:
        try:
            async with asyncio.timeout(0.3):
                await carrier.close()
        except TimeoutError:
            pass
        finally:
            carrier.abort()

    def _lost(self) -> None:
        now = self.owner.now()
        self._session = None
        self._up.clear()
        self.dropped += self._packets
        self._queue.clear()
        self._packets = self._bytes = 0
        if self.connected_at is not None:
            if now - self.connected_at > STABLE_AFTER:
                self._backoff.reset()
            self.connected_at, self.lost_at = None, now
        self.owner.changed(self)

    async def _serve(self, carrier: Carrier) -> float | None:
        """Run one connection to its end; returns seconds to wait if the relay asked for that. Raises RelayError."""
        owner = self.owner
        session = self._session = RelaySession(
            carrier.dialect,
            owner.node_id,
            owner.sign,
            owner.now(),
            proven=carrier.proven,
            signs_of_life=VOLUNTEER if self.kind == "volunteer" else USUAL,
        )
        tasks = [
            asyncio.create_task(self._read(carrier, session), name=f"reading from {self.url}"),
            asyncio.create_task(self._write(carrier, session), name=f"writing to {self.url}"),
            asyncio.create_task(self._watch(session), name=f"watching {self.url}"),
        ]
        if self.kind == "configured" and self.owner.has_choice and self.url.scheme != SCHEME:
            tasks.append(asyncio.create_task(self._ask_standing(), name=f"asking for the standing of {self.url}"))
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in tasks:
                if task in done:
                    return task.result()
            return None
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _read(self, carrier: Carrier, session: RelaySession) -> float | None:
        handled = 0
        while True:
            try:
                if session.registered:
                    message = await carrier.receive()
                else:
                    async with asyncio.timeout(8.0):
                        message = await carrier.receive()
            except CarrierClosedError as exc:
                reason = str(exc)
                raise RelayLostError(f"it closed the connection{f': {reason}' if reason else ''}") from None
            except (TimeoutError, OSError):
                raise RelayLostError("it did not answer in the handshake") from None
            wait = self._received(session.receive(message, self.owner.now()), session)
            if wait is not None:
                return wait
            if session.outbox:
                self._wake.set()
            handled += 1
            if handled % TURN_MESSAGES == 0:
                await asyncio.sleep(0)

    def _received(self, event: object, session: RelaySession) -> float | None:
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
            self.problem = event.problem
            self.owner.changed(self)
        elif not isinstance(event, Gone) and event is not None:
            self.connected_at, self.problem, self.leaves = self.owner.now(), None, False
            self._wake.set()
            self._poke.set()
            self._up.set()
            self.owner.changed(self)
        if session.rtt is not None and session.rtt != self.rtt:
            self.rtt = session.rtt
            self.owner.changed(self)
        return None

    async def _write(self, carrier: Carrier, session: RelaySession) -> float | None:
        try:
            while True:
                await self._wake.wait()
                self._wake.clear()
                while session.outbox or (self._queue and session.registered):
                    async with asyncio.timeout(WRITE_TIMEOUT):
                        await carrier.send(self._next(session))
        except (CarrierClosedError, OSError):
            # The reader knows better why.
            await asyncio.sleep(0.2)
            raise RelayLostError("it closed the connection") from None
        except TimeoutError:
            raise RelayLostError(f"it took no data for {WRITE_TIMEOUT:g} s") from None

    def _next(self, session: RelaySession) -> bytes:
        if session.outbox:
            return session.outbox.pop(0)
        node_id, data, segment, ecn, packets = self._queue.popleft()
        self._packets -= packets
        self._bytes -= len(data)
        due = session.next_due()
        session.sent(self.owner.now())
        if session.next_due() < due:
            self._poke.set()
        return encode(SendDatagrams(node_id.raw, data, ecn, segment), session.dialect)

    async def _ask_standing(self) -> float | None:
        """Keep the relay's score and role as it counts them itself; while it does not say, what its map says stays."""
        await self._up.wait()
        await asyncio.sleep(STANDING_AFTER)
        while True:
            standing = await self.owner.standing(self.url)
            if standing is not None and standing != self.entry.standing:
                self.entry = attrs.evolve(self.entry, standing=standing)
                self.owner.changed(self)
            await asyncio.sleep(STANDING_EVERY * random.uniform(0.5, 1.0))

    async def _watch(self, session: RelaySession) -> float | None:
        while True:
            due = session.next_due()
            self._poke.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(None if due == inf else max(0.0, due - self.owner.now())):
                    await self._poke.wait()
            session.tick(self.owner.now())
            if session.outbox:
                self._wake.set()
