"""The magic socket: UDP sockets, their demultiplexing, and the paths of all remote nodes."""

from __future__ import annotations

import asyncio
import logging
import time
import weakref
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from math import inf
from typing import Any

from tom_connect.abc import DatagramProtocol, PathInfo, PathSelector, SharedSocket
from tom_connect.addr import RelayUrl, SocketAddr
from tom_connect.exceptions import EndpointClosedError, InvalidKeyError, LocalError
from tom_connect.holepunch.addrfilter import AddressFilter, normal
from tom_connect.holepunch.core import DiscoCore, Observed
from tom_connect.holepunch.disco import DiscoError, Mapping
from tom_connect.holepunch.events import PathEvent, PathSelected
from tom_connect.holepunch.path import Path, RelayPath, ViaSocket
from tom_connect.holepunch.paths import RemotePaths
from tom_connect.keys import NodeId, SecretKey
from tom_connect.magicsock.address import NodeAddress, ProvisionalAddress, SinglePath
from tom_connect.magicsock.demux import Demux, ProtocolQueue
from tom_connect.magicsock.directpeers import DirectPeers
from tom_connect.magicsock.doorstep import Doorstep
from tom_connect.magicsock.provisional import ProvisionalTable
from tom_connect.magicsock.relays import Relays
from tom_connect.magicsock.remote import Remote, Route
from tom_connect.magicsock.shared import SharedUdp
from tom_connect.magicsock.sockets import FamilySockets
from tom_connect.magicsock.udp import UdpSocket
from tom_connect.watch import Watch

QuicReceiver = Callable[[Path, Sequence[bytes], float], None]


class MagicSocket:
    """One UDP socket a family for QUIC, disco and plugins, and relays; QUIC sees one constant address for each node.

    Belongs to one event loop, and to its thread. `address_filter`: what is probed and offered; without one,
    `allow_local` alone tells whether private, loopback and link-local addresses that records name are. `direct`: False
    sends and takes QUIC and disco through relays alone. `port_probing`: False neither makes nor takes offers of it.
    `clock`: seconds, `time.monotonic` by default.
    """

    def __init__(
        self,
        secret_key: SecretKey,
        *,
        allow_local: bool = False,
        address_filter: AddressFilter | None = None,
        direct: bool = True,
        port_probing: bool = True,
        clock: Callable[[], float] = time.monotonic,
        loop: asyncio.AbstractEventLoop | None = None,
        logger: logging.Logger | None = None,
    ) -> None:
        self.node_id = secret_key.node_id
        self.counters: Counter[str] = Counter()
        """What was dropped or went wrong, by reason; only ever grows."""
        self.closed = False
        self.waiting: set[Remote] = set()
        """Remotes for which somebody waits until they are usable."""
        self._clock = clock
        self._loop = loop
        self._logger = logger or logging.getLogger("tom_connect.magicsock")
        self._core = DiscoCore(secret_key, address_filter=address_filter or AddressFilter(allow_local))
        self._core.counters = self.counters
        self._core.relays_told = lambda _paths, urls: self.relays.open(urls, trusted=False)
        self._core.ports_link.attest = lambda path: self.relays.attest(path)
        self._core.direct = self._direct = direct
        self._core.ports.enabled = port_probing and direct
        self._demux = Demux(
            quic=self._direct_quic_arrived if direct else self._quic_unwanted,
            disco=self._disco_arrived if direct else self._disco_unwanted,
            counters=self.counters,
        )
        self.relays = Relays(
            quic=self._quic_arrived,
            disco=self._disco_arrived,
            turn_end=self._turn_end,
            clock=clock,
            counters=self.counters,
            logger=self._logger,
        )
        """The relay transports, which plugins bring."""
        self.relays.attested = self._attested
        self.own_relays: Watch[tuple[RelayUrl, ...]] = Watch(())
        """The relays at which we may be reached, as peers are told."""
        self.handshake_at = -inf
        """When somebody who dialed us has last proven a key, by `now`."""
        self._sockets = FamilySockets(
            receive=self._demux.received,
            turn_end=self._turn_end,
            writable=self._socket_writable,
            rebound=self._socket_rebound,
            clock=clock,
            counters=self.counters,
            logger=self._logger,
        )
        self._rebound: Callable[[], None] | None = None
        self._remotes: weakref.WeakValueDictionary[NodeId, Remote] = weakref.WeakValueDictionary()
        self._provisional = ProvisionalTable()
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = inf
        self._pumping = False
        self._quic: QuicReceiver | None = None
        self._batch_end: Callable[[float], None] | None = None
        self._quic_in_turn = False
        self._disco_in_turn = False
        self._writable: Callable[[], None] | None = None
        self._observed: Callable[[SocketAddr, NodeId], None] | None = None
        self._direct_lost: Callable[[], None] | None = None
        self._selector: PathSelector | None = None
        self.doorstep = Doorstep(self._core, clock=clock, pump=self._pump, route=self._direct_route)
        """Where those meet who have no path to each other yet."""
        self.shared: SharedSocket = SharedUdp(self.send, lambda: self.local_addrs)
        """What plugins get of this socket."""
        self.direct_peers = DirectPeers()

    # --- life -------------------------------------------------------------------------------------------------

    def now(self) -> float:
        """Seconds of the clock that all times here are of."""
        return self._clock()

    async def bind(self, addrs: Sequence[SocketAddr]) -> None:
        """Open a UDP socket at each address, at most one a family.

        A family that this machine lacks is left out with a log line, unless none is left. Raises LocalError that says
        what to do, where a port is taken or an address is not ours.
        """
        if self.closed or self._sockets:
            raise LocalError("a magic socket is bound once")
        self._loop = self._loop or asyncio.get_running_loop()
        await self._sockets.bind(addrs, self._loop)
        if self._sockets.limits_ttl:
            self._core.openers = []
        self._core.ports_link.sockets = self._sockets.further

    async def aclose(self) -> None:
        """Close the sockets and stop every timer; what waits to be sent is tried once more. Idempotent."""
        if self.closed:
            return
        self.closed = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._demux.close()
        self.relays.close()
        self.own_relays.close()
        self._core.ports_link.sockets = None
        await self._sockets.aclose()
        self._provisional.clear()
        for remote in list(self.waiting):
            remote.wake()
        # asyncio's transports close their sockets in the loop's next turn.
        await asyncio.sleep(0)

    def rebind(self, hosts: Collection[str]) -> None:
        """Open those sockets anew that the network has made useless. `hosts`: the addresses that this machine has now.

        Those bound to an address that is gone are tried until it is back.
        """
        self._sockets.rebind(hosts)

    def set_rebound(self, callback: Callable[[], None]) -> None:
        """Call `callback()` when a socket has been opened anew; `local_addrs` may have another port."""
        self._rebound = callback

    def _socket_rebound(self, _udp: UdpSocket) -> None:
        # What worked through the old socket must show that it does through the new one.
        self.network_changed()
        if self._rebound is not None:
            self._rebound()

    @property
    def local_addrs(self) -> tuple[SocketAddr, ...]:
        """Where the sockets are bound, with real ports; hosts may be wildcards."""
        return self._sockets.local_addrs

    @property
    def udp_sockets(self) -> tuple[UdpSocket, ...]:
        """The sockets themselves, for diagnostics."""
        return self._sockets.all

    # --- QUIC -------------------------------------------------------------------------------------------------

    def set_quic_receiver(self, receive: QuicReceiver) -> None:
        """Say who takes QUIC datagrams: `receive(path, datagrams, now)`, a drained batch of one source at a time."""
        self._quic = receive

    def set_batch_end(self, callback: Callable[[float], None]) -> None:
        """Call `callback(now)` once after each drained turn in which QUIC datagrams were handed over."""
        self._batch_end = callback

    def set_writable(self, callback: Callable[[], None]) -> None:
        """Call `callback()` when what full socket buffers held back has gone out."""
        self._writable = callback

    @property
    def congested(self) -> bool:
        """Whether socket buffers are full and datagrams wait; a sender does well to wait for `set_writable`."""
        return any(udp.congested for udp in self._sockets.all)

    def send_quic(
        self,
        dest: NodeAddress | ProvisionalAddress | SinglePath,
        datagrams: Sequence[bytes],
        now: float,
        *,
        asks: bool = True,
        keeps: bool = False,
    ) -> None:
        """Send datagrams on the path or paths that `dest` uses now. Never blocks or raises; drops are counted.

        `asks`: the connection waits for an acknowledgment; silence then says something about the path. `keeps`: it
        waits for that of a keep-alive alone.
        """
        if isinstance(dest, ProvisionalAddress):
            if dest.node is None:
                self._send_to_path(dest.path, datagrams)
                return
            dest = dest.node
        elif isinstance(dest, SinglePath):
            if dest.takes(sum(map(len, datagrams))):
                self._send_to_path(dest.path, datagrams)
            else:
                self.counters["send: address not confirmed"] += len(datagrams)
            return
        remote = dest.remote
        paths = remote.core
        if remote.version != paths.version:
            remote.refresh()
        if not remote.routes:
            self.counters["send: no path"] += len(datagrams)
            return
        size = sum(map(len, datagrams))
        for sender, address, state in remote.routes:
            if state.credit is not None:
                if size > state.credit:
                    self.counters["send: address not confirmed"] += len(datagrams)
                    continue
                state.credit -= size
            state.bytes_sent += size
            sender.send(datagrams, address)
        paths.sent(now, asks=asks, keeps=keeps)
        if paths.due < self._timer_at:
            self._rearm()

    def _send_to_path(self, path: Path, datagrams: Sequence[bytes]) -> None:
        route = self.route(path)
        if route is None:
            self.counters["send: no path"] += len(datagrams)
        else:
            route[0].send(datagrams, route[1])

    def route(self, path: Path) -> Route | None:
        """What sends to a path, and the address that it wants; None if this machine has none for it."""
        if isinstance(path, RelayPath):
            return (self.relays, path) if self.relays.carries(path.url) else None
        return self._direct_route(path)

    def _direct_route(self, path: SocketAddr) -> tuple[UdpSocket, Any] | None:
        return self._sockets.route(path) if self._direct else None

    def provisional(self, path: Path, dcid: bytes) -> ProvisionalAddress:
        """The address for an incoming handshake: the same object for the same path and connection id.

        `drop_provisional` forgets it; the table is bounded, the oldest go first.
        """
        return self._provisional.get(path, dcid)

    def drop_provisional(self, address: ProvisionalAddress) -> None:
        """Forget an address whose handshake failed or whose connection is over."""
        self._provisional.drop(address)

    def bind_provisional(self, address: ProvisionalAddress, node_id: NodeId, path: Path) -> NodeAddress:
        """The handshake proved `node_id` at `path`. Acquires its Remote (`.remote` of what is returned).

        From now on sending to `address` is sending to the NodeAddress, so either may stay in QUIC's hands.
        """
        remote = self.remote(node_id)
        address.node = remote.address
        self._provisional.drop(address)
        self.handshake_at = self._clock()
        remote.core.handshake_done(path, self.handshake_at)
        self._pump()
        return remote.address

    def remote(self, node_id: NodeId) -> Remote:
        """Acquire the Remote of a node, made if need be; `release()` it once.

        Raises InvalidInputError for our own id, EndpointClosedError after `aclose`.
        """
        if self.closed:
            raise EndpointClosedError("the endpoint is closed")
        if node_id == self.node_id:
            raise InvalidKeyError("this is our own node id: a node can't connect to itself")
        try:
            paths = self._core.acquire(node_id, self._clock())
        except DiscoError:
            raise InvalidKeyError(f"no key agreement is possible with {node_id}") from None
        remote = self._remotes.get(node_id)
        if remote is None or remote.core is not paths:
            remote = self._remotes[node_id] = Remote(self, paths)
        self._pump()
        return remote

    def release_remote(self, remote: Remote) -> None:
        """What `Remote.release` does."""
        self._core.release(remote.core, self._clock())
        if not remote.core.holders:
            self.direct_peers.forget(remote.node_id)

    def add_candidates(self, remote: Remote, addrs: Iterable[SocketAddr], source: str, *, trusted: bool) -> None:
        """What `Remote.add_candidates` does."""
        if self._direct:
            self._core.add_candidates(remote.core, addrs, source, self._clock(), trusted=trusted)
            self._pump()

    def withdraw_candidates(self, remote: Remote, addrs: Iterable[SocketAddr], source: str) -> None:
        """What `Remote.withdraw_candidates` does."""
        self._core.withdraw_candidates(remote.core, addrs, source, self._clock())
        self._pump()

    def add_relays(self, remote: Remote, urls: Iterable[RelayUrl], source: str, *, trusted: bool) -> None:
        """What `Remote.add_relays` does."""
        carried = [url for url in urls if self.relays.carries(url)]
        used = self._core.add_relays(remote.core, carried, source, self._clock(), trusted=trusted)
        self.relays.open(used, trusted=trusted)
        self._pump()

    def _quic_unwanted(self, _source: SocketAddr, datagrams: Sequence[bytes], _now: float) -> None:
        self.counters["direct packets are not wanted"] += len(datagrams)

    def _disco_unwanted(self, _data: bytes, _source: SocketAddr, _now: float) -> None:
        self.counters["direct packets are not wanted"] += 1

    def _direct_quic_arrived(self, source: SocketAddr, datagrams: Sequence[bytes], now: float) -> None:
        if self._core.filter.lists and not self._core.filter.permits(source):
            self.counters["quic: source refused by the address filter"] += len(datagrams)
        else:
            self._quic_arrived(source, datagrams, now)

    def _quic_arrived(self, source: Path, datagrams: Sequence[bytes], now: float) -> None:
        if self._quic is None:
            self.counters["quic: nobody listens"] += len(datagrams)
            return
        self._quic_in_turn = True
        try:
            self._quic(source, datagrams, now)
        except Exception:
            self.counters["quic: failed"] += 1
            self._logger.exception("the QUIC driver failed on datagrams from %s", source)

    def _turn_end(self, now: float) -> None:
        # What arrived may only have brought a ping forward, as a knock does: then it is the timer that must know.
        if self._disco_in_turn or self._core.outbox or self._core.events:
            self._disco_in_turn = False
            self._pump()
        if self._quic_in_turn:
            self._quic_in_turn = False
            if self._batch_end is not None:
                try:
                    self._batch_end(now)
                except Exception:
                    self.counters["quic: failed"] += 1
                    self._logger.exception("the QUIC driver failed at the end of a batch")

    def _socket_writable(self) -> None:
        if self._writable is not None and not self.congested:
            try:
                self._writable()
            except Exception:
                self.counters["quic: failed"] += 1
                self._logger.exception("the QUIC driver failed when sockets became writable")

    # --- paths ------------------------------------------------------------------------------------------------

    def set_own_candidates(self, addrs: Sequence[SocketAddr], relays: Sequence[RelayUrl] = ()) -> None:
        """Say where we may be reached; sent sealed, in call-me-maybe, to peers with a proven path."""
        self.own_relays.set(tuple(relays))
        self._core.set_own_candidates(addrs if self._direct else (), self._clock(), relays)
        self._pump()

    def set_own_nat(
        self,
        mapping: Mapping,
        addr: SocketAddr | None,
        *,
        filtered: bool = True,
        blocked: bool = False,
        carrier: bool = False,
    ) -> None:
        """Say what is before us in IPv4: how it maps, and where others see our socket (None if that is not known).

        `filtered`: False, if anyone may send to that address unasked; `blocked`: no UDP gets through at all; `carrier`:
        there is a carrier's NAT behind our router's.
        """
        self._core.set_own_nat(mapping, addr, self._clock(), filtered=filtered, blocked=blocked, carrier=carrier)
        self._pump()

    def why_relayed(self, remote: Remote) -> str | None:
        """Why traffic to a node takes no direct path, in one word of `holepunch.whyrelayed`; None if it does."""
        return self._core.why_relayed(remote.core, self._clock())

    def _attested(self, node_id: NodeId, ip: str) -> None:
        self._core.attested(node_id, ip, self._clock())
        self._pump()

    def set_address_filter(self, address_filter: AddressFilter) -> None:
        """Judge addresses by this filter from now on."""
        self._core.filter = address_filter

    def network_changed(self) -> None:
        """The network is another one: every path must show that it works, and peers are told anew where we are."""
        self._core.network_changed(self._clock())
        self._pump()

    def set_observed(self, callback: Callable[[SocketAddr, NodeId], None]) -> None:
        """Call `callback(addr, by)` when a peer that we talk to says at which address it sees us."""
        self._observed = callback

    def set_direct_lost(self, callback: Callable[[], None]) -> None:
        """Call `callback()` when traffic to a peer had to leave a direct path for a relay."""
        self._direct_lost = callback

    def set_path_selector(self, selector: PathSelector | None) -> None:
        """Let a plugin choose among proven paths; None gives the choice back to the built-in rule."""
        self._selector = selector
        self._core.selector = None if selector is None else self._ask_selector

    def _ask_selector(self, node_id: NodeId, paths: Sequence[PathInfo]) -> PathInfo | None:
        if self._selector is None:
            return None
        try:
            return self._selector.select(node_id, paths)
        except Exception:
            if not self.counters["path selector: failed"]:
                self._logger.exception("the path selector failed; further failures are only counted")
            self.counters["path selector: failed"] += 1
            return None

    def _disco_arrived(self, data: bytes, source: Path, now: float) -> None:
        # Not the turn's time: an RTT must not include what was worked off before.
        self._core.receive(data, source, self._clock())
        self._disco_in_turn = True
        if self._core.outbox:
            self._flush_outbox()

    def pump_if_needed(self, paths: RemotePaths) -> None:
        """Pump after a call to the core that usually has no consequence."""
        core = self._core
        if core.events or core.outbox or core.openers or paths.due < self._timer_at:
            self._pump()

    def _flush_outbox(self) -> None:
        if self._core.openers:
            openers, self._core.openers = self._core.openers, []
            for addr, packet, ttl in openers:
                self._sockets.send_opener(packet, addr, ttl)
        outbox, self._core.outbox = self._core.outbox, []
        for path, packet in outbox:
            if isinstance(path, ViaSocket):
                self._sockets.send_via(packet, path)
            else:
                self._send_to_path(path, (packet,))

    def _pump(self) -> None:
        """Carry out what the core wants: send, report, set the timer."""
        if self._pumping or self.closed:
            return
        self._pumping = True
        try:
            core = self._core
            while core.outbox or core.events or core.openers:
                self._flush_outbox()
                events, core.events = core.events, []
                for event in events:
                    self._report(event)
            for remote in list(self.waiting):
                if remote.usable():
                    remote.wake()
        finally:
            self._pumping = False
        self._rearm()

    def _report(self, event: PathEvent | Observed) -> None:
        try:
            if isinstance(event, Observed):
                if self._observed is not None:
                    self._observed(event.addr, event.by)
                return
            self.direct_peers.note(event)
            if isinstance(event, PathSelected) and event.lost_direct and self._direct_lost is not None:
                self._direct_lost()
            remote = self._remotes.get(event.node_id)
            for listener in remote.listeners if remote is not None else ():
                listener(event)
        except Exception:
            self.counters["listener: failed"] += 1
            self._logger.exception("a listener failed on %r", event)

    def _rearm(self) -> None:
        due = self._core.next_due()
        if due is None:
            due = inf
        if due == self._timer_at:
            return
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._timer_at = due
        if due < inf and self._loop is not None and not self.closed:
            self._timer = self._loop.call_later(max(0.0, due - self._clock()), self._timer_fired)

    def _timer_fired(self) -> None:
        self._timer = None
        self._timer_at = inf
        self._core.tick(self._clock())
        self._pump()

    # --- datagram protocols -----------------------------------------------------------------------------------

    def send(self, data: bytes, addr: SocketAddr) -> bool:
        """Send one datagram now, for plugins (`tom_connect.abc.SharedSocket`); False if it was dropped."""
        try:
            route = self._sockets.route(normal(addr))
        except ValueError:
            route = None
        if route is None:
            self.counters["send: no path"] += 1
            return False
        return route[0].send_one(data, route[1])

    def add_protocol(self, protocol: DatagramProtocol) -> None:
        """Give a protocol the datagrams that it claims, through its own bounded queue."""
        queue = ProtocolQueue(
            protocol,
            self._loop or asyncio.get_running_loop(),
            clock=self._clock,
            busy=self._demux.busy,
            counters=self.counters,
            logger=self._logger,
        )
        self._demux.add(queue)

    def remove_protocol(self, protocol: DatagramProtocol) -> None:
        """Undo `add_protocol`; what waits in its queue is dropped."""
        self._demux.remove(protocol)
