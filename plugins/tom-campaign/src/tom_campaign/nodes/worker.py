"""What a node can be asked: to find others, connect, measure, and let itself be measured."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, Final

import attrs
import importlib_metadata

from tom_campaign.core.control import (
    CONTROL_ALPN,
    DATA_ALPN,
    Admit,
    Ask,
    Bind,
    Close,
    Connect,
    Hello,
    Ping,
    Ready,
    Resolve,
    Transfer,
    Window,
)
from tom_campaign.core.errors import ControlError
from tom_campaign.core.records import PathSpan
from tom_campaign.core.statistics import kept_samples, rtt_statistics
from tom_campaign.core.summing import Measured
from tom_campaign.nodes.acceptor import Acceptor
from tom_campaign.nodes.limits import Limits
from tom_campaign.nodes.pinging import Pinging
from tom_campaign.nodes.session import Session, path_kind
from tom_campaign.nodes.transferring import transferred
from tom_connect import (
    Connection,
    Endpoint,
    EndpointConfig,
    Incoming,
    NodeAddr,
    NodeId,
    SecretKey,
    TomError,
    encode_ticket,
)
from tom_connect.exceptions import DiscoveryError
from tom_connect.tickets import parse_target

MAX_SESSIONS: Final = 256
"""Nodes with which a node keeps connections at the same time."""

MAX_TARGETS: Final = 1024
"""Nodes that one campaign may be about; each has a lock, until it is closed."""

Answer = Mapping[str, Any]
Tell = Callable[[Window], None]


def version() -> str:
    """The version of tom-connect that runs here."""
    try:
        return importlib_metadata.version("tom-connect")
    except importlib_metadata.PackageNotFoundError:
        return "unknown"


@attrs.define(eq=False)
class Worker:
    """One endpoint, and what is measured with it. `serve_data` must run for others to connect."""

    endpoint: Endpoint
    limits: Limits = attrs.Factory(Limits)
    acceptor: Acceptor = attrs.Factory(lambda self: Acceptor(self.limits.max_bytes), takes_self=True)
    _sessions: dict[NodeId, Session] = attrs.Factory(dict)
    _busy: dict[NodeId, asyncio.Lock] = attrs.Factory(dict)

    def hello(self) -> Hello:
        """What the node says of itself."""
        return Hello(
            node_id=str(self.endpoint.node_id),
            version=version(),
            plugins=tuple(
                f"{plugin.name} {plugin.version or ''}".strip()
                for plugin in self.endpoint.plugins
                if plugin.state == "loaded" and set(plugin.hooks) - {"tom_register_config", "tom_cli_commands"}
            ),
            ticket=encode_ticket(self.endpoint.node_addr()),
        )

    async def serve_data(self) -> None:
        """Take connections of admitted nodes until cancelled."""
        async with asyncio.TaskGroup() as group:
            async for incoming in self.endpoint.accept():
                self.take(incoming, group)

    def take(self, incoming: Incoming, group: asyncio.TaskGroup) -> None:
        """Serve one connection in a task of the group."""
        group.create_task(self.acceptor.handle(incoming), name="measured by another node")

    async def answer(self, ask: Ask, tell: Tell) -> Answer:
        """Do what is asked; `tell` hears of windows meanwhile. Raises TomError for what can't be done here."""
        self.limits.check(ask)
        if isinstance(ask, Ready):
            return await self._ready(ask)
        if isinstance(ask, Admit):
            self.acceptor.admitted = frozenset(map(NodeId.parse, ask.nodes))
            return {}
        if isinstance(ask, Bind):
            raise ControlError("this node is bound already")
        target = parse_target(ask.target)
        if target.node_id not in self._busy and len(self._busy) >= MAX_TARGETS:
            raise ControlError(f"{MAX_TARGETS} nodes have been asked for already")
        async with self._busy.setdefault(target.node_id, asyncio.Lock()):
            return await self._measure(ask, target, tell)

    async def _measure(self, ask: Resolve | Connect | Ping | Transfer | Close, target: NodeAddr, tell: Tell) -> Answer:
        if isinstance(ask, Close):
            session = self._sessions.pop(target.node_id, None)
            if session is not None:
                await session.close()
            self._busy.pop(target.node_id, None)
            return {}
        if isinstance(ask, Resolve):
            measured = await self._resolve(ask, target)
        elif isinstance(ask, Connect):
            measured = await self._connect(ask, target)
        elif isinstance(ask, Ping):
            measured = await Pinging(self._session(target), ask, tell).run()
        else:
            measured = await transferred(self._session(target), ask)
        return attrs.asdict(measured)

    async def aclose(self) -> None:
        """Close all connections."""
        for session in self._sessions.values():
            await session.close()
        self._sessions.clear()
        self._busy.clear()

    def _session(self, target: NodeAddr) -> Session:
        session = self._sessions.get(target.node_id)
        if session is None:
            if len(self._sessions) >= MAX_SESSIONS:
                raise ControlError(f"connections with {MAX_SESSIONS} nodes are kept already")
            session = self._sessions[target.node_id] = Session(self.endpoint, target)
        session.target = target
        return session

    async def _ready(self, ask: Ready) -> Answer:
        try:
            async with asyncio.timeout(ask.timeout):
                if ask.relay:
                    async for addr in self.endpoint.watch_addr():
                        if addr.relay_urls:
                            break
                if ask.published:
                    await self.endpoint.watch_published().other_than(())
        except TimeoutError:
            published = bool(self.endpoint.watch_published().value)
            what = "no relay let it in" if ask.relay and not self.endpoint.node_addr().relay_urls else ""
            what = what or ("" if published else "its address was not published")
            raise ControlError(f"not ready after {ask.timeout:g} s: {what or 'unknown why'}") from None
        return {
            "ticket": encode_ticket(self.endpoint.node_addr()),
            "published": sum(report.nodes for report in self.endpoint.watch_published().value),
        }

    async def _resolve(self, ask: Resolve, target: NodeAddr) -> Measured:
        if not ask.fresh:
            return await _looked_up(self.endpoint, target.node_id, ask.timeout)
        # The same configuration under a key of its own: somebody who has met nobody.
        config = attrs.evolve(self.endpoint.config, secret_key=SecretKey.generate(), secret_key_file=None, alpns=())
        config = attrs.evolve(config, bind=tuple(f"{text.rpartition(':')[0]}:0" for text in config.bind))
        async with Endpoint.bind(config) as endpoint:
            return await _looked_up(endpoint, target.node_id, ask.timeout)

    async def _connect(self, ask: Connect, target: NodeAddr) -> Measured:
        session = self._session(target)
        loop = asyncio.get_running_loop()
        began = loop.time()
        try:
            connection = await session.dial(ask.timeout)
        except TomError as exc:
            return Measured(sent=1, received=0, discovery_source=session.source, error=str(exc))
        took = loop.time() - began
        session.spans.clear()
        session.note_path()
        first = path_kind(connection)
        direct = took if first == "direct" else await _direct_after(session, connection, began, ask.direct_wait)
        return Measured(
            sent=1,
            received=1,
            rtt=rtt_statistics((took * 1000,)),
            samples_ms=kept_samples((took * 1000,)),
            path_kind=path_kind(connection),
            discovery_source=session.source,
            direct_s=None if direct is None else round(direct, 4),
            why_relayed=connection.stats().why_relayed,
            paths=tuple(PathSpan(at_s=round(at - began, 3), path_kind=kind) for at, kind in session.spans),
        )


async def _direct_after(session: Session, connection: Connection, began: float, wait: float) -> float | None:
    """Seconds from `began` until traffic went directly; None if it does not within `wait` seconds."""
    loop = asyncio.get_running_loop()
    with connection.path_events() as events:
        try:
            async with asyncio.timeout(wait):
                while path_kind(connection) != "direct":
                    await anext(events)
                    session.note_path()
        except (TimeoutError, StopAsyncIteration):
            return None
    session.note_path()
    return loop.time() - began


async def _looked_up(endpoint: Endpoint, target: NodeId, timeout: float) -> Measured:
    """Ask where a node is until the first source knows."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    try:
        async with asyncio.timeout(timeout), endpoint.look_up(target) as lookup:
            async for found in lookup:
                took = (loop.time() - began) * 1000
                return Measured(
                    sent=1,
                    received=1,
                    rtt=rtt_statistics((took,)),
                    samples_ms=kept_samples((took,)),
                    discovery_source=found.source,
                )
            reason = "; ".join(map(str, lookup.outcomes)) or "no discovery plugin is in use"
            return Measured(sent=1, received=0, error=reason)
    except TimeoutError:
        return Measured(sent=1, received=0, error=f"not found within {timeout:g} s")
    except DiscoveryError as exc:
        return Measured(sent=1, received=0, error=str(exc))


def bound_with(config: EndpointConfig, *, takes_control: bool = False) -> EndpointConfig:
    """The configuration with the protocols of a campaign."""
    alpns = (DATA_ALPN, CONTROL_ALPN) if takes_control else (DATA_ALPN,)
    return attrs.evolve(config, alpns=alpns)
