"""NATs and firewalls as state machines: which packets they pass, and what they make of their addresses (RFC 4787)."""

from __future__ import annotations

import enum
import random
from typing import ClassVar, Final

import attrs

from tom_connect.addr import SocketAddr

MAX_ENTRIES: Final = 4096
"""Mappings of one NAT, and peers that one mapping lets in: the oldest give way, as in small routers."""


class Depends(enum.Enum):
    """What a mapping or a filter depends on (RFC 4787 sections 4.1 and 5)."""

    NOTHING = "endpoint-independent"
    ADDRESS = "address-dependent"
    ADDRESS_AND_PORT = "address- and port-dependent"

    def key(self, remote: SocketAddr) -> SocketAddr | str | None:
        """What of a remote address makes a difference."""
        if self is Depends.NOTHING:
            return None
        return remote.host if self is Depends.ADDRESS else remote


@attrs.frozen
class Nat:
    """A kind of NAT.

    `preserve`: a port keeps its number outside where that is free; if not, and always where it is False, one of
    `ports` (first and last) is taken at random. `hairpin`: two hosts inside may meet at their outside addresses.
    `timeout`: seconds of silence after which a mapping goes. `inbound_refreshes`: packets from outside count as life.
    `tracks_unsolicited`: a refused packet keeps its sender's address and our port taken for 30 s, so that a packet
    of ours to there leaves from another port (a Linux router does so if it takes unsolicited packets for itself).
    """

    mapping: Depends = Depends.NOTHING
    filtering: Depends = Depends.ADDRESS_AND_PORT
    preserve: bool = True
    ports: tuple[int, int] = (1024, 65535)
    hairpin: bool = False
    timeout: float = 120.0
    inbound_refreshes: bool = True
    tracks_unsolicited: bool = False

    OPEN: ClassVar[Nat]
    """Endpoint-independent mapping and filtering ("full cone")."""
    RESTRICTED: ClassVar[Nat]
    """Endpoint-independent mapping, address-dependent filtering."""
    MODERATE: ClassVar[Nat]
    """Endpoint-independent mapping, address- and port-dependent filtering: the usual home router."""
    STRICT: ClassVar[Nat]
    """Address- and port-dependent mapping to random ports, and filtering ("symmetric")."""


Nat.OPEN = Nat(filtering=Depends.NOTHING)
Nat.RESTRICTED = Nat(filtering=Depends.ADDRESS)
Nat.MODERATE = Nat()
Nat.STRICT = Nat(mapping=Depends.ADDRESS_AND_PORT, preserve=False)

UNSOLICITED: Final = 30.0
"""Seconds for which a packet without an answer is remembered (nf_conntrack_udp_timeout)."""


@attrs.define(eq=False)
class _Mapping:
    key: object
    inner: SocketAddr
    port: int
    expires: float = 0.0
    permitted: dict[object, float] = attrs.field(factory=dict)
    """Until when which peers are let in."""


class NatBox:
    """The state of one NAT. Inner addresses are of its hosts; it only knows ports of its outer address."""

    def __init__(self, kind: Nat, rng: random.Random) -> None:
        self.kind = kind
        self._rng = rng
        self._limit = min(MAX_ENTRIES, (kind.ports[1] - kind.ports[0] + 1) // 2)
        self._preserve = kind.preserve
        self._by_key: dict[object, _Mapping] = {}
        self._by_port: dict[int, _Mapping] = {}
        self._unsolicited: dict[tuple[int, SocketAddr], float] = {}

    def __len__(self) -> int:
        return len(self._by_key)

    def rebind(self, *, new_ports: bool) -> None:
        """Forget every mapping; with `new_ports` no port keeps its number from now on."""
        self._by_key.clear()
        self._by_port.clear()
        self._unsolicited.clear()
        if new_ports:
            self._preserve = False

    def outbound(self, inner: SocketAddr, remote: SocketAddr, now: float) -> int:
        """The outer port from which a packet of `inner` to `remote` leaves; it opens the way back."""
        kind = self.kind
        key: object = (inner, kind.mapping.key(remote))
        mapping = self._live(key, now) or self._make(key, inner, now)
        if self._unsolicited and self._unsolicited.get((mapping.port, remote), 0.0) > now:
            key = (inner, remote, "taken")
            mapping = self._live(key, now) or self._make(key, inner, now, preserve=False)
        mapping.expires = now + kind.timeout
        if kind.filtering is not Depends.NOTHING:
            permitted = mapping.permitted
            if len(permitted) >= MAX_ENTRIES:
                del permitted[next(iter(permitted))]
            permitted[kind.filtering.key(remote)] = now + kind.timeout
        return mapping.port

    def inbound(self, port: int, remote: SocketAddr, now: float) -> SocketAddr | None:
        """The inner address that a packet from `remote` to our `port` is for; None if it is refused."""
        kind = self.kind
        mapping = self._by_port.get(port)
        if mapping is not None and mapping.expires > now:
            key = kind.filtering.key(remote)
            if kind.filtering is Depends.NOTHING or mapping.permitted.get(key, 0.0) > now:
                if kind.inbound_refreshes:
                    mapping.expires = now + kind.timeout
                    if kind.filtering is not Depends.NOTHING:
                        mapping.permitted[key] = mapping.expires
                return mapping.inner
        if kind.tracks_unsolicited:
            if len(self._unsolicited) >= MAX_ENTRIES:
                del self._unsolicited[next(iter(self._unsolicited))]
            self._unsolicited[port, remote] = now + UNSOLICITED
        return None

    def _live(self, key: object, now: float) -> _Mapping | None:
        mapping = self._by_key.get(key)
        if mapping is not None and mapping.expires <= now:
            self._drop(mapping)
            return None
        return mapping

    def _make(self, key: object, inner: SocketAddr, now: float, *, preserve: bool = True) -> _Mapping:
        if len(self._by_key) >= self._limit:
            dead = [old for old in self._by_key.values() if old.expires <= now]
            for old in dead or [next(iter(self._by_key.values()))]:
                self._drop(old)
        port = inner.port
        if not (preserve and self._preserve and self._free(port, now)):
            while not self._free(port := self._rng.randint(*self.kind.ports), now):
                pass
        mapping = self._by_key[key] = self._by_port[port] = _Mapping(key, inner, port)
        return mapping

    def _free(self, port: int, now: float) -> bool:
        mapping = self._by_port.get(port)
        if mapping is not None and mapping.expires <= now:
            self._drop(mapping)
            return True
        return mapping is None

    def _drop(self, mapping: _Mapping) -> None:
        del self._by_key[mapping.key]
        del self._by_port[mapping.port]


class Firewall:
    """Lets in what answers, as IPv6 routers of homes do (RFC 6092); addresses stay as they are."""

    def __init__(self, filtering: Depends = Depends.ADDRESS_AND_PORT, timeout: float = 120.0) -> None:
        self.filtering = filtering
        self.timeout = timeout
        self._flows: dict[tuple[SocketAddr, object], float] = {}

    def rebind(self) -> None:
        """Forget every flow."""
        self._flows.clear()

    def outbound(self, inner: SocketAddr, remote: SocketAddr, now: float) -> None:
        """A packet leaves: what comes back may enter."""
        if len(self._flows) >= MAX_ENTRIES:
            del self._flows[next(iter(self._flows))]
        self._flows[inner, self.filtering.key(remote)] = now + self.timeout

    def inbound(self, inner: SocketAddr, remote: SocketAddr, now: float) -> bool:
        """Whether a packet may enter."""
        key = (inner, self.filtering.key(remote))
        if self._flows.get(key, 0.0) <= now:
            return False
        self._flows[key] = now + self.timeout
        return True
