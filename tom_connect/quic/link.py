"""One QUIC connection between the engine, the magic socket and its owner."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol

from aioquic.quic import events as quic_events

from tom_connect.abc import PathInfo
from tom_connect.addr import SocketAddr
from tom_connect.holepunch.events import PathDoubted, PathEvent, PathRestored, PathSelected
from tom_connect.holepunch.path import Path
from tom_connect.keys import NodeId
from tom_connect.magicsock.address import NodeAddress, ProvisionalAddress, SinglePath
from tom_connect.magicsock.remote import PathCounts, PathListener, Remote
from tom_connect.quic.engine import Engine
from tom_connect.quic.events import HandshakeConfirmed

if TYPE_CHECKING:
    from tom_connect.quic.driver import Driver

CONNECTION_REFUSED = 0x02
"""RFC 9000 section 20.1."""
SHORT_SILENCE = 1.0
"""Seconds of silence of a path that say nothing about what it can carry afterwards."""
MAX_EARLY_EVENTS = 4096
"""Events that a server's link holds before the application has accepted it; flow control bounds their bytes."""


class LinkOwner(Protocol):
    """Who gets what happens on a link."""

    def link_event(self, event: quic_events.QuicEvent) -> None:
        """Take an event of the engine."""

    def link_moved(self) -> None:
        """Something was sent, acknowledged or granted."""

    def link_closed(self, error: Exception) -> None:
        """The connection has ended."""


class Link:
    """Made by the driver; owned by a Connection once the handshake is done."""

    def __init__(
        self,
        driver: Driver,
        engine: Engine,
        dest: NodeAddress | ProvisionalAddress | SinglePath,
        *,
        is_client: bool,
        dialed: tuple[NodeId, str] | None = None,
    ) -> None:
        """`dialed`: the key and ALPN of a client's link that was to reach a certain node."""
        self.driver = driver
        self._dialed = dialed
        self.engine = engine
        self.dest = dest
        self.is_client = is_client
        self.remote: Remote | None = None
        self.last_path: Path | None = None
        self.cids: set[bytes] = set()
        self.provisional_key: tuple[Path, bytes] | None = None
        self.handshake: HandshakeConfirmed | None = None
        self.ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Done when the handshake is confirmed, or failed with what ended the link."""
        self.error: Exception | None = None
        self.over = asyncio.Event()
        """Set with `error`, when the link has ended."""
        self.started = not is_client
        """Whether anything was sent; a client's link waits for a usable path first."""
        self.scheduled = False
        self.timer_at: float | None = None
        self.deadline: float | None = None
        """When a handshake that is still not done is given up."""
        self.closing: list[bytes] = []
        """The datagrams with our CONNECTION_CLOSE, sent again to a peer that goes on (RFC 9000 section 10.2.1)."""
        self.closing_received = 0
        self._unconfirmed: tuple[Path, int] | None = None
        """A path to which we switched because the peer moved, and the first packet that went there: once it is
        acknowledged the peer does receive there (RFC 9000 section 8.2)."""
        self._told_mtu = 0
        self._owner: LinkOwner | None = None
        self._early_events: list[quic_events.QuicEvent] = []

    # For the owner

    @property
    def peer(self) -> NodeId:
        """The peer's proven key; before a client's handshake is done, the one that it must prove."""
        node_id = self._dialed[0] if self._dialed is not None else self.engine.peer_node_id
        assert node_id is not None, "a link has an owner only once its peer is proven"
        return node_id

    @property
    def alpn(self) -> str:
        """The application protocol."""
        return self._dialed[1] if self._dialed is not None else self.engine.alpn or ""

    def attach(self, owner: LinkOwner) -> None:
        """Give the link its owner, who first gets what came before."""
        self._owner = owner
        events, self._early_events = self._early_events, []
        for event in events:
            owner.link_event(event)
        if self.error is not None:
            owner.link_closed(self.error)

    def paths(self) -> list[PathInfo]:
        """The peer's paths, the active one first."""
        return [] if self.remote is None else self.remote.paths()

    def path_counts(self) -> PathCounts:
        """What has happened to the peer's paths so far."""
        return PathCounts() if self.remote is None else self.remote.path_counts()

    def add_path_listener(self, listener: PathListener) -> None:
        """Call `listener` for each path event from now on."""
        if self.remote is not None:
            self.remote.add_listener(listener)

    def remove_path_listener(self, listener: PathListener) -> None:
        """Undo `add_path_listener`."""
        if self.remote is not None:
            self.remote.remove_listener(listener)

    def accept(self) -> None:
        """The application has taken an incoming connection: let the peer's handshake be confirmed."""
        self.engine.release_confirmation()
        self.driver.flush(self)

    def flush_soon(self) -> None:
        """Send what is queued at the end of this turn of the loop."""
        if not self.scheduled:
            self.driver.schedule(self)

    def close(self, code: int, reason: str) -> None:
        """Send CONNECTION_CLOSE with an application error code, now."""
        self._close(code, None, reason)

    def refuse(self, reason: str) -> None:
        """Close with CONNECTION_REFUSED."""
        self._close(CONNECTION_REFUSED, 0, reason)

    def abandon(self, error: Exception) -> None:
        """Give a dial up: say so to whoever may have begun to answer, and forget it at once."""
        if self.started and not self.engine.terminating:
            self._close(0, 0, "the dial was given up")
        self.driver.drop(self, error)

    def _close(self, code: int, frame_type: int | None, reason: str) -> None:
        # The whole frame must fit into one packet beside its headers.
        text = reason.encode()[:512].decode(errors="ignore")
        self.engine.close(error_code=code, frame_type=frame_type, reason_phrase=text)
        self.driver.flush(self)

    # For the driver

    def bind_remote(self, remote: Remote) -> None:
        """Follow a remote's choice of paths from now on; the link releases it at its end."""
        self.remote = remote
        remote.add_listener(self._path_event)

    def heard(self, path: Path, size: int, now: float) -> None:
        """Take note that `size` authentic bytes came from `path`."""
        self.last_path = path
        remote = self.remote
        if remote is None:
            if isinstance(self.dest, SinglePath) and isinstance(path, SocketAddr):
                self._heard_single(self.dest, path, size, now)
            return
        remote.quic_validated(path, now, size)
        if self._unconfirmed is not None and self.engine.acknowledged(self._unconfirmed[1]):
            remote.quic_confirmed(self._unconfirmed[0])
            self._unconfirmed = None
        if self.engine.mtu != self._told_mtu and remote.active_path is not None:
            self._told_mtu = self.engine.mtu
            remote.set_mtu(remote.active_path, self._told_mtu)

    def _heard_single(self, dest: SinglePath, path: SocketAddr, size: int, now: float) -> None:
        if path == dest.path:
            if self._unconfirmed is None:
                dest.credit = None
            elif self.engine.acknowledged(self._unconfirmed[1]):
                dest.credit = self._unconfirmed = None
            elif dest.credit is not None:
                dest.credit += 3 * size
        elif not self.is_client and self.handshake is not None:
            # A server does not move (RFC 9000 section 9); a client behind a NAT may be given another port.
            dest.moved(path, size)
            self.engine.path_changed(now)
            self._unconfirmed = (path, self.engine.next_packet())

    def release(self) -> None:
        """Let go of the remote."""
        if self.remote is not None:
            self.remote.remove_listener(self._path_event)
            self.remote.release()
            self.remote = None

    def deliver(self, event: quic_events.QuicEvent) -> None:
        """Hand an event to the owner, or keep it until there is one."""
        if self._owner is not None:
            self._owner.link_event(event)
        elif len(self._early_events) < MAX_EARLY_EVENTS:
            self._early_events.append(event)
        else:
            self.refuse("too much sent before the connection was accepted")

    def moved(self) -> None:
        """Tell the owner that something was sent, acknowledged or granted."""
        if self._owner is not None:
            self._owner.link_moved()

    def ended(self, error: Exception) -> None:
        """Tell everybody that the connection is over; only the first error counts."""
        if self.error is not None:
            return
        self.error = error
        self.over.set()
        if not self.ready.done():
            self.ready.set_exception(error)
            self.ready.exception()  # read once, so that nobody's absence is reported as a forgotten error
        if self._owner is not None:
            self._owner.link_closed(error)

    def _path_event(self, event: PathEvent) -> None:
        if isinstance(event, PathSelected):
            if self.engine.authentic_packets == 0:
                # A first flight that went to dead addresses must not be waited for. It is sent again as it was: a node
                # that hears of us with a mere PING refuses the connection.
                if self.started:
                    self.engine.path_restored(event.at)
                    self.flush_soon()
                return
            if event.old is None or event.old == event.path:
                return
            self.engine.path_changed(event.at)
            self._unconfirmed = (event.path, self.engine.next_packet())
        elif not self.started:
            return
        elif isinstance(event, PathRestored) and event.silent_for >= SHORT_SILENCE:
            self.engine.path_restored(event.at)
        elif isinstance(event, PathRestored):
            self.engine.probe_now(event.at, forget_backoff=True)
        elif isinstance(event, PathDoubted):
            # What was lost is sent again at once, on all paths that traffic takes now. If they are dead too, the
            # back-off goes on.
            self.engine.probe_now(event.at, forget_backoff=False)
        else:
            return
        self.flush_soon()
