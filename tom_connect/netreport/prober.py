"""Asks servers at which address they see us, again and again while that is of use; sans-IO.

Every server is asked when it becomes known and when the network has changed, by STUN and by QUIC address discovery;
either answer will do. While the endpoint is in use it is asked again before a NAT forgets its mapping, which keeps the
mapping too; a QAD connection is kept, and the server tells changes itself. An answer that differs from the server's
last one is taken for a change of network, and everybody is asked anew.
"""

from __future__ import annotations

import os
import random
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from math import inf
from typing import Final

import attrs

from tom_connect.abc import ProbeServer
from tom_connect.addr import SocketAddr
from tom_connect.netreport.checks import Check, HairpinCheck, MappingCheck, OtherPortCheck
from tom_connect.netreport.observations import Kind, Observations
from tom_connect.netreport.qad import QadClient
from tom_connect.netreport.report import Mapping, Version
from tom_connect.netreport.stun import BindingTransaction

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
QAD_HEDGE: Final = 0.5
"""Seconds after which a server is asked by QAD that is asked by STUN too: a TLS handshake costs 10 ms of CPU, which a
dial at the start may need, and one datagram by STUN usually brings the answer."""
QAD_TIMEOUT: Final = 5.0
QAD_RETRY: Final = (20.0, 600.0)
"""Seconds before a relay without a usable QAD service is asked again, doubled each time."""
REQUESTS_SILENT: Final = 2
"""To one that did not answer when it was asked last."""
MAX_TARGETS: Final = 24


@attrs.frozen
class Target:
    """One service of a server at one address. It stays the same while more becomes known about the server."""

    kind: Kind
    server: ProbeServer = attrs.field(eq=False)
    addr: SocketAddr

    @property
    def witness(self) -> str:
        """The name under which its word is noted."""
        return str(self.addr)


@attrs.define
class _Qad:
    """What is under way with a QAD service: a connection, or the time of the next attempt."""

    client: QadClient | None = None
    at: float = 0.0
    failures: int = 0


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
        self.problems: dict[Target, str] = {}
        """Why a target told no address when it was asked last, where that is known."""
        self.refusals: set[Target] = set()
        """Targets that sent something back when they were asked last, but no address."""
        self._observations = observations
        self._in_use = in_use
        self._random_bytes = random_bytes
        self._uniform = uniform
        self._targets: tuple[Target, ...] = ()
        self._asking: dict[Target, BindingTransaction] = {}
        self._qad: dict[Target, _Qad] = {}
        self._by_cid: dict[bytes, Target] = {}
        self._hairpins: dict[Version, Check] = {}
        self._filters: dict[Version, Check] = {}
        self._mappings: dict[Version, MappingCheck] = {}
        self._mapped_before: dict[Version, Mapping] = {}
        self._asked_how: set[Target] = set()
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
            self._leave(target, now)
            self.answered.pop(target, None)
            self.rtts.pop(target, None)
            self.problems.pop(target, None)
            self.silent.discard(target)
            self.refusals.discard(target)
            self._observations.forget(target.kind, target.witness)
        new = [target for target in wanted if target not in self._targets]
        self._targets = wanted
        for target in new:
            self._begin(target, now)
        if not wanted:
            self._refresh_at = None
        elif self._refresh_at is None:
            self._schedule(now)

    def network_changed(self, now: float) -> None:
        """The network is another one: what is known is doubtful, everybody is asked."""
        self._observations.suspect(now)
        self._asking.clear()
        self._doubt_nat()
        self.answered.clear()
        self.silent.clear()
        self.refusals.clear()
        for target in self._targets:
            self._leave(target, now)
            self._begin(target, now)
        self._round_at = now
        self._schedule(now)

    def doubt(self, now: float) -> None:
        """Our address may have changed unnoticed: ask everybody again, now or `ROUND_GAP` after the last time."""
        if self._refresh_at is None:
            return
        due = max(now, self._round_at + ROUND_GAP)
        self._refresh_at = min(self._refresh_at, due)
        for state in self._qad.values():
            if state.client is not None:
                state.client.ping_by(due)

    def close(self, now: float) -> None:
        """Take leave of servers that keep a connection; send what is in the outbox then."""
        self.set_targets((), now)

    def hairpin(self, version: Version) -> bool | None:
        """Whether what we send to our own reflexive address comes back to us, None if that is not known (yet)."""
        check = self._hairpins.get(version)
        return None if check is None else check.result

    def check_hairpin(self, version: Version, addr: SocketAddr, now: float) -> None:
        """Find out for our reflexive address, if that has not been done for it."""
        known = self._hairpins.get(version)
        if known is None or known.subject != addr:
            self._hairpins[version] = self._check(HairpinCheck(addr, addr, self._random_bytes(12)), now)

    def lets_in(self, version: Version) -> bool | None:
        """Whether a datagram came in from a port that we had not sent to, None if that is not known (yet)."""
        check = self._filters.get(version)
        return None if check is None else check.result

    def check_filtering(self, version: Version, addr: SocketAddr, now: float) -> None:
        """Find out for our reflexive IP address, if that has not been done for it and a server can help."""
        if version in self._filters:
            return
        target = next((target for target in self._helpers(version) if target in self.answered), None)
        if target is not None:
            check = OtherPortCheck(addr, target.addr, self._random_bytes(12), self.rtts.get(target))
            self._filters[version] = self._check(check, now)

    def mapping(self, version: Version) -> Mapping:
        """How the NAT maps a socket that is not ours; UNKNOWN if no server helped to find out (yet).

        While that is found out anew, what was known before stands.
        """
        check = self._mappings.get(version)
        if check is not None and check.done:
            return check.result
        return self._mapped_before.get(version, Mapping.UNKNOWN) if self._helpers(version) else Mapping.UNKNOWN

    def check_mapping(self, version: Version) -> MappingCheck | None:
        """What is to be carried out now over a socket of its own; None if that is done, under way or impossible."""
        known = self._mappings.get(version)
        if known is not None and (not known.done or known.result is not Mapping.UNKNOWN):
            return None
        target = next((target for target in self._helpers(version) if target not in self._asked_how), None)
        if target is None or target.server.stun_other_port is None:
            return None
        self._asked_how.add(target)
        dests = target.addr, SocketAddr(target.addr.host, target.server.stun_other_port)
        check = self._mappings[version] = MappingCheck(dests, self._random_bytes)
        return check

    def _helpers(self, version: Version) -> list[Target]:
        """STUN servers with a second port."""
        return [
            target
            for target in self._targets
            if target.kind is Kind.STUN and target.addr.ip.version == version
            if target.server.stun_other_port is not None
        ]

    def _doubt_nat(self) -> None:
        """We may be elsewhere: every question about the NAT is to be put anew."""
        self._mapped_before |= {version: check.result for version, check in self._mappings.items() if check.done}
        for known in (self._hairpins, self._filters, self._mappings, self._asked_how):
            known.clear()

    def _check(self, check: Check, now: float) -> Check:
        self._outbox.append((check.start(now), check.dest))
        return check

    def _checks(self) -> list[Check]:
        return [*self._hairpins.values(), *self._filters.values()]

    def receive(self, data: bytes, source: SocketAddr, now: float) -> bool:
        """Take a STUN datagram; False for what answers nothing, which is counted."""
        if any(check.receive(data, source) for check in self._checks()):
            return True
        for target, transaction in self._asking.items():
            if transaction.receive(data, source, now):
                self._ended(target, transaction, now)
                return True
        self.counters["unexpected"] += 1
        return False

    def receive_quic(self, dcid: bytes, data: bytes, source: SocketAddr, now: float) -> bool:
        """Take a QUIC datagram; False if its connection id is none of ours."""
        target = self._by_cid.get(dcid)
        state = None if target is None else self._qad.get(target)
        if target is None or state is None or state.client is None:
            return False
        state.client.receive(data, source, now)
        self._pump_qad(target, state, now)
        return True

    def get_timer(self) -> float | None:
        """When `handle_timer` is due, None if never."""
        times = [transaction.get_timer() for transaction in self._asking.values()]
        times += [state.at if state.client is None else state.client.get_timer() for state in self._qad.values()]
        times += [check.get_timer() for check in self._checks()]
        times += [self._refresh_at, self._observations.get_timer()]
        return min((at for at in times if at is not None and at < inf), default=None)

    def handle_timer(self, now: float) -> None:
        """Do what was due by `now`."""
        for target, transaction in list(self._asking.items()):
            data = transaction.handle_timer(now)
            if data is not None:
                self._outbox.append((data, target.addr))
            elif transaction.done:
                self._ended(target, transaction, now)
        for target, state in list(self._qad.items()):
            self._qad_due(target, state, now)
        for check in self._checks():
            if (data := check.handle_timer(now)) is not None:
                self._outbox.append((data, check.dest))
        if self._refresh_at is not None and now >= self._refresh_at:
            if self._in_use():
                self._round(now)
            else:
                self._schedule(now)
                self._rest(now)
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
            if target.kind is Kind.STUN:
                self._ask(target, now)
            elif (state := self._qad.get(target)) is not None and state.client is not None and state.client.told:
                # It tells changes by itself, and is lost within 30 s if it can't.
                self._told(target, state.client.told, None, now)
            elif state is not None and state.at == inf:
                state.at = now
                self._qad_due(target, state, now)

    def _begin(self, target: Target, now: float) -> None:
        if target.kind is Kind.STUN:
            self._ask(target, now)
            return
        hedged = any(t.kind is Kind.STUN and t.server.relay == target.server.relay for t in self._targets)
        self._qad[target] = _Qad(at=now + QAD_HEDGE if hedged else now)
        self._qad_due(target, self._qad[target], now)

    # QUIC address discovery

    def _qad_due(self, target: Target, state: _Qad, now: float) -> None:
        client = state.client
        if client is None:
            if now < state.at:
                return
            if state.failures and not self._in_use():
                state.at = now + QAD_RETRY[0]
                return
            server = target.server
            client = state.client = QadClient(
                target.addr,
                server_name=server.host,
                cadata=server.qad_ca,
                system=True,
                verify=server.qad_verify,
                watch=True,
                timeout=QAD_TIMEOUT,
            )
            self._by_cid.update(dict.fromkeys(client.connection_ids, target))
            client.start(now)
        elif (at := client.get_timer()) is not None and now >= at:
            client.handle_timer(now)
        self._pump_qad(target, state, now)

    def _pump_qad(self, target: Target, state: _Qad, now: float) -> None:
        client = state.client
        assert client is not None
        self._outbox += [(data, target.addr) for data in client.send(now)]
        while (report := client.next_report()) is not None:
            state.failures = 0
            self._told(target, report.addr, report.rtt, now)
        if client.error is not None:
            self.problems[target] = str(client.error)
            if client.error.code is not None and client.told is None:
                self.refusals.add(target)
            self._drop_client(state)
            self.answered.pop(target, None)
            self.silent.add(target)
            state.at = now + min(QAD_RETRY[0] * 2**state.failures, QAD_RETRY[1])
            state.failures = min(state.failures + 1, 10)

    def _rest(self, now: float) -> None:
        for target, state in self._qad.items():
            if state.client is not None:
                self._close_client(target, state, now)
                state.at = inf

    def _drop_client(self, state: _Qad) -> None:
        if state.client is not None:
            for cid in state.client.connection_ids:
                self._by_cid.pop(cid, None)
            state.client = None

    def _leave(self, target: Target, now: float) -> None:
        state = self._qad.pop(target, None)
        if state is not None:
            self._close_client(target, state, now)

    def _close_client(self, target: Target, state: _Qad, now: float) -> None:
        if state.client is not None:
            state.client.close()
            self._outbox += [(data, target.addr) for data in state.client.send(now)]
            self._drop_client(state)

    # STUN

    def _ask(self, target: Target, now: float) -> None:
        if target in self._asking:
            return
        transaction = BindingTransaction(
            target.addr,
            rto=FIRST_RTO,
            requests=REQUESTS if target not in self.silent else REQUESTS_SILENT,
            patience=PATIENCE,
            random_bytes=self._random_bytes,
        )
        self._asking[target] = transaction
        self._outbox.append((transaction.start(now), target.addr))

    def _ended(self, target: Target, transaction: BindingTransaction, now: float) -> None:
        self._asking.pop(target, None)
        result = transaction.result
        if result is None:
            self.answered.pop(target, None)
            self.silent.add(target)
            if transaction.error is not None and transaction.error.code is not None:
                self.refusals.add(target)
        else:
            self._told(target, result.addr, result.rtt, now)

    def _told(self, target: Target, addr: SocketAddr, rtt: float | None, now: float) -> None:
        self.silent.discard(target)
        self.refusals.discard(target)
        self.problems.pop(target, None)
        self.answered[target] = now
        if rtt is not None:
            self.rtts[target] = rtt
        changed = self._observations.told(
            target.kind, target.witness, addr, now, origin=target.server.relay.host or target.witness
        )
        if changed and now - self._round_at > ROUND_GAP:
            self._observations.suspect(now, except_for=target.witness)
            self._doubt_nat()
            self._round(now)


__all__ = ["Prober", "Target"]
