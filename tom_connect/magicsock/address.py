"""The addresses that QUIC sees instead of real ones."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from tom_connect.addr import SocketAddr
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


UNPROVEN_BYTES: Final = 3 * 1200
"""Bytes that may go to an address before anything authentic came from there: a first flight and two repetitions."""


class SinglePath:
    """One UDP address of a peer: what is sent goes there and nowhere else, whatever other paths to the node there are.

    `credit`: bytes that may still go there while the peer has not shown that it is there; None once it has.
    """

    __slots__ = ("__weakref__", "credit", "path")

    def __init__(self, path: SocketAddr, credit: int | None = UNPROVEN_BYTES) -> None:
        self.path = path
        self.credit = credit

    def takes(self, size: int) -> bool:
        """Count `size` bytes that are to go there; whether they may."""
        if self.credit is None:
            return True
        if size > self.credit:
            return False
        self.credit -= size
        return True

    def moved(self, path: SocketAddr, size: int) -> None:
        """The peer sends from another address now, `size` authentic bytes so far: answer there (RFC 9000 section 9.3).

        Until it acknowledges something that went there, no more than three times what it sends.
        """
        self.path = path
        self.credit = 3 * size

    def __repr__(self) -> str:
        return f"SinglePath({self.path})"
