"""Nodes whose relays pass nothing on are reached all the same: calls say so, and callers name relays of their own."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence

import pytest

from tom_connect import Connection, Endpoint, EndpointConfig
from tom_connect.abc import Call, Callee, Discovery, FoundAddr, PluginContext, RelayTransport, Rendezvous
from tom_connect.addr import NodeAddr, RelayUrl, SocketAddr
from tom_connect.exceptions import DialError
from tom_connect.hookspecs import hookimpl
from tom_connect.keys import NodeId
from tom_connect.rendezvous import service
from tom_connect.watch import Watch

ALPN = "silent/1"
ONE, TWO, THREE = (RelayUrl.parse(f"https://{name}.test/") for name in ("one", "two", "three"))
#: Where nobody is: a call needs an address that may be knocked at, and these nodes must not find each other by it.
NOBODY = SocketAddr("127.0.0.9", 9)


class World:
    """All that the nodes of a test share: relays, records and mailboxes, in memory."""

    def __init__(self) -> None:
        self.nodes: dict[NodeId, Member] = {}
        self.silent: set[RelayUrl] = set()
        self.records: dict[NodeId, RelayUrl] = {}

    @contextlib.asynccontextmanager
    async def node(self, host: str, home: RelayUrl | None) -> AsyncIterator[tuple[Endpoint, Member]]:
        """A node that no other reaches but through relays; it accepts whoever comes."""
        member = Member(self, home)
        config = EndpointConfig(
            alpns=(ALPN,),
            bind=(f"{host}:0",),
            addr_deny=("127.0.0.2/31",),
            allow_local=True,
            persist=False,
            watch_network=False,
            plugins=(),
            extra_plugins=(("member", member),),
        )
        async with Endpoint.bind(config) as endpoint:
            self.nodes[endpoint.node_id] = member
            if home is not None:
                self.records[endpoint.node_id] = home
            accepting = asyncio.create_task(_accept(endpoint))
            try:
                yield endpoint, member
            finally:
                accepting.cancel()
                await asyncio.gather(accepting, return_exceptions=True)


async def _accept(endpoint: Endpoint) -> None:
    kept: list[Connection] = []
    async for incoming in endpoint.accept():
        kept.append(await incoming.accept())


class Relays(RelayTransport):
    """The relays, as one node has them."""

    name = "memory"
    schemes = frozenset(("https", "http"))

    def __init__(self, member: Member) -> None:
        self.member = member
        self.home: Watch[RelayUrl | None] = Watch(member.first_home)
        self.opened: set[RelayUrl] = set()
        self.suspected = 0
        self.missed_calls: list[tuple[RelayUrl, str]] = []
        self.when_suspected: Callable[[], None] = lambda: None
        self._receive: Callable[[RelayUrl, NodeId, Sequence[bytes], int], None]

    def set_receiver(self, receive: Callable[[RelayUrl, NodeId, Sequence[bytes], int], None]) -> None:
        self._receive = receive

    def home_relay(self) -> Watch[RelayUrl | None]:
        return self.home

    def open(self, relay: RelayUrl, *, trusted: bool) -> None:
        self.opened.add(relay)

    def send(self, relay: RelayUrl, node_id: NodeId, datagrams: Sequence[bytes], ecn: int) -> bool:
        self.opened.add(relay)
        world = self.member.world
        other = world.nodes.get(node_id)
        if relay not in world.silent and other is not None and relay in {*other.relays.opened, other.relays.home.value}:
            loop = asyncio.get_running_loop()
            loop.call_soon(other.relays._receive, relay, self.member.ctx.node_id, tuple(datagrams), 0)
        return True

    def suspect(self) -> None:
        self.suspected += 1
        self.when_suspected()

    def missed(self, relay: RelayUrl, caller: str) -> None:
        self.missed_calls.append((relay, caller))


class Mailboxes(Rendezvous):
    """Calls, left at once; without words, since the address is thought to be enough."""

    name = "memory"

    def __init__(self, member: Member) -> None:
        self.member = member
        self.inbox: asyncio.Queue[Call | None] = asyncio.Queue()
        self.said = 0
        self.attested: tuple[str, ...] = ("198.51.100.7",)

    async def aclose(self) -> None:
        self.inbox.put_nowait(None)

    async def call(
        self, node_id: NodeId, words: Callable[[], bytes], opened: asyncio.Event, learned: Callable[[Callee], None]
    ) -> None:
        await opened.wait()
        learned(Callee(filtered=True))
        self.member.world.nodes[node_id].mailboxes.inbox.put_nowait(Call((NOBODY,)))

    async def say(self, node_id: NodeId, sealed: bytes) -> None:
        self.said += 1
        self.member.world.nodes[node_id].mailboxes.inbox.put_nowait(Call((), sealed, self.attested))

    async def calls(self) -> AsyncIterator[Call]:
        while (call := await self.inbox.get()) is not None:
            yield call


class Records(Discovery):
    """Where nodes say that they are."""

    name = "memory"

    def __init__(self, world: World) -> None:
        self.world = world

    async def resolve(self, node_id: NodeId) -> AsyncIterator[FoundAddr]:
        if node_id in self.world.records:
            yield FoundAddr(NodeAddr(node_id, (self.world.records[node_id],)), self.name)


class Member:
    """A plugin with all of them."""

    def __init__(self, world: World, home: RelayUrl | None) -> None:
        self.world = world
        self.first_home = home
        self.relays = Relays(self)
        self.mailboxes = Mailboxes(self)
        self.ctx: PluginContext

    @hookimpl
    def tom_relay_transport(self, ctx: PluginContext) -> RelayTransport:
        self.ctx = ctx
        return self.relays

    @hookimpl
    def tom_rendezvous(self, ctx: PluginContext) -> Rendezvous:
        return self.mailboxes

    @hookimpl
    def tom_discovery(self, ctx: PluginContext) -> Discovery:
        return Records(self.world)


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    """Nothing yet; the callers are less patient than they usually are."""
    monkeypatch.setattr(service, "SAY_AFTER", 0.4)
    monkeypatch.setattr(service, "SAY_AGAIN", 0.1)
    return World()


def through(connection: Connection) -> list[str]:
    """Where the traffic goes."""
    return [str(path.addr) for path in connection.paths() if path.active]


async def until(condition: Callable[[], bool]) -> None:
    """Wait until something that tells nobody is so."""
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_they_meet_at_the_callers_relay(world: World) -> None:
    """A callee whose relay is silent is told where the caller is, goes there, and doubts its own."""
    world.silent.add(ONE)
    async with world.node("127.0.0.2", TWO) as (caller, calling), world.node("127.0.0.3", ONE) as (callee, called):
        async with await caller.connect(callee.node_id, ALPN, timeout=30) as connection:
            assert through(connection) == [str(TWO)]
        assert called.relays.suspected > 0
        assert calling.mailboxes.said > 0 and calling.relays.suspected == 0


async def test_a_caller_says_it_when_it_has_a_relay(world: World) -> None:
    """A caller that has just begun finds its relay while it dials; what it says then is said at once."""
    world.silent.add(ONE)
    async with world.node("127.0.0.2", None) as (caller, calling), world.node("127.0.0.3", ONE) as (callee, called):
        dialing = asyncio.create_task(caller.connect(callee.node_id, ALPN, timeout=30))
        await until(lambda: called.relays.suspected > 0)
        assert calling.mailboxes.said == 0
        calling.relays.home.set(TWO)
        async with await dialing as connection:
            assert through(connection) == [str(TWO)]


async def test_what_is_said_is_said_anew_when_it_changes(world: World) -> None:
    """A caller whose relay is silent as well takes another, and a callee that has an answer under way follows it."""
    world.silent |= {ONE, TWO}
    async with world.node("127.0.0.2", TWO) as (caller, calling), world.node("127.0.0.3", ONE) as (callee, called):
        dialing = asyncio.create_task(caller.connect(callee.node_id, ALPN, timeout=30))
        await until(lambda: TWO in called.relays.opened)
        calling.relays.home.set(THREE)
        async with await dialing as connection:
            assert through(connection) == [str(THREE)]
        assert callee._magic.counters["rendezvous: calls answered"] == 1


async def test_a_caller_without_a_relay_finds_the_one_that_the_callee_takes_next(world: World) -> None:
    """A call alone has the callee look for another relay, and the caller look again where the callee is."""
    world.silent.add(ONE)
    async with world.node("127.0.0.2", None) as (caller, _), world.node("127.0.0.3", ONE) as (callee, called):

        def move() -> None:
            called.relays.home.set(THREE)
            world.records[callee.node_id] = THREE

        called.relays.when_suspected = move
        async with await caller.connect(callee.node_id, ALPN, timeout=30) as connection:
            assert through(connection) == [str(THREE)]


async def test_relays_that_bring_the_caller_are_not_suspected(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every dial by key leaves a call; where the handshake comes too, nobody is suspected and nothing more is said."""
    monkeypatch.setattr(service, "SAY_AFTER", 30.0)
    monkeypatch.setattr(service, "UNHEARD", 5.0)
    async with world.node("127.0.0.2", TWO) as (caller, calling), world.node("127.0.0.3", ONE) as (callee, called):
        async with await caller.connect(callee.node_id, ALPN, timeout=30):
            await until(lambda: callee._magic.counters["rendezvous: calls found"] > 0)
            wondering = callee._rendezvous._wondering
            assert wondering is not None
            await asyncio.wait((wondering,))
        assert called.relays.suspected == 0 and calling.mailboxes.said == 0


async def test_calls_that_nobody_follows_raise_one_suspicion_at_a_time(world: World) -> None:
    """Whoever leaves a hundred calls makes the callee doubt its relays once."""
    async with world.node("127.0.0.3", ONE) as (callee, called):
        for _ in range(100):
            called.mailboxes.inbox.put_nowait(Call((NOBODY,)))
        await until(lambda: called.relays.suspected > 0)
        assert called.relays.suspected == 1
        assert callee._magic.counters["rendezvous: calls found"] == 100


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who called is held briefly, after which the callee knows which relays brought it."""
    monkeypatch.setattr(service, "ANSWER_FOR", 0.5)


@pytest.mark.usefixtures("impatient")
async def test_a_relay_that_did_not_bring_a_caller_is_told_of(world: World) -> None:
    """Where a caller had to say where it is, our relay hears that it missed it, and the caller's own does not."""
    world.silent.add(ONE)
    async with world.node("127.0.0.2", TWO) as (caller, calling), world.node("127.0.0.3", ONE) as (callee, called):
        async with await caller.connect(callee.node_id, ALPN, timeout=30):
            await until(lambda: bool(called.relays.missed_calls))
        assert called.relays.missed_calls == [(ONE, "198.51.100.7")]
        assert calling.relays.missed_calls == []


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("why_not", ["nobody vouches for the address", "late", "cannot use it"])
async def test_relays_are_not_blamed_without_reason(world: World, why_not: str) -> None:
    """A relay that brings the caller after all, one that it can't use, and a caller from nowhere count for nothing."""
    # Nothing comes through it when the call is read; then, in one of the cases, it does.
    home = RelayUrl.parse("http://one.test/") if why_not == "cannot use it" else ONE
    world.silent.add(home)
    async with world.node("127.0.0.2", TWO) as (caller, calling), world.node("127.0.0.3", home) as (callee, called):
        if why_not == "nobody vouches for the address":
            calling.mailboxes.attested = ()
        elif why_not == "late":
            called.relays.when_suspected = lambda: world.silent.discard(ONE)
        async with await caller.connect(callee.node_id, ALPN, timeout=30):
            await until(lambda: callee._magic.counters["rendezvous: calls answered"] > 0)
            await until(lambda: not callee._rendezvous._answering)
        assert called.relays.suspected > 0 and called.relays.missed_calls == []


async def test_the_error_says_what_was_told(world: World) -> None:
    """Where neither's relays pass anything on, the dial fails in time and says that the node was called and told."""
    world.silent |= {ONE, TWO}
    async with world.node("127.0.0.2", TWO) as (caller, _), world.node("127.0.0.3", ONE) as (callee, called):
        dialing = asyncio.create_task(caller.connect(callee.node_id, ALPN, timeout=4.0))
        with pytest.raises(DialError, match="told at which relays we are, and did not come"):
            await dialing
        assert TWO in called.relays.opened
