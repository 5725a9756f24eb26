"""Where those meet who have no path to each other yet: the magic socket's side of a rendezvous."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from tom_connect.addr import SocketAddr
from tom_connect.holepunch.addrfilter import SOURCE_KNOCK, normal
from tom_connect.holepunch.core import DiscoCore
from tom_connect.holepunch.disco import KNOCK, CallMeMaybe, DiscoError, Mapping
from tom_connect.holepunch.puncher import OPENING_TTL
from tom_connect.keys import NodeId
from tom_connect.magicsock.remote import Remote
from tom_connect.magicsock.udp import UdpSocket

_Route = Callable[[SocketAddr], "tuple[UdpSocket, Any] | None"]
MAX_PORT: Final = 65535


class Doorstep:
    """Pings those whom we call, and lets those in who may be calling us."""

    def __init__(self, core: DiscoCore, *, clock: Callable[[], float], pump: Callable[[], None], route: _Route) -> None:
        self._core = core
        self._clock = clock
        self._pump = pump
        self._route = route

    def meet(self, remote: Remote) -> None:
        """A call of ours is being left for a node: ping its addresses until one answers, or `part`."""
        self._core.meetings.begin(remote.core, self._clock())
        self._pump()

    def part(self, remote: Remote) -> None:
        """Undo `meet`."""
        self._core.meetings.end(remote.node_id)

    def opened(self, remote: Remote) -> None:
        """Pings have gone to all addresses of the node that we know of."""
        self._core.meetings.opened(remote.node_id, self._clock())
        self._pump()

    def learned(self, remote: Remote, *, filtered: bool) -> None:
        """A node that we call says whether it can be reached at its addresses unasked."""
        self._core.meetings.learned(remote.node_id, self._clock(), filtered=filtered)
        self._pump()

    def sealed_call(self, remote: Remote) -> bytes:
        """What we have to say to a node that we call, for it alone."""
        return self._core.call_for(remote.node_id)

    def told(self, remote: Remote, attested: Sequence[str]) -> None:
        """A node that we call has been told what we have to say: probe ports at its attested IPs, if that can help."""
        self._core.meetings.told(remote.core, attested, self._clock())
        self._pump()

    def read_call(self, sealed: bytes, attested: Sequence[str]) -> tuple[NodeId, CallMeMaybe] | None:
        """Who calls, and what it says; None for what is forged, repeated or not for us, which is counted."""
        try:
            return self._core.meetings.read_call(sealed, attested, self._clock())
        except DiscoError as exc:
            self._core.counters[f"rendezvous: {exc.reason}"] += 1
            return None

    def called(self, remote: Remote, call: CallMeMaybe, attested: Sequence[str]) -> None:
        """Act upon the call of a node that we hold: ping its addresses, probe ports if that can help."""
        now = self._clock()
        self._core.called(remote.core, call, now)
        if (
            Mapping.DEPENDENT in (call.mapping, self._core.ports.mapping)
            and call.mapping is not self._core.ports.mapping
        ):
            self._core.meetings.told(remote.core, attested, now)
        self._pump()

    def set_outage(self, callback: Callable[[NodeId], None]) -> None:
        """Call `callback(node_id)` when traffic to a node finds no path any more. It must not block."""
        self._core.outage_told = callback

    def may_knock(self, addr: SocketAddr) -> bool:
        """Whether an address that somebody left who may be anybody can be knocked at."""
        return 0 < addr.port <= MAX_PORT and self._core.filter.probeable(normal(addr), SOURCE_KNOCK, trusted=False)

    def knock(self, addr: SocketAddr, *, opener: bool) -> bool:
        """Let an address in; False if it can't be sent to. `opener`: only our own NAT sees it."""
        route = self._route(normal(addr))
        if route is None:
            return False
        if opener:
            route[0].send_opener(KNOCK, route[1], OPENING_TTL)
            return True
        return route[0].send_one(KNOCK, route[1])
