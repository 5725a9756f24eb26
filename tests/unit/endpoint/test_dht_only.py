"""With `dht_only` nothing of a plugin is used that needs somebody's server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest

from tests.unit.endpoint.pairs import local_config
from tom_connect import Endpoint, NodeId, SocketAddr, hookimpl
from tom_connect.abc import (
    Call,
    Callee,
    Discovery,
    FoundAddr,
    PluginContext,
    Publisher,
    PublishReport,
    Rendezvous,
    TopicDirectory,
)
from tom_connect.record import SignedRecord


class Source(Discovery):
    async def resolve(self, node_id: NodeId) -> AsyncIterator[FoundAddr]:
        return
        yield


class Place(Publisher):
    async def publish(self, record: SignedRecord) -> PublishReport:
        return PublishReport(self.name, 1)


class Meeting(Rendezvous):
    async def call(
        self, node_id: NodeId, words: Callable[[], bytes], opened: asyncio.Event, learned: Callable[[Callee], None]
    ) -> None:
        pass

    async def calls(self) -> AsyncIterator[Call]:
        return
        yield


class Directory(TopicDirectory):
    async def announce(self, topic: bytes, port: int | None = None) -> int:
        return 0

    async def find(self, topic: bytes) -> AsyncIterator[SocketAddr]:
        return
        yield


KINDS = (Source, Place, Meeting, Directory)


class Both:
    """Gives of each kind one object that is serverless, and one that is not; remembers which were started."""

    def __init__(self) -> None:
        self.started: set[tuple[str, bool]] = set()
        self.ctx: PluginContext

    def _two(self, kind: Callable[[], Source | Place | Meeting | Directory]) -> list[object]:
        objects: list[object] = []
        for serverless in (True, False):
            made = kind()
            made.name = f"{type(made).__name__} {serverless}"
            made.serverless = serverless

            async def start(what: tuple[str, bool] = (type(made).__name__, serverless)) -> None:
                self.started.add(what)

            made.start = start  # type: ignore[method-assign]
            objects.append(made)
        return objects

    @hookimpl
    def tom_discovery(self, ctx: PluginContext) -> list[object]:
        self.ctx = ctx
        return self._two(Source)

    @hookimpl
    def tom_publisher(self, ctx: PluginContext) -> list[object]:
        return self._two(Place)

    @hookimpl
    def tom_rendezvous(self, ctx: PluginContext) -> list[object]:
        return self._two(Meeting)

    @hookimpl
    def tom_topic_directory(self, ctx: PluginContext) -> list[object]:
        return self._two(Directory)


@pytest.mark.parametrize("dht_only", [False, True])
async def test_what_needs_a_server_is_not_even_started(dht_only: bool) -> None:
    """Of what finds, publishes, carries calls and keeps topics, serverless ones alone are started with `dht_only`."""
    plugin = Both()
    async with Endpoint.bind(local_config(extra_plugins=(("both", plugin),), dht_only=dht_only)) as endpoint:
        assert set(endpoint.discovery_counts()) == {"Source True", *(() if dht_only else ("Source False",))}
    wanted = (True,) if dht_only else (True, False)
    assert plugin.started == {(kind.__name__, serverless) for kind in KINDS for serverless in wanted}


@pytest.mark.parametrize("dht_only", [False, True])
async def test_no_plugin_hears_of_relays_that_must_not_be_used(dht_only: bool) -> None:
    """Those that were configured and public ones are kept from plugins with `dht_only`, which are told so."""
    plugin = Both()
    relays = {"relay": ("https://one.test/",), "public_relays": ("https://two.test/",)}
    async with Endpoint.bind(local_config(extra_plugins=(("both", plugin),), dht_only=dht_only, **relays)):
        assert plugin.ctx.dht_only is dht_only
        assert [len(plugin.ctx.relay_urls), len(plugin.ctx.public_relays)] == ([0, 0] if dht_only else [1, 1])
