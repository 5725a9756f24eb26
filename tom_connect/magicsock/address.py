"""The addresses that QUIC sees instead of real ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tom_connect.holepunch.path import Path
from tom_connect.keys import NodeId

if TYPE_CHECKING:
    from tom_connect.magicsock.remote import Remote


class NodeAddress:
    """The constant address of a remote node: the same object as long as its Remote is held. Compared by identity."""

    __slots__ = ("__weakref__", "node_id", "remote")

    def __init__(self, node_id: NodeId, remote: Remote) -> None:
        self.node_id = node_id
        self.remote = remote

    def __repr__(self) -> str:
        return f"NodeAddress({self.node_id.short()})"


class ProvisionalAddress:
    """Stands for a peer whose key is not proven yet: one for each path and destination connection id.

    What is sent to it goes to `path` alone. Once bound to a node (`node` is set), it goes where that node's
    traffic goes, so QUIC may keep it for the life of the connection. Compared by identity.
    """

    __slots__ = ("__weakref__", "dcid", "node", "path")

    def __init__(self, path: Path, dcid: bytes) -> None:
        self.path = path
        self.dcid = dcid
        self.node: NodeAddress | None = None

    def __repr__(self) -> str:
        return f"ProvisionalAddress({self.path}, {self.dcid.hex()})"
