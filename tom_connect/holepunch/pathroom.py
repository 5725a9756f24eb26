"""Which candidates are kept where there are too many."""

from __future__ import annotations

from collections.abc import Iterable
from math import inf

from tom_connect.holepunch.addrfilter import SOURCE_CALL, SOURCE_PEER, SOURCE_QUIC
from tom_connect.holepunch.path import Path
from tom_connect.holepunch.pathrules import MAX_OF_SOURCE, MAX_PATHS, MAX_PEER_REFLEXIVE
from tom_connect.holepunch.pathstate import PathState


def make_room(
    paths: dict[Path, PathState], source: str, *, given: bool, active: PathState | None
) -> list[PathState] | None:
    """What has to be forgotten for one more candidate that `source` names; None if what is there counts more."""
    limit = MAX_PEER_REFLEXIVE if source in (SOURCE_PEER, SOURCE_QUIC) else MAX_OF_SOURCE
    same = [state for state in paths.values() if state.source == source]
    if len(same) >= limit:
        victim = _victim(same, fresh=given or source in (SOURCE_CALL, SOURCE_PEER, SOURCE_QUIC), active=active)
    elif len(paths) >= MAX_PATHS:
        victim = _victim(paths.values(), fresh=given, active=active)
    else:
        return []
    return None if victim is None else [victim]


def _victim(states: Iterable[PathState], *, fresh: bool, active: PathState | None) -> PathState | None:
    """An unproven path that gets no more pings; if need be (`fresh`) the oldest unproven one."""
    idle = [s for s in states if not s.proven and s is not active and (not s.given or fresh)]
    victims = [s for s in idle if s.next_ping == inf] or (idle if fresh else [])
    return min(victims, key=lambda s: (s.given, s.ever_proven, s.added), default=None)
