"""A gateway in memory that speaks PCP and NAT-PMP, and a bad network to it, on a virtual clock."""

from __future__ import annotations

import heapq
import ipaddress
import itertools
import random
from collections import Counter
from collections.abc import Callable
from typing import Any

import attrs

from tom_connect.addr import SocketAddr
from tom_portmap.core.asking import NatPmpAsking, PcpAsking
from tom_portmap.core.exchange import Exchange
from tom_portmap.core.keeper import Action, Keeper, Map, Probe
from tom_portmap.core.values import Candidate, Grant
from tom_portmap.errors import RefusedError
from tom_portmap.wire import natpmp, pcp

GATEWAY, LOCAL, PORT = "192.168.1.1", "192.168.1.2", 4000
PCP = Candidate("pcp", GATEWAY, LOCAL)
NATPMP = Candidate("nat-pmp", GATEWAY, LOCAL)
NONCE = b"0123456789ab"


@attrs.define
class FakeGateway:
    """Answers as RFC 6887 and RFC 6886 say, with the time given. `table`: internal port, (external port, end)."""

    external: str = "11.0.0.1"
    speaks: frozenset[str] = frozenset({"pcp", "nat-pmp"})
    result: int = 0
    """What every request for a mapping is answered with."""
    most: int = 86_400
    taken: frozenset[int] = frozenset()
    booted: float = -1000.0
    table: dict[int, tuple[int, float]] = attrs.Factory(dict)
    granted: int = 0

    def restart(self, now: float) -> None:
        """Lose every mapping."""
        self.table.clear()
        self.booted = now

    def answer(self, data: bytes, now: float) -> bytes | None:
        """What it sends back."""
        epoch = int(now - self.booted)
        if data[0] == pcp.VERSION:
            if "pcp" not in self.speaks:
                return b"\0" + bytes((0x80 | data[1],)) + b"\0\1" + epoch.to_bytes(4, "big") if self.speaks else None
            request = pcp.Request.decode(data)
            if request.mapping is None:
                return pcp.Response(request.opcode, 0, 0, epoch).encode()
            if self.result:
                return pcp.Response(pcp.MAP, self.result, 30, epoch, request.mapping).encode()
            port, lifetime = self._map(
                request.mapping.internal_port, request.mapping.external_port, request.lifetime, now
            )
            mapping = attrs.evolve(request.mapping, external_port=port, external_ip=ipaddress.ip_address(self.external))
            return pcp.Response(pcp.MAP, 0, lifetime, epoch, mapping).encode()
        if "nat-pmp" not in self.speaks:
            return None
        if data == natpmp.encode_address_request():
            return natpmp.Response(0, 0, epoch, ipaddress.IPv4Address(self.external)).encode()
        asked = natpmp.MapRequest.decode(data)
        if self.result:
            return natpmp.Response(natpmp.MAP_UDP, self.result, epoch).encode()
        port, lifetime = self._map(asked.internal_port, asked.external_port, asked.lifetime, now)
        mapped = natpmp.Mapped(asked.internal_port, port if lifetime else 0, lifetime)
        return natpmp.Response(natpmp.MAP_UDP, 0, epoch, mapped=mapped).encode()

    def _map(self, internal: int, external: int, lifetime: int, now: float) -> tuple[int, int]:
        if not lifetime:
            self.table.pop(internal, None)
            return external, 0
        self.granted += 1
        external = external + 1 if external in self.taken else external
        lifetime = min(lifetime, self.most)
        self.table[internal] = (external, now + lifetime)
        return external, lifetime

    def maps(self, port: int, now: float) -> int | None:
        """The external port that leads to an internal one now."""
        external, end = self.table.get(port, (None, 0.0))
        return external if now < end else None


class World:
    """A keeper, a gateway and a network between them that loses, delays, duplicates and reorders."""

    def __init__(
        self,
        gateway: FakeGateway,
        *candidates: Candidate,
        seed: int = 0,
        loss: float = 0.0,
        lifetime: int = 7200,
    ) -> None:
        self.now = 0.0
        self.gateway = gateway
        self.silent = False
        self.malformed: Counter[str] = Counter()
        self.rng = random.Random(seed)
        self.keeper = Keeper(lifetime, self.rng)
        self.candidates = candidates
        self.releases: list[Candidate] = []
        self.sent = 0
        self._loss = loss
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self.change(*candidates)

    def change(self, *candidates: Candidate) -> None:
        """The network is another one."""
        self.keeper.network_changed(candidates, self.now)
        self._pump()

    def at(self, delay: float, event: Callable[[], None]) -> None:
        """Do something later."""
        heapq.heappush(self._events, (self.now + delay, next(self._order), event))

    def run(self, until: float, stop: Callable[[], object] = lambda: False) -> bool:
        """Let time pass; returns whether `stop` came true."""
        while not stop():
            timer = self.keeper.get_timer()
            event = self._events[0][0] if self._events else None
            soonest = min((at for at in (timer, event) if at is not None), default=float("inf"))
            if soonest > until:
                self.now = until
                return bool(stop())
            self.now = max(self.now, soonest)
            if event is not None and event <= self.now:
                heapq.heappop(self._events)[2]()
            self.keeper.handle_timer(self.now)
            self._pump()
        return True

    def _pump(self) -> None:
        for action in self.keeper.actions():
            self._do(action)

    def _do(self, action: Action) -> None:
        candidate = action.candidate
        asking: Any = (
            PcpAsking(candidate, PORT, NONCE, self.malformed)
            if candidate.protocol == "pcp"
            else NatPmpAsking(candidate, PORT, self.malformed)
        )
        exchange: Exchange[Any]
        if isinstance(action, Probe):
            exchange = asking.probe()
        elif isinstance(action, Map):
            arguments = (action.suggested, action.lifetime)
            external = () if candidate.protocol == "pcp" else (action.probed.external,)
            exchange = asking.map(*external, *arguments)
        else:
            self.releases.append(candidate)
            exchange = asking.release()
        self._send(exchange, exchange.start(self.now), action)
        self._wait(exchange, action)

    def _wait(self, exchange: Exchange[Any], action: Action) -> None:
        timer = exchange.get_timer()
        if timer is not None:
            self.at(timer - self.now, lambda: self._due(exchange, action))

    def _due(self, exchange: Exchange[Any], action: Action) -> None:
        if exchange.done:
            return
        data = exchange.handle_timer(self.now)
        if data is not None:
            self._send(exchange, data, action)
        self._settle(exchange, action)
        self._wait(exchange, action)

    def _send(self, exchange: Exchange[Any], data: bytes, action: Action) -> None:
        self.sent += 1
        for _ in range(2 if self._loss and self.rng.random() < 0.2 else 1):
            if not self.silent and self.rng.random() >= self._loss:
                self.at(self._delay(), lambda: self._answer(exchange, data, action))

    def _answer(self, exchange: Exchange[Any], data: bytes, action: Action) -> None:
        answer = self.gateway.answer(data, self.now)
        if answer is not None and not self.silent and self.rng.random() >= self._loss:
            self.at(self._delay(), lambda: self._arrive(exchange, answer, action))

    def _arrive(self, exchange: Exchange[Any], data: bytes, action: Action) -> None:
        if not exchange.done:
            exchange.receive(data, SocketAddr(action.candidate.gateway, pcp.PORT))
            self._settle(exchange, action)

    def _settle(self, exchange: Exchange[Any], action: Action) -> None:
        if not exchange.done:
            return
        if exchange.error is not None:
            silent = not isinstance(exchange.error, RefusedError)
            self.keeper.failed(action.number, str(exchange.error), self.now, silent=silent)
        elif isinstance(action, Probe):
            self.keeper.probed(action.number, exchange.result, self.now)
        elif isinstance(action, Map):
            assert isinstance(exchange.result, Grant)
            self.keeper.granted(action.number, exchange.result, self.now)
        self._pump()

    def _delay(self) -> float:
        return self.rng.uniform(0.001, 0.4 if self._loss else 0.002)
