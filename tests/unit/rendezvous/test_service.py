"""Calls of an endpoint and to it, over a rendezvous made for the test and loopback."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import attrs
import pytest

from tom_connect import Endpoint, EndpointConfig
from tom_connect.abc import Call, Callee, ConnectionGuard, Discovery, FoundAddr, PluginContext, Rendezvous
from tom_connect.addr import NodeAddr, RelayUrl, SocketAddr
from tom_connect.exceptions import ConnectionRefusedError as Refused
from tom_connect.exceptions import DialError, DiscoveryError, NetworkError
from tom_connect.holepunch import disco
from tom_connect.holepunch.disco import CallMeMaybe
from tom_connect.holepunch.puncher import OPENING_TTLS
from tom_connect.hookspecs import hookimpl
from tom_connect.keys import NodeId, SecretKey
from tom_connect.magicsock.socket import MagicSocket
from tom_connect.magicsock.udp import UdpSocket
from tom_connect.rendezvous import service
from tom_connect.rendezvous.knocks import TIMES

ALPN = "meet/1"


class Board(Rendezvous):
    """Where calls are left, in memory. `invites`: whose nodes say that they can be called."""

    name = "board"
    serverless = True

    def __init__(self, plugin: Meeting) -> None:
        self.plugin = plugin
        self.inbox: asyncio.Queue[Call | None] = asyncio.Queue()
        self.left: list[tuple[NodeId, bytes]] = []
        self.fails: Exception | None = None

    async def aclose(self) -> None:
        self.inbox.put_nowait(None)

    async def call(
        self, node_id: NodeId, words: Callable[[], bytes], opened: asyncio.Event, learned: Callable[[Callee], None]
    ) -> None:
        if self.fails is not None:
            raise self.fails
        if self.plugin.ports_differ:
            learned(Callee(filtered=True, ports_differ=True))
        await opened.wait()
        sealed = words()
        self.left.append((node_id, sealed))
        other = self.plugin.others.get(node_id)
        if other is not None:
            learned(Callee(filtered=True))
            other.board.inbox.put_nowait(Call(self.plugin.addrs(), sealed, ()))

    async def calls(self) -> AsyncIterator[Call]:
        while (call := await self.inbox.get()) is not None:
            yield call


class Names(Discovery):
    """Knows where some nodes are."""

    name = "names"
    serverless = True

    def __init__(self, plugin: Meeting) -> None:
        self.plugin = plugin

    async def resolve(self, node_id: NodeId) -> AsyncIterator[FoundAddr]:
        if self.plugin.searching is not None:
            await self.plugin.searching.wait()
        if node_id in self.plugin.names:
            yield FoundAddr(self.plugin.names[node_id], self.name)


class Guard(ConnectionGuard):
    """Refuses some keys and IPs."""

    def __init__(self, plugin: Meeting) -> None:
        self.plugin = plugin

    def before_handshake(self, remote: SocketAddr | RelayUrl) -> bool:
        return not self.plugin.closed_to_all

    def after_handshake(self, node_id: NodeId, alpn: str) -> bool:
        return node_id not in self.plugin.blocked


class Meeting:
    """A plugin with all of them."""

    def __init__(self) -> None:
        self.others: dict[NodeId, Meeting] = {}
        self.names: dict[NodeId, NodeAddr] = {}
        self.blocked: set[NodeId] = set()
        self.closed_to_all = False
        self.ports_differ = False
        self.searching: asyncio.Event | None = None
        self.board = Board(self)
        self.ctx: PluginContext

    def addrs(self) -> tuple[SocketAddr, ...]:
        return tuple(addr for addr in self.ctx.local_addrs.value.direct_addrs if addr.host == "127.0.0.1")

    @hookimpl
    def tom_rendezvous(self, ctx: PluginContext) -> Rendezvous:
        self.ctx = ctx
        return self.board

    @hookimpl
    def tom_discovery(self, ctx: PluginContext) -> Discovery:
        return Names(self)

    @hookimpl
    def tom_connection_guard(self, ctx: PluginContext) -> ConnectionGuard:
        return Guard(self)


def config(plugin: Meeting) -> EndpointConfig:
    return EndpointConfig(
        alpns=(ALPN,),
        bind=("127.0.0.1:0",),
        allow_local=True,
        persist=False,
        watch_network=False,
        dht_only=True,
        plugins=(),
        extra_plugins=(("meeting", plugin),),
    )


async def accept(endpoint: Endpoint) -> None:
    """Take one connection."""
    async for incoming in endpoint.accept():
        await incoming.accept()
        return


async def counted(endpoint: Endpoint, name: str, count: int) -> None:
    """Wait until the endpoint has counted so many."""
    async with asyncio.timeout(30):
        while endpoint._magic.counters[f"rendezvous: {name}"] < count:  # noqa: ASYNC110 - counters tell nobody
            await asyncio.sleep(0.01)


async def test_a_node_that_publishes_no_address_is_reached_by_a_call() -> None:
    """The callee knocks where the caller may be, and the knock is what the caller finds it by."""
    one, two = Meeting(), Meeting()
    async with Endpoint.bind(config(one)) as caller, Endpoint.bind(config(two)) as callee:
        one.others[callee.node_id] = two
        dialing = asyncio.create_task(caller.connect(callee.node_id, ALPN, timeout=10))
        async for incoming in callee.accept():
            async with await incoming.accept() as accepted, await dialing as connection:
                assert connection.remote_node_id == callee.node_id
                assert accepted.remote_node_id == caller.node_id
            break
        assert callee._magic.counters["rendezvous: calls answered"] == 1


async def test_a_node_whose_nat_shifts_ports_is_called_before_the_look_up_ends() -> None:
    """It has no address to which the caller could open, so the call does not wait for one."""
    one, two = Meeting(), Meeting()
    one.ports_differ, one.searching = True, asyncio.Event()
    async with Endpoint.bind(config(one)) as caller, Endpoint.bind(config(two)) as callee:
        one.others[callee.node_id] = two
        accepting = asyncio.create_task(accept(callee))
        async with asyncio.timeout(60), await caller.connect(callee.node_id, ALPN, timeout=30):
            await accepting
        assert one.board.left


async def test_a_node_that_nobody_knows_and_that_says_nothing_is_given_up_at_once() -> None:
    """A call alone is no reason to wait: without record and invitation the dial says that nobody knows the node."""
    one, two = Meeting(), Meeting()
    async with Endpoint.bind(config(one)) as caller, Endpoint.bind(config(two)) as stranger:
        with pytest.raises(DiscoveryError, match="no source knows"):
            await caller.connect(stranger.node_id, ALPN, timeout=10)
        assert [node_id for node_id, _ in one.board.left] == [stranger.node_id]


async def test_a_rendezvous_that_fails_is_reported_and_the_dial_goes_on() -> None:
    """What a plugin raises ends no dial; network errors are no fault of its."""
    one, two = Meeting(), Meeting()
    async with Endpoint.bind(config(one)) as caller, Endpoint.bind(config(two)) as callee:
        one.names[callee.node_id] = NodeAddr(callee.node_id, (), two.addrs())
        for error, failed in ((NetworkError("no DHT"), False), (RuntimeError("a bug"), True)):
            one.board.fails = error
            accepting = asyncio.create_task(accept(callee))
            async with await caller.connect(callee.node_id, ALPN, timeout=10):
                await accepting
            (info,) = [info for info in caller.plugins if "tom_rendezvous" in info.hooks and info.name == "meeting"]
            assert (info.state == "failed") is failed


@pytest.mark.parametrize("how", ["key", "address"])
async def test_who_is_blocked_is_not_answered(how: str) -> None:
    """A caller whose key, or whatever address, the guards refuse gets no knock and no ping; it learns nothing."""
    one, two = Meeting(), Meeting()
    async with Endpoint.bind(config(one)) as caller, Endpoint.bind(config(two)) as callee:
        one.others[callee.node_id] = two
        if how == "key":
            two.blocked.add(caller.node_id)
        else:
            two.closed_to_all = True
            two.blocked.add(caller.node_id)
        with pytest.raises((DialError, Refused), match=r"refused|it was called where it looks for calls"):
            await caller.connect(callee.node_id, ALPN, timeout=1.5)
        assert callee._magic.counters["rendezvous: calls answered"] == 0
        if how == "address":
            assert callee._magic.counters["rendezvous: knocks"] == 0


async def test_replayed_and_forged_calls_are_counted_and_left() -> None:
    """The same sealed call a second time, one of ours to ourselves, and ten thousand forged ones do nothing."""
    one, two = Meeting(), Meeting()
    async with Endpoint.bind(config(one)) as caller, Endpoint.bind(config(two)) as callee:
        remote = caller._magic.remote(callee.node_id)
        sealed = caller._magic.doorstep.sealed_call(remote)
        remote.release()
        for _ in range(2):
            two.board.inbox.put_nowait(Call((), sealed))
        await counted(callee, "replay", 1)
        await counted(callee, "calls answered", 1)
        forged = bytearray(sealed)
        for number in range(10_000):
            forged[-1 - number % 16] ^= 1 + number % 255
            two.board.inbox.put_nowait(Call((), bytes(forged)))
            forged[-1 - number % 16] ^= 1 + number % 255
        await counted(callee, "replay", 10_001)
        assert callee._magic.counters["rendezvous: calls answered"] == 1


async def test_a_call_from_oneself_is_left() -> None:
    """Whoever carries our own call back to us is not answered."""
    two = Meeting()
    async with Endpoint.bind(config(two)) as callee:
        magic = MagicSocket(callee._key)
        sealed = magic._core.sealer.seal(callee.node_id, disco.encode_message(CallMeMaybe(bytes(12), ())))[0]
        await magic.aclose()
        two.board.inbox.put_nowait(Call((), sealed))
        await counted(callee, "own", 1)
        assert callee._magic.counters["rendezvous: calls answered"] == 0


async def test_calls_are_answered_within_a_bound() -> None:
    """However many keys call, a fixed number is held at a time."""
    two = Meeting()
    async with Endpoint.bind(config(two)) as callee:
        for _ in range(service.MAX_ANSWERS + 20):
            magic = MagicSocket(SecretKey.generate())
            remote = magic.remote(callee.node_id)
            two.board.inbox.put_nowait(Call((), magic.doorstep.sealed_call(remote)))
            remote.release()
            await magic.aclose()
        await counted(callee, "calls refused", 20)
        assert callee._magic.counters["rendezvous: calls answered"] == service.MAX_ANSWERS


async def test_a_call_that_nobody_follows_is_left_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """The node may come, or look where the call lies, only after it was left."""
    monkeypatch.setattr(service, "AGAIN", 0.2)
    one = Meeting()
    nobody = SecretKey.generate().node_id
    async with Endpoint.bind(config(one)) as caller:
        one.names[nobody] = NodeAddr(nobody, (), (SocketAddr("127.0.0.9", 9),))
        with pytest.raises(DialError):
            await caller.connect(nobody, ALPN, timeout=3.0)
        assert len(one.board.left) >= 3


async def test_addresses_that_the_filter_refuses_are_not_knocked_at() -> None:
    """Whoever names our own network, or what the user has excluded, makes us send nothing there."""
    two = Meeting()
    async with Endpoint.bind(attrs.evolve(config(two), addr_deny=("127.0.0.9/32",))) as callee:
        two.board.inbox.put_nowait(Call((SocketAddr("127.0.0.9", 9),)))
        two.board.inbox.put_nowait(Call((SocketAddr("127.0.0.8", 9),)))
        await counted(callee, "knocks", 1)
        assert callee._magic.counters["rendezvous: addresses refused"] == 1
        assert {addr.host for addr in callee._rendezvous._knocks._known} == {"127.0.0.8"}


async def test_the_first_knock_dies_before_the_callers_router(monkeypatch: pytest.MonkeyPatch) -> None:
    """It opens our own NAT, with a TTL that ends soon; those after it travel in full."""
    sent: list[int | None] = []
    monkeypatch.setattr(UdpSocket, "send_opener", lambda _self, _data, _dest, ttl: sent.append(ttl))
    monkeypatch.setattr(UdpSocket, "send_one", lambda _self, _data, _dest: sent.append(None) or True)
    two = Meeting()
    async with Endpoint.bind(config(two)) as callee:
        two.board.inbox.put_nowait(Call((SocketAddr("127.0.0.8", 9),)))
        await counted(callee, "knocks", len(TIMES))
    assert sent == [OPENING_TTLS[0], None, None, None]


async def test_who_has_called_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nodes that call and never come are held for a while, not for ever."""
    monkeypatch.setattr(service, "ANSWER_FOR", 0.1)
    one, two = Meeting(), Meeting()
    async with Endpoint.bind(config(one)) as caller, Endpoint.bind(config(two)) as callee:
        remote = caller._magic.remote(callee.node_id)
        two.board.inbox.put_nowait(Call((), caller._magic.doorstep.sealed_call(remote)))
        remote.release()
        await counted(callee, "calls answered", 1)
        async with asyncio.timeout(10):
            while callee._rendezvous._answering:  # noqa: ASYNC110 - nobody tells
                await asyncio.sleep(0.01)
        held = callee._magic.remote(caller.node_id)
        assert held.core.holders == 1
        held.release()


async def test_a_caller_names_few_relays(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that names others all the time is followed to a fixed number of them."""
    two = Meeting()
    async with Endpoint.bind(config(two)) as callee:
        two.board.inbox.put_nowait(Call((SocketAddr("127.0.0.8", 9),)))
        await counted(callee, "calls found", 1)  # it listens
        followed: list[CallMeMaybe] = []
        monkeypatch.setattr(callee._magic.doorstep, "called", lambda _remote, call, _attested: followed.append(call))
        caller = SecretKey.generate().node_id
        for number in range(30):
            relays = (RelayUrl.parse(f"https://r{number}.test/"),)
            callee._rendezvous._take_words(caller, CallMeMaybe(bytes(12), (), relays=relays), ())
        assert len(followed) == service.MAX_TOLD


async def test_both_dial_at_once_and_each_dial_has_its_connection() -> None:
    """Each finds the other's call while its own is out; which end dialed may matter, so nothing is merged."""
    one, two = Meeting(), Meeting()
    async with Endpoint.bind(config(one)) as left, Endpoint.bind(config(two)) as right:
        one.others[right.node_id], two.others[left.node_id] = two, one

        dials = [left.connect(right.node_id, ALPN, timeout=10), right.connect(left.node_id, ALPN, timeout=10)]
        accepting = [asyncio.create_task(accept(endpoint)) for endpoint in (left, right)]
        for connection in await asyncio.gather(*dials):
            assert any(path.active and path.kind == "direct" for path in connection.paths())
        await asyncio.gather(*accepting)


async def test_both_dial_at_once_and_one_connection_results() -> None:
    """Where the protocol's ends are equal, both calls lead to one connection, and nobody else is given another."""
    one, two = Meeting(), Meeting()
    equal = [attrs.evolve(config(meeting), one_connection_alpns=(ALPN,)) for meeting in (one, two)]
    async with Endpoint.bind(equal[0]) as left, Endpoint.bind(equal[1]) as right:
        one.others[right.node_id], two.others[left.node_id] = two, one
        accepting = [asyncio.create_task(accept(endpoint)) for endpoint in (left, right)]
        dials = [left.connect(right.node_id, ALPN, timeout=30), right.connect(left.node_id, ALPN, timeout=30)]
        ours, theirs = await asyncio.gather(*dials)
        stream = await ours.open_bi()
        stream.write(b"hello")
        async with asyncio.timeout(30):
            assert await (await theirs.accept_bi()).read(5) == b"hello"
            while [len(end._driver.links) for end in (left, right)] != [1, 1]:  # noqa: ASYNC110 - nobody tells
                await asyncio.sleep(0.01)
        assert not any(task.done() for task in accepting)
        for task in accepting:
            task.cancel()
        await asyncio.gather(*accepting, return_exceptions=True)
