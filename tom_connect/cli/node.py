"""What several commands do with an endpoint: say where it is, dial, follow paths, answer pings."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import attrs

from tom_connect.abc import PathInfo, PublishReport, RelayInfo
from tom_connect.addr import NodeAddr, SocketAddr
from tom_connect.cli.options import Invocation
from tom_connect.cli.run import cause_of
from tom_connect.connection import Connection
from tom_connect.dial import Connected, DialEvent, Resolved
from tom_connect.endpoint import Endpoint
from tom_connect.exceptions import ConfigError, TomError
from tom_connect.holepunch.events import PathSelected
from tom_connect.holepunch.path import Path
from tom_connect.incoming import Incoming
from tom_connect.keys import NodeId
from tom_connect.tickets import encode_ticket

PING_ALPN = "tom-ping/1"
PIPE_ALPN = "tom-pipe/1"
MAX_PINGERS = 64
"""Nodes that may ping us at the same time; more are refused."""
_PING_CHUNK = 4096


RELAY_WAIT = 3.0
"""Seconds that we wait for a relay before we say where we are: name, TCP, TLS and handshake, far away."""


def _seconds(value: float) -> float:
    return round(value, 4)


class Clock:
    """Seconds since the command began to do its work; the `at` of its events."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._start = self._loop.time()

    @property
    def at(self) -> float:
        """Seconds, to a tenth of a millisecond."""
        return _seconds(self._loop.time() - self._start)


def check_settings(run: Invocation, endpoint: Endpoint) -> None:
    """Refuse what only plugins can judge: raises ConfigError for an option or a relay that none of them takes."""
    for plugin in endpoint.plugins:
        _, found, why = plugin.reason.partition("ConfigError: ")
        if plugin.state == "failed" and found:
            raise ConfigError(why)
    if run.config.dht_only:
        return
    taken = {str(relay.url) for relay in endpoint.relays()}
    for url in run.config.relay_urls:
        if url.scheme not in ("http", "https") and str(url) not in taken:
            raise ConfigError(f"relay: no plugin carries packets through {url}; expected https://HOST/ or http://HOST/")


def relays_left_out(run: Invocation) -> str:
    """Which configured relays are not used, as they are somebody's servers and none is to be asked; empty if none."""
    named = [*run.config.relay, *run.config.public_relays]
    return (
        f"Left out, as dht_only asks for no servers: relay {', '.join(named)}" if run.config.dht_only and named else ""
    )


# Being reached


@contextlib.asynccontextmanager
async def told(run: Invocation, endpoint: Endpoint, clock: Clock, *, doing: str, command: str) -> AsyncIterator[None]:
    """Say that we are online, and meanwhile when our address is published or changes.

    `doing` and `command` are for people: "Listening", and how others reach us.
    """
    check_settings(run, endpoint)
    if not run.config.direct and not endpoint.relays() and (run.config.dht_only or not run.config.public_relays):
        raise ConfigError("--no-direct without a relay leaves no way to reach this node; say --relay URL")
    await _wait_for_relay(run, endpoint)
    addr = endpoint.node_addr()
    run.output.event(
        "online",
        f"{doing} as {endpoint.node_id}\nElsewhere: tom-connect {command} {endpoint.node_id}",
        node_id=endpoint.node_id,
        direct_addrs=addr.direct_addrs,
        relay_urls=addr.relay_urls,
        ticket=encode_ticket(addr),
        at=clock.at,
    )
    if not any(plugin.state == "loaded" and "tom_publisher" in plugin.hooks for plugin in endpoint.plugins):
        run.output.note(
            "No plugin publishes where we are (pip install 'tom-connect[dht]' brings one), so others need our ticket:\n"
            + encode_ticket(addr)
        )
    async with background(_tell_published(run, endpoint, clock), _tell_addr(run, endpoint, clock, addr)):
        yield


async def _wait_for_relay(run: Invocation, endpoint: Endpoint) -> None:
    """Wait a little until we are reachable through a relay, if that is wanted; say why not, if we are not."""
    if left_out := relays_left_out(run):
        run.output.note(left_out)
        return
    if not endpoint.relays() and not run.config.relay and not run.config.public_relays:
        return
    if not any(plugin.state == "loaded" and "tom_relay_transport" in plugin.hooks for plugin in endpoint.plugins):
        run.output.note("No plugin carries packets through relays: pip install 'tom-connect[relay]' brings one")
        return
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(RELAY_WAIT):
            async for addr in endpoint.watch_addr():
                if addr.relay_urls:
                    break
    for relay in endpoint.relays():
        run.output.event(
            "relay",
            _relay_text(relay),
            url=relay.url,
            kind=relay.kind,
            connected=relay.connected,
            home=relay.home,
            problem=relay.problem,
        )


def _relay_text(relay: RelayInfo) -> str:
    which = {"public": "Public relay", "volunteer": "Volunteer relay"}.get(relay.kind, "Relay")
    if relay.home:
        state = "others reach us through it"
    else:
        state = "connected" if relay.connected else relay.problem or "no answer yet"
    return f"{which} {relay.url}: {state}"


async def _tell_published(run: Invocation, endpoint: Endpoint, clock: Clock) -> None:
    told_before: tuple[PublishReport, ...] = ()
    async for reports in endpoint.watch_published():
        for report in reports:
            if report not in told_before:
                text = f"Published by {report.by}: {report.nodes} nodes store our address ({clock.at:.2f} s)"
                run.output.event("published", text, by=report.by, nodes=report.nodes, at=clock.at)
        told_before = reports


async def _tell_addr(run: Invocation, endpoint: Endpoint, clock: Clock, told_before: NodeAddr) -> None:
    async for addr in endpoint.watch_addr():
        if addr != told_before:
            told_before = addr
            run.output.event(
                "address",
                None,
                direct_addrs=addr.direct_addrs,
                relay_urls=addr.relay_urls,
                ticket=encode_ticket(addr),
                at=clock.at,
            )


@contextlib.asynccontextmanager
async def background(*coroutines: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Run coroutines meanwhile; what one raises ends the block, and what the block raises is raised as it is."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(coroutine) for coroutine in coroutines]
            yield
            for task in tasks:
                task.cancel()
    except BaseExceptionGroup as exc:
        raise cause_of(exc) from None


async def answer_pings(incoming: Incoming) -> None:
    """Send back what comes on the peer's streams, one stream after the other, until it goes away."""
    with contextlib.suppress(TomError):
        connection = await incoming.accept()
        async with connection:
            while True:
                stream = await connection.accept_bi()
                async with stream:
                    while data := await stream.read(_PING_CHUNK):
                        stream.write(data)
                        await stream.drain()


Handler = Callable[[Incoming], Coroutine[Any, Any, None]]


def only_from(allowed: frozenset[NodeId], handler: Handler) -> Handler:
    """A handler that refuses all nodes but these; none given: refuses nobody."""

    async def handle(incoming: Incoming) -> None:
        if allowed and incoming.remote_node_id not in allowed:
            incoming.refuse("this node takes connections from others only")
        else:
            await handler(incoming)

    return handle


async def serve(endpoint: Endpoint, handler: Handler) -> None:
    """Give incoming connections to `handler`, each in a task of its own, but answer pings; until cancelled.

    A handler decides for itself how many it takes at once.
    """
    pingers = 0

    async def ping(incoming: Incoming) -> None:
        nonlocal pingers
        pingers += 1
        try:
            await answer_pings(incoming)
        finally:
            pingers -= 1

    async with asyncio.TaskGroup() as group:
        async for incoming in endpoint.accept():
            if incoming.alpn != PING_ALPN:
                group.create_task(handler(incoming), name=f"connection of {incoming.remote_node_id.short()}")
            elif pingers >= MAX_PINGERS:
                incoming.refuse("too many nodes ping this one")
            else:
                group.create_task(ping(incoming), name=f"pings of {incoming.remote_node_id.short()}")


# Reaching others


def kind_of(path: Path) -> str:
    """What kind of path it is: "direct" or "relay"."""
    return "direct" if isinstance(path, SocketAddr) else "relay"


def addr_of(path: Path) -> str:
    """Where a path goes: the UDP address or the relay's URL."""
    return str(path) if isinstance(path, SocketAddr) else str(path.url)


def active_path(connection: Connection) -> PathInfo | None:
    """The path that carries traffic now."""
    return next((path for path in connection.paths() if path.active), None)


@attrs.frozen
class Dialer:
    """Dials for a command and says how it goes."""

    run: Invocation
    endpoint: Endpoint
    clock: Clock

    async def dial(self, target: NodeAddr, alpn: str) -> Connection:
        """Connect; prints `resolved` and `connected`. Raises as `Endpoint.connect`."""
        check_settings(self.run, self.endpoint)
        self.run.output.note(f"Looking for {target.node_id}")
        return await self.endpoint.connect(target, alpn, on_progress=self._tell)

    def _tell(self, event: DialEvent) -> None:
        output = self.run.output
        if isinstance(event, Resolved):
            where = ", ".join(map(str, (*event.addr.direct_addrs, *event.addr.relay_urls))) or "no address"
            output.event(
                "resolved",
                f"Found by {event.source} after {event.at:.2f} s: {where}",
                source=event.source,
                at=_seconds(event.at),
                direct_addrs=event.addr.direct_addrs,
                relay_urls=event.addr.relay_urls,
            )
        elif isinstance(event, Connected):
            path = event.path
            output.event(
                "connected",
                f"Connected after {event.at:.2f} s" + (f", {path.kind} path {path.addr}" if path is not None else ""),
                at=_seconds(event.at),
                path=path.kind if path is not None else None,
                addr=path.addr if path is not None else None,
            )

    @contextlib.asynccontextmanager
    async def following(self, connection: Connection) -> AsyncIterator[None]:
        """Say meanwhile when traffic takes another path; closes the connection in the end."""
        async with connection, background(self._tell_paths(connection)):
            yield

    async def _tell_paths(self, connection: Connection) -> None:
        active = active_path(connection)
        current = str(active.addr) if active is not None else None
        with connection.path_events() as events:
            async for event in events:
                if isinstance(event, PathSelected) and addr_of(event.path) != current:
                    current = addr_of(event.path)
                    self.run.output.event(
                        "path",
                        f"Now over {kind_of(event.path)} path {current} ({event.why})",
                        at=self.clock.at,
                        path=kind_of(event.path),
                        addr=current,
                        why=event.why,
                    )
