"""What a change of the network means; sans-IO.

    quiet --something may have changed--> settling --quiet for `SETTLE`, or `LONGEST` over--> a look is wanted
    a look --same state--> quiet        a look --other state--> a change, minor or major; quiet

A change is major if packets to the Internet leave another way than before: another default route, another interface,
the address in use gone, its link lost or back, a machine that slept. All else is minor: a bridge of Docker's, a
temporary IPv6 address that comes beside the old one. `now` is in seconds of the monotonic clock.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import inf
from typing import Final

import attrs

from tom_connect.netreport.interfaces import NetworkState

SETTLE: Final = 0.05
"""Seconds of quiet after which the network is looked at: addresses and routes come in bursts."""
LONGEST: Final = 0.25
"""Seconds after the first of a burst at which it is looked at anyway."""
SLEPT: Final = 1.0
"""Seconds by which the boot-time clock gets ahead of the monotonic one that mean sleep; clock adjustments are below."""
LATE: Final = 5.0
"""Seconds that a timer is late where the machine slept or the process was stopped, rather than busy."""


@attrs.frozen
class NetworkChange:
    """The network is another one. `why`: what differs, in words; `slept`: seconds, if that is the reason."""

    state: NetworkState
    major: bool
    why: tuple[str, ...]
    slept: float = 0.0


class NetworkWatchCore:
    """Decides when to look at the network, and what the differences mean. `boot`: seconds of a clock that counts sleep
    too, None where there is none."""

    def __init__(self, state: NetworkState, now: float, boot: float | None = None) -> None:
        self.state = state
        self._first: float | None = None
        self._last = -inf
        self._without_link: set[int] = set()
        self._links: set[int] = set()
        self._slept = 0.0
        self._boot, self._checked = boot, now
        self._expected = inf

    def woken(self, now: float, links: Iterable[tuple[int, bool]] = ()) -> None:
        """Something may have changed. `links`: numbers of interfaces, and whether each has a link.

        A link that was lost and is back may lead elsewhere, even if no address or route differs.
        """
        if self._first is None:
            self._first = now
        self._last = now
        known = {address.index for address in self.state.addresses}
        for index, up in links:
            # Only the interfaces that we know can matter, so the sets stay as small as their list.
            if index in known and up is (index in self._without_link):
                self._links.add(index)
                (self._without_link.discard if up else self._without_link.add)(index)

    def next_look(self) -> float:
        """When a look is wanted, `inf` if nothing happened."""
        if self._first is None:
            return inf
        return min(self._last + SETTLE, self._first + LONGEST)

    def expect(self, due: float) -> None:
        """Say when `clocks` will be called next at the latest, so that being late can be told from being asleep."""
        self._expected = due

    def clocks(self, now: float, boot: float | None = None) -> float:
        """Compare the clocks; returns for how many seconds we slept since the last call, 0.0 if not.

        After sleep a look is wanted at once.
        """
        late = now - self._expected
        slept = 0.0
        if boot is not None and self._boot is not None:
            slept = (boot - self._boot) - (now - self._checked)
        if slept < SLEPT:
            slept = late if late >= LATE else 0.0
        self._boot, self._checked, self._expected = boot, now, inf
        if slept:
            self._slept += slept
            self._first = self._last = now - LONGEST
        return slept

    def looked(self, state: NetworkState, in_use: Iterable[str] = ()) -> NetworkChange | None:
        """Take what a look saw; None if all is as before. `in_use`: addresses that our own sockets are bound to."""
        before, self.state = self.state, state
        links, self._links = self._links, set()
        self._without_link &= {address.index for address in state.addresses}
        slept, self._slept = self._slept, 0.0
        self._first = None
        why = _major(before, state, links, in_use)
        if slept:
            why.append(f"slept {slept:.0f} s")
        if why:
            return NetworkChange(state, True, tuple(why), slept)
        if state == before:
            return None
        return NetworkChange(state, False, tuple(_minor(before, state)))


def _major(before: NetworkState, after: NetworkState, links: set[int], in_use: Iterable[str]) -> list[str]:
    why = []
    for family in (4, 6):
        old = next((route for route in before.routes if route.family == family), None)
        new = next((route for route in after.routes if route.family == family), None)
        if old != new:
            why.append(f"default route IPv{family}: {_via(old)} -> {_via(new)}")
    for ipv6 in (False, True):
        source = next((host for host in before.sources if (":" in host) == ipv6), None)
        target = next((host for host in after.sources if (":" in host) == ipv6), None)
        if source == target:
            owner, now = before.owner_of(source or ""), after.owner_of(source or "")
            if owner is not None and now is not None and owner.index != now.index:
                why.append(f"{source}: {owner.interface} is another interface now")
            elif owner is not None and owner.index in links:
                why.append(f"{owner.interface}: its link was lost or came back")
        elif not _beside(before, after, source, target):
            why.append(f"address in use: {source or 'none'} -> {target or 'none'}")
    for host in in_use:
        if (before.owner_of(host) is None) != (after.owner_of(host) is None):
            why.append(f"{host}, which we are bound to, {'is back' if after.owner_of(host) else 'is gone'}")
    return why


def _beside(before: NetworkState, after: NetworkState, source: str | None, target: str | None) -> bool:
    """Whether `target` came beside `source` on the same interface, as temporary IPv6 addresses do (RFC 8981)."""
    if source is None or target is None:
        return False
    old, kept, new = before.owner_of(source), after.owner_of(source), after.owner_of(target)
    return old is not None and old == kept and new is not None and new.index == old.index


def _via(route: object) -> str:
    interface, gateway = getattr(route, "interface", None), getattr(route, "gateway", "")
    return "none" if interface is None else f"{interface} {gateway}".rstrip()


def _minor(before: NetworkState, after: NetworkState) -> list[str]:
    old, new = set(before.addresses), set(after.addresses)
    added = [f"{a.host} on {a.interface} is new" for a in after.addresses if a not in old]
    removed = [f"{a.host} on {a.interface} is gone" for a in before.addresses if a not in new]
    return [*added, *removed] or ["another source address"]
