"""Which candidates are kept where there are too many."""

from __future__ import annotations

from collections.abc import Iterable
from math import inf

from tom_connect.holepunch.addrfilter import SOURCE_CALL, SOURCE_PEER, SOURCE_QUIC
from tom_connect.holepunch.path import Path
from tom_connect.holepunch.pathrules import MAX_OF_SOURCE, MAX_PATHS, MAX_PEER_REFLEXIVE
from tom_connect.holepunch.pathstate import PathState


def make_room(paths: dict[Path, PathState], source: str, *, given: bool, active: PathState | None) -> bool:
    """Make room in `paths` for one more candidate that `source` names; False if those that are there count more."""
    limit = MAX_PEER_REFLEXIVE if source in (SOURCE_PEER, SOURCE_QUIC) else MAX_OF_SOURCE
    same = [state for state in paths.values() if state.source == source]
    if len(same) >= limit:
        fresh = given or source in (SOURCE_CALL, SOURCE_PEER, SOURCE_QUIC)
        if not _evict(paths, same, fresh=fresh, active=active):
            return False
    return len(paths) < MAX_PATHS or _evict(paths, list(paths.values()), fresh=given, active=active)


def _evict(paths: dict[Path, PathState], states: Iterable[PathState], *, fresh: bool, active: PathState | None) -> bool:
    """Forget an unproven path that gets no more pings; if need be (`fresh`) the oldest unproven one."""
    idle = [s for s in states if not s.proven and s is not active and (not s.given or fresh)]
    victims = [s for s in idle if s.next_ping == inf] or (idle if fresh else [])
    if not victims:
        return False
    del paths[min(victims, key=lambda s: (s.given, s.ever_proven, s.added)).path]
    return True
