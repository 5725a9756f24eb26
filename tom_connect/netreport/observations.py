"""What others say about our address, and what follows from it; sans-IO.

A witness may be wrong, or lie. An address counts as confirmed where two witnesses that do not depend on each other name
it, or where nobody contradicts the only one. What is not confirmed may still be tried by peers, but is not published.
Peers cost nothing to make up: all of them together count as one witness, and a single one as none.
"""

from __future__ import annotations

import enum
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Final

import attrs

from tom_connect.addr import SocketAddr, is_local
from tom_connect.holepunch.addrfilter import normal
from tom_connect.netreport.report import Mapping, Version

SERVER_TRUST: Final = 70.0
"""Seconds that a server's word counts: three times it may fail to answer."""
PEER_TRUST: Final = 120.0
SUSPECT_TRUST: Final = 5.0
"""Seconds that it still counts once the network may be another one: by then a server has answered twice over."""
MAX_WITNESSES: Final = 64
"""Servers and plugins: some times what one endpoint has."""
MAX_PEERS: Final = 32
"""All together count as one witness, so that more of them would tell nothing."""
MAX_REFLEXIVE: Final = 4
"""Addresses of one family that are told to peers; a NAT that maps to more is one that they can't use anyway."""
_PEERS: Final = "peers"


class Kind(enum.StrEnum):
    """How somebody came to know our address."""

    STUN = "stun"
    QAD = "qad"
    PLUGIN = "plugin"
    """A plugin's own finding, such as the vote of the DHT nodes that it talks to."""
    PEER = "peer"
    """The pong of a node that we talk to."""


@attrs.frozen
class Verdict:
    """What follows for one family. `reflexive`: best attested first; `confirmed`: fit to be published."""

    reflexive: tuple[SocketAddr, ...] = ()
    confirmed: tuple[SocketAddr, ...] = ()
    mapping: Mapping = Mapping.UNKNOWN
    nat: bool | None = None
    port_preserved: bool | None = None
    shifting: str | None = None
    """The IP address at which others see us where no two of them saw the same port."""


@attrs.define
class _Word:
    kind: Kind
    addr: SocketAddr
    origin: str
    at: float
    until: float
    suspect: bool = False


class Observations:
    """The newest word of each witness. `now`: seconds of one clock."""

    def __init__(self) -> None:
        self._words: dict[tuple[Kind, str, Version], _Word] = {}
        self.version = 0
        """Grows whenever there is another word, or one less."""

    def told(self, kind: Kind, witness: str, addr: SocketAddr, now: float, *, origin: str | None = None) -> bool:
        """Note what a witness says; True if it said otherwise before.

        `witness`: who was asked, such as a server's address; `origin`: those of one origin can't confirm each other.
        A port of 0 says that each destination sees another one.
        """
        addr = normal(addr)
        if addr.ip.is_unspecified or addr.ip.is_multicast:
            return False
        key = (kind, witness, _version(addr))
        known = self._words.get(key)
        if known is None and not self._room(kind):
            return False
        if known is None or known.addr != addr or known.suspect:
            self.version += 1
        lasting = {Kind.PLUGIN: float("inf"), Kind.PEER: PEER_TRUST}.get(kind, SERVER_TRUST)
        self._words[key] = _Word(kind, addr, origin or witness, now, now + lasting)
        return known is not None and known.addr != addr

    def _room(self, kind: Kind) -> bool:
        peers = sum(word.kind is Kind.PEER for word in self._words.values())
        return peers < MAX_PEERS if kind is Kind.PEER else len(self._words) - peers < MAX_WITNESSES

    def suspect(self, now: float, *, except_for: str | None = None) -> None:
        """The network may be another one: let all words run out soon that are not said again."""
        self.version += 1
        for key, word in self._words.items():
            if key[1] != except_for:
                word.suspect = True
                if word.kind is not Kind.PLUGIN:
                    word.until = min(word.until, now + SUSPECT_TRUST)

    def forget(self, kind: Kind, witness: str) -> None:
        """A witness has become unable to speak."""
        for version in (4, 6):
            if self._words.pop((kind, witness, version), None) is not None:
                self.version += 1

    def heard_from_peers(self) -> bool:
        """Whether a peer told us an address lately, which it can over UDP alone."""
        return any(word.kind is Kind.PEER for word in self._words.values())

    def expire(self, now: float) -> bool:
        """Let go of what does not count any more; True if there was something."""
        gone = [key for key, word in self._words.items() if word.until <= now]
        for key in gone:
            del self._words[key]
            self.version += 1
        return bool(gone)

    def get_timer(self) -> float | None:
        """When `expire` has something to do, None if never."""
        until = min((word.until for word in self._words.values()), default=float("inf"))
        return None if until == float("inf") else until

    def verdict(self, version: Version, local: Sequence[SocketAddr]) -> Verdict:
        """What follows for one family. `local`: our socket's addresses on this machine."""
        words = self._believed(version)
        shifting = {word.addr.host for word in words if word.addr.port == 0}
        support = _support(word for word in words if word.addr.port)
        alone = {word.addr for word in words if word.kind is Kind.PEER} - set(support)
        if not support:
            # Peers that don't agree, or one alone: better than nothing for other peers, not fit to be published.
            if shifting:
                return Verdict(mapping=Mapping.ENDPOINT_DEPENDENT, shifting=min(shifting))
            return self._with_local(Verdict(tuple(sorted(alone)[:MAX_REFLEXIVE])), local)
        ranked = sorted(support, key=lambda addr: (-len(support[addr]), addr))[:MAX_REFLEXIVE]
        agreed = [addr for addr in ranked if len(support[addr]) > 1]
        mapping = Mapping.UNKNOWN
        if agreed:
            confirmed = agreed
            mapping = Mapping.ENDPOINT_INDEPENDENT if len(agreed) == 1 else mapping
        elif any(addr.host in shifting for addr in ranked):
            confirmed, mapping = [], Mapping.ENDPOINT_DEPENDENT
        elif len(support) == 1:
            confirmed = ranked
            destinations = sum(word.addr == ranked[0] for word in words)
            if destinations > 1 or ranked[0] in local:
                mapping = Mapping.ENDPOINT_INDEPENDENT
        else:
            confirmed = []
            if len({addr.host for addr in support}) == 1:
                mapping = Mapping.ENDPOINT_DEPENDENT
        return self._with_local(Verdict(tuple(ranked), tuple(confirmed), mapping), local)

    @staticmethod
    def _with_local(verdict: Verdict, local: Sequence[SocketAddr]) -> Verdict:
        if not verdict.reflexive:
            return verdict
        ports = {addr.port for addr in local}
        best = verdict.confirmed or verdict.reflexive
        return attrs.evolve(
            verdict,
            nat=not any(addr in local for addr in best),
            port_preserved=best[0].port in ports if ports else None,
        )

    def _believed(self, version: Version) -> list[_Word]:
        words = [word for (_kind, _witness, of), word in self._words.items() if of == version]
        fresh = {word.addr for word in words if not word.suspect and word.kind in (Kind.STUN, Kind.QAD)}
        if fresh:
            # A plugin tells changes only, so its word from before a change stands until somebody knows better.
            words = [
                word for word in words if not (word.suspect and word.kind is Kind.PLUGIN and word.addr not in fresh)
            ]
        # A server in our own network sees another address of ours than one outside: that is no contradiction.
        return [word for word in words if not is_local(word.addr)] or words


def _support(words: Iterable[_Word]) -> dict[SocketAddr, set[str]]:
    """Each address with the independent origins that name it."""
    support: defaultdict[SocketAddr, set[str]] = defaultdict(set)
    peers: defaultdict[SocketAddr, set[str]] = defaultdict(set)
    for word in words:
        (peers if word.kind is Kind.PEER else support)[word.addr].add(word.origin)
    for addr, names in peers.items():
        if len(names) > 1:
            support[addr].add(_PEERS)
    return dict(support)


def _version(addr: SocketAddr) -> Version:
    return 6 if ":" in addr.host else 4


__all__ = ["Kind", "Observations", "Verdict"]
