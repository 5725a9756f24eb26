"""One connection to a relay: read, written and watched until it ends, or another one takes its place."""

from __future__ import annotations

import asyncio
import contextlib
from math import inf
from typing import Final, Protocol

from tom_connect.addr import RelayUrl
from tom_relay.client.carrier import Carrier, CarrierClosedError
from tom_relay.client.session import RelayLostError, RelaySession

WRITE_TIMEOUT: Final = 2.0
"""Seconds that a relay may take nothing."""
HANDSHAKE_TIMEOUT: Final = 8.0
TURN_MESSAGES: Final = 32
"""Messages handled in one turn of the loop, so that timers and other sockets get theirs."""
CLOSE_TIMEOUT: Final = 0.3


class LegOwner(Protocol):
    """What a leg needs from its connection."""

    @property
    def url(self) -> RelayUrl:
        """The relay's URL."""

    def now(self) -> float:
        """Seconds that only grow."""

    def took(self, leg: Leg, event: object) -> float | None:
        """Take what the session made of a message; seconds to wait if the relay asked us to come back later."""

    def next_message(self, leg: Leg) -> bytes | None:
        """The next datagrams to send on this leg, encoded; None if there are none, or they wait for another leg."""


class Leg:
    """A connection that is open, and the session on it. `start` it once, and `aclose` it."""

    def __init__(self, carrier: Carrier, session: RelaySession, owner: LegOwner) -> None:
        self.carrier = carrier
        self.session = session
        self.up = asyncio.Event()
        """Set when the handshake is done."""
        self.doubted = asyncio.Event()
        """Set while the relay may be dead."""
        self.calm = asyncio.Event()
        """Set while it is not."""
        self.calm.set()
        self.wake = asyncio.Event()
        """Set it when there is something to send."""
        self.leaving = False
        """Whether another leg takes its place: no more is sent, and what the relay says of it is of no interest."""
        self.ended: asyncio.Task[float | None]
        """Ends with the leg: with seconds to wait if the relay asked for that, or with RelayError."""
        self._owner = owner
        self._poke = asyncio.Event()

    def start(self) -> None:
        """Begin to read and write."""
        self.ended = asyncio.create_task(self._run(), name=f"a connection to {self._owner.url}")
        # How it ended is of no interest where another leg has taken the place.
        self.ended.add_done_callback(lambda ended: ended.cancelled() or ended.exception())

    def check(self) -> None:
        """Ask for a sign of life at once, and doubt the relay until it comes."""
        self.session.check(self._owner.now())
        self.wake.set()
        self._moved()

    async def aclose(self) -> None:
        """Take leave. What arrives until then is still passed on."""
        self.leaving = True
        try:
            if not self.ended.done() or self.ended.exception() is None:
                async with asyncio.timeout(CLOSE_TIMEOUT):
                    await self.carrier.close()
        except TimeoutError:
            pass
        finally:
            self.carrier.abort()
            self.ended.cancel()
            await asyncio.gather(self.ended, return_exceptions=True)

    async def _run(self) -> float | None:
        tasks = [
            asyncio.create_task(work, name=f"{what} {self._owner.url}")
            for what, work in (
                ("reading from", self._read()),
                ("writing to", self._write()),
                ("watching", self._watch()),
            )
        ]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            return next(task for task in tasks if task in done).result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _moved(self) -> None:
        """The session may have changed its mind about the relay, or about when it wants to be asked."""
        self._poke.set()
        if self.session.doubtful:
            self.calm.clear()
            self.doubted.set()
        elif not self.calm.is_set():
            self.doubted.clear()
            self.calm.set()
            self.wake.set()

    async def _read(self) -> float | None:
        session, handled = self.session, 0
        while True:
            try:
                if session.registered:
                    message = await self.carrier.receive()
                else:
                    async with asyncio.timeout(HANDSHAKE_TIMEOUT):
                        message = await self.carrier.receive()
            except CarrierClosedError as exc:
                reason = str(exc)
                raise RelayLostError(f"it closed the connection{f': {reason}' if reason else ''}") from None
            except (TimeoutError, OSError):
                raise RelayLostError("it did not answer in the handshake") from None
            doubtful, registered = session.doubtful, session.registered
            event = session.receive(message, self._owner.now())
            if doubtful or session.registered is not registered:
                self._moved()
            if session.registered and not registered:
                self.up.set()
                self.wake.set()
            wait = self._owner.took(self, event)
            if wait is not None:
                return wait
            if session.outbox:
                self.wake.set()
            handled += 1
            if handled % TURN_MESSAGES == 0:
                await asyncio.sleep(0)

    async def _write(self) -> float | None:
        session = self.session
        try:
            while True:
                await self.wake.wait()
                self.wake.clear()
                while True:
                    message = session.outbox.pop(0) if session.outbox else self._datagrams()
                    if message is None:
                        break
                    async with asyncio.timeout(WRITE_TIMEOUT):
                        await self.carrier.send(message)
        except (CarrierClosedError, OSError):
            # The reader knows better why.
            await asyncio.sleep(0.2)
            raise RelayLostError("it closed the connection") from None
        except TimeoutError:
            raise RelayLostError(f"it took no data for {WRITE_TIMEOUT:g} s") from None

    def _datagrams(self) -> bytes | None:
        session = self.session
        # What would go to a relay that may be dead waits for it to answer, or for the leg that takes the place.
        if not session.registered or session.doubtful or self.leaving:
            return None
        message = self._owner.next_message(self)
        if message is not None:
            due = session.next_due()
            session.sent(self._owner.now())
            if session.next_due() < due:
                self._poke.set()
        return message

    async def _watch(self) -> float | None:
        session = self.session
        while True:
            due = session.next_due()
            self._poke.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(None if due == inf else max(0.0, due - self._owner.now())):
                    await self._poke.wait()
            session.tick(self._owner.now())
            if session.doubtful and not self.doubted.is_set():
                self._moved()
            if session.outbox:
                self.wake.set()
