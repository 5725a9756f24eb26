"""The first packets of incoming connections: what is answered, what must prove its address, what is dropped.

Nothing here is larger than what it answers, and a half-open handshake costs a bounded amount of memory and time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from tom_connect.addr import SocketAddr
from tom_connect.exceptions import ConnectionLostError
from tom_connect.holepunch.path import Path
from tom_connect.quic.engine import Engine
from tom_connect.quic.initial import MIN_INITIAL, RetryTokens, parse_first_packet, version_negotiation
from tom_connect.quic.link import Link

if TYPE_CHECKING:
    from tom_connect.quic.driver import Driver

HANDSHAKE_TIMEOUT = 10.0
"""Seconds that a peer has to finish its handshake: three lost flights of one second each, twice over."""
SECOND_PATH_AFTER = 0.6
"""Seconds after which a client that sends its first flight to several of our addresses gets an answer at another one,
if the first answer led nowhere: less than its first retransmission after an RTT of 200 ms."""
RETRY_SHARE = 4
"""Above a quarter of the half-open handshakes allowed, newcomers must prove their address by a Retry."""


class Acceptor:
    """Decides over first packets for a driver. `max_handshakes`: how many may be half-open at once."""

    def __init__(self, driver: Driver, *, max_handshakes: int, guard: Callable[[Path], bool]) -> None:
        self._driver = driver
        self._max_handshakes = max_handshakes
        self._guard = guard
        self._half_open: set[Link] = set()
        self._newest: dict[bytes, tuple[Link, float]] = {}
        self._retry = RetryTokens()

    def settled(self, link: Link) -> None:
        """A handshake has ended, in whichever way; the same one over other paths is forgotten."""
        if link not in self._half_open:
            return
        self._half_open.discard(link)
        dcid = link.provisional_key[1] if link.provisional_key is not None else b""
        if self._newest.get(dcid, (None, 0.0))[0] is link:
            del self._newest[dcid]
        if link.handshake is not None:
            for other in [o for o in self._half_open if o.provisional_key and o.provisional_key[1] == dcid]:
                self._driver.drop(other, ConnectionLostError("the handshake was done over another path"))

    def first_packet(self, path: Path, data: bytes, now: float) -> Link | None:
        """A new link for a datagram that belongs to none, or None if it was answered or dropped."""
        driver = self._driver
        if not driver.alpns:
            return self._drop("incoming connection without any ALPN to accept")
        if len(data) < MIN_INITIAL:
            return self._drop("first packet too small")
        first = parse_first_packet(data)
        if first is None:
            return self._drop("not a first packet")
        if not self._guard(path):
            return self._drop("refused by a guard")
        if not first.supported:
            self._answer(path, first.dcid, version_negotiation(first), now)
            return self._drop("unknown version")
        if not first.is_initial:
            return self._drop("not a first packet")
        newest = self._newest.get(first.dcid)
        if newest is not None and now - newest[1] < SECOND_PATH_AFTER:
            return self._drop("first packet over a further path")
        odcid, retry_scid = first.dcid, None
        if first.token:
            original = self._retry.validate(path_name(path), first, now)
            if original is not None:
                odcid, retry_scid = original, first.dcid
        if retry_scid is None and len(self._half_open) * RETRY_SHARE >= self._max_handshakes:
            self._answer(path, first.dcid, self._retry.retry_packet(path_name(path), first, now), now)
            return self._drop("asked to prove its address")
        if len(self._half_open) >= self._max_handshakes:
            return self._drop("too many handshakes at once")
        engine = Engine.server(
            secret_key=driver.secret_key,
            alpns=driver.alpns,
            settings=driver.settings,
            original_destination_connection_id=odcid,
            retry_source_connection_id=retry_scid,
            ticket_store=driver.tickets,
        )
        engine.hold_confirmation()
        link = Link(driver, engine, driver.magic.provisional(path, first.dcid), is_client=False)
        link.last_path = path
        link.deadline = now + HANDSHAKE_TIMEOUT
        self._half_open.add(link)
        self._newest[first.dcid] = (link, now)
        driver.add(link)
        driver.add_initial(link, path, first.dcid)
        return link

    def _answer(self, path: Path, dcid: bytes, data: bytes, now: float) -> None:
        magic = self._driver.magic
        address = magic.provisional(path, dcid)
        magic.send_quic(address, [data], now)
        magic.drop_provisional(address)

    def _drop(self, reason: str) -> Link | None:
        self._driver.counters[reason] += 1
        return None


def path_name(path: Path) -> tuple[str, int]:
    """What a Retry token is bound to: the real path."""
    if isinstance(path, SocketAddr):
        return path.host, path.port
    return str(path), 0
