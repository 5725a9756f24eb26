"""What has a say in which path carries the traffic beside `pathstate.best`: a plugin, and the peer."""

from __future__ import annotations

from collections.abc import Collection
from math import inf

import attrs

from tom_connect.holepunch import pathrules as rules
from tom_connect.holepunch.pathsowner import Selector
from tom_connect.holepunch.pathstate import PathState
from tom_connect.keys import NodeId


@attrs.define(eq=False)
class Lead:
    """The peer's traffic on another path than ours, which we follow once it lasts."""

    active_spoke: float = -inf
    """When the path in use was last heard."""
    _to: PathState | None = None
    _since: float = -inf

    def followed(self, state: PathState, now: float) -> bool:
        """The peer's traffic comes on `state`: whether it has, and nowhere else, for long enough."""
        if state is not self._to or self.active_spoke > self._since:
            self._to, self._since = state, now
            return False
        if now - self._since < rules.FOLLOW_AFTER:
            return False
        self._to = None
        return True


def chosen_by(
    select: Selector | None, node_id: NodeId, paths: Collection[PathState], active: PathState | None, now: float
) -> PathState | None:
    """The proven path that a plugin chooses; None if there is none, no choice, or it has no opinion."""
    if select is None:
        return None
    proven = [state for state in paths if state.proven]
    if len(proven) < 2:
        return None
    infos = {state.info(now, active=state is active): state for state in proven}
    choice = select(node_id, list(infos))
    return infos.get(choice) if choice is not None else None


def kept(active: PathState | None, paths: Collection[PathState]) -> list[PathState]:
    """The path in use and the best others, which are kept proven."""
    others = [state for state in paths if state.proven and state is not active]
    others.sort(key=lambda state: (not state.direct, state.score(), state.added))
    return ([active] if active is not None else []) + others[: rules.STANDBY]
