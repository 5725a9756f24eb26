"""One remote node as QUIC and the endpoint meet it."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from tom_connect.abc import PathInfo
from tom_connect.addr import SocketAddr
from tom_connect.holepunch.events import PathEvent
from tom_connect.holepunch.path import Path
from tom_connect.keys import NodeId
from tom_connect.magicsock.address import NodeAddress

PathListener = Callable[[PathEvent], None]


class Remote:
    """The paths to one node. Made by `MagicSocket.remote`, which acquires it; `release` once for each."""

    node_id: NodeId
    address: NodeAddress
    """What QUIC sends to."""

    def release(self) -> None:
        """Let go; when nobody holds it, it is kept for a while and then forgotten."""
        raise NotImplementedError

    def add_candidates(self, addrs: Iterable[SocketAddr], source: str, *, trusted: bool) -> None:
        """Tell of addresses at which the node may be; they are probed at once.

        `trusted`: the caller of `connect` gave them, so QUIC may use them before they have answered; others only after
        an authenticated pong. `source` is a word for reports. What the address filter refuses is counted and left out.
        """
        raise NotImplementedError

    def quic_validated(self, path: Path, now: float) -> None:
        """QUIC authenticated a packet of this node that came from `path`. Cheap: call it for every batch."""
        raise NotImplementedError

    def usable(self) -> bool:
        """Whether QUIC packets sent now would go anywhere."""
        raise NotImplementedError

    async def wait_usable(self) -> None:
        """Return when `usable()` is true. Never raises but EndpointClosedError; put a time-out around it."""
        raise NotImplementedError

    def paths(self) -> list[PathInfo]:
        """Every known path, the active one first."""
        raise NotImplementedError

    def add_listener(self, listener: PathListener) -> None:
        """Call `listener(event)` in the loop's thread for every path event from now on. It must not raise or block."""
        raise NotImplementedError

    def remove_listener(self, listener: PathListener) -> None:
        """Undo `add_listener`; unknown listeners are ignored."""
        raise NotImplementedError
