"""The contract of RelayTransport."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, Final, Protocol

from tom_connect.abc import ProbeServer, RelayInfo, RelayTransport
from tom_connect.addr import RelayUrl
from tom_connect.exceptions import EndpointClosedError
from tom_connect.keys import NodeId, SecretKey
from tom_connect.testing.conformance import rules
from tom_connect.testing.conformance.life import Make, Trial, asked, check_life, within
from tom_connect.testing.conformance.measuring import Calls, kept_bytes, prompt, unblocked
from tom_connect.testing.conformance.rules import ConformanceError, Rule
from tom_connect.testing.plugincontext import LentContext, plugin_context
from tom_connect.watch import Watch

MAX_DATAGRAM: Final = 1452
"""Bytes of the largest datagram that QUIC makes: an Ethernet frame's, less the headers of IPv6 and UDP."""
BATCH: Final = 64
FLOOD: Final = 24_000
"""Datagrams that are sent at once to see that a queue is bounded: 28 MB."""
MAX_KEPT: Final = 8 << 20
"""Bytes that may wait for a relay that does not answer."""
SEND_PROMPT: Final = 0.02
"""Seconds for one call of `send` with a full batch: far above what copying takes."""
_REFUSES: Final = 0.5
_RESEND_EVERY: Final = 0.2


class MakeContext(Protocol):
    """Makes a context with the options of `plugin_context` that are named."""

    def __call__(self, *, relay_urls: Sequence[RelayUrl | str] = (), allow_local: bool = True) -> LentContext:
        """A context with a key of its own."""


async def check_relay_transport(
    make: Make[RelayTransport],
    *,
    relay: RelayUrl | str,
    context: MakeContext = plugin_context,
    silent: RelayUrl | str | None = None,
    timeout: float = 30.0,
) -> None:
    """Check that an implementation keeps the contract of `tom_connect.abc.RelayTransport`; raises ConformanceError.

    `make`: the factory, as the hook `tom_relay_transport` is one; it may return one object or a sequence with one.
    `relay`: a relay that runs and takes everyone; if its host is of a loopback or private network it is checked that
    a peer can't lead us there. `context(relay_urls=, allow_local=)`: makes a context with a key of its own, such as
    `functools.partial(plugin_context, config)`. `silent`: a relay that takes connections and says nothing, for the
    bounds of the queue; by default port 9 of `relay`'s host. `timeout`: seconds until a relay is connected or a
    datagram arrives.
    """
    url = relay if isinstance(relay, RelayUrl) else RelayUrl.parse(relay)
    dead = silent or f"{url.scheme}://{url.host}:9/"
    dead_url = dead if isinstance(dead, RelayUrl) else RelayUrl.parse(dead)
    async with Trial(RelayTransport, make, timeout) as trial:  # type: ignore[type-abstract]
        await check_life(trial, lambda: context(relay_urls=(url,)))
        await _check_idle(trial, context(), url)
        await _check_exchange(trial, context, url)
        await _check_without_home(trial, context, url)
        await _check_flood(trial, context(), dead_url)
        if _is_local(url.host):
            await _check_trust(trial, context(allow_local=False), url)


def _is_local(host: str) -> bool:
    try:
        return not ipaddress.ip_address(host.strip("[]")).is_global
    except ValueError:
        return host == "localhost"


class _Node:
    """A transport that is in use, and what it received."""

    def __init__(self, transport: RelayTransport, ctx: LentContext, timeout: float) -> None:
        self.transport = transport
        self.node_id = ctx.node_id
        self.timeout = timeout
        self._arrived = asyncio.Event()
        self._wrong: str | None = None
        self._sends = Calls()
        self.received: list[tuple[RelayUrl, NodeId, bytes]] = []
        transport.set_receiver(self._receive)
        transport.set_attested(lambda relay, node_id, address: None)

    def _receive(self, relay: RelayUrl, node_id: NodeId, datagrams: Sequence[bytes], ecn: int) -> None:
        if not isinstance(relay, RelayUrl) or not isinstance(node_id, NodeId) or ecn not in range(4):
            self._wrong = f"the receiver was called with {relay!r}, {node_id!r}, ..., {ecn!r}"
        self.received += ((relay, node_id, bytes(data)) for data in datagrams)
        self._arrived.set()

    async def at_home(self, relay: RelayUrl) -> None:
        """Wait until the transport says that its home is this relay."""
        watch = asked(rules.HOME, "home_relay()", self.transport.home_relay)
        if not isinstance(watch, Watch) or watch is not self.transport.home_relay():
            raise ConformanceError(rules.HOME, f"home_relay() returned {watch!r}, and another one the next time")

        async def become() -> None:
            with contextlib.suppress(EndpointClosedError):
                while watch.value != relay:
                    await watch.other_than(watch.value)

        await within(rules.HOME, self.timeout, become(), f"home_relay(), now {watch.value!r}, becoming {relay}")
        standby = asked(rules.STANDBY, "standby_relay()", self.transport.standby_relay)
        if not isinstance(standby, Watch) or standby.value == relay:
            raise ConformanceError(rules.STANDBY, f"standby_relay() is {standby!r}, {getattr(standby, 'value', None)}")

    def send(self, relay: RelayUrl, to: NodeId, datagrams: Sequence[bytes]) -> bool:
        """Send as the core does; what is returned."""
        try:
            sent = self._sends.timed(lambda: self.transport.send(relay, to, datagrams, 0))
        except Exception as exc:
            raise ConformanceError(rules.SENDS, f"send() of {len(datagrams)} datagrams raised {exc!r}") from exc
        if not isinstance(sent, bool):
            raise ConformanceError(rules.SENDS, f"send() returned {sent!r}")
        return sent

    def was_prompt(self) -> None:
        """ConformanceError if calls of `send` took too long."""
        self._sends.require_prompt(rules.SEND_PROMPT, "send()", SEND_PROMPT)

    async def hears(self, seconds: float) -> None:
        """Wait until something arrives, so many seconds at most."""
        self._arrived.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._arrived.wait()

    async def gets(self, rule: Rule, count: int, what: str) -> list[bytes]:
        """The next so many datagrams."""

        async def wait() -> None:
            while len(self.received) < count:
                self._arrived.clear()
                await self._arrived.wait()

        try:
            await within(rule, self.timeout, wait(), f"{what}: {count} datagrams")
        except ConformanceError as exc:
            raise ConformanceError(rule, f"{exc.seen}; {len(self.received)} came") from exc
        if self._wrong is not None:
            raise ConformanceError(rules.SENDER, self._wrong)
        taken, self.received = self.received[:count], self.received[count:]
        return [data for _, _, data in taken]


@contextlib.asynccontextmanager
async def _nodes(trial: Trial[RelayTransport], *contexts: LentContext) -> AsyncIterator[list[_Node]]:
    """Transports in use, side by side."""
    nodes: list[_Node] = []

    def receive(transport: RelayTransport, ctx: LentContext) -> None:
        nodes.append(_Node(transport, ctx, trial.timeout))

    async with trial.running(*contexts, made=receive):
        yield nodes
    for node, ctx in zip(nodes, contexts, strict=True):
        # Who is closed sends nothing any more, and does not raise.
        node.send(RelayUrl.parse("https://192.0.2.1/"), ctx.node_id, [b"late"])
        trial.nothing_failed(ctx)


def _calls(transport: RelayTransport, relay: RelayUrl) -> None:
    """Make the calls that never raise, with what may come from anywhere."""
    stranger = SecretKey.generate().node_id
    odd = RelayUrl.parse("nobody-knows-this-scheme://relay.example/")
    calls: tuple[tuple[str, Callable[[], Any]], ...] = (
        ("attest() of a stranger", lambda: transport.attest(relay, stranger)),
        ("attest() at a relay that is not in use", lambda: transport.attest(odd, stranger)),
        ("open() of another scheme", lambda: transport.open(odd, trusted=False)),
        ("network_changed()", transport.network_changed),
    )
    for what, call in calls:
        try:
            prompt(rules.NO_BLOCKING, what, call)
        except ConformanceError:
            raise
        except Exception as exc:
            raise ConformanceError(rules.CALLS, f"{what} raised {exc!r}") from exc


async def _check_idle(trial: Trial[RelayTransport], ctx: LentContext, relay: RelayUrl) -> None:
    """Without a relay of its own: what it says of itself, and calls before it has started."""
    transport = trial.made(ctx)
    schemes = transport.schemes
    if not isinstance(schemes, frozenset | set) or any(scheme != scheme.lower() for scheme in schemes):
        raise ConformanceError(rules.SCHEMES, f"schemes is {schemes!r}")
    if relay.scheme not in schemes:
        raise ConformanceError(rules.SCHEMES, f"schemes is {set(schemes)}; the relay is {relay}")
    node = _Node(transport, ctx, trial.timeout)
    node.send(relay, SecretKey.generate().node_id, [b"early"])
    _calls(transport, relay)
    if transport.home_relay().value is not None:
        raise ConformanceError(rules.HOME, f"before start() it is {transport.home_relay().value}")
    await trial.close(transport, ctx, failed=True)


async def _check_exchange(trial: Trial[RelayTransport], context: MakeContext, relay: RelayUrl) -> None:
    """Two nodes at one relay."""
    here, there = context(relay_urls=(relay,)), context(relay_urls=(relay,))
    async with _nodes(trial, here, there) as (one, other):
        if one.transport is other.transport:
            raise ConformanceError(rules.NOT_GLOBAL, "the factory gave both endpoints the same object")

        async def both_home() -> None:
            await one.at_home(relay)
            await other.at_home(relay)

        await unblocked(rules.NO_BLOCKING, "connecting", both_home)
        _check_relays(one.transport, relay)
        await _exchange(one, other, relay)
        await _exchange(other, one, relay)
        for datagrams in ([], [b"to nobody"], [bytes(MAX_DATAGRAM)] * BATCH):
            one.send(relay, SecretKey.generate().node_id, datagrams)
        _calls(one.transport, relay)
        await one.at_home(relay)
        await _passes(rules.MOVES, one, other, relay)


def _check_relays(transport: RelayTransport, relay: RelayUrl) -> None:
    infos = asked(rules.RELAYS, "relays()", transport.relays)
    if not infos or not all(isinstance(info, RelayInfo) for info in infos):
        raise ConformanceError(rules.RELAYS, f"relays() returned {infos!r} while {relay} is the home relay")
    first = infos[0]
    if first.url != relay or not first.home or not first.connected or first.kind != "configured":
        raise ConformanceError(rules.RELAYS, f"the home relay is {relay}; relays() begins with {first!r}")
    probes = asked(rules.PROBES, "probes()", transport.probes)
    if not all(isinstance(probe, ProbeServer) for probe in probes):
        raise ConformanceError(rules.PROBES, f"probes() returned {probes!r}")


def _datagrams(count: int, size: int) -> list[bytes]:
    return [number.to_bytes(4, "big") + bytes([number % 251]) * (size - 4) for number in range(count)]


async def _exchange(sender: _Node, receiver: _Node, relay: RelayUrl) -> None:
    """Single datagrams of all sizes, batches of equal and of mixed sizes, and many batches in a row."""
    batches = [
        [b"x"],
        [bytes(range(250)) * 5],
        [b"\xff" * MAX_DATAGRAM],
        _datagrams(BATCH, 1200),
        [bytes([size % 256]) * size for size in (1, 1452, 7, 1200, 1200, 300)],
        *(_datagrams(8, 600) for _ in range(8)),
    ]
    receiver.received.clear()
    for batch in batches:
        if not sender.send(relay, receiver.node_id, batch):
            raise ConformanceError(rules.ARRIVES, f"send() dropped some of {len(batch)} datagrams; nothing else waited")
        # Not more than one batch waits: what is bounded may drop.
        came = list(receiver.received[: len(batch)])
        got = await receiver.gets(rules.ARRIVES, len(batch), "sent through the relay")
        if got != batch:
            rule = rules.ORDER if sorted(got) == sorted(batch) else rules.ARRIVES
            seen = f"of a batch of {len(batch)}, sizes {[len(d) for d in batch][:8]}, came {[len(d) for d in got][:8]}"
            raise ConformanceError(rule, seen)
        if came:
            raise ConformanceError(rules.SENDER, "the receiver was called from within send()")
    sender.was_prompt()


async def _passes(rule: Rule, sender: _Node, receiver: _Node, relay: RelayUrl) -> None:
    """A datagram comes through before long; while connections are made anew some may be lost."""
    receiver.received.clear()

    async def resend() -> None:
        while not receiver.received:
            sender.send(relay, receiver.node_id, [b"again"])
            await receiver.hears(_RESEND_EVERY)

    await within(rule, receiver.timeout, resend(), "sending until a datagram arrives")
    relay_seen, from_id, data = receiver.received[0]
    if (relay_seen, from_id, data) != (relay, sender.node_id, b"again"):
        seen = f"{sender.node_id!r} sent b'again' through {relay}; {from_id!r}, {relay_seen}, {data[:20]!r} came"
        raise ConformanceError(rules.SENDER, seen)
    receiver.received.clear()


async def _check_without_home(trial: Trial[RelayTransport], context: MakeContext, relay: RelayUrl) -> None:
    """A node without a relay of its own reaches one that has, and is answered."""
    async with _nodes(trial, context(), context(relay_urls=(relay,))) as (guest, host):
        await host.at_home(relay)
        guest.transport.open(relay, trusted=True)
        await _passes(rules.OPENS, guest, host, relay)
        await _passes(rules.OPENS, host, guest, relay)
        home = guest.transport.home_relay().value
        if home is not None:
            raise ConformanceError(rules.HOME, f"no relay is configured, yet it is {home}")


async def _check_flood(trial: Trial[RelayTransport], ctx: LentContext, silent: RelayUrl) -> None:
    """Datagrams for a relay that does not answer, far more than a queue should hold, in one turn of the loop."""
    async with _nodes(trial, ctx) as (node,):
        to = SecretKey.generate().node_id
        node.transport.open(silent, trusted=True)
        dropped = False

        def flood() -> None:
            nonlocal dropped
            for number in range(FLOOD // BATCH):
                batch = [number.to_bytes(4, "big") + bytes(1196) for _ in range(BATCH)]
                dropped |= not node.transport.send(silent, to, batch, 0)

        try:
            kept = kept_bytes(flood)
        except Exception as exc:
            raise ConformanceError(rules.SENDS, f"send() raised {exc!r}") from exc
        if kept > MAX_KEPT or not dropped:
            seen = f"of {FLOOD} datagrams to a silent relay {kept >> 10} KiB were kept; send() "
            raise ConformanceError(rules.SEND_BOUNDED, seen + ("returned False" if dropped else "never returned False"))


async def _check_trust(trial: Trial[RelayTransport], ctx: LentContext, relay: RelayUrl) -> None:
    """A relay of a local network that a peer named, where local addresses are not allowed."""
    async with _nodes(trial, ctx) as (node,):
        node.transport.open(relay, trusted=False)
        node.send(relay, SecretKey.generate().node_id, [b"x"])
        loop = asyncio.get_running_loop()
        deadline = loop.time() + _REFUSES
        while loop.time() < deadline:
            if any(info.url == relay and info.connected for info in node.transport.relays()):
                seen = f"local addresses are not allowed, a peer named {relay}, and it is connected"
                raise ConformanceError(rules.TRUSTS_NOBODY, seen)
            await asyncio.sleep(0.01)  # what must not happen tells nobody
