"""What the hooks give an endpoint: objects that load the DHT, in a thread, only when the endpoint is bound.

To import the DHT takes several times as long as to bind an endpoint, and joining it longer still; nobody has to wait
for the one who does not for the other. With a socket of its own the node is waited for all the same: its port may be
taken, and that is to be said at once.
"""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing
from typing import TYPE_CHECKING, Generic, TypeVar, cast

from tom_connect.abc import (
    Call,
    Callee,
    DatagramProtocol,
    Discovery,
    FoundAddr,
    PluginContext,
    PluginObject,
    Publisher,
    PublishReport,
    Rendezvous,
    TopicDirectory,
)
from tom_connect.addr import SocketAddr
from tom_connect.keys import NodeId
from tom_connect.record import SignedRecord

from .config import DhtConfig

if TYPE_CHECKING:
    from .address_records import DhtDiscovery, DhtPublisher
    from .datagrams import DhtDatagrams
    from .rendezvous import DhtRendezvous
    from .topics import DhtTopics

T = TypeVar("T", bound=PluginObject)

LATER = 0.01
"""Seconds before it is loaded: an import takes the interpreter in turns of 5 ms, and binding is done in two of them."""
_HEAVY = ("address_records", "datagrams", "rendezvous", "topics")
_KEY = "loading"


def config_of(ctx: PluginContext) -> DhtConfig:
    """The options of the endpoint's DHT."""
    return ctx.config if isinstance(ctx.config, DhtConfig) else DhtConfig()


class Loading:
    """The import, once for an endpoint."""

    def __init__(self) -> None:
        self._task: asyncio.Task[None] | None = None

    @classmethod
    def of(cls, ctx: PluginContext) -> Loading:
        """The one of an endpoint, made at the first call."""
        return cast(Loading, ctx.shared.setdefault(_KEY, cls()))

    async def done(self) -> None:
        """Wait until all is imported; the first call begins. Raises what the import does."""
        if self._task is None:
            self._task = asyncio.create_task(asyncio.to_thread(_import), name="loading the DHT")
        await asyncio.shield(self._task)

    async def settled(self) -> None:
        """Wait until no import is under way."""
        if self._task is not None:
            await asyncio.wait([self._task])


def _import() -> None:
    for module in _HEAVY:
        importlib.import_module(f"{__package__}.{module}")


class Deferred(Generic[T]):
    """An object that `make` gives once all is imported. `real`: the object, started, or None before."""

    def __init__(self, ctx: PluginContext, make: Callable[[PluginContext], T]) -> None:
        self.real: T | None = None
        self._ctx = ctx
        self._make = make
        self._starting: asyncio.Task[T] | None = None

    async def start(self) -> None:
        """Begin to load; with a socket of its own, wait for it. Raises what starting the object does."""
        self._starting = asyncio.create_task(self._start(), name="starting the DHT")
        if config_of(self._ctx).own_socket:
            await self.loaded()
        else:
            self._ctx.create_task(self._follow(), "starting the DHT")

    async def _start(self) -> T:
        if not config_of(self._ctx).own_socket:
            await asyncio.sleep(LATER)
        await Loading.of(self._ctx).done()
        real = self._make(self._ctx)
        await real.start()
        self.real = real
        return real

    async def _follow(self) -> None:
        # Whoever minds the endpoint's tasks hears of a failure, also if nobody asks for the object.
        await self.loaded()

    async def loaded(self) -> T:
        """The object as soon as it is started. Raises what starting it does."""
        if self._starting is None:
            raise RuntimeError("it is not started")
        return await asyncio.shield(self._starting)

    async def aclose(self) -> None:
        """Close the object if there is one; harmless if there is none."""
        if self._starting is not None:
            self._starting.cancel()
            await asyncio.wait([self._starting])
            if not self._starting.cancelled():
                self._starting.exception()  # told already
        if self.real is not None:
            await self.real.aclose()
        await Loading.of(self._ctx).settled()


def _discovery(ctx: PluginContext) -> DhtDiscovery:
    from .address_records import DhtDiscovery
    from .service import DhtService

    return DhtDiscovery(DhtService.of(ctx))


def _publisher(ctx: PluginContext) -> DhtPublisher:
    from .address_records import DhtPublisher
    from .service import DhtService

    return DhtPublisher(DhtService.of(ctx))


def _datagrams(ctx: PluginContext) -> DhtDatagrams:
    from .datagrams import DhtDatagrams
    from .service import DhtService

    service = DhtService.of(ctx)
    assert service.shared_transport is not None
    return DhtDatagrams(service, service.shared_transport)


def _rendezvous(ctx: PluginContext) -> DhtRendezvous:
    from .rendezvous import DhtRendezvous
    from .service import DhtService

    return DhtRendezvous(DhtService.of(ctx))


def _topics(ctx: PluginContext) -> DhtTopics:
    from .service import DhtService
    from .topics import DhtTopics

    return DhtTopics(DhtService.of(ctx))


class DeferredDiscovery(Discovery):
    """`DhtDiscovery`, when it is loaded."""

    name = "dht"
    serverless = True

    def __init__(self, ctx: PluginContext) -> None:
        self.deferred = Deferred(ctx, _discovery)

    async def start(self) -> None:
        """See `Deferred`."""
        await self.deferred.start()

    async def aclose(self) -> None:
        """See `Deferred`."""
        await self.deferred.aclose()

    @property
    def ready(self) -> bool:
        """Whether the DHT is loaded and joined."""
        return self.deferred.real is not None and self.deferred.real.ready

    async def resolve(self, node_id: NodeId) -> AsyncIterator[FoundAddr]:
        """See `DhtDiscovery`."""
        results = (await self.deferred.loaded()).resolve(node_id)
        async with aclosing(cast("AsyncGenerator[FoundAddr]", results)):
            async for found in results:
                yield found


class DeferredPublisher(Publisher):
    """`DhtPublisher`, when it is loaded."""

    name = "dht"
    serverless = True

    def __init__(self, ctx: PluginContext) -> None:
        self.deferred = Deferred(ctx, _publisher)

    async def start(self) -> None:
        """See `Deferred`."""
        await self.deferred.start()

    async def aclose(self) -> None:
        """See `Deferred`."""
        await self.deferred.aclose()

    async def publish(self, record: SignedRecord) -> PublishReport:
        """See `DhtPublisher`."""
        return await (await self.deferred.loaded()).publish(record)


class DeferredDatagrams(DatagramProtocol):
    """The DHT's share of the endpoint's socket: KRPC messages. What comes before it is loaded, nobody waits for."""

    name = "dht"

    def __init__(self, ctx: PluginContext) -> None:
        self.deferred = Deferred(ctx, _datagrams)

    async def start(self) -> None:
        """See `Deferred`."""
        await self.deferred.start()

    async def aclose(self) -> None:
        """See `Deferred`."""
        await self.deferred.aclose()

    def claims(self, head: bytes) -> bool:
        """A bencoded dict whose first key has 1 to 9 bytes: `d`, a digit, `:` (BEP 5); no QUIC packet to us does."""
        return head[:1] == b"d" and head[2:3] == b":" and head[1:2].isdigit()

    def datagrams_received(self, datagrams: Sequence[tuple[bytes, SocketAddr]]) -> None:
        """Queue a batch; it is handled in turns of its own."""
        if self.deferred.real is not None:
            self.deferred.real.received(datagrams)


class DeferredRendezvous(Rendezvous):
    """`DhtRendezvous`, when it is loaded."""

    name = "dht"
    serverless = True

    def __init__(self, ctx: PluginContext) -> None:
        self.deferred = Deferred(ctx, _rendezvous)

    async def start(self) -> None:
        """See `Deferred`."""
        await self.deferred.start()

    async def aclose(self) -> None:
        """See `Deferred`."""
        await self.deferred.aclose()

    async def call(
        self, node_id: NodeId, sealed: bytes, opened: asyncio.Event, learned: Callable[[Callee], None]
    ) -> None:
        """See `DhtRendezvous`."""
        await (await self.deferred.loaded()).call(node_id, sealed, opened, learned)

    async def say(self, node_id: NodeId, sealed: bytes) -> None:
        """See `DhtRendezvous`."""
        await (await self.deferred.loaded()).say(node_id, sealed)

    async def calls(self) -> AsyncIterator[Call]:
        """See `DhtRendezvous`."""
        calls = (await self.deferred.loaded()).calls()
        async with aclosing(cast("AsyncGenerator[Call]", calls)):
            async for call in calls:
                yield call

    def network_changed(self) -> None:
        """See `DhtRendezvous`."""
        if self.deferred.real is not None:
            self.deferred.real.network_changed()


class DeferredTopics(TopicDirectory):
    """`DhtTopics`, when it is loaded."""

    name = "dht"
    serverless = True
    lifetime = 1800.0

    def __init__(self, ctx: PluginContext) -> None:
        self.deferred = Deferred(ctx, _topics)

    async def start(self) -> None:
        """See `Deferred`."""
        await self.deferred.start()

    async def aclose(self) -> None:
        """See `Deferred`."""
        await self.deferred.aclose()

    async def announce(self, topic: bytes, port: int | None = None) -> int:
        """See `DhtTopics`."""
        return await (await self.deferred.loaded()).announce(topic, port)

    async def find(self, topic: bytes) -> AsyncIterator[SocketAddr]:
        """See `DhtTopics`."""
        results = (await self.deferred.loaded()).find(topic)
        async with aclosing(cast("AsyncGenerator[SocketAddr]", results)):
            async for addr in results:
                yield addr
