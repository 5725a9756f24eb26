"""Whatever is cancelled leaves nothing behind, and what was cancelled can be done again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from tests.unit.endpoint.pairs import ALPN, Pair, accept_one, local_config, make_pair
from tom_connect import Connection, Endpoint
from tom_connect.streams import HIGH_WATER

Waiting = Callable[[Connection], Awaitable[object]]


@pytest.fixture
async def quiet_pair() -> AsyncIterator[Pair]:
    """Two connected endpoints of which the accepting side reads nothing."""
    async with make_pair() as made:
        yield made


async def drain(connection: Connection) -> None:
    stream = await connection.open_uni()
    while True:
        stream.write(bytes(HIGH_WATER))
        await stream.drain()


async def arrive(connection: Connection) -> None:
    stream = await connection.open_uni()
    stream.write(bytes(32 << 20))
    stream.finish()
    await stream.wait_closed()


async def flush(connection: Connection) -> None:
    stream = await connection.open_uni()
    stream.write(bytes(32 << 20))
    stream.finish()
    await connection.flush()


async def open_too_many(connection: Connection) -> None:
    while True:
        (await connection.open_bi()).write(b"x")


async def next_path_event(connection: Connection) -> None:
    with connection.path_events() as events:
        async for _event in events:
            pass


WAITS: list[Waiting] = [
    Connection.accept_bi,
    Connection.accept_uni,
    Connection.read_datagram,
    Connection.closed,
    drain,
    arrive,
    flush,
    open_too_many,
    next_path_event,
]


@pytest.mark.parametrize("wait", WAITS, ids=lambda wait: wait.__name__)
async def test_a_cancelled_wait_leaves_nothing(quiet_pair: Pair, wait: Waiting) -> None:
    """No task, no waiter and no watcher stays behind, and the connection still carries data both ways."""
    connection = quiet_pair.dialed
    before = asyncio.all_tasks()
    for _ in range(3):
        waiting = asyncio.ensure_future(wait(connection))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.shield(waiting), 0.1)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
    assert asyncio.all_tasks() == before
    assert not any(connection._waiters.values())
    assert not connection._sending
    assert not connection.is_closed
    connection.send_datagram(b"still here")
    async with asyncio.timeout(5):
        assert await quiet_pair.accepted.read_datagram() == b"still here"


async def test_a_cancelled_accept_loses_nobody() -> None:
    """The next one who accepts gets the peer that came after the cancellation."""
    async with Endpoint.bind(local_config()) as server, Endpoint.bind(local_config()) as client:
        for _ in range(2):
            accepting = asyncio.ensure_future(anext(server.accept()))
            await asyncio.sleep(0.01)
            accepting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await accepting
        accepting_again = asyncio.create_task(accept_one(server))
        dialed = await client.connect(server.node_addr(), ALPN)
        assert (await accepting_again).remote_node_id == client.node_id
        assert dialed.remote_node_id == server.node_id


@pytest.mark.parametrize("turns", range(6))
async def test_a_cancelled_bind_frees_its_port(turns: int) -> None:
    """However far it had come, no task is left and the port can be bound at once."""
    async with Endpoint.bind(local_config()) as endpoint:
        addr = str(endpoint.local_addrs[0])
    before = asyncio.all_tasks()

    async def bind() -> None:
        async with Endpoint.bind(local_config(bind=(addr,))):
            await asyncio.Event().wait()

    binding = asyncio.create_task(bind())
    for _ in range(turns):
        await asyncio.sleep(0)
    binding.cancel()
    with pytest.raises(asyncio.CancelledError):
        await binding
    assert asyncio.all_tasks() == before
    async with Endpoint.bind(local_config(bind=(addr,))) as endpoint:
        assert str(endpoint.local_addrs[0]) == addr
