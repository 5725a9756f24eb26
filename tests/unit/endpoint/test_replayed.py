"""A dial while somebody replays an old record."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any, cast

from tests.unit.endpoint.pairs import ALPN, accept_one, local_config
from tom_connect import Endpoint, NodeAddr, SecretKey, SocketAddr
from tom_connect.abc import Discovery, FoundAddr, PluginContext
from tom_connect.dial import Dial
from tom_connect.hookspecs import hookimpl
from tom_connect.keys import NodeId
from tom_connect.magicsock.remote import Remote

FALSE = tuple(SocketAddr("127.0.0.1", 1 + port) for port in range(24))
"""More than may have places."""


class Replayed(Discovery):
    """Tells an old answer, and the new one a moment later."""

    name = "replayed"

    def __init__(self, true: NodeAddr) -> None:
        self.true = true

    async def resolve(self, node_id: NodeId) -> AsyncIterator[FoundAddr]:
        yield FoundAddr(NodeAddr(node_id, direct_addrs=FALSE), self.name, 1)
        await asyncio.sleep(0)
        yield FoundAddr(self.true, self.name, 2)


class Plugin:
    def __init__(self, source: Discovery) -> None:
        self.source = source

    @hookimpl
    def tom_discovery(self, ctx: PluginContext) -> Discovery:
        return self.source


async def test_the_addresses_of_a_newer_record_are_dialed() -> None:
    """Two dozen false addresses of an old record have all places: the true one of the newer record gets its own."""
    async with Endpoint.bind(local_config()) as callee:
        source = Replayed(NodeAddr(callee.node_id, direct_addrs=callee.node_addr().direct_addrs))
        async with (
            Endpoint.bind(local_config(extra_plugins=(("replayed", Plugin(source)),))) as caller,
            asyncio.TaskGroup() as group,
        ):
            accepted = group.create_task(accept_one(callee))
            connection = await caller.connect(callee.node_id, ALPN, timeout=5)
            assert {path.addr for path in connection.paths()}.isdisjoint(FALSE)
            await connection.close()
            await (await accepted).close()


def test_an_older_record_that_is_found_later_changes_nothing() -> None:
    """Another look-up of one dial finds the old record again: what the newer one named stays, and nothing is added."""
    key = SecretKey.generate().node_id
    withdrawn: list[tuple[SocketAddr, ...]] = []
    remote = cast(Remote, SimpleNamespace(withdraw_candidates=lambda addrs, source: withdrawn.append(tuple(addrs))))
    parts: dict[str, Any] = {"discovery": None, "address_filter": None}
    dial = Dial(cast(Any, SimpleNamespace(now=lambda: 0.0)), NodeAddr(key), ALPN, timeout=1.0, **parts)
    first, second, true = FALSE[:3]

    def found(at: int | None, *addrs: SocketAddr, source: str = "dht") -> bool:
        return dial._is_replaced(FoundAddr(NodeAddr(key, direct_addrs=addrs), source, at), remote)

    assert not found(1, first, second) and withdrawn == []
    assert not found(2, second, true) and withdrawn == [(first,)]
    assert found(1, first, second)
    assert not found(2, second, true)
    assert not found(1, first, source="another") and not found(None, first)
    assert withdrawn == [(first,), ()]
