"""Pumps all QUIC connections of an endpoint over its magic socket.

Datagrams are fed to their engines as they are drained from the sockets, and each engine that was touched sends once at
the end of the turn. One heap holds the timers of all connections.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import logging
import time
from collections import Counter
from collections.abc import Callable, Sequence

from aioquic.quic import events as quic_events

from tom_connect.addr import SocketAddr
from tom_connect.exceptions import ConnectionClosedError, EndpointClosedError
from tom_connect.holepunch.path import Path
from tom_connect.keys import NodeId, SecretKey
from tom_connect.magicsock.address import SinglePath
from tom_connect.magicsock.socket import MagicSocket
from tom_connect.quic.accept import Acceptor
from tom_connect.quic.engine import Engine
from tom_connect.quic.events import HandshakeConfirmed
from tom_connect.quic.initial import CID_LENGTH
from tom_connect.quic.link import Link
from tom_connect.quic.settings import TransportSettings
from tom_connect.quic.tickets import TicketStore

MAX_CLOSE_REPEATS = 8
"""How often a CONNECTION_CLOSE is sent again; a peer that needs more has gone deaf."""


class Driver:
    """The QUIC connections of one endpoint. `alpns`: what incoming connections may speak, in order of preference."""

    def __init__(
        self,
        magic: MagicSocket,
        secret_key: SecretKey,
        *,
        alpns: Sequence[str],
        settings: TransportSettings,
        max_handshakes: int = 256,
        guard: Callable[[Path], bool] = lambda _path: True,
        on_incoming: Callable[[Link], None],
        clock: Callable[[], float] = time.monotonic,
        logger: logging.Logger | None = None,
    ) -> None:
        self.magic = magic
        self.secret_key = secret_key
        self.alpns = tuple(alpns)
        self.settings = settings
        self.now = clock
        self.tickets = TicketStore()
        self.counters: Counter[str] = Counter()
        self.links: set[Link] = set()
        self.single_path_alpns: set[str] = set()
        """Protocols of which each connection keeps to one UDP path, apart from all other traffic with the node."""
        self._logger = logger or logging.getLogger(__name__)
        self._on_incoming = on_incoming
        self._loop = asyncio.get_running_loop()
        self._by_cid: dict[bytes, Link] = {}
        self._by_initial: dict[tuple[Path, bytes], Link] = {}
        self._foreign: Callable[[Path, bytes, bytes, float], bool] | None = None
        self._acceptor = Acceptor(self, max_handshakes=max_handshakes, guard=guard)
        self._dirty: dict[Link, None] = {}
        self._scheduled: list[Link] = []
        self._heap: list[tuple[float, int, Link]] = []
        self._order = itertools.count()
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = float("inf")
        self._idle = asyncio.Event()
        self._idle.set()
        self._closed = False
        magic.set_quic_receiver(self._received)
        magic.set_batch_end(self._batch_end)
        magic.set_writable(self._writable)

    # Dialing

    def connect(self, peer: NodeId, alpn: str, *, early_data: bool = False) -> Link:
        """A link to `peer`, not yet started: call `start` once its remote is usable."""
        if self._closed:
            raise EndpointClosedError("the endpoint is closed")
        remote = self.magic.remote(peer)
        engine = Engine.client(
            secret_key=self.secret_key,
            peer=peer,
            alpns=(alpn,),
            settings=self.settings,
            early_data=early_data,
            ticket_store=self.tickets,
        )
        link = Link(self, engine, remote.address, is_client=True, dialed=(peer, alpn))
        link.bind_remote(remote)
        self.add(link)
        return link

    def connect_single(
        self, addr: SocketAddr, alpn: str, *, peer: NodeId | None, secret_key: SecretKey | None = None
    ) -> Link:
        """A link to whoever answers at one UDP address, not yet started; its datagrams take no other path.

        `peer`: the key that must answer, None: any; `secret_key`: who we are, if not the endpoint.
        """
        if self._closed:
            raise EndpointClosedError("the endpoint is closed")
        engine = Engine.client(
            secret_key=secret_key or self.secret_key, peer=peer, alpns=(alpn,), settings=self.settings
        )
        link = Link(self, engine, SinglePath(addr), is_client=True)
        self.add(link)
        return link

    def start(self, link: Link) -> None:
        """Send a client's first flight."""
        if link in self.links and link.error is None:
            link.started = True
            link.engine.start(self.now())
            self.flush(link)

    # The table

    def add(self, link: Link) -> None:
        """Take a link into the tables."""
        self.links.add(link)
        self._idle.clear()
        self._sync_cids(link)

    def add_initial(self, link: Link, path: Path, dcid: bytes) -> None:
        """Route what a client sends to the connection id of its own choice from `path` to `link`."""
        link.provisional_key = (path, dcid)
        self._by_initial[path, dcid] = link

    def drop(self, link: Link, error: Exception) -> None:
        """Forget a link at once, without a word to the peer."""
        if link not in self.links:
            return
        self.links.discard(link)
        for cid in link.cids:
            self._by_cid.pop(cid, None)
        if link.provisional_key is not None:
            self._by_initial.pop(link.provisional_key, None)
        self._acceptor.settled(link)
        link.ended(error)
        link.release()
        if not self.links:
            self._idle.set()

    def set_foreign(self, take: Callable[[Path, bytes, bytes, float], bool]) -> None:
        """Ask `take(path, dcid, datagram, now)` first about connection ids that are none of ours.

        For other QUIC connections on this socket, whose ids have the length of ours; True: it was for one of them.
        """
        self._foreign = take

    def _sync_cids(self, link: Link) -> None:
        cids = set(link.engine.host_cids())
        for cid in link.cids - cids:
            self._by_cid.pop(cid, None)
        for cid in cids - link.cids:
            self._by_cid[cid] = link
        link.cids = cids

    # Receiving

    def _received(self, path: Path, datagrams: Sequence[bytes], now: float) -> None:
        by_cid = self._by_cid
        heard: Link | None = None
        size = 0
        for data in datagrams:
            if not data:
                continue
            if data[0] & 0x80:
                dcid = data[6 : 6 + data[5]] if len(data) > 5 else b""
                link = by_cid.get(dcid) or self._by_initial.get((path, dcid))
                if link is None:
                    if self._foreign is not None and self._foreign(path, dcid, data, now):
                        continue
                    link = self._acceptor.first_packet(path, data, now)
                    if link is None:
                        continue
            else:
                dcid = data[1 : 1 + CID_LENGTH]
                link = by_cid.get(dcid)
                if link is None:
                    if self._foreign is not None and self._foreign(path, dcid, data, now):
                        continue
                    self.counters["unknown connection id"] += 1
                    continue
            engine = link.engine
            before = engine.authentic_packets
            engine.receive(data, now)
            self._dirty[link] = None
            if engine.authentic_packets != before:
                if link is not heard:
                    if heard is not None:
                        heard.heard(path, size, now)
                    heard, size = link, 0
                size += len(data)
            elif link.closing and link.handshake is not None:
                self._repeat_close(link, now)
        if heard is not None:
            heard.heard(path, size, now)

    def _repeat_close(self, link: Link, now: float) -> None:
        link.closing_received += 1
        if link.closing_received & (link.closing_received - 1) == 0 and link.closing_received <= 1 << MAX_CLOSE_REPEATS:
            self.magic.send_quic(link.dest, link.closing, now)

    def _batch_end(self, now: float) -> None:
        dirty, self._dirty = self._dirty, {}
        for link in dirty:
            self._flush(link, now)

    # Sending

    def schedule(self, link: Link) -> None:
        """Flush a link at the end of this turn of the loop."""
        link.scheduled = True
        if not self._scheduled:
            self._loop.call_soon(self._flush_scheduled)
        self._scheduled.append(link)

    def _flush_scheduled(self) -> None:
        links, self._scheduled = self._scheduled, []
        now = self.now()
        for link in links:
            link.scheduled = False
            self._flush(link, now)

    def flush(self, link: Link) -> None:
        """Send what a link has to send, now."""
        self._flush(link, self.now())

    def _writable(self) -> None:
        now = self.now()
        for link in tuple(self.links):
            self._flush(link, now)

    def _flush(self, link: Link, now: float) -> None:
        if link not in self.links:
            return
        engine = link.engine
        self._take_events(link)
        if link not in self.links:
            return
        if self.magic.congested:
            # `_writable` comes here again; a pacing timer that is long due would only spin until then.
            link.moved()
            return
        datagrams = engine.send(now)
        if datagrams:
            self.magic.send_quic(link.dest, datagrams, now, asks=engine.awaits_answer, keeps=engine.keeps_alive)
            if engine.terminating and not engine.closed_by_peer and not link.closing:
                link.closing = datagrams[-4:]
        self._take_events(link)
        if engine.terminating and link.error is None and (event := engine.termination) is not None:
            # The engine keeps its closing period to itself; the application hears at once.
            link.ended(engine.error(event))
        self._arm(link)
        link.moved()

    def _take_events(self, link: Link) -> None:
        engine = link.engine
        while (event := engine.next_event()) is not None:
            if isinstance(event, HandshakeConfirmed):
                self._confirmed(link, event)
            elif isinstance(event, (quic_events.ConnectionIdIssued, quic_events.ConnectionIdRetired)):
                self._sync_cids(link)
            elif isinstance(event, quic_events.ConnectionTerminated):
                self.drop(link, engine.error(event))
                return
            else:
                link.deliver(event)

    def _confirmed(self, link: Link, event: HandshakeConfirmed) -> None:
        link.handshake = event
        link.deadline = None
        path = link.last_path
        if not link.is_client and link.alpn in self.single_path_alpns:
            self._acceptor.settled(link)
            if not isinstance(path, SocketAddr):
                link.refuse("this protocol is spoken over direct paths alone")
                return
            self.magic.drop_provisional(link.dest)  # type: ignore[arg-type]
            link.dest = SinglePath(path, credit=None)
        elif not link.is_client:
            assert path is not None, "a handshake is confirmed by a packet, and packets come from somewhere"
            address = self.magic.bind_provisional(link.dest, event.peer_node_id, path)  # type: ignore[arg-type]
            link.bind_remote(address.remote)
            link.heard(path, 0, self.now())
            self._acceptor.settled(link)
        if not link.ready.done():
            link.ready.set_result(None)
        if not link.is_client:
            self._on_incoming(link)

    # Timers

    def _arm(self, link: Link) -> None:
        if link not in self.links:
            return
        at = link.engine.get_timer()
        if link.deadline is not None and (at is None or link.deadline < at):
            at = link.deadline
        # An entry that fires too early looks again, so only an earlier time needs a new one.
        if at is not None and (link.timer_at is None or at < link.timer_at):
            link.timer_at = at
            heapq.heappush(self._heap, (at, next(self._order), link))
            if at < self._timer_at:
                self._set_timer(at)

    def _set_timer(self, at: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = at
        self._timer = self._loop.call_later(max(0.0, at - self.now()), self._timer_fired)

    def _timer_fired(self) -> None:
        self._timer = None
        self._timer_at = float("inf")
        now = self.now()
        heap = self._heap
        while heap and heap[0][0] <= now:
            at, _, link = heapq.heappop(heap)
            if link not in self.links or at != link.timer_at:
                continue
            link.timer_at = None
            if link.deadline is not None and now >= link.deadline:
                self.counters["handshake timed out"] += 1
                self.drop(link, ConnectionClosedError(0, "handshake timed out", by_peer=False, is_application=False))
                continue
            due = link.engine.get_timer()
            if due is not None and due <= now:
                link.engine.handle_timer(now)
                self._flush(link, now)
            else:
                self._arm(link)
        if heap and heap[0][0] < self._timer_at:
            self._set_timer(heap[0][0])

    # The end

    async def aclose(self, reason: str = "", *, linger: float = 0.5) -> None:
        """Close every connection with code 0; waits at most `linger` seconds for the goodbyes to be heard."""
        self._closed = True
        for link in tuple(self.links):
            if link.error is None:
                if link.handshake is not None:
                    link.close(0, reason)
                    link.ended(ConnectionClosedError(0, reason, by_peer=False, is_application=True))
                else:
                    link.refuse(reason or "the endpoint is closing")
                    link.ended(EndpointClosedError("the endpoint is closing"))
        try:
            async with asyncio.timeout(linger):
                await self._idle.wait()
        except TimeoutError:
            pass
        for link in tuple(self.links):
            self.drop(link, EndpointClosedError("the endpoint is closed"))
        if self._timer is not None:
            self._timer.cancel()
        self._heap.clear()
