"""A relay that may be dead is connected to a second time, and what answers first is kept."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Any

import attrs
import pytest

from tom_connect import NodeId, RelayUrl, SecretKey
from tom_relay.client.carrier import CarrierClosedError
from tom_relay.client.connection import RelayConnection
from tom_relay.client.maps import RelayEntry
from tom_relay.client.session import ASK_AFTER, DOUBT_AFTER, TRAFFIC_TIMEOUT
from tom_relay.errors import RelayUnreachableError
from tom_relay.server import RelayServer
from tom_relay.wire import (
    Dialect,
    Ping,
    Pong,
    ReceivedDatagrams,
    SendDatagrams,
    ServerHandshake,
    Status,
    StatusCode,
    decode_from_client,
    encode,
)

from .jumping import run
from .meeting import at_relay, meet, until
from .test_endpoints import Flow

DIALECT = Dialect.TOM_V2
PEER = SecretKey.generate().node_id
RTT = 0.05


@attrs.define(eq=False)
class Line:
    """A connection to the relay (`Carrier`) and the relay's end of it. `dead`: nothing passes any more, either way."""

    relay: Relay
    dialect = DIALECT
    proven = False
    services = None
    dead: bool = False
    registered: bool = False
    got: list[bytes] = attrs.Factory(list)
    """Datagrams that arrived at the relay."""
    _under_way: dict[str, deque[bytes]] = attrs.Factory(lambda: {"up": deque(), "down": deque()})
    _to_client: asyncio.Queue[bytes | None] = attrs.Factory(asyncio.Queue)
    _handshake: ServerHandshake = attrs.Factory(lambda: ServerHandshake(DIALECT, bytes(16)))

    def __attrs_post_init__(self) -> None:
        self.say(self._handshake.challenge())

    def say(self, message: bytes) -> None:
        """The relay sends something."""
        self._pass("down", message, self._to_client.put_nowait)

    def _pass(self, way: str, message: bytes, arrived: Callable[[bytes], None]) -> None:
        # Timers of one moment may go off in any order.
        if not self.dead:
            self._under_way[way].append(message)
            asyncio.get_running_loop().call_later(RTT / 2, lambda: arrived(self._under_way[way].popleft()))

    def address_is_gone(self) -> bool:
        return False

    async def receive(self) -> bytes:
        message = await self._to_client.get()
        if message is None:
            raise CarrierClosedError("")
        return message

    async def send(self, message: bytes) -> None:
        self._pass("up", message, self._arrived)

    def _arrived(self, message: bytes) -> None:
        if self.dead:
            return
        if not self.registered:
            self._handshake.authenticate(message)
            self.registered = True
            self.say(self._handshake.confirm())
            self.relay.register(self)
            return
        frame = decode_from_client(message, DIALECT)
        if isinstance(frame, Ping):
            self.say(encode(Pong(frame.data), DIALECT))
        elif isinstance(frame, SendDatagrams):
            self.got.append(frame.data)

    async def close(self) -> None:
        self.abort()

    def abort(self) -> None:
        if self not in self.relay.closed:
            self.relay.closed.append(self)
            self._to_client.put_nowait(None)


@attrs.define(eq=False)
class Relay:
    """A relay, what dials it, and what owns the connection to it. `dials` seconds to open a line; None: it hangs."""

    dials: float | None = 3 * RTT
    refuses: bool = False
    lines: list[Line] = attrs.Factory(list)
    active: list[Line] = attrs.Factory(list)
    closed: list[Line] = attrs.Factory(list)
    attempts: int = 0
    arrived_data: list[bytes] = attrs.Factory(list)
    changes: list[bool] = attrs.Factory(list)
    key: SecretKey = attrs.Factory(SecretKey.generate)
    has_choice: bool = False

    @property
    def node_id(self) -> NodeId:
        return self.key.node_id

    def dialer_for(self, _url: RelayUrl) -> Any:
        return self

    def sign(self, digest: bytes) -> bytes:
        return self.key.sign(digest)

    async def open(self, _url: RelayUrl, *, configured: bool, trusted: bool) -> Any:
        self.attempts += 1
        if self.refuses:
            raise RelayUnreachableError("refused")
        await (asyncio.sleep(self.dials) if self.dials is not None else asyncio.Event().wait())
        self.lines.append(Line(self))
        return self.lines[-1]

    def register(self, line: Line) -> None:
        for earlier in self.active[-1:]:
            earlier.say(encode(Status(StatusCode.SAME_ID_CONNECTED), DIALECT))
        self.active.append(line)

    def now(self) -> float:
        return asyncio.get_running_loop().time()

    def arrived(self, _connection: object, received: ReceivedDatagrams) -> None:
        self.arrived_data += received.datagrams()

    def attested(self, *_: object) -> None:
        pass

    def changed(self, connection: RelayConnection) -> None:
        self.changes.append(connection.connected)


@contextlib.asynccontextmanager
async def connected(relay: Relay) -> AsyncIterator[RelayConnection]:
    """A connection that is up and idle for a second."""
    entry = RelayEntry(RelayUrl.parse("http://relay.test/"))
    connection = RelayConnection(entry, relay, "configured", True, relay.now())  # type: ignore[arg-type]
    task = asyncio.create_task(connection.run())
    try:
        await asyncio.sleep(1.0)
        assert connection.connected and relay.active == relay.lines and len(relay.lines) == 1
        yield connection
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert sorted(map(id, relay.closed)) == sorted(map(id, relay.lines))


def test_a_dead_connection_is_replaced_before_it_is_given_up() -> None:
    """Silent under traffic: the second connection takes over sooner than the first would be lost, the node is never
    without the relay, and what was queued in doubt arrives, once."""

    async def test() -> None:
        relay = Relay()
        async with connected(relay) as connection:
            began = relay.now()
            relay.lines[0].dead = True
            relay.changes.clear()
            sent = []
            while len(relay.active) < 2:
                sent.append((relay.now() - began, b"%d" % len(sent)))
                connection.send(PEER, [sent[-1][1]], 0)
                await asyncio.sleep(0.01)
            doubt = ASK_AFTER + DOUBT_AFTER[0]
            assert doubt < relay.now() - began < doubt + 6 * RTT < ASK_AFTER + TRAFFIC_TIMEOUT
            await asyncio.sleep(1.0)
            assert set(relay.changes) == {True} and connection.problem is None
            in_doubt = [data for at, data in sent if at > doubt + 0.01]
            assert in_doubt and relay.lines[1].got[-len(in_doubt) :] == in_doubt
            assert relay.lines[1].got == sorted(set(relay.lines[1].got), key=int)
            assert (connection.replaced, relay.attempts, relay.closed) == (1, 2, relay.lines[:1])
            assert connection.rtt == pytest.approx(RTT)

    run(test())


def test_a_living_connection_is_kept_after_a_change_of_network() -> None:
    """The first answers sooner than a second can be opened: that is dropped before the relay learns of it, and what
    was queued meanwhile leaves as soon as the answer is there."""

    async def test() -> None:
        relay = Relay()
        async with connected(relay) as connection:
            connection.network_changed()
            connection.send(PEER, [b"queued"], 0)
            await asyncio.sleep(0.9 * RTT)
            assert (relay.attempts, relay.lines[0].got) == (2, [])
            await asyncio.sleep(RTT)
            assert relay.lines[0].got == [b"queued"]
            await asyncio.sleep(5.0)
            assert relay.lines == relay.active and len(relay.lines) == 1
            assert connection.replaced == 0 and not relay.closed

    run(test())


def test_a_second_that_is_open_too_late_is_closed_unregistered() -> None:
    """Where both answer, the relay sees one of them registered alone: there is no taking turns."""

    async def test() -> None:
        for dials in (0.98 * RTT, RTT, 1.02 * RTT):
            relay = Relay(dials)
            async with connected(relay) as connection:
                connection.network_changed()
                await asyncio.sleep(5.0)
                kept = relay.active[-1]
                assert len(relay.active) == 1 + connection.replaced
                assert [line for line in relay.lines if line not in relay.closed] == [kept]
                connection.send(PEER, [b"on"], 0)
                await asyncio.sleep(RTT)
                assert kept.got == [b"on"]

    run(test())


def test_a_change_of_network_to_which_the_first_does_not_survive() -> None:
    """It is replaced as soon as a second one is open, and both directions go on there."""

    async def test() -> None:
        relay = Relay()
        async with connected(relay) as connection:
            relay.lines[0].dead = True
            connection.network_changed()
            await asyncio.sleep(5 * RTT)
            assert relay.active == relay.lines and len(relay.lines) == 2
            relay.lines[1].say(encode(ReceivedDatagrams(PEER.raw, b"hello"), DIALECT))
            connection.send(PEER, [b"on"], 0)
            await asyncio.sleep(RTT)
            assert (relay.arrived_data, relay.lines[1].got) == ([b"hello"], [b"on"])

    run(test())


def test_a_second_that_hangs_is_begun_anew_when_the_network_changes_again() -> None:
    """Of several changes in a row the last one counts, and the connection is replaced through the network of then."""

    async def test() -> None:
        relay = Relay()
        async with connected(relay) as connection:
            relay.lines[0].dead = True
            relay.dials = None
            for _ in range(3):
                connection.network_changed()
                await asyncio.sleep(0.1)
            assert relay.attempts == 4 and len(relay.lines) == 1
            relay.dials = RTT
            connection.network_changed()
            await asyncio.sleep(4 * RTT)
            assert len(relay.active) == 2 and connection.replaced == 1

    run(test())


def test_a_second_under_way_is_not_thrown_away_when_the_first_is_lost() -> None:
    """A relay to which it takes long: the first is given up in time, and the attempt under way is what comes next."""

    async def test() -> None:
        relay = Relay()
        async with connected(relay) as connection:
            relay.lines[0].dead = True
            relay.dials = 2.0
            connection.network_changed()
            await asyncio.sleep(TRAFFIC_TIMEOUT + 0.1)
            assert not connection.connected
            connection.send(PEER, [b"queued"], 0)
            await asyncio.sleep(1.5)
            assert connection.connected and relay.attempts == 2
            assert relay.lines[1].got == [b"queued"]

    run(test())


@pytest.mark.parametrize("comes_back", [True, False])
def test_a_relay_that_takes_no_second_connection(comes_back: bool) -> None:
    """One attempt for a doubt, and no more; the first is kept if it answers in the end, or lost as ever."""

    async def test() -> None:
        relay = Relay()
        async with connected(relay) as connection:
            relay.refuses = True
            relay.lines[0].dead = True
            connection.network_changed()
            await asyncio.sleep(TRAFFIC_TIMEOUT / 2)
            assert relay.attempts == 2 and connection.connected
            if comes_back:
                relay.lines[0].dead = False
                relay.lines[0].say(encode(Ping(bytes(8)), DIALECT))
                await asyncio.sleep(10.0)
                assert relay.attempts == 2
            else:
                await asyncio.sleep(TRAFFIC_TIMEOUT)
                assert relay.attempts > 2
            assert connection.connected is comes_back

    run(test())


# --- against the server -----------------------------------------------------------------------------------------


@attrs.define
class Wire:
    """A TCP wire to a relay, on which connections can be made to freeze: they stay open, and nothing passes."""

    relay: RelayServer
    url: str = ""
    open: list[asyncio.Event] = attrs.Factory(list)

    async def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        flows = asyncio.Event()
        flows.set()
        self.open.append(flows)
        addr = self.relay.addrs[0]
        onward, back = await asyncio.open_connection(addr.host, addr.port)
        try:
            await asyncio.gather(self._copy(reader, back, flows), self._copy(onward, writer, flows))
        finally:
            back.close()
            writer.close()

    async def _copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, flows: asyncio.Event) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65_536):
                await flows.wait()
                writer.write(data)
                await writer.drain()
        writer.close()

    def freeze(self, number: int) -> None:
        """Let nothing pass any more on one of the connections, by the order in which they were opened."""
        self.open[number].clear()


@pytest.fixture
async def wire(relay: RelayServer) -> AsyncIterator[Wire]:
    """A wire to the relay."""
    made, tasks = Wire(relay), set[asyncio.Task[None]]()

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        with contextlib.suppress(asyncio.CancelledError):  # else the server's own callback logs it
            await made.carry(reader, writer)

    server = await asyncio.start_server(carry, "127.0.0.1", 0)
    made.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    yield made
    server.close()
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks)


@pytest.mark.parametrize("told", [True, False], ids=["network changed", "silent under traffic"])
async def test_a_frozen_connection_is_replaced_at_the_server(relay: RelayServer, wire: Wire, told: bool) -> None:
    """The server takes the newer connection for the node, the node is never without its home relay, and a stream that
    is under way is whole."""
    async with at_relay(wire.url) as a, at_relay(wire.url) as b:
        dialed, accepted = await meet(a, b)
        flow = Flow(accepted, dialed)
        await flow.more()
        transport = b._own.relays[0][1]
        (connection,) = transport._connections.values()  # type: ignore[attr-defined]
        connected: list[bool] = []
        changed = transport.changed  # type: ignore[attr-defined]

        def record(of: RelayConnection) -> None:
            connected.append(of.connected)
            changed(of)

        transport.changed = record  # type: ignore[attr-defined]
        wire.freeze(1)
        if told:
            b.network_changed()
        await until(lambda: connection.replaced == 1)
        await flow.more(300_000)
        await flow.end()
        assert set(connected) == {True}
        assert b.relays()[0].home and connection.problem is None
        assert relay.hub.counters.replaced == 1
