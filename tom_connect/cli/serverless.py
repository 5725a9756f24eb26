"""Whether others can reach this node with nobody's server, shown by a stranger who looks it up."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator

import attrs

from tom_connect.addr import RelayUrl, SocketAddr
from tom_connect.cli.diagnosis import Diagnosis, Finding, NatKind
from tom_connect.config import EndpointConfig
from tom_connect.endpoint import Endpoint

LOOK_AGAIN = 1.0
"""Seconds between two look-ups of the stranger, who may have come before the record."""
NAMELESS = 3
"""Look-ups after which it is believed that a node which may be called has no address to publish."""
VOLUNTEER_WAIT = 6.0
"""Seconds that a volunteer's relay has to be found where no address can be published: a search, and another one where
the first came before the DHT was joined."""
_HOW_CALLED = "calls"
"""What a plugin that carries calls tells of itself under this word, among its diagnostics."""
_INVITED = "invited"
_TO_WHOM = "published to"
"""Under this word a plugin tells to whom alone it publishes us, if not to everybody."""
_VOLUNTEERS = "volunteers"
"""Under this word a plugin tells which volunteers' relays it uses, or why it uses none."""


@attrs.frozen
class ServerlessReport:
    """What a stranger's look-ups have shown. `sources`: what it could ask, empty if no serverless plugin is in use.

    `stored`: servers or DHT nodes that took our record, the best of the publishers, None before one did; `found`: the
    addresses that the stranger got, None if it found nothing; `relays`: those of volunteers that it got with them;
    `source` and `seconds`: where from, and how long it took; `problem`: what became of its last look-up. `told`:
    whether we had any address to publish; `calls`: whether a plugin carries calls where no path exists yet; `called`:
    how it waits for them, in its own words; `volunteers`: which volunteers' relays are in use, or why none is, None:
    nothing looks for any; `audience`: to whom alone we are published, in words, None: to everybody.
    """

    sources: tuple[str, ...] = ()
    stored: int | None = None
    found: tuple[SocketAddr, ...] | None = None
    relays: tuple[RelayUrl, ...] = ()
    source: str | None = None
    seconds: float | None = None
    problem: str | None = None
    told: bool = False
    called: str | None = None
    calls: bool = False
    volunteers: str | None = None
    audience: str | None = None


def stranger_config(config: EndpointConfig) -> EndpointConfig:
    """The configuration of a node that knows nothing of us: a fresh key, nothing saved, no server of anyone's."""
    return attrs.evolve(
        config,
        alpns=(),
        bind=tuple("[::]:0" if addr.family.name == "AF_INET6" else "0.0.0.0:0" for addr in config.bind_addrs),
        secret_key=None,
        secret_key_file=None,
        persist=False,
        dht_only=True,
        nodes_file=None,
        relay=(),
        public_relays=(),
        # It tells nobody where it is: it asks, and goes.
        direct=False,
    )


@attrs.define(eq=False)
class ServerlessCheck:
    """Examines an endpoint; `report` is what is known so far, also when the check is cancelled."""

    endpoint: Endpoint
    report: ServerlessReport = ServerlessReport()

    async def run(self) -> None:
        """Wait until our record is out, and let a stranger look it up until it finds us."""
        calls = self.endpoint.carries_calls
        if (audience := self._told(_TO_WHOM)) is not None:
            # A stranger is not meant to find us.
            self.report = ServerlessReport(calls=calls, audience=audience)
            await self.endpoint.watch_published().other_than(())
            self.report = attrs.evolve(self.report, stored=self._stored(), called=self._told(_HOW_CALLED))
            return
        async with Endpoint.bind(stranger_config(self.endpoint.config)) as stranger:
            self.report = ServerlessReport(tuple(stranger.discovery_counts()), calls=calls)
            if not self.report.sources:
                return
            nameless = 0
            while not await self._found_by(stranger):
                nameless = nameless + 1 if not self.report.told and is_invited(self.report) else 0
                if nameless > NAMELESS and not await self._relayed():
                    return
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(LOOK_AGAIN):
                        published = self.endpoint.watch_published()
                        await published.other_than(published.value)
            # It may be found before the publisher has its quorum.
            await self.endpoint.watch_published().other_than(())
            self.report = attrs.evolve(self.report, stored=self._stored())

    async def _found_by(self, stranger: Endpoint) -> bool:
        began = asyncio.get_running_loop().time()
        async with stranger.look_up(self.endpoint.node_id) as lookup:
            async for found in lookup:
                self.report = attrs.evolve(
                    self.report,
                    stored=self._stored(),
                    found=found.addr.direct_addrs,
                    relays=tuple(url for url in found.addr.relay_urls if url in self._in_use()),
                    source=found.source,
                    seconds=asyncio.get_running_loop().time() - began,
                    problem=None,
                    told=True,
                    called=self._told(_HOW_CALLED),
                    volunteers=self._told(_VOLUNTEERS),
                )
                return True
            problem = "; ".join(str(outcome) for outcome in lookup.outcomes)
            told = not self.endpoint.node_addr().is_empty()
            self.report = attrs.evolve(
                self.report, stored=self._stored(), problem=problem, told=told, called=self._told(_HOW_CALLED)
            )
        return False

    async def _relayed(self) -> bool:
        """Wait for a volunteer's relay, if any is looked for; whether there is one, which can be published."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(VOLUNTEER_WAIT):
                async for _report in self.endpoint.net_report():
                    self.report = attrs.evolve(self.report, volunteers=self._told(_VOLUNTEERS))
                    if self.report.volunteers is None or self._in_use():
                        break
        self.report = attrs.evolve(self.report, volunteers=self._told(_VOLUNTEERS))
        return bool(self._in_use())

    def _in_use(self) -> tuple[RelayUrl, ...]:
        return tuple(relay.url for relay in self.endpoint.relays() if relay.kind == "volunteer" and relay.connected)

    def _stored(self) -> int | None:
        return max((report.nodes for report in self.endpoint.watch_published().value), default=None)

    def _told(self, what: str) -> str | None:
        words = (values.get(what) for values in self.endpoint.diagnostics().values())
        return next((str(word) for word in words if word is not None), None)


def is_invited(report: ServerlessReport) -> bool:
    """Whether others can find out how to call this node."""
    return report.called is not None and report.called.startswith(_INVITED)


def serverless_findings(report: ServerlessReport, diagnosis: Diagnosis, *, wanted: bool) -> Iterator[Finding]:
    """What a report means. `wanted`: whether the configuration allows nothing else (`dht_only`)."""
    if report.audience is not None:
        nodes = "no DHT node holds what is left for them yet" if not report.stored else f"{report.stored} nodes hold it"
        yield Finding(
            "note", f"In the DHT we are published to {report.audience} ({nodes}): no stranger can look us up."
        )
        return
    if not report.sources:
        if wanted:
            yield Finding(
                "fails",
                "Nothing finds nodes without a server here: no plugin for it is in use.",
                "Install one: pip install 'tom-connect[dht]'. 'tom-connect plugins' says if one is blocked or broken.",
            )
        return
    if report.found is None:
        if diagnosis.ipv4 is NatKind.HARD and is_invited(report):
            # There is no address to publish, and none is needed.
            yield _reach(report, {diagnosis.ipv4, diagnosis.ipv6})
        else:
            yield _not_found(report, {diagnosis.ipv4, diagnosis.ipv6})
        return
    where = ", ".join(map(str, (*report.found, *report.relays))) or "no address"
    yield Finding(
        "works",
        f"With no server at all: a stranger who knew nothing but our key found us through {report.source} in "
        f"{report.seconds:.1f} s, at {where}.",
    )
    yield _reach(report, {diagnosis.ipv4, diagnosis.ipv6})


def _not_found(report: ServerlessReport, kinds: set[NatKind]) -> Finding:
    if kinds == {NatKind.ABSENT}:
        # Nobody could be asked: what each of those said is of no use, and neither is any advice but one.
        return Finding("fails", "Without a server nobody finds this node.", "Is the network up?")
    if not report.told:
        return Finding(
            "fails",
            "Without a server nobody finds this node: it does not know at which address others see it, so there is "
            f"nothing to publish. {report.problem or ''}".strip(),
            "Allow outgoing UDP to any port, and give it more time (--wait 30).",
        )
    if report.stored is None:
        return Finding(
            "fails",
            f"Without a server nobody finds this node: its record could not be stored. {report.problem or ''}".strip(),
            "Allow outgoing UDP to any port; where the bootstrap nodes are blocked, name another with --dht-bootstrap.",
        )
    return Finding(
        "fails",
        f"Without a server nobody finds this node yet: {report.stored} DHT nodes hold its record, and a stranger's "
        f"look-up did not come to them. {report.problem or ''}".strip(),
        "Run this command again with more time (--wait 30).",
    )


def _reach(report: ServerlessReport, kinds: set[NatKind]) -> Finding:
    if NatKind.NO_NAT in kinds:
        return Finding("works", "With no server at all: everybody who knows our key can connect to us.")
    if not report.calls and report.relays:
        return Finding("works", "With no server at all: others reach us through a volunteer's relay, and there alone.")
    if not report.calls:
        return Finding(
            "fails",
            "With no server at all: a NAT or firewall lets in only whom we call, and no plugin in use carries calls.",
            "Install or allow one (pip install 'tom-connect[dht]'; in its configuration with 'rendezvous' and without "
            "'own_socket'), open a port (see 'Open a port'), or use a relay.",
        )
    if kinds & {NatKind.EASY, NatKind.FIREWALL}:
        return Finding(
            "works",
            "With no server at all: others call us through the DHT, and both sides punch; those behind symmetric NATs "
            "try many ports, which takes some seconds.",
        )
    if NatKind.HARD in kinds and report.relays:
        return Finding(
            "works",
            "With no server at all: others call us through the DHT and get through if they have no NAT or an easy one; "
            "those with another symmetric NAT reach us through a volunteer's relay.",
        )
    if NatKind.HARD in kinds:
        return Finding(
            "note",
            "With no server at all: others call us through the DHT and get through if they have no NAT or an easy one; "
            "with another symmetric NAT only a relay helps.",
            "A volunteer's relay serves where the relay plugin is installed (pip install 'tom-connect[relay]')."
            if report.volunteers is None
            else f"A volunteer's relay would serve, but none is in use: {report.volunteers}. 'tom-connect relay "
            "--announce' on a machine that strangers reach runs one.",
        )
    return Finding(
        "note",
        "With no server at all: we are found; whether others get through can't be told, as our NAT is of unknown kind.",
    )


__all__ = ["ServerlessCheck", "ServerlessReport", "serverless_findings", "stranger_config"]
