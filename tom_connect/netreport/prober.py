"""Asks servers at which address they see us, again and again while that is of use; sans-IO.

Every server is asked when it becomes known and when the network has changed. While the endpoint is in use it is asked
again before a NAT forgets its mapping, which keeps the mapping too. An answer that differs from the server's last one
is taken for a change of network, and everybody is asked anew.
"""

from __future__ import annotations

import os
import random
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Final

import attrs

from tom_connect.abc import ProbeServer
from tom_connect.addr import SocketAddr
from tom_connect.netreport.observations import Kind, Observations
from tom_connect.netreport.report import Version
from tom_connect.netreport.stun import HEADER_SIZE, BindingTransaction, binding_request

REFRESH: Final = (20.0, 25.0)
"""Seconds between two rounds: NATs drop the binding of a silent UDP socket after 30 s at the earliest (RFC 4787 asks
for 120), and a jitter keeps nodes apart that began together."""
ROUND_GAP: Final = 5.0
"""Seconds within which changed answers start no second round: a server that lies each time must not keep us busy."""
FIRST_RTO: Final = 0.25
"""Seconds to the first repetition, less than RFC 8489 has, since a dial may wait for the answer."""
REQUESTS: Final = 5
PATIENCE: Final = 4.0
"""Together 0, 0.25, 0.75, 1.75 and 3.75 s, and given up after 4.75 s."""
MAX_TARGETS: Final = 24
HAIRPIN_SENDS: Final = (0.0, 0.2, 0.6)
HAIRPIN_WAIT: Final = 1.2
"""Seconds for a datagram to our own reflexive address to come back: it goes to our router and no further."""


@attrs.frozen
class Target:
    """One service of a server at one address."""

    kind: Kind
    server: ProbeServer
    addr: SocketAddr

    @property
    def witness(self) -> str:
        """The name under which its word is noted."""
        return str(self.addr)


@attrs.define
class _Hairpin:
    addr: SocketAddr
    transaction_id: bytes
    started: float
    sent: int = 0
    result: bool | None = None

    def due(self) -> float | None:
        if self.result is not None:
            return None
        return self.started + (HAIRPIN_SENDS[self.sent] if self.sent < len(HAIRPIN_SENDS) else HAIRPIN_WAIT)


class Prober:
    """Asks `targets` and notes their words in `observations`. `now`: seconds of one clock.

    After each call send what `take_outbox` gives; `handle_timer` is due at `get_timer`. `in_use()`: whether it is worth
    asking again. `counters`: datagrams that answer nothing.
    """

    def __init__(
        self,
        observations: Observations,
        *,
        in_use: Callable[[], bool],
        random_bytes: Callable[[int], bytes] = os.urandom,
        uniform: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self.counters: Counter[str] = Counter()
        self.rtts: dict[Target, float] = {}
        """Seconds to each target and back, the newest measurement."""
        self.answered: dict[Target, float] = {}
        """When each target answered last; those that were given up are not in it."""
        self.silent: set[Target] = set()
        """Targets that were given up when they were asked last."""
        self._observations = observations
        self._in_use = in_use
        self._random_bytes = random_bytes
        self._uniform = uniform
        self._targets: tuple[Target, ...] = ()
        self._asking: dict[Target, BindingTransaction] = {}
        self._hairpins: dict[Version, _Hairpin] = {}
        self._outbox: list[tuple[bytes, SocketAddr]] = []
        self._refresh_at: float | None = None
        self._round_at = float("-inf")

    @property
    def targets(self) -> tuple[Target, ...]:
        """Who is asked."""
        return self._targets

    @property
    def settled(self) -> bool:
        """Whether each target has answered or been given up since it became known, or the network changed."""
        return all(target in self.answered or target in self.silent for target in self._targets)

    def set_targets(self, targets: Iterable[Target], now: float) -> None:
        """Say who is to be asked; those that are new are asked at once."""
        wanted = tuple(dict.fromkeys(targets))[:MAX_TARGETS]
        for target in set(self._targets) - set(wanted):
            self._asking.pop(target, None)
            self.answered.pop(target, None)
            self.rtts.pop(target, None)
            self.silent.discard(target)
            self._observations.forget(target.kind, target.witness)
        new = [target for target in wanted if target not in self._targets]
        self._targets = wanted
        for target in new:
            self._ask(target, now)
        if not wanted:
            self._refresh_at = None
        elif self._refresh_at is None:
            self._schedule(now)

    def network_changed(self, now: float) -> None:
        """The network is another one: what is known is doubtful, everybody is asked."""
        self._observations.suspect(now)
        self._asking.clear()
        self._hairpins.clear()
        self.answered.clear()
        self.silent.clear()
        self._round(now)

    def hairpin(self, version: Version) -> bool | None:
        """Whether what we send to our own reflexive address comes back to us, None if that is not known (yet)."""
        check = self._hairpins.get(version)
        return None if check is None else check.result

    def check_hairpin(self, version: Version, addr: SocketAddr, now: float) -> None:
        """Find out for our reflexive address, if that has not been done for it."""
        known = self._hairpins.get(version)
        if known is None or known.addr != addr:
            self._hairpins[version] = _Hairpin(addr, self._random_bytes(12), now)
            self._hairpin_due(self._hairpins[version], now)

    def receive(self, data: bytes, source: SocketAddr, now: float) -> bool:
        """Take a STUN datagram; False for what answers nothing, which is counted."""
        for check in self._hairpins.values():
            if data[8:HEADER_SIZE] == check.transaction_id:
                if check.result is None and data[:2] == b"\x00\x01":
                    check.result = True
                return True
        for target, transaction in self._asking.items():
            if transaction.receive(data, source, now):
                self._ended(target, transaction, now)
                return True
        self.counters["unexpected"] += 1
        return False

    def get_timer(self) -> float | None:
        """When `handle_timer` is due, None if never."""
        times = [transaction.get_timer() for transaction in self._asking.values()]
        times += [check.due() for check in self._hairpins.values()]
        times += [self._refresh_at, self._observations.get_timer()]
        return min((at for at in times if at is not None), default=None)

    def handle_timer(self, now: float) -> None:
        """Do what was due by `now`."""
        for target, transaction in list(self._asking.items()):
            data = transaction.handle_timer(now)
            if data is not None:
                self._outbox.append((data, target.addr))
            elif transaction.done:
                self._ended(target, transaction, now)
        for check in self._hairpins.values():
            self._hairpin_due(check, now)
        if self._refresh_at is not None and now >= self._refresh_at:
            if self._in_use():
                self._round(now)
            else:
                self._schedule(now)
        self._observations.expire(now)

    def take_outbox(self) -> Sequence[tuple[bytes, SocketAddr]]:
        """The datagrams to send now."""
        outbox, self._outbox = self._outbox, []
        return outbox

    def _schedule(self, now: float) -> None:
        self._refresh_at = now + self._uniform(*REFRESH)

    def _round(self, now: float) -> None:
        self._round_at = now
        self._schedule(now)
        for target in self._targets:
            self._ask(target, now)

    def _ask(self, target: Target, now: float) -> None:
        if target in self._asking:
            return
        transaction = BindingTransaction(
            target.addr, rto=FIRST_RTO, requests=REQUESTS, patience=PATIENCE, random_bytes=self._random_bytes
        )
        self._asking[target] = transaction
        self._outbox.append((transaction.start(now), target.addr))

    def _ended(self, target: Target, transaction: BindingTransaction, now: float) -> None:
        self._asking.pop(target, None)
        result = transaction.result
        if result is None:
            self.answered.pop(target, None)
            self.silent.add(target)
        else:
            self._told(target, result.addr, result.rtt, now)

    def _told(self, target: Target, addr: SocketAddr, rtt: float | None, now: float) -> None:
        self.silent.discard(target)
        self.answered[target] = now
        if rtt is not None:
            self.rtts[target] = rtt
        changed = self._observations.told(
            target.kind, target.witness, addr, now, origin=target.server.relay.host or target.witness
        )
        if changed and now - self._round_at > ROUND_GAP:
            self._observations.suspect(now, except_for=target.witness)
            self._hairpins.clear()
            self._round(now)

    def _hairpin_due(self, check: _Hairpin, now: float) -> None:
        due = check.due()
        if due is None or now < due:
            return
        if check.sent < len(HAIRPIN_SENDS):
            check.sent += 1
            self._outbox.append((binding_request(check.transaction_id), check.addr))
        else:
            check.result = False


__all__ = ["Prober", "Target"]
