"""Relay transports as one more socket of the magic socket: its addresses are relay paths."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from tom_connect.abc import RelayTransport
from tom_connect.addr import RelayUrl
from tom_connect.holepunch.path import RelayPath
from tom_connect.keys import NodeId

_QUIC_BIT: Final = 0x40
_DISCO: Final = range(4, 16)
_KNOWN_PATHS: Final = 4096


class Relays:
    """The relay transports of one endpoint.

    What they receive goes to `quic(path, datagrams, now)` and `disco(data, path, now)`; nothing else comes through
    relays. `turn_end(now)` is called once after all that came in one turn of the loop. `attested(node_id, ip)` is
    called with the IP address, as text, from which a relay that the user trusts sees a node; see `attest`.
    """

    def __init__(
        self,
        *,
        quic: Callable[[RelayPath, Sequence[bytes], float], None],
        disco: Callable[[bytes, RelayPath, float], None],
        turn_end: Callable[[float], None],
        clock: Callable[[], float],
        counters: Counter[str],
        logger: logging.Logger,
    ) -> None:
        self._quic = quic
        self._disco = disco
        self._turn_end = turn_end
        self._clock = clock
        self._counters = counters
        self._logger = logger
        self._by_scheme: dict[str, RelayTransport] = {}
        self._paths: dict[tuple[RelayUrl, NodeId], RelayPath] = {}
        self._ending: asyncio.Handle | None = None
        self._closed = False
        self.attested: Callable[[NodeId, str], None] | None = None

    def __bool__(self) -> bool:
        return bool(self._by_scheme)

    def add(self, transport: RelayTransport) -> None:
        """Let a transport carry what goes to relays of its schemes; the first to claim a scheme keeps it."""
        for scheme in transport.schemes:
            self._by_scheme.setdefault(scheme, transport)
        transport.set_receiver(self._received)
        transport.set_attested(self._attested)

    def remove(self, transport: RelayTransport) -> None:
        """Undo `add`."""
        self._by_scheme = {scheme: kept for scheme, kept in self._by_scheme.items() if kept is not transport}

    def close(self) -> None:
        """Send and receive nothing any more."""
        self._closed = True
        self._by_scheme.clear()
        if self._ending is not None:
            self._ending.cancel()
            self._ending = None

    def carries(self, url: RelayUrl) -> bool:
        """Whether a transport claims the URL's scheme."""
        return url.scheme in self._by_scheme

    def open(self, urls: Iterable[RelayUrl], *, trusted: bool) -> None:
        """Connect to relays which datagrams will go to; those that nobody carries are left out."""
        for url in urls:
            transport = self._by_scheme.get(url.scheme)
            if transport is not None:
                try:
                    transport.open(url, trusted=trusted)
                except Exception as exc:  # a plugin may raise anything
                    self._failed("open", exc)

    def suspect(self) -> None:
        """Have the transports find out whether the relays where we are reachable pass packets on."""
        for transport in set(self._by_scheme.values()):
            try:
                transport.suspect()
            except Exception as exc:  # a plugin may raise anything
                self._failed("suspect", exc)

    def missed(self, url: RelayUrl, caller: str) -> None:
        """Tell the transport that nothing of a node that called from this IP address came through a relay of ours."""
        transport = self._by_scheme.get(url.scheme)
        if transport is not None:
            try:
                transport.missed(url, caller)
            except Exception as exc:  # a plugin may raise anything
                self._failed("missed", exc)

    def attest(self, path: RelayPath) -> None:
        """Ask a path's relay where its node is connected from; `attested` hears the answer, if there is one."""
        transport = self._by_scheme.get(path.url.scheme)
        if transport is not None:
            try:
                transport.attest(path.url, path.node_id)
            except Exception as exc:  # a plugin may raise anything
                self._failed("attest", exc)

    def _attested(self, _url: RelayUrl, node_id: NodeId, ip: str) -> None:
        if not self._closed and self.attested is not None:
            self.attested(node_id, ip)

    # --- sending ----------------------------------------------------------------------------------------------

    def send(self, datagrams: Sequence[bytes], dest: RelayPath) -> None:
        """Send datagrams to a node at a relay. Never raises; drops are counted."""
        transport = self._by_scheme.get(dest.url.scheme)
        if transport is None:
            self._counters["send: no relay transport"] += len(datagrams)
            return
        try:
            if not transport.send(dest.url, dest.node_id, datagrams, 0):
                self._counters["send: relay queue full"] += 1
        except Exception as exc:  # a plugin may raise anything
            self._failed("send", exc)

    def send_one(self, data: bytes, dest: RelayPath) -> bool:
        """The same for one datagram; what becomes of it is not known here."""
        self.send((data,), dest)
        return True

    # --- receiving --------------------------------------------------------------------------------------------

    def _received(self, url: RelayUrl, node_id: NodeId, datagrams: Sequence[bytes], _ecn: int) -> None:
        if self._closed:
            return
        path = self._path(url, node_id)
        now = self._clock()
        quic: list[bytes] = []
        for data in datagrams:
            first = data[0] if data else 0
            if first & _QUIC_BIT:
                quic.append(data)
            elif first in _DISCO:
                self._disco(data, path, now)
            else:
                self._counters["relayed: neither QUIC nor disco"] += 1
        if quic:
            self._quic(path, quic, now)
        if self._ending is None:
            self._ending = asyncio.get_running_loop().call_soon(self._end)

    def _end(self) -> None:
        self._ending = None
        self._turn_end(self._clock())

    def _path(self, url: RelayUrl, node_id: NodeId) -> RelayPath:
        """The one RelayPath for a relay and node, so that looking it up compares by identity."""
        key = (url, node_id)
        path = self._paths.get(key)
        if path is None:
            if len(self._paths) >= _KNOWN_PATHS:
                self._paths.clear()
            path = self._paths[key] = RelayPath(url, node_id)
        return path

    def _failed(self, what: str, exc: Exception) -> None:
        if not self._counters["relay transport: failed"]:
            self._logger.error("a relay transport failed in %s(); more is only counted", what, exc_info=exc)
        self._counters["relay transport: failed"] += 1
