"""What the hooks give an endpoint: objects that load the DHT, in a thread, only when the endpoint is bound.

To import the DHT takes several times as long as to bind an endpoint, and joining it longer still; nobody has to wait
for the one who does not for the other. With a socket of its own the node is waited for all the same: its port may be
taken, and that is to be said at once.
"""

from __future__ import annotations

import abc
import asyncio
import importlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing
from typing import TYPE_CHECKING, ClassVar, Final, Generic, TypeVar, cast

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
    from .service import DhtService
    from .topics import DhtTopics

T = TypeVar("T", bound=PluginObject)

LATER: Final = 0.01
"""Seconds before it is loaded: an import takes the interpreter in turns of 5 ms, and binding is done in two of them."""
_KEY: Final = "loading"


def config_of(ctx: PluginContext) -> DhtConfig:
    """The options of the endpoint's DHT."""
    return ctx.config if isinstance(ctx.config, DhtConfig) else DhtConfig()


class Loading:
    """The imports, one after the other, each once for an endpoint: who asks first need not wait for all."""

    def __init__(self) -> None:
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._turn = asyncio.Lock()

    @classmethod
    def of(cls, ctx: PluginContext) -> Loading:
        """The one of an endpoint, made at the first call."""
        return cast(Loading, ctx.shared.setdefault(_KEY, cls()))

    async def done(self, module: str) -> None:
        """Wait until a module of this package is imported; the first call begins. Raises what the import does."""
        if module not in self._tasks:
            self._tasks[module] = asyncio.create_task(self._load(module), name=f"loading the DHT: {module}")
        await asyncio.shield(self._tasks[module])

    async def _load(self, module: str) -> None:
        async with self._turn:
            await asyncio.to_thread(_import, module)

    async def settled(self) -> None:
        """Wait until no import is under way."""
        if self._tasks:
            await asyncio.wait(self._tasks.values())


def _import(module: str) -> None:
    importlib.import_module(f"{__package__}.{module}")


class Deferred(PluginObject, Generic[T]):
    """An object that stands for another one, which is made once its module is imported.

    `real`: that object, started, or None before.
    """

    name = "dht"
    serverless = True
    home: ClassVar[str]
    """The module, of this package."""

    def __init__(self, ctx: PluginContext) -> None:
        self.real: T | None = None
        self._ctx = ctx
        self._starting: asyncio.Task[T] | None = None

    @abc.abstractmethod
    def make(self, service: DhtService) -> T:
        """The object, not started yet."""

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
        await Loading.of(self._ctx).done(self.home)
        from .service import DhtService

        real = self.make(DhtService.of(self._ctx))
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


class DeferredDiscovery(Deferred["DhtDiscovery"], Discovery):
    """`DhtDiscovery`, when it is loaded."""

    home = "address_records"

    def make(self, service: DhtService) -> DhtDiscovery:
        """See `Deferred`."""
        from .address_records import DhtDiscovery

        return DhtDiscovery(service)

    @property
    def ready(self) -> bool:
        """Whether the DHT is loaded and joined."""
        return self.real is not None and self.real.ready

    async def resolve(self, node_id: NodeId) -> AsyncIterator[FoundAddr]:
        """See `DhtDiscovery`."""
        results = (await self.loaded()).resolve(node_id)
        async with aclosing(cast("AsyncGenerator[FoundAddr]", results)):
            async for found in results:
                yield found


class DeferredPublisher(Deferred["DhtPublisher"], Publisher):
    """`DhtPublisher`, when it is loaded."""

    home = "address_records"

    def make(self, service: DhtService) -> DhtPublisher:
        """See `Deferred`."""
        from .address_records import DhtPublisher

        return DhtPublisher(service)

    async def publish(self, record: SignedRecord) -> PublishReport:
        """See `DhtPublisher`."""
        return await (await self.loaded()).publish(record)


class DeferredDatagrams(Deferred["DhtDatagrams"], DatagramProtocol):
    """The DHT's share of the endpoint's socket: KRPC messages. What comes before it is loaded, nobody waits for."""

    home = "datagrams"

    def make(self, service: DhtService) -> DhtDatagrams:
        """See `Deferred`."""
        from .datagrams import DhtDatagrams

        assert service.shared_transport is not None
        return DhtDatagrams(service, service.shared_transport)

    def claims(self, head: bytes) -> bool:
        """A bencoded dict whose first key has 1 to 9 bytes: `d`, a digit, `:` (BEP 5); no QUIC packet to us does."""
        return head[:1] == b"d" and head[2:3] == b":" and head[1:2].isdigit()

    def datagrams_received(self, datagrams: Sequence[tuple[bytes, SocketAddr]]) -> None:
        """Queue a batch; it is handled in turns of its own."""
        if self.real is not None:
            self.real.received(datagrams)


class DeferredRendezvous(Deferred["DhtRendezvous"], Rendezvous):
    """`DhtRendezvous`, when it is loaded."""

    home = "rendezvous"

    def make(self, service: DhtService) -> DhtRendezvous:
        """See `Deferred`."""
        from .rendezvous import DhtRendezvous

        return DhtRendezvous(service)

    async def call(
        self, node_id: NodeId, words: Callable[[], bytes], opened: asyncio.Event, learned: Callable[[Callee], None]
    ) -> None:
        """See `DhtRendezvous`."""
        await (await self.loaded()).call(node_id, words, opened, learned)

    async def say(self, node_id: NodeId, sealed: bytes) -> None:
        """See `DhtRendezvous`."""
        await (await self.loaded()).say(node_id, sealed)

    async def calls(self) -> AsyncIterator[Call]:
        """See `DhtRendezvous`."""
        calls = (await self.loaded()).calls()
        async with aclosing(cast("AsyncGenerator[Call]", calls)):
            async for call in calls:
                yield call

    def network_changed(self) -> None:
        """See `DhtRendezvous`."""
        if self.real is not None:
            self.real.network_changed()


class DeferredTopics(Deferred["DhtTopics"], TopicDirectory):
    """`DhtTopics`, when it is loaded."""

    home = "topics"
    lifetime = 1800.0

    def make(self, service: DhtService) -> DhtTopics:
        """See `Deferred`."""
        from .topics import DhtTopics

        return DhtTopics(service)

    async def announce(self, topic: bytes, port: int | None = None) -> int:
        """See `DhtTopics`."""
        return await (await self.loaded()).announce(topic, port)

    async def find(self, topic: bytes) -> AsyncIterator[SocketAddr]:
        """See `DhtTopics`."""
        results = (await self.loaded()).find(topic)
        async with aclosing(cast("AsyncGenerator[SocketAddr]", results)):
            async for addr in results:
                yield addr
