"""Where QUIC packets go while the answer is not simply: down the path in use."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from tom_connect.holepunch.pathrules import FANOUT, RELAY_FANOUT
from tom_connect.holepunch.pathstate import PathState


def first_targets(paths: Collection[PathState]) -> tuple[PathState, ...]:
    """Where the first packets of a dial go, before any path has answered."""
    given = [state for state in paths if state.given]
    relays = [state for state in given if not state.direct][:RELAY_FANOUT]
    return tuple([state for state in given if state.direct][: FANOUT - len(relays)] + relays)


def doubted_targets(
    active: PathState, others: Sequence[PathState], paths: Collection[PathState], *, silent: bool, moved: bool
) -> tuple[PathState, ...]:
    """Where traffic goes while `active` is doubted: there, and down what stands in for it.

    That is the best of the `others` (proven ones, best first), and a relay, since direct paths often die together.
    `silent`: none answers any more, so all of them; `moved`: the peer speaks no disco, and may be where the caller said
    or where its packets came from.
    """
    relays = [state for state in paths if not state.direct and state.given]
    relays.sort(key=lambda state: (not state.proven, state.score(), state.added))
    targets = [active, *others[: len(others) if silent else 1], *relays[: RELAY_FANOUT if silent else 1]]
    if moved:
        targets.extend(state for state in paths if state.given or state.credit is not None)
    return tuple(dict.fromkeys(targets))[:FANOUT]
