"""Where the nodes are to which we have a direct path."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from tom_connect.addr import SocketAddr
from tom_connect.holepunch.events import PathEvent, PathForgotten, PathLost, PathSelected
from tom_connect.keys import NodeId
from tom_connect.watch import Watch

MAX_PEERS: Final = 16
"""Addresses that are told; whoever wants to know others needs a few only."""


class DirectPeers:
    """Follows path events; `addrs` holds the addresses in use, newest last, each proven by its node's key."""

    def __init__(self) -> None:
        self.addrs: Watch[tuple[SocketAddr, ...]] = Watch(())
        self._used: OrderedDict[NodeId, SocketAddr] = OrderedDict()

    def note(self, event: PathEvent) -> None:
        """Take an event; cheap for those that change nothing."""
        if isinstance(event, PathSelected):
            self._used.pop(event.node_id, None)
            # Not those reached through a further socket: what is sent by the main one would not get in there.
            if type(event.path) is SocketAddr:
                self._used[event.node_id] = event.path
                if len(self._used) > MAX_PEERS:
                    self._used.popitem(last=False)
        elif isinstance(event, (PathLost, PathForgotten)):
            if self._used.get(event.node_id) != event.path:
                return
            del self._used[event.node_id]
        else:
            return
        self._tell()

    def forget(self, node_id: NodeId) -> None:
        """The last connection with a node has ended."""
        if self._used.pop(node_id, None) is not None:
            self._tell()

    def _tell(self) -> None:
        self.addrs.set(tuple(self._used.values()))
