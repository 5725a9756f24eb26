"""What happens to the paths of a remote node, as values."""

from __future__ import annotations

import attrs

from tom_connect.holepunch.path import Path, RelayPath
from tom_connect.keys import NodeId


@attrs.frozen
class PathEvent:
    """Something happened to a path of `node_id`. `at`: seconds of the socket's clock."""

    node_id: NodeId
    path: Path
    at: float


@attrs.frozen
class PathAdded(PathEvent):
    """A candidate is known. `source`: who named it (the caller's word, or "call-me-maybe", "peer", "quic")."""

    source: str


@attrs.frozen
class PathProven(PathEvent):
    """The node answered from there, so QUIC may use it. `by`: "disco" or "quic"; `rtt`: seconds, if measured."""

    by: str
    rtt: float | None


@attrs.frozen
class PathSelected(PathEvent):
    """Traffic goes to `path` from now on. `old` is the one before, None at first; `why` a few words."""

    old: Path | None
    why: str

    @property
    def lost_direct(self) -> bool:
        """Whether traffic had to leave a direct path for a relay, as when a NAT has forgotten its mappings."""
        return isinstance(self.path, RelayPath) and self.old is not None and not isinstance(self.old, RelayPath)


@attrs.frozen
class PathDoubted(PathEvent):
    """The path in use may be dead: it is asked, and traffic goes down another one as well. `why` a few words."""

    why: str


@attrs.frozen
class PathRestored(PathEvent):
    """The path in use, or one in its place, answers after `silent_for` seconds of silence or doubt."""

    silent_for: float


@attrs.frozen
class PathLost(PathEvent):
    """The node stopped to answer there, so QUIC leaves it; it is probed on, and may be proven again."""

    why: str


@attrs.frozen
class PathForgotten(PathEvent):
    """A candidate is given up: it never answered, or there are too many."""
