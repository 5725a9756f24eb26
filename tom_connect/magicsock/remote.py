"""One remote node as QUIC and the endpoint meet it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import attrs

from tom_connect.abc import PathInfo
from tom_connect.addr import RelayUrl, SocketAddr
from tom_connect.exceptions import EndpointClosedError
from tom_connect.holepunch.events import PathEvent
from tom_connect.holepunch.path import Path
from tom_connect.holepunch.paths import RemotePaths
from tom_connect.holepunch.pathstate import PathState
from tom_connect.keys import NodeId
from tom_connect.magicsock.address import NodeAddress

if TYPE_CHECKING:
    from tom_connect.magicsock.socket import MagicSocket

PathListener = Callable[[PathEvent], None]


@attrs.frozen
class PathCounts:
    """How often traffic changed its path, the one in use was doubted, and none answered; why it is relayed now."""

    switches: int = 0
    doubts: int = 0
    outages: int = 0
    why_relayed: str | None = None


class Sender(Protocol):
    """What datagrams are given to: a UDP socket, or the relays."""

    def send(self, datagrams: Sequence[bytes], dest: Any) -> None:
        """Send datagrams to an address of the sender's kind."""

    def send_one(self, data: bytes, dest: Any) -> bool:
        """Send one; False if it was dropped."""


Route = tuple[Sender, Any]
"""What sends to a path, and the address that it wants."""


class Remote:
    """The paths to one node. Made by `MagicSocket.remote`, which acquires it; `release` once for each."""

    __slots__ = ("__weakref__", "_listeners", "_paths", "_sock", "_waiters", "address", "node_id", "routes", "version")

    def __init__(self, sock: MagicSocket, paths: RemotePaths) -> None:
        self.node_id: NodeId = paths.node_id
        self.address = NodeAddress(paths.node_id, self)
        """What QUIC sends to."""
        self.routes: tuple[tuple[Sender, Any, PathState], ...] = ()
        self.version = -1
        self._sock = sock
        self._paths = paths
        self._listeners: tuple[PathListener, ...] = ()
        self._waiters: set[asyncio.Future[None]] = set()

    def release(self) -> None:
        """Let go; when nobody holds it, it is kept for a while and then forgotten."""
        self._sock.release_remote(self)

    def add_candidates(self, addrs: Iterable[SocketAddr], source: str, *, trusted: bool) -> None:
        """Tell of addresses at which the node may be; they are probed at once.

        `trusted`: the caller of `connect` gave them, so QUIC may use them before they have answered; others only after
        an authenticated pong. `source` is a word for reports. What the address filter refuses is counted and left out.
        """
        self._sock.add_candidates(self, addrs, source, trusted=trusted)

    def withdraw_candidates(self, addrs: Iterable[SocketAddr], source: str) -> None:
        """Say that addresses which `source` has named are out of date: those that never answered lose their places."""
        self._sock.withdraw_candidates(self, addrs, source)

    def add_relays(self, urls: Iterable[RelayUrl], source: str, *, trusted: bool) -> None:
        """Tell of relays at which the node may be: they are connected to at once, and QUIC may use them.

        `trusted`: the caller of `connect` gave them, so they may be in our own networks.
        """
        self._sock.add_relays(self, urls, source, trusted=trusted)

    def quic_validated(self, path: Path, now: float, size: int = 1200) -> None:
        """QUIC authenticated `size` bytes of this node that came from `path`. Cheap: call it for every batch.

        Where the peer speaks no disco and moves, three times `size` may be sent to its new address until
        `quic_confirmed`, or until it has been heard from there for three seconds.
        """
        paths = self._paths
        paths.quic_heard(path, now, size)
        self._sock.pump_if_needed(paths)

    def quic_confirmed(self, path: Path) -> None:
        """QUIC got an acknowledgment of something that went to `path` after it was selected."""
        self._paths.quic_confirmed(path)

    def set_mtu(self, path: Path, mtu: int) -> None:
        """Say how many bytes a datagram on `path` may have, for those who look at `paths()`."""
        state = self._paths.paths.get(path)
        if state is not None:
            state.mtu = mtu

    @property
    def active_path(self) -> Path | None:
        """The path that carries traffic; None before one is proven."""
        active = self._paths.active
        return None if active is None else active.path

    @property
    def speaks_disco(self) -> bool | None:
        """Whether the node answers our pings; None before that is known."""
        return self._paths.speaks_disco

    def usable(self) -> bool:
        """Whether QUIC packets sent now would go anywhere."""
        if self.version != self._paths.version:
            self.refresh()
        return bool(self.routes)

    async def wait_usable(self) -> None:
        """Return when `usable()` is true. Never raises but EndpointClosedError; put a time-out around it."""
        while not self.usable():
            if self._sock.closed:
                raise EndpointClosedError("the endpoint was closed while a path was waited for")
            waiter = asyncio.get_running_loop().create_future()
            self._waiters.add(waiter)
            self._sock.waiting.add(self)
            try:
                await waiter
            finally:
                self._waiters.discard(waiter)
                if not self._waiters:
                    self._sock.waiting.discard(self)

    def paths(self) -> list[PathInfo]:
        """Every known path, the active one first."""
        return self._paths.infos(self._sock.now())

    def path_counts(self) -> PathCounts:
        """What has happened to the paths so far, over all connections with the node while it was held."""
        paths = self._paths
        return PathCounts(paths.switches, paths.doubts, paths.outages, self._sock.why_relayed(self))

    def add_listener(self, listener: PathListener) -> None:
        """Call `listener(event)` in the loop's thread for every path event from now on. It must not raise or block."""
        self._listeners = (*self._listeners, listener)

    def remove_listener(self, listener: PathListener) -> None:
        """Undo `add_listener`; unknown listeners are ignored."""
        self._listeners = tuple(known for known in self._listeners if known != listener)

    def __repr__(self) -> str:
        return f"Remote({self.node_id.short()}, {self.active_path or 'no path'})"

    # --- for MagicSocket --------------------------------------------------------------------------------------

    @property
    def core(self) -> RemotePaths:
        """The state machine underneath."""
        return self._paths

    @property
    def listeners(self) -> tuple[PathListener, ...]:
        """Whom to tell of events."""
        return self._listeners

    def refresh(self) -> None:
        """Work out the sockets and system addresses of the present targets."""
        paths = self._paths
        self.version = paths.version
        routes = ((self._sock.route(state.path), state) for state in paths.targets)
        self.routes = tuple((route[0], route[1], state) for route, state in routes if route is not None)

    def wake(self) -> None:
        """Let `wait_usable` look again."""
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)
