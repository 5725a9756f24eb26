"""The DHT node of one endpoint, which its discovery, its publisher and its share of the socket have in common."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from typing import cast

from tom_connect.abc import PluginContext
from tom_connect.addr import SocketAddr

from .config import DhtConfig
from .contacts import Contacts
from .core import Address
from .node import DhtNode
from .store import StateStore
from .transport import DatagramTransport, SharedTransport, UdpTransport

_KEY = "service"
EXCLUDED_FOR = 600.0
"""Seconds for which a peer is left out of look-ups; a connection that lasts longer keeps its path itself."""
MAX_EXCLUDED = 1024
LONGEST_POLL = 600.0
"""Seconds, as invitations can say it."""


class DhtService:
    """Starts the node with its first user and closes it with its last."""

    def __init__(self, ctx: PluginContext) -> None:
        self.ctx = ctx
        self.config: DhtConfig = ctx.config if ctx.config is not None else DhtConfig()
        self.shared_transport = None if self.config.own_socket else SharedTransport(ctx.socket)
        self.store = None if ctx.data_dir is None else StateStore(ctx.data_dir, self.config.bootstrap, ctx.logger)
        transport: DatagramTransport = self.shared_transport or UdpTransport(self.config.bind_addrs)
        self.node = DhtNode(
            transport,
            config=self.config.core_config(),
            bootstrap=self.config.bootstrap_nodes,
            store=self.store,
            is_excluded=self._is_excluded,
            on_external=self._report_external if self.shared_transport else None,
            # Their addresses are those of the shared socket: another one is not let in by their NATs.
            peers=ctx.direct_peers if self.shared_transport else None,
            logger=ctx.logger,
        )
        self.contacts = Contacts(ctx, self.config, self.node)
        self._users: set[object] = set()
        self._on_external: list[Callable[[], None]] = []
        self.calls = "not looked for"
        """How calls of others are looked for, in a few words."""
        self._excluded: OrderedDict[Address, float] = OrderedDict()
        self._lock = asyncio.Lock()
        self._running = False

    @classmethod
    def of(cls, ctx: PluginContext) -> DhtService:
        """The service of an endpoint, made at the first call."""
        if _KEY not in ctx.shared:
            ctx.shared[_KEY] = cls(ctx)
        return cast(DhtService, ctx.shared[_KEY])

    def _report_external(self, address: Address) -> None:
        # Port 0: the NAT gives each destination another one.
        self.ctx.report_external_addr(SocketAddr(*address))
        for call in self._on_external:
            call()

    def on_external(self, call: Callable[[], None]) -> None:
        """Call `call()` whenever others see us elsewhere than before."""
        self._on_external.append(call)

    def exclude(self, address: Address) -> None:
        """Send no queries to a peer that is to be punched: they would reach its router before it has opened.

        Nodes that were asked before stay; whatever they could spoil is spoiled.
        """
        if not self._running or self.node.has_asked(address):
            return
        self._excluded.pop(address, None)
        self._excluded[address] = time.monotonic() + EXCLUDED_FOR
        if len(self._excluded) > MAX_EXCLUDED:
            self._excluded.popitem(last=False)

    def _is_excluded(self, address: Address) -> bool:
        until = self._excluded.get(address)
        return until is not None and time.monotonic() < until

    @property
    def poll_interval(self) -> float:
        """Seconds between two polls of one mailbox: the more there is to do for calls, the longer."""
        return min(self.config.rendezvous_poll * self.contacts.slower, LONGEST_POLL)

    async def acquire(self, user: object) -> None:
        """Count a user in; the node runs when this returns. Raises BindError."""
        async with self._lock:
            if not self._running:
                await self.node.start()
                self._running = True
            self._users.add(user)

    async def release(self, user: object) -> None:
        """Count a user out; harmless for one that was never in."""
        async with self._lock:
            self._users.discard(user)
            if self._running and not self._users:
                self._running = False
                await self.node.aclose()

    @property
    def is_running(self) -> bool:
        """Whether the node runs."""
        return self._running

    def last_published(self, salt: bytes = b"") -> int:
        """The highest sequence number that we published, also before a restart; 0 if none is known."""
        return 0 if self.store is None else self.store.last_published(self.ctx.node_id, salt)

    def note_published(self, seq: int, salt: bytes = b"") -> None:
        """Remember a sequence number beyond a restart."""
        if self.store is not None:
            self.store.note_published(self.ctx.node_id, seq, salt)


class LiveDiagnostics(Mapping[str, object]):
    """What `tom-connect doctor` shows of the DHT, read at the moment it is asked."""

    def __init__(self, service: DhtService) -> None:
        self._service = service

    def _read(self) -> dict[str, object]:
        contacts = self._service.contacts
        told: dict[str, object] = {"contacts": len(contacts)} if contacts else {}
        if contacts.only:
            told["published to"] = "contacts alone"
        if not self._service.is_running:
            return {"state": "not running", **told}
        stats = self._service.node.stats()
        return {
            "state": "joined" if any(stats.table.values()) else "not joined",
            "mode": "server" if stats.serving else "client",
            "socket": "own" if self._service.config.own_socket else "shared",
            "nodes in table": stats.table,
            "nodes in the DHT, estimated": stats.dht_size,
            "seen by others at": {
                family: str(SocketAddr(*address)) if address[1] else f"{address[0]}, port differs by destination"
                for family, address in stats.external.items()
            },
            "bootstrap": stats.bootstrap,
            "calls": self._service.calls,
            **told,
            "datagrams received": stats.received,
            "datagrams sent": stats.sent,
            "dropped": stats.dropped,
            "failures": stats.failures,
        }

    def __getitem__(self, key: str) -> object:
        return self._read()[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._read())

    def __len__(self) -> int:
        return len(self._read())
