"""The times and bounds by which paths live, each with its reason."""

from __future__ import annotations

from typing import Final

from tom_connect.holepunch.pathstate import PathState

TRAFFIC: Final = 10.0
"""Seconds after a send in which paths are kept proven; longer than a heartbeat, so that one always falls in."""
HEARTBEAT: Final = 5.0
"""Seconds between pings of a proven path: well below the 30 s after which NATs drop a mapping."""
RETRY: Final = 1.0
"""Seconds before a heartbeat that got no answer is sent again, at least; three RTT on slow paths."""
SECOND_SAMPLE: Final = 0.3
"""Seconds after the first pong until a second RTT sample is taken: the first includes route and ARP look-ups."""
LOST_AFTER: Final = 3
"""Unanswered pings after which a standby path is lost: at 5% loss one in 8,000 healthy ones."""
STANDBY: Final = 3
"""Proven paths kept ready besides the active one."""
PROBES: Final = (0.2, 0.4, 0.8, 1.6, 3.2)
"""Seconds after each ping of a candidate: quick at first, since the dial waits; over after 6 s, if there is a path."""
REPROBE: Final = 5.0
"""Seconds between later pings of candidates that the caller named or that once answered; doubles up to 40."""
UNPROVEN_PINGS: Final = 10
"""Pings that an address which others named and which never answered gets in all."""
ACTIVE_TICK: Final = 0.5
"""Seconds between looks at a path under traffic."""
DOUBT_AFTER: Final = 0.4
"""Seconds of silence at least after which a path under traffic is doubted, or 1.25 RTT: who doubts before an answer can
come does so all the time, and what is sent for it makes answers take longer still. With a tick the relay is asked
within half a second of silence wherever answers take no longer."""
MOST_PATIENCE: Final = 8
"""Times as long that silence may last, at most, where pings are answered and QUIC's packets are not."""
DOUBT_PING: Final = 0.25
"""Seconds between pings of a doubted path, half a round trip at least: three or four before the verdict, so that loss
does not decide it."""
LEAVE_AFTER: Final = (0.35, 0.8)
"""Bounds of the doubt after which a path is left for one that answers; between them, 1.5 RTT, and never less than 1.1.
With `DOUBT_AFTER` and a tick this stays under 2 s, up to 0.8 s of RTT."""
STALL: Final = 0.1
"""Seconds by which a tick may be late. Beyond that it was we who stood still: what has arrived meanwhile is not read
yet, and to blame all paths at once would keep us as busy as we were."""
STALE: Final = 20.0
"""Seconds without a word from the peer after which traffic begins in doubt: many NATs forget after 30 s."""
AT_EASE: Final = 0.5
"""Seconds after a doubt or a switch in which traffic of the peer on a worse path raises no doubt: packets are still on
their way. Grows with the patience below, since the peer may have its own reasons for that path."""
FOLLOW_AFTER: Final = 0.25
"""Seconds of the peer's traffic on another path, about as good, after which the end with the larger NodeId uses that
one too: with one path for both directions each end hears whether it works. Shorter than the time to doubt."""
OUTAGE: Final = 90.0
"""Seconds for which a silent peer is searched on every path; QUIC gives up about then too."""
MOVE_CREDIT: Final = 3
"""Bytes sent to an unconfirmed address for each that came from there (RFC 9000 section 8.1)."""
CONFIRMED_AFTER: Final = 3.0
"""Seconds of authentic packets after which a moved peer without disco is taken to be where they come from."""
FANOUT: Final = 6
"""Given addresses that get the first packets at once."""
RELAY_FANOUT: Final = 2
"""Relays among them, whatever the number of addresses."""
MAX_PATHS: Final = 32
MAX_OF_SOURCE: Final = 16
"""Candidates of one source: a record that names a thousand victims reaches sixteen."""
MAX_PEER_REFLEXIVE: Final = 8


def doubt_after(state: PathState) -> float:
    """Seconds of silence after which a path under traffic is doubted."""
    return max(1.25 * (state.rtt or 0.2), DOUBT_AFTER)


def leave_after(state: PathState) -> float:
    """Seconds of doubt after which a path is left for one that answers."""
    rtt = state.rtt or 0.2
    return max(min(max(1.5 * rtt, LEAVE_AFTER[0]), LEAVE_AFTER[1]), 1.1 * rtt)


def outage_after(state: PathState) -> float:
    """Seconds of doubt after which, if no path answers, there is none that does."""
    return max(LEAVE_AFTER[1], leave_after(state))
