"""What a path is: the UDP address of a peer, or a peer at a relay."""

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


Path = SocketAddr | RelayPath
"""One way to reach a peer; a dictionary key."""
