"""How port probing reaches nodes, sockets and relays: its owner, on behalf of the disco core."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from tom_connect.addr import SocketAddr
from tom_connect.holepunch import disco
from tom_connect.holepunch.disco import Ping, PortProbing
from tom_connect.holepunch.path import RelayPath, ViaSocket
from tom_connect.holepunch.pathstate import PathState
from tom_connect.keys import NodeId

if TYPE_CHECKING:
    from tom_connect.holepunch.core import DiscoCore


class PortSockets(Protocol):
    """Opens and closes further sockets for port probing; `ViaSocket` paths lead through them."""

    def open(self, via: int) -> bool:
        """Open one under that number; False if there can't be more."""

    def close(self, via: int) -> None:
        """Close it; unknown numbers are ignored."""


class PortsLink:
    """The `PortsOwner` of a DiscoCore."""

    def __init__(self, core: DiscoCore, random: Callable[[int], bytes]) -> None:
        self.sockets: PortSockets | None = None
        """Who opens further sockets; None, where there can be none."""
        self.attest: Callable[[RelayPath], None] = lambda _path: None
        """Called to ask a relay from which IP a node comes; the answer goes to `DiscoCore.attested`."""
        self._core = core
        self._random = random

    def _active(self, node_id: NodeId) -> PathState | None:
        paths = self._core.paths_of(node_id)
        return paths.active if paths is not None else None

    def tell(self, node_id: NodeId, message: PortProbing) -> None:
        """Send a step on the path in use."""
        active = self._active(node_id)
        if active is not None and active.proven:
            packet, _stamp = self._core.sealer.seal(node_id, disco.encode_message(message))
            self._core.outbox.append((active.path, packet))

    def probe(self, node_id: NodeId, path: SocketAddr, *, ttl: int | None = None) -> None:
        """Send a ping that nobody waits for."""
        ping = Ping(self._random(disco.TX_SIZE))
        packet, _stamp = self._core.sealer.seal(node_id, disco.encode_message(ping))
        if ttl is not None and self._core.openers is not None:
            self._core.openers.append((path, packet, ttl))
        else:
            self._core.outbox.append((path, packet))

    def open_socket(self, via: int) -> bool:
        """Open a further socket."""
        return self.sockets is not None and self.sockets.open(via)

    def close_socket(self, via: int) -> None:
        """Close a further socket."""
        if self.sockets is not None:
            self.sockets.close(via)

    def drop_path(self, node_id: NodeId, path: ViaSocket, now: float) -> None:
        """Forget a path whose NAT mapping is gone for good."""
        paths = self._core.paths_of(node_id)
        if paths is not None:
            paths.drop(path, now)

    def ask_attestation(self, node_id: NodeId) -> None:
        """Ask the relay in use."""
        active = self._active(node_id)
        if active is not None and isinstance(active.path, RelayPath):
            self.attest(active.path)
