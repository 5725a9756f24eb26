"""All relays of an endpoint: those it wants to be reachable through, and those of the nodes that it talks to."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

from tom_connect.abc import PluginContext, ProbeServer, RelayInfo, RelayTransport
from tom_connect.addr import RelayUrl
from tom_connect.exceptions import InvalidKeyError
from tom_connect.keys import NodeId
from tom_connect.watch import Watch
from tom_relay.client.choice import Candidate, choose_home, ordered
from tom_relay.client.config import SCHEMES, RelayClientConfig
from tom_relay.client.maps import RelayEntry, public_relays, read_map

if TYPE_CHECKING:
    from tom_relay.client.connection import RelayConnection
    from tom_relay.client.websocket import WebSocketDialer
    from tom_relay.wire import ReceivedDatagrams

MAX_FOUND: Final = 32
"""Relays of others that we are connected to at once; the least used goes when there are more."""
IDLE: Final = 60.0
"""Seconds without datagrams after which a relay of others is left."""
SWEEP: Final = 0.5
"""Seconds between looks at what is idle, and at the home relay."""
FALL_BACK_AFTER: Final = 3.0
"""Seconds without any configured relay after which public ones are connected to, if they were asked for."""
MAX_KEYS: Final = 4096

ATTESTS: Final = ("configured", "public")
"""Kinds of relays whose word on a node's address counts: one that a peer named could be the peer's own."""

Receiver = Callable[[RelayUrl, NodeId, Sequence[bytes], int], None]


class WebSocketRelays(RelayTransport):
    """Relays with `http` and `https` URLs, over WebSocket. Raises ConfigError for options that can't be carried out.

    Every configured relay is kept connected, so that each is measured and can take the place of another at once.
    """

    name = "relay"
    schemes = frozenset(SCHEMES)

    def __init__(self, ctx: PluginContext) -> None:
        self._config = config = ctx.config if isinstance(ctx.config, RelayClientConfig) else RelayClientConfig()
        self._direct, self._allow_local = ctx.direct, ctx.allow_local
        self.node_id = ctx.node_id
        self.now = ctx.clock.monotonic
        self.sign = ctx.signer.sign_relay_challenge
        self._logger = ctx.logger
        entries = [RelayEntry(url) for url in ctx.relay_urls if url.scheme in SCHEMES]
        if config.map is not None:
            entries += read_map(config.map)
        own = {entry.url: entry for entry in reversed(entries)}
        self._own = {entry.url: own[entry.url] for entry in entries}
        self.has_choice = len(self._own) > 1
        self._public = {e.url: e for e in public_relays(ctx.public_relays) if e.url not in self._own}
        self._connections: dict[RelayUrl, RelayConnection] = {}
        self._tasks: dict[RelayUrl, asyncio.Task[None]] = {}
        self._leaving: set[asyncio.Task[None]] = set()
        self._sweeper: asyncio.Task[None] | None = None
        self._home: Watch[RelayUrl | None] = Watch(None)
        self._standby: Watch[RelayUrl | None] = Watch(None)
        self._keys: dict[bytes, NodeId] = {}
        self._receive: Receiver | None = None
        self._attested: Callable[[RelayUrl, NodeId, str], None] | None = None
        self._running = False
        self._without_since = 0.0
        if config.ca_file is not None:
            _ = self.dialer  # says now that it can't be read

    @functools.cached_property
    def dialer(self) -> WebSocketDialer:
        """What opens WebSockets."""
        # Imported with the first relay that is connected to: many an endpoint has none.
        from tom_relay.client.websocket import WebSocketDialer
        from tom_relay.wire import SUBPROTOCOLS, WITHOUT_ADDRESS

        # Who takes no direct packets may have reasons to tell nobody where it is.
        dialects = SUBPROTOCOLS if self._direct else WITHOUT_ADDRESS
        return WebSocketDialer(self._config, self._allow_local, dialects)

    # Life

    async def start(self) -> None:
        """Begin to connect to the configured relays."""
        self._running = True
        self._without_since = self.now()
        for entry in self._own.values():
            self._connect(entry, trusted=True)
        if self._public and not self._own:
            self._fall_back()
        self._sweeper = asyncio.create_task(self._sweep(), name="relays: sweeping")

    async def aclose(self) -> None:
        """Leave all relays."""
        self._running = False
        tasks = [*self._tasks.values(), *self._leaving]
        if self._sweeper is not None:
            tasks.append(self._sweeper)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._tasks.clear()
        self._connections.clear()
        self._home.close()
        self._standby.close()

    # For the core

    def set_receiver(self, receive: Receiver) -> None:
        """See `RelayTransport`."""
        self._receive = receive

    def home_relay(self) -> Watch[RelayUrl | None]:
        """See `RelayTransport`."""
        return self._home

    def standby_relay(self) -> Watch[RelayUrl | None]:
        """See `RelayTransport`."""
        return self._standby

    def open(self, relay: RelayUrl, *, trusted: bool) -> None:
        """See `RelayTransport`."""
        connection = self._connection(relay, trusted=trusted)
        if connection is not None:
            connection.last_used = self.now()

    def send(self, relay: RelayUrl, node_id: NodeId, datagrams: Sequence[bytes], ecn: int) -> bool:
        """See `RelayTransport`."""
        connection = self._connections.get(relay) or self._connection(relay, trusted=False)
        return connection is not None and connection.send(node_id, datagrams, ecn)

    def attest(self, relay: RelayUrl, node_id: NodeId) -> None:
        """See `RelayTransport`."""
        connection = self._connections.get(relay)
        if connection is not None and connection.kind in ATTESTS:
            connection.ask_address(node_id)

    def set_attested(self, callback: Callable[[RelayUrl, NodeId, str], None]) -> None:
        """See `RelayTransport`."""
        self._attested = callback

    def network_changed(self) -> None:
        """See `RelayTransport`."""
        for connection in self._connections.values():
            connection.network_changed()

    def relays(self) -> Sequence[RelayInfo]:
        """See `RelayTransport`."""
        home = self._home.value
        infos = [
            RelayInfo(url=c.url, kind=c.kind, connected=c.connected, rtt=c.rtt, home=c.url == home, problem=c.problem)
            for c in self._connections.values()
        ]
        order = ("configured", "public", "found")
        return sorted(infos, key=lambda info: (not info.home, order.index(info.kind), str(info.url)))

    def probes(self) -> Sequence[ProbeServer]:
        """See `RelayTransport`."""
        own = [c for c in self._connections.values() if c.kind != "found"]
        own.sort(key=lambda c: (c.url != self._home.value, c.kind != "configured", not c.connected))
        return [self._probe(connection) for connection in own]

    def _probe(self, connection: RelayConnection) -> ProbeServer:
        url, services = connection.url, connection.services
        # Public relays are iroh's, which have no STUN.
        ports = {"stun": None if connection.kind == "public" else 3478, "qad": 7842} if services is None else services
        return ProbeServer(
            relay=url,
            host=url.host.strip("[]"),
            stun_port=ports.get("stun"),
            stun_other_port=ports.get("stun-other"),
            qad_port=ports.get("qad"),
            certain=services is not None,
            qad_verify=url.scheme == "https",
            qad_ca=self.dialer.authorities,
        )

    # Connections

    def _connection(self, relay: RelayUrl, *, trusted: bool) -> RelayConnection | None:
        """The connection to a relay, made if need be; None if there can be none."""
        connection = self._connections.get(relay)
        if connection is not None:
            if trusted and not connection.trusted:
                connection.trusted = True
                connection.network_changed()
            return connection
        if not self._running or relay.scheme not in SCHEMES:
            return None
        found = [c for c in self._connections.values() if c.kind == "found"]
        if len(found) >= MAX_FOUND:
            self._leave(min(found, key=lambda c: c.last_used))
        return self._connect(RelayEntry(relay, "found"), trusted=trusted)

    def _connect(self, entry: RelayEntry, *, trusted: bool) -> RelayConnection:
        known = self._connections.get(entry.url)
        if known is not None:
            known.entry, known.kind = entry, entry.kind
            return known
        from tom_relay.client.connection import RelayConnection  # as with the dialer

        connection = RelayConnection(entry, self, entry.kind, trusted, self.now())
        self._connections[entry.url] = connection
        self._tasks[entry.url] = asyncio.create_task(connection.run(), name=f"relay {entry.url}")
        return connection

    def _leave(self, connection: RelayConnection) -> None:
        self._connections.pop(connection.url, None)
        task = self._tasks.pop(connection.url, None)
        if task is not None:
            task.cancel()
            self._leaving.add(task)
            task.add_done_callback(self._leaving.discard)

    def _fall_back(self) -> None:
        for entry in self._public.values():
            self._connect(entry, trusted=False)

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(SWEEP)
            now = self.now()
            for connection in list(self._connections.values()):
                task = self._tasks[connection.url]
                if task.done():
                    error = None if task.cancelled() else task.exception()
                    self._logger.error("the connection to relay %s failed", connection.url, exc_info=error)
                    self._leave(connection)
                    if connection.kind == "configured":
                        self._connect(connection.entry, trusted=True)
                elif connection.kind == "found" and now - connection.last_used > IDLE:
                    self._leave(connection)
            self._look_after_public(now)
            self._choose(now)

    def _look_after_public(self, now: float) -> None:
        if not self._public or not self._own:
            return
        if any(c.connected for c in self._connections.values() if c.kind == "configured"):
            self._without_since = now
            for connection in [c for c in self._connections.values() if c.kind == "public"]:
                if now - connection.last_used > IDLE:
                    self._leave(connection)
        elif now - self._without_since > FALL_BACK_AFTER:
            self._fall_back()

    # What connections tell

    def arrived(self, connection: RelayConnection, received: ReceivedDatagrams) -> None:
        """Pass datagrams on to the core."""
        node_id = self._node_id(received.key)
        if node_id is not None and self._receive is not None:
            self._receive(connection.url, node_id, received.datagrams(), received.ecn)

    def _node_id(self, key: bytes) -> NodeId | None:
        node_id = self._keys.get(key)
        if node_id is None:
            try:
                node_id = NodeId(key)
            except InvalidKeyError:
                return None
            if len(self._keys) >= MAX_KEYS:
                self._keys.clear()
            self._keys[key] = node_id
        return node_id

    def attested(self, connection: RelayConnection, key: bytes, address: str) -> None:
        """Pass a relay's word on a node's address on to the core."""
        node_id = self._node_id(key)
        if node_id is not None and self._attested is not None and connection.kind in ATTESTS:
            self._attested(connection.url, node_id, address)

    def changed(self, connection: RelayConnection) -> None:
        """Choose the home relay anew, and say in the log what became of the connection."""
        if self._running:
            if connection.connected:
                self._logger.debug("relay %s: connected, %s", connection.url, connection.rtt)
            else:
                self._logger.info("relay %s: %s", connection.url, connection.problem or "not connected")
            self._choose(self.now())

    def _choose(self, now: float) -> None:
        candidates = [
            Candidate(
                c.url,
                c.kind,
                connected=c.connected_at,
                lost_at=c.lost_at,
                rtt=c.rtt,
                standing=c.entry.standing,
            )
            for c in self._connections.values()
            if c.kind != "found"
        ]
        home = choose_home(self._home.value, candidates, now)
        spare = [c.url for c in ordered(candidates) if c.url != home]
        # One that serves is kept: each change is told to every peer.
        if self._standby.value not in spare:
            self._standby.set(spare[0] if spare else None)
        self._home.set(home)
