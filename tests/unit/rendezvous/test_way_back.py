"""A connection that has lost all its paths: each end calls the other, and it goes on over the path that comes of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest

from tests.unit.endpoint.wires import Wire, wires_to
from tom_connect import BiStream, Connection, Endpoint, EndpointConfig
from tom_connect.abc import Call, Callee, PluginContext, Rendezvous
from tom_connect.addr import NodeAddr, SocketAddr
from tom_connect.hookspecs import hookimpl
from tom_connect.keys import NodeId

ALPN = "back/1"
#: Seconds within which a connection comes back, as is promised.
BACK_WITHIN = 15.0


class Board(Rendezvous):
    """Where calls are left, in memory. `shows`: where the other end sees us when we call, None: it does not look;
    `carries`: whether calls come there yet.
    """

    name = "board"
    serverless = True

    def __init__(self) -> None:
        self.inbox: asyncio.Queue[Call | None] = asyncio.Queue()
        self.other: Board | None = None
        self.shows: SocketAddr | None = None
        self.left: list[NodeId] = []
        self.carries = asyncio.Event()

    @hookimpl
    def tom_rendezvous(self, ctx: PluginContext) -> Rendezvous:
        return self

    async def aclose(self) -> None:
        self.inbox.put_nowait(None)

    async def call(
        self, node_id: NodeId, words: Callable[[], bytes], opened: asyncio.Event, learned: Callable[[Callee], None]
    ) -> None:
        await opened.wait()
        self.left.append(node_id)
        await self.carries.wait()
        if self.shows is not None and self.other is not None:
            self.other.inbox.put_nowait(Call((self.shows,)))

    async def calls(self) -> AsyncIterator[Call]:
        while (call := await self.inbox.get()) is not None:
            yield call


def config(host: str, board: Board) -> EndpointConfig:
    """A node that is reached through wires alone: nobody is told its own address, and nobody pings the other's."""
    return EndpointConfig(
        alpns=(ALPN,),
        bind=(f"{host}:0",),
        addr_deny=("127.0.0.2/31",),
        allow_local=True,
        persist=False,
        watch_network=False,
        plugins=(),
        extra_plugins=(board,),
    )


async def echo(connection: Connection) -> None:
    """Send back what comes."""
    stream = await connection.accept_bi()
    while data := await stream.read(1000):
        stream.write(data)


async def said(stream: BiStream, wire: Wire) -> None:
    """Say something, and wait for the answer, which comes through a wire."""
    stream.write(b"hello")
    assert await stream.read(5) == b"hello"
    assert wire.passed > 0


@pytest.mark.parametrize("who", ["dialer", "listener"])
async def test_either_end_calls_and_the_connection_goes_on(who: str) -> None:
    """Nothing passes where it did: the call of one end alone has the other knock, and data flows within 15 s.

    While it is called after nobody is called twice, and afterwards no more.
    """
    boards = Board(), Board()
    boards[0].other, boards[1].other = reversed(boards)
    async with (
        Endpoint.bind(config("127.0.0.2", boards[0])) as dialer,
        Endpoint.bind(config("127.0.0.3", boards[1])) as listener,
        wires_to(listener.local_addrs[0], 1) as before,
        wires_to((dialer if who == "dialer" else listener).local_addrs[0], 1) as after,
    ):
        accepting = asyncio.create_task(anext(aiter(listener.accept())))
        dialing = asyncio.create_task(dialer.connect(NodeAddr(listener.node_id, (), [before[0].addr]), ALPN))
        accepted = await (await accepting).accept()
        dialed = await dialing
        echoing = asyncio.create_task(echo(accepted))
        stream = await dialed.open_bi()
        await said(stream, before[0])
        boards[who == "listener"].shows = after[0].addr
        for board in boards:
            board.left.clear()
        before[0].cut = True
        saying = asyncio.create_task(said(stream, after[0]))
        calling, called = (dialer, listener) if who == "dialer" else (listener, dialer)
        async with asyncio.timeout(BACK_WITHIN):
            while not boards[who == "listener"].left:  # noqa: ASYNC110 - it tells nobody
                await asyncio.sleep(0.01)
        calling._rendezvous._outage(called.node_id)  # as each further connection with the node may tell
        boards[who == "listener"].carries.set()
        async with asyncio.timeout(BACK_WITHIN):
            await saying
        async with asyncio.timeout(BACK_WITHIN):
            while calling._rendezvous._returning:  # noqa: ASYNC110 - it tells nobody
                await asyncio.sleep(0.01)
        assert len(boards[who == "listener"].left) == 1
        await dialed.close()
        echoing.cancel()
        await asyncio.gather(echoing, return_exceptions=True)


async def test_who_has_hung_up_is_not_called_after() -> None:
    """A node that was connected and is silent now is called only while a connection with it waits for that."""
    boards = Board(), Board()
    async with (
        Endpoint.bind(config("127.0.0.2", boards[0])) as dialer,
        Endpoint.bind(config("127.0.0.3", boards[1])) as listener,
        wires_to(listener.local_addrs[0], 1) as wires,
        asyncio.timeout(30),
    ):
        accepting = asyncio.create_task(anext(aiter(listener.accept())))
        dialing = asyncio.create_task(dialer.connect(NodeAddr(listener.node_id, (), [wires[0].addr]), ALPN))
        accepted = await (await accepting).accept()
        await (await dialing).close()
        await accepted.closed()
        listener._rendezvous._outage(dialer.node_id)
        assert not listener._rendezvous._returning
