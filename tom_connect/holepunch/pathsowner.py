"""What the paths of one node need from the core that gathers those of all."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

from tom_connect.abc import PathInfo
from tom_connect.holepunch.events import PathEvent
from tom_connect.holepunch.pathstate import PathState
from tom_connect.keys import NodeId

if TYPE_CHECKING:
    from tom_connect.holepunch.paths import RemotePaths


Selector = Callable[[NodeId, Sequence[PathInfo]], PathInfo | None]
"""Chooses among the proven paths to a node; None where it has no opinion."""


class PathsOwner(Protocol):
    """What the paths of a node need from whoever gathers them."""

    selector: Selector | None
    """What chooses in place of the built-in rule, which None leaves it to."""

    def ping(self, remote: RemotePaths, state: PathState, now: float) -> bool:
        """Send a ping; False if a limit forbids it."""

    def emit(self, event: PathEvent) -> None:
        """Report an event, after the present call."""

    def arm(self, remote: RemotePaths, due: float) -> None:
        """Call `tick` at `due`, unless it is due earlier already."""

    def outage(self, remote: RemotePaths, now: float) -> None:
        """No path answers any more: add what else may lead to the node."""
