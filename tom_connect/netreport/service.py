"""Finds out about the network for one endpoint, over its own sockets: the asyncio shell around Prober."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Callable, Sequence
from math import inf
from typing import Final, TypeVar

from tom_connect.abc import Clock, DatagramProtocol, ProbeServer, RelayInfo, RelayTransport, SharedSocket
from tom_connect.addr import SocketAddr, is_local
from tom_connect.holepunch.path import Path
from tom_connect.keys import NodeId
from tom_connect.netreport import captive
from tom_connect.netreport.aside import AsideSockets
from tom_connect.netreport.observations import Kind, Observations, Verdict
from tom_connect.netreport.prober import Prober, Target
from tom_connect.netreport.report import FamilyReport, Filtering, NetReport, RelayReport, Version
from tom_connect.netreport.stun import is_stun
from tom_connect.watch import Watch

T = TypeVar("T")

MAX_SERVERS: Final = 4
"""Relays that are asked: two would do to contradict each other, further ones to outvote a liar."""
MAX_QAD_SERVERS: Final = 2
"""Of them by QUIC address discovery: each is a TLS handshake for each family."""
RESOLVE_TIMEOUT: Final = 5.0
PORTAL_AFTER: Final = 3.0
"""Seconds without any relay after which a captive portal is looked for: most relays have answered by then."""
PORTAL_AGAIN: Final = 60.0
LOOK_AGAIN: Final = (1.0, 20.0)
"""Seconds after which relays are looked at again, doubled each time: not every change of theirs is announced."""

_CARRIER: Final = ipaddress.ip_network("100.64.0.0/10")
"""Between a carrier's NAT and its customers' routers (RFC 6598)."""
_FILTERING: Final = {
    None: Filtering.UNKNOWN,
    True: Filtering.ADDRESS_DEPENDENT,
    False: Filtering.ADDRESS_AND_PORT_DEPENDENT,
}


class NetReporter(DatagramProtocol):
    """Keeps a NetReport of one endpoint; `run` and `find_servers` do the work.

    `local()`: our sockets' addresses on this machine; `routers()`: those that our routers say they have outside;
    `transports()`: the relay transports, each with its plugin's name, whose failures are given to `report_failure`;
    `busy()`: whether there are connections; `on_change()`: called when reflexive addresses have changed, or what
    hole punching goes by: the kind of NAT, whether UDP is blocked. `probing` False sends nothing. It claims all STUN
    of the shared socket.
    """

    name = "netreport"
    priority = 100

    def __init__(
        self,
        socket: SharedSocket,
        clock: Clock,
        *,
        local: Callable[[], Sequence[SocketAddr]],
        routers: Callable[[], Sequence[str]],
        transports: Callable[[], Sequence[tuple[str, RelayTransport]]],
        busy: Callable[[], bool],
        probing: bool,
        on_change: Callable[[], None],
        report_failure: Callable[[str, object], None],
    ) -> None:
        self.report: Watch[NetReport] = Watch(NetReport())
        self._socket = socket
        self._now = clock.monotonic
        self._local = local
        self._routers = routers
        self._transports = transports
        self._busy = busy
        self._probing = probing
        self._on_change = on_change
        self._report_failure = report_failure
        self._observations = Observations()
        self._prober = Prober(self._observations, in_use=self._in_use)
        self._aside = AsideSockets(clock, local=lambda: socket.local_addrs, on_end=self._pump)
        self._resolved: dict[str, tuple[SocketAddr, ...]] = {}
        self._doubtful: set[str] = set()
        self._failed: set[str] = set()
        """Relay transports whose failure was reported: they are asked so often that once is enough."""
        self._looked = False
        self._portal: bool | None = None
        self._portal_at = self._now() + PORTAL_AFTER
        self._look = asyncio.Event()
        self._wake = asyncio.Event()
        self._waits_until = inf

    def current(self) -> Watch[NetReport]:
        """The report, brought up to date with what relays and routers say now."""
        self._pump()
        return self.report

    # What others tell

    def claims(self, head: bytes) -> bool:
        """Whether a datagram is STUN."""
        return is_stun(head)

    def datagrams_received(self, datagrams: Sequence[tuple[bytes, SocketAddr]]) -> None:
        """Take answers to what was asked."""
        now = self._now()
        known = [self._prober.receive(data, source, now) for data, source in datagrams]
        if any(known):
            self._pump()

    def quic_received(self, path: Path, dcid: bytes, data: bytes, now: float) -> bool:
        """Take a QUIC datagram for a connection id that the endpoint does not know; False if it is not for us."""
        if not isinstance(path, SocketAddr) or not self._prober.receive_quic(dcid, data, path, now):
            return False
        self._pump()
        return True

    async def aclose(self) -> None:
        """Take leave of the servers; `run` and `find_servers` have ended."""
        self._prober.close(self._now())
        for data, addr in self._prober.take_outbox():
            self._socket.send(data, addr)
        self.report.close()

    def plugin_told(self, plugin: str, addr: SocketAddr) -> None:
        """A plugin says where others see us; port 0: each of them sees another port."""
        self._observations.told(Kind.PLUGIN, plugin, addr, self._now())
        self._pump()

    def peer_told(self, addr: SocketAddr, peer: NodeId) -> None:
        """A peer says at which address it sees us. Every pong does, mostly the same again: that must cost little."""
        version = self._observations.version
        self._observations.told(Kind.PEER, str(peer), addr, self._now())
        if self._observations.version != version:
            self._pump()

    def direct_path_lost(self) -> None:
        """Traffic had to leave a direct path: our NAT may have another address for us, which only others can tell."""
        self._prober.doubt(self._now())
        self._pump()

    def relays_changed(self) -> None:
        """Relays came, went or were measured."""
        self._look.set()

    def network_changed(self) -> None:
        """Interfaces or routes have changed: ask everybody, under names that may lead elsewhere now."""
        self._doubtful.update(self._resolved)
        self._portal, self._portal_at = None, self._now() + PORTAL_AFTER
        self._prober.network_changed(self._now())
        self._look.set()
        self._pump()

    # What relay transports say

    def _relays(self) -> list[RelayInfo]:
        return self._of_transports(lambda transport: transport.relays())

    def _in_use(self) -> bool:
        return self._busy() or any(info.connected for info in self._relays())

    def _servers(self) -> list[ProbeServer]:
        servers = self._of_transports(lambda transport: transport.probes()) if self._probing else []
        return list({server.relay: server for server in servers}.values())[:MAX_SERVERS]

    def _of_transports(self, ask: Callable[[RelayTransport], Sequence[T]]) -> list[T]:
        told: list[T] = []
        for name, transport in self._transports():
            try:
                told += ask(transport)
            except Exception as exc:  # a plugin may raise anything, and the others go on
                if name not in self._failed:
                    self._failed.add(name)
                    self._report_failure(name, exc)
        return told

    # Work

    async def run(self) -> None:
        """Ask until cancelled."""
        try:
            await self._ask()
        finally:
            await self._aside.aclose()

    async def _ask(self) -> None:
        while True:
            self._wake.clear()
            now = self._now()
            due = self._prober.get_timer()
            self._waits_until = inf if due is None else due
            if self._waits_until > now:
                try:
                    async with asyncio.timeout(None if due is None else due - now):
                        await self._wake.wait()
                except TimeoutError:
                    pass
            else:
                await asyncio.sleep(0)  # whatever is overdue, others get their turn
            self._waits_until = inf
            self._prober.handle_timer(self._now())
            self._pump()

    async def find_servers(self) -> None:
        """Look for whom to ask until cancelled."""
        again = LOOK_AGAIN[0]
        while True:
            self._look.clear()
            servers = self._servers()
            async with asyncio.TaskGroup() as group:
                for host in {server.host for server in servers}:
                    if not self._resolved.get(host) or host in self._doubtful:
                        group.create_task(self._resolve(host, servers), name=f"netreport: looking up {host}")
                self._aim(servers)
            self._looked = True
            self._pump()
            await self._look_for_portal()
            try:
                async with asyncio.timeout(again):
                    await self._look.wait()
                again = LOOK_AGAIN[0]
            except TimeoutError:
                again = min(2 * again, LOOK_AGAIN[1])

    async def _look_for_portal(self) -> None:
        """Only where something is wrong: it takes seconds, and tells relays more than they need to know."""
        relays = [info for info in self._relays() if info.kind != "found"]
        now = self._now()
        if any(info.connected for info in relays):
            self._portal, self._portal_at = False, now + PORTAL_AFTER
            return
        asked = next((info.url for info in relays if info.url.scheme in ("http", "https")), None)
        if self._probing and asked is not None and now >= self._portal_at:
            self._portal_at = now + PORTAL_AGAIN
            self._portal = await captive.check(asked)
            self._pump()

    async def _resolve(self, host: str, servers: Sequence[ProbeServer]) -> None:
        found = await _addresses(host)
        if found:
            self._resolved[host] = found
            self._doubtful.discard(host)
            self._aim(servers)

    def _aim(self, servers: Sequence[ProbeServer]) -> None:
        families = {addr.family for addr in self._socket.local_addrs}
        targets = [
            Target(kind, server, SocketAddr(addr.host, port))
            for rank, server in enumerate(servers)
            for addr in self._resolved.get(server.host, ())
            if addr.family in families
            for kind, port in self._services(server, rank)
            if port is not None
        ]
        self._prober.set_targets(targets, self._now())
        self._pump()

    @staticmethod
    def _services(server: ProbeServer, rank: int) -> list[tuple[Kind, int | None]]:
        services = [(Kind.STUN, server.stun_port)]
        if rank < MAX_QAD_SERVERS:
            services.append((Kind.QAD, server.qad_port))
        return services

    def _pump(self) -> None:
        report = self._make_report()
        for data, addr in self._prober.take_outbox():
            self._socket.send(data, addr)
        due = self._prober.get_timer()
        if due is not None and due < self._waits_until:
            self._wake.set()
        old = self.report.value
        self.report.set(report)
        if _acted_on(report) != _acted_on(old):
            self._on_change()

    # What is known

    def _make_report(self) -> NetReport:
        local = self._local()
        return NetReport(
            ipv4=self._family(4, local),
            ipv6=self._family(6, local),
            relays=self._relay_reports(),
            udp_blocked=self._udp_blocked(),
            captive_portal=self._portal,
            complete=self._looked and self._prober.settled,
        )

    def _family(self, version: Version, local: Sequence[SocketAddr]) -> FamilyReport:
        own = tuple(addr for addr in local if addr.ip.version == version)
        if self._probing and (check := self._prober.check_mapping(version)) is not None:
            self._aside.examine(version, check)
        verdict: Verdict = self._observations.verdict(version, own, self._prober.mapping(version))
        if self._probing and verdict.nat and verdict.confirmed:
            self._prober.check_hairpin(version, verdict.confirmed[0], self._now())
        if self._probing and verdict.reflexive:
            self._prober.check_filtering(version, verdict.reflexive[0], self._now())
        asked = [target for target in self._prober.targets if target.addr.ip.version == version]
        answers: bool | None = None
        if any(target in self._prober.answered for target in asked):
            answers = True
        elif asked and all(target in self._prober.silent for target in asked):
            answers = False
        return FamilyReport(
            version=version,
            local=tuple(addr for addr in own if not addr.ip.is_loopback),
            reflexive=verdict.reflexive,
            confirmed=verdict.confirmed,
            mapping=verdict.mapping,
            filtering=_FILTERING[self._prober.lets_in(version)],
            nat=verdict.nat,
            port_preserved=verdict.port_preserved,
            hairpin=self._prober.hairpin(version),
            answers=answers,
            carrier_nat=version == 4 and self._behind_carrier(own),
            shifting=verdict.shifting,
        )

    def _behind_carrier(self, own: Sequence[SocketAddr]) -> bool:
        if any(addr.ip in _CARRIER for addr in own):
            return True
        try:
            return any(is_local(SocketAddr(host, 1)) for host in self._routers())
        except Exception:  # a plugin may raise anything, and say what is no address
            return False

    def _relay_reports(self) -> tuple[RelayReport, ...]:
        nearest: dict[str, float] = {}
        for target, rtt in self._prober.rtts.items():
            url = str(target.server.relay)
            nearest[url] = min(rtt, nearest.get(url, inf))
        return tuple(
            RelayReport(info.url, info.connected, info.home, info.rtt, nearest.get(str(info.url)), info.problem)
            for info in self._relays()
            if info.kind != "found"
        )

    def _udp_blocked(self) -> bool | None:
        if self._prober.answered or self._prober.refusals or self._observations.heard_from_peers():
            return False
        certain = [target for target in self._prober.targets if target.server.certain]
        relays = self._relays()
        if any(info.connected and info.url.node_id is not None for info in relays):
            return False  # relays that are nodes are reached over UDP
        connected = any(info.connected for info in relays)
        if certain and connected and all(target in self._prober.silent for target in certain):
            return True
        return None


def _acted_on(report: NetReport) -> tuple[object, ...]:
    families = (report.ipv4, report.ipv6)
    told = (
        (each.reflexive, each.confirmed, each.mapping, each.filtering, each.carrier_nat, each.shifting)
        for each in families
    )
    return (report.udp_blocked, *told)


async def _addresses(host: str) -> tuple[SocketAddr, ...]:
    """An IPv4 and an IPv6 address of a host as far as it has them, port 0; none where it can't be looked up now."""
    try:
        async with asyncio.timeout(RESOLVE_TIMEOUT):
            found = await asyncio.get_running_loop().getaddrinfo(host, 0, type=socket.SOCK_DGRAM)
    except (OSError, UnicodeError, TimeoutError):
        return ()
    first: dict[int, SocketAddr] = {}
    for family, _kind, _proto, _name, address in found:
        if family in (socket.AF_INET, socket.AF_INET6):
            first.setdefault(family, SocketAddr(str(address[0]), 0))
    return tuple(first.values())


__all__ = ["NetReporter"]
