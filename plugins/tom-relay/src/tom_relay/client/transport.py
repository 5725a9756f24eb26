"""All relays of an endpoint: those it wants to be reachable through, and those of the nodes that it talks to."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import importlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

from tom_connect.abc import PluginContext, ProbeServer, RelayInfo, RelayTransport
from tom_connect.addr import RelayUrl
from tom_connect.exceptions import InvalidKeyError
from tom_connect.keys import NodeId
from tom_connect.watch import Watch
from tom_relay.client.choice import KINDS, Candidate, choose_home, ordered
from tom_relay.client.config import SCHEME, SCHEMES, RelayClientConfig
from tom_relay.client.maps import RelayEntry, public_relays, read_map
from tom_relay.client.standing import Standing

if TYPE_CHECKING:
    from tom_relay.client.connection import Dialer, RelayConnection
    from tom_relay.client.quic import QuicDialer
    from tom_relay.client.volunteers.seeker import VolunteerSeeker
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
LOAD_SEEKER: Final = 1.0
"""Seconds from the start until what looks for volunteers is loaded: in time for its first step (`SETTLE`), and after a
dial that was begun at once."""
MAX_KEYS: Final = 4096

ATTESTS: Final = ("configured", "public")
"""Kinds of relays whose word on a node's address counts: one that a peer named could be the peer's own."""

Receiver = Callable[[RelayUrl, NodeId, Sequence[bytes], int], None]


class Relays(RelayTransport):
    """Relays with `http` and `https` URLs, over WebSocket, and nodes that are relays, `tom`, over QUIC.

    Raises ConfigError for options that can't be carried out.

    Every configured relay is kept connected, so that each is measured and can take the place of another at once.
    """

    name = "relay"
    schemes = frozenset((*SCHEMES, SCHEME))

    def __init__(self, ctx: PluginContext) -> None:
        self._config = config = ctx.config if isinstance(ctx.config, RelayClientConfig) else RelayClientConfig()
        self._direct, self._allow_local = ctx.direct, ctx.allow_local
        self.node_id = ctx.node_id
        self._quic_connections = ctx.connections if ctx.direct else None
        self.now = ctx.clock.monotonic
        self.sign = ctx.signer.sign_relay_challenge
        self._logger = ctx.logger
        entries = [
            RelayEntry(url) for url in ctx.relay_urls if url.scheme in self.schemes and url.node_id != self.node_id
        ]
        if config.map is not None and not ctx.dht_only:
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
        self._expected: dict[NodeId, asyncio.Queue[bytes]] = {}
        self._ctx = ctx
        self.seeks = (
            config.volunteers != "off"
            and ctx.direct
            and ctx.connections is not None
            and not (self._own or self._public)
        )
        """Whether volunteers are looked for where they are needed: no relay is configured."""
        self.seeker: VolunteerSeeker | None = None
        """Who keeps them; None while it is not loaded."""
        self._seeking: asyncio.Task[None] | None = None
        self._running = False
        self._without_since = 0.0
        if config.ca_file is not None:
            _ = self._websockets  # says now that it can't be read

    # What follows is imported with the first relay that is connected to: many an endpoint has none.

    @functools.cached_property
    def _websockets(self) -> WebSocketDialer:
        from tom_relay.client.websocket import WebSocketDialer
        from tom_relay.wire import SUBPROTOCOLS, WITHOUT_ADDRESS

        # Who takes no direct packets may have reasons to tell nobody where it is.
        dialects = SUBPROTOCOLS if self._direct else WITHOUT_ADDRESS
        return WebSocketDialer(self._config, self._allow_local, dialects)

    @functools.cached_property
    def _quic(self) -> QuicDialer:
        from tom_relay.client.quic import QuicDialer

        return QuicDialer(self._quic_connections)

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
        if self.seeks:
            self._seeking = asyncio.create_task(self._seek(), name="relays: looking after volunteers")

    async def _seek(self) -> None:
        since = self.now()
        await asyncio.sleep(LOAD_SEEKER)
        await asyncio.to_thread(importlib.import_module, "tom_relay.client.volunteers.seeker")
        from tom_relay.client.volunteers.seeker import VolunteerSeeker

        self.seeker = VolunteerSeeker(self._ctx, self, always=self._config.volunteers == "always")
        await self.seeker.run(since)

    async def aclose(self) -> None:
        """Leave all relays."""
        self._running = False
        tasks = [*self._tasks.values(), *self._leaving]
        tasks += [task for task in (self._sweeper, self._seeking) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._tasks.clear()
        self._connections.clear()
        self._home.close()
        self._standby.close()

    def dialer_for(self, url: RelayUrl) -> Dialer:
        """What opens connections to a relay."""
        return self._quic if url.scheme == SCHEME else self._websockets

    async def standing(self, url: RelayUrl) -> Standing | None:
        """How a relay stands, as it says itself at its web site."""
        return await self._websockets.standing(url)

    # For the core

    def set_receiver(self, receive: Receiver) -> None:
        """See `RelayTransport`."""
        self._receive = receive

    def home_relay(self) -> Watch[RelayUrl | None]:
        """See `RelayTransport`."""
        return self._home

    @property
    def publishes_standby(self) -> bool:
        """A volunteer may go at any time, and nobody answers for it: both are told to everyone."""
        return self.seeks

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
        if self.seeker is not None:
            self.seeker.network_changed()

    def suspect(self) -> None:
        """See `RelayTransport`; relays that the user named are believed."""
        if self.seeker is not None:
            self.seeker.suspect()

    def missed(self, relay: RelayUrl, caller: str) -> None:
        """See `RelayTransport`; volunteers alone are left for it."""
        if self.seeker is not None:
            self.seeker.missed(relay, caller)

    def relays(self) -> Sequence[RelayInfo]:
        """See `RelayTransport`."""
        home = self._home.value
        infos = [
            RelayInfo(url=c.url, kind=c.kind, connected=c.connected, rtt=c.rtt, home=c.url == home, problem=c.problem)
            for c in self._connections.values()
        ]
        order = (*KINDS, "found")
        return sorted(infos, key=lambda info: (not info.home, order.index(info.kind), str(info.url)))

    def probes(self) -> Sequence[ProbeServer]:
        """See `RelayTransport`."""
        own = [c for c in self._connections.values() if c.kind != "found" and c.url.scheme != SCHEME]
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
            qad_ca=self._websockets.authorities,
        )

    # Connections

    def _connection(self, relay: RelayUrl, *, trusted: bool) -> RelayConnection | None:
        """The connection to a relay, made if need be; None if there can be none."""
        connection = self._connections.get(relay)
        if connection is not None:
            if trusted and not connection.trusted:
                connection.trusted = True
                if not connection.connected:
                    connection.network_changed()
            return connection
        if not self._running or relay.scheme not in self.schemes or relay.node_id == self.node_id:
            return None
        if relay.node_id is not None:
            # A second connection with our key would displace the first.
            same = next((c for c in self._connections.values() if c.url.node_id == relay.node_id), None)
            if same is not None:
                return same
        found = [c for c in self._connections.values() if c.kind == "found"]
        if len(found) >= MAX_FOUND:
            self._leave(min(found, key=lambda c: c.last_used))
        return self._connect(RelayEntry(relay, "found"), trusted=trusted)

    def _connect(self, entry: RelayEntry, *, trusted: bool) -> RelayConnection:
        known = self._connections.get(entry.url)
        if known is not None:
            known.entry, known.kind = entry, entry.kind
            return known
        from tom_relay.client.connection import RelayConnection  # as with the dialers

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
        if node_id is not None and node_id in self._expected:
            for data in received.datagrams():
                with contextlib.suppress(asyncio.QueueFull):
                    self._expected[node_id].put_nowait(data)
        elif node_id is not None and self._receive is not None:
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

    def _standing_of(self, connection: RelayConnection) -> Standing:
        if connection.kind == "volunteer" and self.seeker is not None:
            return self.seeker.book.standing(connection.url)
        return connection.entry.standing

    # Volunteers

    def use(self, url: RelayUrl) -> RelayConnection:
        """Connect to a volunteer and keep it; see `RelayUser`."""
        same = next((c for c in self._connections.values() if c.url.node_id == url.node_id), None)
        if same is not None and same.url != url:
            self._leave(same)
        return self._connect(RelayEntry(url, "volunteer"), trusted=False)

    def leave(self, url: RelayUrl) -> None:
        """Let a volunteer go; see `RelayUser`."""
        connection = self._connections.get(url)
        if connection is not None and connection.kind == "volunteer":
            self._leave(connection)
            self._choose(self.now())

    def expect(self, sender: NodeId, arrived: asyncio.Queue[bytes] | None) -> None:
        """Put datagrams of a sender into a queue; see `RelayUser`."""
        if arrived is None:
            self._expected.pop(sender, None)
        else:
            self._expected[sender] = arrived

    def _choose(self, now: float) -> None:
        candidates = [
            Candidate(
                c.url,
                c.kind,
                connected=c.connected_at,
                lost_at=c.lost_at,
                rtt=c.rtt,
                standing=self._standing_of(c),
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
