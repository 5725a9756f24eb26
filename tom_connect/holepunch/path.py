"""What a path is: the UDP address of a peer, by the main socket or by a further one, or a peer at a relay."""

from __future__ import annotations

import attrs

from tom_connect.addr import RelayUrl, SocketAddr
from tom_connect.keys import NodeId


@attrs.frozen
class RelayPath:
    """The way to a node through a relay: hashable, and equal wherever both parts are."""

    url: RelayUrl
    node_id: NodeId

    def __str__(self) -> str:
        return f"{self.url} ({self.node_id.short()})"


class ViaSocket(SocketAddr):
    """The UDP address of a peer by way of a further socket of ours: another path than the same address without it.

    `via` is the number by which the magic socket knows that socket.
    """

    via: int

    @classmethod
    def of(cls, addr: SocketAddr, via: int) -> ViaSocket:
        """The path to `addr` through the socket `via`."""
        path = cls(addr.host, addr.port)
        path.via = via
        return path

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ViaSocket) and tuple(self) == tuple(other) and self.via == other.via

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __hash__(self) -> int:
        return hash((self.host, self.port, self.via))


Path = SocketAddr | RelayPath
"""One way to reach a peer; a dictionary key."""
