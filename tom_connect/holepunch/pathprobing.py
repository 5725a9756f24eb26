"""When a path is pinged next, and when no more."""

from __future__ import annotations

from tom_connect.holepunch.pathrules import DOUBT_PING, PROBES, REPROBE, RETRY, STALE, UNPROVEN_PINGS
from tom_connect.holepunch.pathstate import PathState
from tom_connect.holepunch.puncher import beyond_nat


def ping_interval(state: PathState, *, speaks_disco: bool | None, doubted: bool, silent: bool) -> float:
    """Seconds from one unanswered ping of a path to the next.

    `doubted`: whether the path in use is; `silent`: none answers any more.
    """
    if speaks_disco is not False:
        if silent and (state.given or state.ever_proven):
            return max(RETRY, state.rtt or 0.0)
        if doubted and state.proven:
            return max(DOUBT_PING, (state.rtt or 0.0) / 2)
    if state.proven and speaks_disco:
        return max(RETRY, 3 * (state.rtt or 0.0))
    if state.attempts <= len(PROBES):
        return PROBES[state.attempts - 1]
    return REPROBE * (1 << min(state.attempts - len(PROBES) - 1, 3))


def given_up(state: PathState, now: float, *, traffic: bool, dialing: bool, silent: bool, punching: bool) -> bool:
    """Whether a candidate gets no more pings for now, until something changes or the next round of punching.

    `dialing`: no path was found yet; `silent`: none answers any more; `punching`: both ends look for a direct path.
    """
    if not state.given and not state.ever_proven:
        # While a dial waits for any path at all, the node may still be starting: it is asked on, ever more rarely.
        wanted = dialing or (silent and traffic)
        return state.lifetime_pings >= UNPROVEN_PINGS or (state.attempts >= len(PROBES) and not wanted)
    if state.attempts < len(PROBES) or dialing:
        return False
    if silent or not traffic or not beyond_nat(state.path) or (state.given and not punching):
        return not traffic
    # What answered a moment ago may do so again. Later, NATs have forgotten it, and a ping that nobody expects may
    # spoil the next round (see `puncher`).
    return state.heard is None or now - state.heard >= STALE
