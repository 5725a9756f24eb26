"""How a dial goes: look-up, candidates and handshake side by side, and what to say when it fails."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import attrs

from tom_connect.abc import FoundAddr, PathInfo
from tom_connect.addr import NodeAddr, RelayUrl
from tom_connect.connection import Connection
from tom_connect.discovery import DiscoveryService, SourceOutcome
from tom_connect.exceptions import ConnectionLostError, DialError, DiscoveryError
from tom_connect.holepunch.addrfilter import SOURCE_OWN_RELAY, AddressFilter
from tom_connect.magicsock.remote import Remote
from tom_connect.quic.driver import Driver
from tom_connect.quic.link import Link
from tom_connect.rendezvous import RendezvousService, Steps

ASK_ANYWAY = 1.0
"""Seconds that addresses given by the caller have to answer before others are looked for: one lost first flight."""

LOOK_AGAIN = 3.0
"""Seconds between two look-ups of a node that can be called and that nothing led to: what it publishes comes one by
one, and it takes other relays once a call shows that those which it named are silent."""
GUESS = 3.0
"""Seconds that a node which no source knows has to answer at a relay of ours: its name look-up and handshakes."""
CALL_AFTER = 1.5
"""Seconds that a relay, or addresses given by the caller, have to connect before a call is left as well."""
MAX_RELAYS = 4
"""Relays of one address that are connected to: a node is at one, or at two while it changes."""


@attrs.frozen
class DialEvent:
    """Something happened in a dial, `at` seconds after its start."""

    at: float


@attrs.frozen
class Resolved(DialEvent):
    """A source told where the node is."""

    source: str
    addr: NodeAddr


@attrs.frozen
class Connected(DialEvent):
    """The handshake is done over `path` (None if it was closed in the same moment)."""

    path: PathInfo | None


DialListener = Callable[[DialEvent], None]


class Dial:
    """One dial of `target` with `alpn`; `run` it once.

    `relays`: ours, where a node is looked for that is known to be at none; `rendezvous`: where it may be called;
    `timeout`: seconds; `early_data`: return before the handshake is done where a ticket allows it (0-RTT).
    """

    def __init__(
        self,
        driver: Driver,
        target: NodeAddr,
        alpn: str,
        *,
        discovery: DiscoveryService,
        relays: Sequence[RelayUrl] = (),
        rendezvous: RendezvousService | None = None,
        address_filter: AddressFilter,
        timeout: float,
        early_data: bool = False,
        listener: DialListener | None = None,
    ) -> None:
        self._driver = driver
        self._target = target
        self._alpn = alpn
        self._discovery = discovery
        self._relays = () if target.relay_urls else relays[:MAX_RELAYS]
        self._rendezvous = rendezvous
        self._filter = address_filter
        self._timeout = timeout
        self._early_data = early_data
        self._listener = listener
        self._outcomes: Sequence[SourceOutcome] = ()
        self._found: list[FoundAddr] = []
        self._signed: dict[str, FoundAddr] = {}
        """By source, the newest that the node has signed."""
        self._steps: Steps | None = None
        self._started = driver.now()

    async def run(self) -> Connection:
        """The connection; raises DialError, DiscoveryError, AlpnError, PeerIdentityError or ConnectionError."""
        if self._target.is_empty() and not self._discovery and not self._relays:
            raise DiscoveryError(
                f"nothing is known of where {self._target.node_id.short()} is: no discovery plugin is in use. Give an "
                "address or ticket, or install one: pip install 'tom-connect[dht]'"
            )
        link = self._driver.connect(self._target.node_id, self._alpn, early_data=self._early_data)
        try:
            async with asyncio.timeout(self._timeout):
                await self._establish(link)
        except TimeoutError:
            error = DialError(self._describe(link, f"no connection within {self._timeout:g} s"))
            link.abandon(error)
            raise error from None
        except ConnectionLostError:
            raise DialError(self._describe(link, "nothing answered")) from None
        except BaseException as exc:
            link.abandon(exc if isinstance(exc, Exception) else ConnectionLostError("the dial was cancelled"))
            raise
        return self._done(link)

    def replaced(self, link: Link) -> Connection:
        """The connection that the node has made to us meanwhile, in place of the dial's own."""
        if link.error is not None:
            raise link.error
        connection = self._done(link)
        link.accept()
        return connection

    def _done(self, link: Link) -> Connection:
        connection = Connection(link)
        self._remember()
        self._tell(Connected(self._elapsed(), next((path for path in link.paths() if path.active), None)))
        return connection

    async def _establish(self, link: Link) -> None:
        assert link.remote is not None
        if self._rendezvous:
            self._steps = Steps()
        if not self._target.is_empty():
            link.remote.add_relays(self._target.relay_urls[:MAX_RELAYS], "caller", trusted=True)
            link.remote.add_candidates(self._target.direct_addrs, "caller", trusted=True)
            if self._target.direct_addrs:
                self._opened()
            self._tell(Resolved(self._elapsed(), "caller", self._target))
        link.remote.add_relays(self._relays, SOURCE_OWN_RELAY, trusted=True)
        finder = asyncio.create_task(self._find(link), name="finding a node")
        caller = asyncio.create_task(self._call(link), name="calling a node")
        shaker = asyncio.create_task(self._shake(link), name="a client's handshake")
        try:
            await asyncio.wait((finder, shaker), return_when=asyncio.FIRST_COMPLETED)
            if finder.done() and not shaker.done():
                finder.result()
            await shaker
        finally:
            for task in (finder, shaker, caller):
                task.cancel()
            await asyncio.gather(finder, shaker, caller, return_exceptions=True)

    async def _shake(self, link: Link) -> None:
        assert link.remote is not None
        await link.remote.wait_usable()
        self._driver.start(link)
        if not (self._early_data and link.engine.early_data_ready):
            await asyncio.shield(link.ready)

    async def _call(self, link: Link) -> None:
        """Leave a call at once where nothing else may lead to the node, later where something is tried first."""
        if not self._rendezvous or self._steps is None:
            return
        if self._relays or not self._target.is_empty():
            await asyncio.sleep(CALL_AFTER)
        assert link.remote is not None
        await self._rendezvous.call(link.remote, self._steps)

    async def _find(self, link: Link) -> None:
        """Bring in what the sources know; raises DiscoveryError if there is nothing to try."""
        given = not self._target.is_empty()
        if given:
            if not self._discovery:
                return
            await asyncio.wait((link.ready,), timeout=ASK_ANYWAY)
        await self._look(link)
        self._opened()
        if self._steps is not None and (self._found or not given) and await self._steps.invited:
            await self._look_again(link)
        elif not self._found and not given:
            if link.remote is not None and link.remote.usable():
                await asyncio.wait((link.ready,), timeout=GUESS)
                if link.ready.done():
                    return
            raise DiscoveryError(self._describe(link, "no source knows where it is"))

    async def _look_again(self, link: Link) -> None:
        """Ask now and then where a node is that can be called, until it answers: it may have moved, or do so now."""
        while True:
            await asyncio.wait((link.ready,), timeout=LOOK_AGAIN)
            if link.ready.done():
                return
            await self._look(link)

    async def _look(self, link: Link) -> None:
        """Pass on what the sources tell, as they tell it, to their end."""
        async with self._discovery.look_up(self._target.node_id) as lookup:
            self._outcomes = lookup.outcomes
            async for found in lookup:
                assert link.remote is not None
                if found not in self._found:
                    self._found.append(found)
                if self._is_replaced(found, link.remote):
                    continue
                # Relays first: traffic may go there at once, while an address must first answer.
                link.remote.add_relays(found.addr.relay_urls[:MAX_RELAYS], found.source, trusted=False)
                link.remote.add_candidates(found.addr.direct_addrs, found.source, trusted=False)
                if found.addr.direct_addrs:
                    self._opened()
                self._tell(Resolved(self._elapsed(), found.source, found.addr))

    def _is_replaced(self, found: FoundAddr, remote: Remote) -> bool:
        """Whether its source has told something newer, in an earlier look-up maybe; else it replaces what is older.

        What the node no longer names is no longer so: whoever replays an old record must not have all pings spent on
        the addresses in it.
        """
        if found.timestamp_us is None:
            return False
        old = self._signed.get(found.source)
        if old is not None and old.timestamp_us is not None:
            if found.timestamp_us < old.timestamp_us:
                return True
            gone = [addr for addr in old.addr.direct_addrs if addr not in found.addr.direct_addrs]
            remote.withdraw_candidates(gone, found.source)
        self._signed[found.source] = found
        return False

    def _remember(self) -> None:
        """Keep the newest record that was found: what is in it, or came after it, has led to the node."""
        records = [found.record for found in self._found if found.record is not None]
        if records and self._discovery.known is not None:
            self._discovery.known.keep(max(records, key=lambda record: record.timestamp_us))

    def _opened(self) -> None:
        """Our pings have gone to the addresses that are known, or there are none."""
        if self._steps is not None:
            self._steps.open()

    def _elapsed(self) -> float:
        return self._driver.now() - self._started

    def _tell(self, event: DialEvent) -> None:
        if self._listener is not None:
            self._listener(event)

    def _describe(self, link: Link, what: str) -> str:
        """What was tried, in one line."""
        parts = [str(outcome) for outcome in self._outcomes]
        tried = [f"{p.addr} ({'answered' if p.rtt is not None else 'no answer'})" for p in link.paths()]
        named = [self._target, *(found.addr for found in self._found)]
        listed = {str(addr) for where in named for addr in (*where.direct_addrs, *where.relay_urls)}
        unused = listed - {str(path.addr) for path in link.paths()}
        direct = sorted({addr for where in named for addr in where.direct_addrs if str(addr) in unused})
        denied = [str(addr) for addr in direct if not self._filter.permits(addr)]
        local = [str(addr) for addr in direct if not self._filter.publishable(addr) and str(addr) not in denied]
        unanswered = sorted(unused.difference(local, denied))
        if tried:
            parts.append("tried " + ", ".join(tried))
        if self._steps is not None and self._steps.invited.done() and self._steps.invited.result():
            told = ", told at which relays we are" if self._steps.said else ""
            parts.append(f"it was called where it looks for calls{told}, and did not come")
        if unanswered:
            parts.append(f"no answer, and given up: {', '.join(unanswered)}")
        if local:
            parts.append(f"not tried: {', '.join(local)} (local addresses are left out without allow_local)")
        if denied:
            parts.append(f"not tried: {', '.join(denied)} (see direct, public_only, addr_allow and addr_deny)")
        detail = "; ".join(parts) if parts else "nothing was tried"
        return f"could not reach {self._target.node_id.short()}…: {what} ({self._elapsed():.1f} s): {detail}"


__all__ = ["Connected", "Dial", "DialEvent", "DialListener", "Resolved"]
