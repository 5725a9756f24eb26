"""When one path is doubted, how often it is asked then, and that a stall of our own is not blamed on it."""

from __future__ import annotations

import attrs
import pytest

from tom_connect.addr import SocketAddr
from tom_connect.holepunch import pathrules as rules
from tom_connect.holepunch.events import PathDoubted, PathEvent
from tom_connect.holepunch.paths import RemotePaths
from tom_connect.holepunch.pathstate import PathState
from tom_connect.keys import SecretKey

SIZE = 1200


@attrs.define
class Owner:
    """Keeps pings and events, and lets time pass."""

    now: float = 100.0
    pings: list[float] = attrs.Factory(list)
    events: list[PathEvent] = attrs.Factory(list)
    selector: None = None

    def ping(self, _remote: RemotePaths, _state: PathState, now: float) -> bool:
        self.pings.append(now)
        return True

    def emit(self, event: PathEvent) -> None:
        self.events.append(event)

    def arm(self, remote: RemotePaths, due: float) -> None:
        remote.due = min(remote.due, due)

    def outage(self, _remote: RemotePaths, _now: float) -> None:
        pass

    def run(self, remote: RemotePaths, seconds: float) -> None:
        """Let time pass, with every tick on time."""
        end = self.now + seconds
        while remote.due <= end:
            self.now = max(self.now, remote.due)
            remote.tick(self.now)
        self.now = end

    @property
    def doubts(self) -> list[float]:
        """When the path was doubted."""
        return [event.at for event in self.events if isinstance(event, PathDoubted)]


def in_use(rtt: float) -> tuple[Owner, RemotePaths]:
    """A node with one path that answers after `rtt` seconds, measured three times, and a packet that asks under way."""
    owner = Owner()
    remote = RemotePaths(SecretKey(bytes(32)).node_id, owner, follows=False)
    remote.hold(owner.now)
    state = remote.add(SocketAddr("192.0.2.1", 9), "test", owner.now, given=True)
    assert state is not None
    for _ in range(3):
        owner.run(remote, rtt)
        remote.pong_received(state, rtt, owner.now)
        remote.quic_heard(state.path, owner.now, SIZE)
    owner.pings.clear()
    remote.sent(owner.now)
    return owner, remote


@pytest.mark.parametrize("rtt", [0.01, 0.1, 0.5, 1.0, 3.0])
def test_a_path_is_doubted_after_a_round_trip_and_not_before(rtt: float) -> None:
    """However long that is; and it is asked so often that some answers decide, not so often that they crowd the way."""
    owner, remote = in_use(rtt)
    sent = owner.now
    owner.run(remote, 1.05 * rtt if rtt > rules.DOUBT_AFTER else rules.DOUBT_AFTER - 0.01)
    assert not owner.doubts
    owner.run(remote, 0.5 * rtt + rules.ACTIVE_TICK)
    (doubted,) = owner.doubts
    assert doubted == pytest.approx(sent + max(1.25 * rtt, rules.DOUBT_AFTER), abs=0.01)
    owner.now = doubted
    owner.pings.clear()
    owner.run(remote, 1.05 * rtt)
    assert not remote.in_outage
    assert len(owner.pings) <= 1 + 1.05 * rtt / max(rules.DOUBT_PING, rtt / 2)
    owner.run(remote, 2 * rtt + rules.LEAVE_AFTER[1])
    assert remote.in_outage


def test_a_stall_of_our_own_is_not_blamed_on_a_path() -> None:
    """A tick that comes seconds late lets what has arrived be read before anything is judged; silence that lasts is
    doubted all the same."""
    owner, remote = in_use(0.01)
    owner.now += 3.0
    remote.tick(owner.now)
    assert not owner.doubts
    remote.quic_heard(SocketAddr("192.0.2.1", 9), owner.now, SIZE)
    owner.run(remote, 0.3)
    assert not owner.doubts
    remote.sent(owner.now)
    sent = owner.now
    owner.now += 3.0
    remote.tick(owner.now)
    owner.run(remote, 1.0)
    (doubted,) = owner.doubts
    assert doubted < sent + 3.0 + rules.DOUBT_AFTER


def test_a_stall_in_doubt_is_no_outage() -> None:
    """Nor is a path left for the time in which we stood still."""
    owner, remote = in_use(0.01)
    owner.run(remote, rules.DOUBT_AFTER + 0.1)
    assert owner.doubts
    owner.now += 5.0
    remote.tick(owner.now)
    assert not remote.in_outage
    owner.run(remote, rules.LEAVE_AFTER[1])
    assert remote.in_outage
