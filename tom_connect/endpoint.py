"""The endpoint: one node, its sockets, its connections and its plugins."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import AsyncIterator, Coroutine, Generator, Mapping
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Any, Self

from tom_connect.abc import Diagnostics, PublishReport, RelayInfo
from tom_connect.addr import NodeAddr, SocketAddr
from tom_connect.config import EndpointConfig
from tom_connect.connection import Connection
from tom_connect.crossing import Crossings
from tom_connect.dial import Dial, DialListener
from tom_connect.direct import OwnConnections
from tom_connect.discovery import DiscoveryService, KnownRecords, Lookup, PublishService, SourceCounts, keep_statistics
from tom_connect.exceptions import EndpointClosedError, InvalidInputError, LocalError
from tom_connect.holepunch.addrfilter import AddressFilter
from tom_connect.holepunch.path import Path
from tom_connect.incoming import Accepting, Incoming
from tom_connect.keyfile import load_or_create_secret_key
from tom_connect.keys import NodeId, SecretKey
from tom_connect.magicsock.socket import MagicSocket
from tom_connect.netreport.netwatch.core import NetworkChange
from tom_connect.netreport.netwatch.shell import NetworkWatch
from tom_connect.netreport.report import NetReport
from tom_connect.netreport.service import NetReporter
from tom_connect.own_addrs import OwnAddresses
from tom_connect.plugin_objects import PluginObjects
from tom_connect.plugins import Facilities, PluginContexts, PluginHost, PluginInfo
from tom_connect.quic.driver import Driver
from tom_connect.quic.link import Link
from tom_connect.quic.settings import TransportSettings
from tom_connect.rendezvous import RendezvousService
from tom_connect.signing import NodeSigner, SystemClock
from tom_connect.tickets import parse_target
from tom_connect.watch import Watch

logger = logging.getLogger(__name__)

Target = NodeId | NodeAddr | str
"""Whom to dial: a key, an address, or the text of a key or of a ticket."""


class Endpoint:
    """A node: dials others by their key and accepts their connections. Made by `Endpoint.bind`.

    It belongs to the event loop in which it was bound.
    """

    def __init__(self, config: EndpointConfig, secret_key: SecretKey) -> None:
        """Use `Endpoint.bind`, which also opens the sockets."""
        self._config = config
        self._key = secret_key
        self._signer = NodeSigner(secret_key)
        self._clock = SystemClock()
        self._magic = MagicSocket(
            secret_key,
            address_filter=AddressFilter.of(config),
            direct=config.direct,
            port_probing=config.port_probing,
        )
        self._own = OwnAddresses(secret_key.node_id, config, self._magic)
        self._host = PluginHost.load(config, commands=False)
        self._objects = PluginObjects(self._host, config)
        self._waiting: deque[Link] = deque()
        self._arrived = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._closing: asyncio.Task[None] | None = None
        self._closed = False
        self._driver: Driver
        self._connections: OwnConnections
        self._crossings = Crossings(
            self.node_id,
            config.one_connection_alpns,
            offer=self._offer,
            spawn=lambda coroutine, what: self._spawn("tom-connect", coroutine, what),
        )
        self._net: NetReporter
        self._contexts: PluginContexts
        self._publishing: PublishService
        self._discovery: DiscoveryService
        self._rendezvous: RendezvousService

    @staticmethod
    def bind(config: EndpointConfig | None = None) -> Binding:
        """Open an endpoint: `await Endpoint.bind(config)`, or `async with Endpoint.bind(config) as endpoint`.

        Without a key or key file in the config the node gets a fresh key. Raises ConfigError, KeyFileError, or
        LocalError if no socket could be bound; a plugin that fails is reported in `plugins` and left out.
        """
        return Binding(config or EndpointConfig())

    # Who and where we are

    @property
    def node_id(self) -> NodeId:
        """Our public key, by which others dial us."""
        return self._key.node_id

    @property
    def config(self) -> EndpointConfig:
        """What it was bound with."""
        return self._config

    def node_addr(self) -> NodeAddr:
        """Where we are as far as we know now; local addresses are in it only with `allow_local`."""
        return self._own.told.value

    def watch_addr(self) -> Watch[NodeAddr]:
        """`node_addr()` now and whenever it changes."""
        return self._own.told

    def watch_published(self) -> Watch[tuple[PublishReport, ...]]:
        """The newest success of each publisher, now and whenever one publishes."""
        return self._publishing.published

    @property
    def local_addrs(self) -> tuple[SocketAddr, ...]:
        """What our sockets are bound to, one address a family."""
        return self._magic.local_addrs

    def relays(self) -> list[RelayInfo]:
        """The relays that are in use or wanted, the home relay first."""
        return [info for _name, transport in self._own.relays for info in transport.relays()]

    def net_report(self) -> Watch[NetReport]:
        """What is known about our network: addresses at which others see us, the NAT's kind; now and as it changes."""
        return self._net.current()

    def network_changed(self) -> None:
        """Say that the network is another one: interfaces, relays and all paths are looked at again, at once.

        Unless `watch_network` is off in the config, the endpoint mostly notices by itself.
        """
        self._check_open()
        self._own.look()
        self._own.update()
        self._go_on_elsewhere()

    def _network_has_changed(self, change: NetworkChange) -> None:
        self._own.seen(change.state)
        self._own.update()
        if change.major:
            self._go_on_elsewhere()

    def _go_on_elsewhere(self) -> None:
        self._magic.rebind({address.host for address in self._own.state.addresses})
        self._objects.network_changed()
        self._net.network_changed()
        self._discovery.network_changed()
        self._magic.network_changed()

    def _socket_rebound(self) -> None:
        self._own.update()
        self._net.network_changed()

    @property
    def plugins(self) -> list[PluginInfo]:
        """Every plugin that was found, with its state."""
        return self._host.infos

    def diagnostics(self) -> dict[str, Diagnostics]:
        """What each plugin tells of itself, by its name."""
        return self._host.diagnostics(self._contexts)

    # Connections

    async def connect(
        self, target: Target, alpn: str, *, timeout: float | None = None, on_progress: DialListener | None = None
    ) -> Connection:
        """Dial a node by its key, address or ticket and speak `alpn` with it.

        Its addresses are looked up through the discovery plugins, unless those given answer. Returns once the peer's
        key is proven and it knows ours (for an ALPN in `early_data_alpns` at once, if it was met before). `timeout` in
        seconds, else `connect_timeout` of the config; `on_progress(event)` hears of the dial's steps. For an ALPN in
        `one_connection_alpns` this may be the connection that the node has made to us meanwhile.

        Raises InvalidInputError for a malformed target; DiscoveryError if nobody knows where the node is, DialError
        if it can't be reached, each saying what was tried; PeerIdentityError, AlpnError, ConnectionRefusedError,
        ConnectionError.
        """
        self._check_open()
        addr = target_addr(target)
        if addr.node_id == self.node_id:
            raise InvalidInputError("can't dial ourselves: this is our own node id")
        if not alpn or len(alpn.encode()) > 255:
            raise InvalidInputError("the ALPN must have 1 to 255 bytes of UTF-8")
        dial = Dial(
            self._driver,
            addr,
            alpn,
            discovery=self._discovery,
            rendezvous=self._rendezvous if self._config.direct else None,
            address_filter=self._own.filter,
            relays=() if self._config.dht_only else self._config.relay_urls,
            timeout=self._config.connect_timeout if timeout is None else timeout,
            early_data=alpn in self._config.early_data_alpns,
            listener=on_progress,
        )
        return await self._crossings.connect(dial, addr.node_id, alpn, self._waiting)

    def look_up(self, node_id: NodeId) -> AbstractAsyncContextManager[Lookup]:
        """Ask where a node is: `async with endpoint.look_up(node_id) as lookup: async for found in lookup: ...`.

        `lookup.outcomes` tells what became of each source, `lookup.merged()` what everything so far comes to. Leaving
        the block cancels what still runs. A look-up of the same node that is under way is shared.
        """
        self._check_open()
        return self._discovery.look_up(node_id)

    @property
    def carries_calls(self) -> bool:
        """Whether a plugin in use carries calls where no path leads to a node yet (`tom_rendezvous`)."""
        return bool(self._rendezvous)

    def discovery_counts(self) -> Mapping[str, SourceCounts]:
        """Look-ups since the start by discovery source, with what came of them."""
        return self._discovery.counts

    def accept(self) -> AsyncIterator[Incoming]:
        """Those who dial us, as they come, until the endpoint is closed."""
        return Accepting(self._next_incoming)

    async def _next_incoming(self) -> Incoming | None:
        while not self._closed:
            while self._waiting:
                link = self._waiting.popleft()
                if link.error is None:
                    return Incoming(link)
            self._arrived.clear()
            await self._arrived.wait()
        return None

    def add_alpn(self, alpn: str) -> None:
        """Accept one more application protocol from now on."""
        if alpn not in self._driver.alpns:
            self._driver.alpns = (*self._driver.alpns, alpn)

    def _on_incoming(self, link: Link) -> None:
        if not self._objects.let_in(link.peer, link.alpn):
            link.refuse("refused")
            return
        if not self._closed and self._connections.take(link):
            return
        if self._closed or not self._crossings.take(link):
            self._offer(link)

    def _offer(self, link: Link) -> None:
        if link.error is not None:
            return
        if self._closed or len(self._waiting) >= self._config.max_incoming:
            link.refuse("too many connections wait to be accepted")
            return
        self._waiting.append(link)
        self._arrived.set()

    def _welcome(self, node_id: NodeId) -> bool:
        """Whether a node that calls is connected already, or may be."""
        connected = self._is_connected(node_id)
        return connected or any(self._objects.let_in(node_id, alpn) for alpn in self._driver.alpns)

    def _before_handshake(self, path: Path) -> bool:
        return self._objects.let_in_from(path if isinstance(path, SocketAddr) else path.url)

    # Life

    async def _open(self) -> None:
        config = self._config
        await self._magic.bind(config.bind_addrs)
        self._magic.set_rebound(self._socket_rebound)
        self._own.look()
        self._driver = Driver(
            self._magic,
            self._key,
            alpns=config.alpns,
            settings=TransportSettings(
                idle_timeout=config.idle_timeout,
                keep_alive=config.keep_alive,
                early_data_alpns=frozenset(config.early_data_alpns),
            ),
            max_handshakes=config.max_incoming,
            guard=self._before_handshake,
            on_incoming=self._on_incoming,
        )
        self._net = NetReporter(
            self._magic.shared,
            self._clock,
            local=self._own.local,
            routers=self._own.routers,
            transports=lambda: self._own.relays,
            busy=lambda: bool(self._driver.links),
            probing=config.direct and not config.dht_only,
            on_change=self._own.update,
            report_failure=self._host.report_failure,
        )
        self._connections = OwnConnections(
            self._driver,
            direct=config.direct,
            address_filter=lambda: self._own.filter,
            discovery=lambda: self._discovery,
            spawn=self._spawn,
        )
        self._own.net = self._net.report
        self._magic.add_protocol(self._net)
        self._driver.set_foreign(self._net.quic_received)
        self._magic.set_observed(self._net.peer_told)
        self._magic.set_direct_lost(self._net.direct_path_lost)
        await self._start_plugins()
        self._own.update()
        self._spawn("tom-connect", self._net.run(), "reporting on the network")
        self._spawn("tom-connect", self._net.find_servers(), "finding servers for the network report")
        self._publishing = PublishService(
            self._objects.publishers,
            signer=self._signer,
            addr=self._own.told,
            clock=self._clock,
            report=self._host.report_failure,
            logger=logger,
        )
        if config.watch_network:
            watch = NetworkWatch(self._network_has_changed, self._own.state, in_use=self._magic.local_addrs)
            self._spawn("tom-connect", watch.run(), "watching the network")
        if self._objects.publishers:
            self._spawn("tom-connect", self._publishing.run(), "publishing")
        if self._rendezvous:
            self._spawn("tom-connect", self._rendezvous.run(), "meeting others")
        for name, source in self._own.sources:
            self._spawn(name, self._own.follow(source.watch()), "following addresses")
        for name, transport in self._own.relays:
            for watched in (transport.home_relay(), transport.standby_relay()):
                self._spawn(name, self._own.follow(watched, self._net.relays_changed), "following relays")

    async def _start_plugins(self) -> None:
        self._contexts = self._host.contexts(
            Facilities(
                node_id=self.node_id,
                signer=self._signer,
                clock=self._clock,
                local_addrs=self._own.known,
                socket=self._magic.shared,
                create_task=self._spawn,
                report_external_addr=self._net.plugin_told,
                connections=self._connections.lend,
                reachability=self._own.reachability,
                directories=lambda: [directory for _name, directory in self._objects.directories],
                direct_peers=self._magic.direct_peers.addrs,
            )
        )
        self._own.update()
        objects = self._objects
        await objects.start(self._contexts, self._magic)
        data = self._config.data_path()
        self._discovery = DiscoveryService(
            objects.sources,
            report=self._host.report_failure,
            known=KnownRecords(data) if data is not None else None,
        )
        self._own.relays, self._own.sources = objects.relays, objects.address_sources
        self._rendezvous = RendezvousService(
            objects.rendezvous if self._config.direct else (),
            self._magic,
            let_in_from=objects.let_in_from,
            let_in=self._welcome,
            is_connected=self._is_connected,
            report_failure=self._host.report_failure,
        )

    def _is_connected(self, node_id: NodeId) -> bool:
        """Whether a connection to a node has not ended, or is being made."""
        links = (link for link in self._driver.links if link.error is None)
        return any(link.remote is not None and link.remote.node_id == node_id for link in links)

    def _spawn(self, name: str, coroutine: Coroutine[Any, Any, None], what: str) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(self._guarded(name, coroutine), name=f"{name}: {what}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        # What is cancelled before its first step is never awaited, which is no mistake of the plugin's.
        task.add_done_callback(lambda _task: coroutine.close())
        return task

    async def _guarded(self, name: str, coroutine: Coroutine[Any, Any, None]) -> None:
        try:
            await coroutine
        except Exception as exc:  # a plugin's task may raise anything, and the others go on
            self._host.report_failure(name, exc)

    def _check_open(self) -> None:
        if self._closed:
            raise EndpointClosedError("the endpoint is closed")

    async def close(self, reason: str = "") -> None:
        """End every connection with code 0, stop every plugin, close the sockets; within about a second."""
        if self._closing is None:
            self._closed = True
            self._arrived.set()
            self._closing = asyncio.create_task(self._shut_down(reason), name="closing an endpoint")
        # Who is cancelled while waiting must not leave half an endpoint behind.
        await asyncio.shield(self._closing)

    async def _shut_down(self, reason: str) -> None:
        tasks = tuple(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        async with contextlib.AsyncExitStack() as stack:
            stack.push_async_callback(self._magic.aclose)
            driver = getattr(self, "_driver", None)
            closings = [self._objects.close()]
            if hasattr(self, "_net"):
                closings.append(self._net.aclose())
            if driver is not None:
                closings.append(driver.aclose(reason))
            await asyncio.gather(*closings)
        if (discovery := getattr(self, "_discovery", None)) is not None:
            keep_statistics(self._config, discovery.counts)
            if discovery.known is not None:
                discovery.known.save()
        self._own.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        await self.close()

    def __repr__(self) -> str:
        return f"<Endpoint {self.node_id.short()}, {'closed' if self._closed else 'open'}>"


class Binding:
    """What `Endpoint.bind` returns: await it, or enter it with `async with`."""

    def __init__(self, config: EndpointConfig) -> None:
        self._config = config
        self._endpoint: Endpoint | None = None

    def __await__(self) -> Generator[Any, None, Endpoint]:
        return self._bind().__await__()

    async def _bind(self) -> Endpoint:
        config = self._config
        key = config.secret_key
        if key is None:
            file = config.secret_key_file
            key = load_or_create_secret_key(file) if file is not None else SecretKey.generate()
        endpoint = Endpoint(config, key)
        try:
            await endpoint._open()
        except BaseException:
            await endpoint.close()
            raise
        return endpoint

    async def __aenter__(self) -> Endpoint:
        self._endpoint = await self._bind()
        return self._endpoint

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        assert self._endpoint is not None
        await self._endpoint.close()


def target_addr(target: Target) -> NodeAddr:
    """What to dial; raises InvalidInputError for a text that is neither a node id nor a ticket."""
    if isinstance(target, NodeAddr):
        return target
    if isinstance(target, NodeId):
        return NodeAddr(target)
    if not isinstance(target, str):
        raise LocalError(f"can't dial a {type(target).__name__}: give a NodeId, a NodeAddr or a ticket")
    return parse_target(target)


__all__ = ["Binding", "Endpoint", "Target", "target_addr"]
