"""The calls of ours that are out, and what belongs to them: see `meeting`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import inf
from typing import TYPE_CHECKING, Final

from tom_connect.addr import SocketAddr
from tom_connect.holepunch import disco
from tom_connect.holepunch.addrfilter import SOURCE_KNOCK
from tom_connect.holepunch.disco import CallMeMaybe, DiscoError
from tom_connect.holepunch.limits import KeyedBuckets
from tom_connect.holepunch.meeting import Meeting
from tom_connect.holepunch.path import Path
from tom_connect.holepunch.paths import RemotePaths
from tom_connect.holepunch.sealing import Opened
from tom_connect.keys import NodeId

if TYPE_CHECKING:
    from tom_connect.holepunch.core import DiscoCore

RATE: Final = 0.5
"""Pings a second, in the long run, to one address of nodes that we call, after `BURST` at once: only a ping that comes
after the node has opened gets in, and who named the address signed for it."""
BURST: Final = 40.0
ADDRESS_TABLE: Final = 1024
MAX_MEETINGS: Final = 64
"""Calls that are out at once; further ones are left without more pings than any candidate gets."""


class Meetings:
    """The meetings of a DiscoCore, by node."""

    def __init__(self, core: DiscoCore) -> None:
        self.buckets: KeyedBuckets[Path] = KeyedBuckets(RATE, BURST, ADDRESS_TABLE)
        """What one address may get, in place of what it may get otherwise."""
        self._core = core
        self._meetings: dict[NodeId, tuple[RemotePaths, Meeting]] = {}

    def begin(self, remote: RemotePaths, now: float) -> None:
        """A call is being left for a node to which no path leads: ping its addresses until one answers."""
        if len(self._meetings) >= MAX_MEETINGS and remote.node_id not in self._meetings:
            self._core.counters["meeting: too many"] += 1
            return
        meeting = Meeting()
        meeting.begin(now)
        self._meetings[remote.node_id] = (remote, meeting)
        self._core.arm(remote, now)

    def end(self, node_id: NodeId) -> None:
        """There is a path, or nobody wants one any more; unknown nodes are ignored."""
        self._meetings.pop(node_id, None)

    def on(self, remote: RemotePaths) -> bool:
        """Whether a call of ours is out."""
        return remote.node_id in self._meetings

    def opening(self, remote: RemotePaths, now: float) -> bool:
        """Whether pings must not reach the node's router yet."""
        known = self._meetings.get(remote.node_id)
        return known is not None and known[1].opening(now)

    def opened(self, node_id: NodeId, now: float) -> None:
        """Our NAT lets in what comes from the addresses of the node that are known."""
        known = self._meetings.get(node_id)
        if known is not None:
            known[1].opened(now)
            self._core.arm(known[0], known[1].due)

    def learned(self, node_id: NodeId, now: float, *, filtered: bool) -> None:
        """The node that we call says whether it can be reached at its addresses unasked."""
        known = self._meetings.get(node_id)
        if known is not None:
            known[1].learned(filtered=filtered, now=now)
            self._core.arm(known[0], known[1].due)

    def knocked(self, data: bytes, source: Path, now: float) -> None:
        """Somebody has opened towards us, as a node does that found our call, though anyone can send that."""
        if len(data) != len(disco.KNOCK) or data[1] != disco.VERSION:
            raise DiscoError("knock")
        self._core.counters["disco: knocks"] += 1
        for remote, meeting in list(self._meetings.values()):
            if not isinstance(source, SocketAddr):
                continue
            state = remote.paths.get(source)
            if state is None:
                # A NAT that gives each destination another port: nobody could have named this one.
                self._core.add_candidates(remote, (source,), SOURCE_KNOCK, now, trusted=False)
            elif not state.proven and meeting.knocked(now):
                remote.punch(now)
            elif not state.proven and state.next_ping > now:
                state.next_ping = now
                self._core.arm(remote, now)

    def told(self, remote: RemotePaths, attested: Iterable[str], now: float) -> None:
        """A node that we call, or that calls us, has our word, or we have its: probe ports where that can help."""
        core = self._core
        for ip in attested:
            core.ports.attested(remote.node_id, ip, now)
            direct = (path for path in remote.paths if isinstance(path, SocketAddr) and path.host == ip)
            core.ports.meet(remote.node_id, next(direct, SocketAddr(ip, 0)), now)
        core.arm(remote, now)

    def read_call(self, sealed: bytes, attested: Sequence[str], now: float) -> tuple[NodeId, CallMeMaybe]:
        """Open a call that somebody carried here; raises DiscoError for what is forged, repeated or none."""
        source = SocketAddr(attested[0] if attested else "0.0.0.0", 1)  # noqa: S104 - it came from nowhere in particular
        opened = self._core.sealer.open(sealed, source, now)
        message = disco.decode_message(opened.plain) if isinstance(opened, Opened) else None
        if not isinstance(opened, Opened) or not isinstance(message, CallMeMaybe):
            raise DiscoError("no call")
        return opened.sender, message

    def tick(self, remote: RemotePaths, now: float) -> None:
        """Do what is due for a node."""
        known = self._meetings.get(remote.node_id)
        if known is None:
            return
        meeting = known[1]
        if meeting.step(now):
            remote.punch(now)
        if meeting.due == inf:
            self.end(remote.node_id)
        else:
            self._core.arm(remote, meeting.due)
