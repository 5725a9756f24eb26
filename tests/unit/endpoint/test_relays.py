"""Relay paths with a relay transport of the test's own: what the core does without any plugin that is installed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence

import attrs
import pytest

from tests.unit.endpoint.pairs import ALPN, accept_one, local_config
from tom_connect import (
    DialError,
    DiscoveryError,
    Endpoint,
    InvalidInputError,
    NodeAddr,
    NodeId,
    RelayUrl,
    SecretKey,
    hookimpl,
)
from tom_connect.abc import PluginContext, RelayTransport
from tom_connect.holepunch.path import RelayPath
from tom_connect.signing import NodeSigner
from tom_connect.watch import Watch

URL = RelayUrl.parse("test://relay/")
Receiver = Callable[[RelayUrl, NodeId, Sequence[bytes], int], None]


class Hub:
    """A relay in the test's memory. `alias`: nodes whose packets it passes on under another's name."""

    def __init__(self) -> None:
        self.receivers: dict[NodeId, Receiver] = {}
        self.alias: dict[NodeId, NodeId] = {}
        self.passed = 0
        self.largest_answer: dict[NodeId, int] = {}


class Transport(RelayTransport):
    """A node's way to the hub."""

    schemes = frozenset({"test"})

    def __init__(self, hub: Hub, ctx: PluginContext) -> None:
        self.hub = hub
        self.node_id = ctx.node_id
        self.home: Watch[RelayUrl | None] = Watch(URL)
        self.opened: list[tuple[RelayUrl, bool]] = []
        self.changes = 0
        self.asked: list[tuple[RelayUrl, NodeId]] = []
        self.fail = False

    def set_receiver(self, receive: Receiver) -> None:
        self.hub.receivers[self.node_id] = receive

    def home_relay(self) -> Watch[RelayUrl | None]:
        return self.home

    def open(self, relay: RelayUrl, *, trusted: bool) -> None:
        self.opened.append((relay, trusted))

    def network_changed(self) -> None:
        self.changes += 1

    def attest(self, relay: RelayUrl, node_id: NodeId) -> None:
        if self.fail:
            raise RuntimeError("broken plugin")
        self.asked.append((relay, node_id))

    def set_attested(self, callback: Callable[[RelayUrl, NodeId, str], None]) -> None:
        self.attested = callback

    def send(self, relay: RelayUrl, node_id: NodeId, datagrams: Sequence[bytes], ecn: int) -> bool:
        if self.fail:
            raise RuntimeError("broken plugin")
        receiver = self.hub.receivers.get(node_id)
        if receiver is not None:
            self.hub.passed += len(datagrams)
            name = self.hub.alias.get(self.node_id, self.node_id)
            asyncio.get_running_loop().call_soon(receiver, relay, name, list(datagrams), ecn)
        return True


class Plugin:
    """Brings a transport, which the test can look at."""

    def __init__(self, hub: Hub) -> None:
        self.hub = hub
        self.transport: Transport

    @hookimpl
    def tom_relay_transport(self, ctx: PluginContext) -> RelayTransport:
        self.transport = Transport(self.hub, ctx)
        return self.transport


class Meeting:
    """Two endpoints at one hub."""

    def __init__(self, a: Endpoint, b: Endpoint, plugins: tuple[Plugin, Plugin], hub: Hub) -> None:
        self.a, self.b, self.plugins, self.hub = a, b, plugins, hub


@pytest.fixture(params=[False, True], ids=["relay alone", "direct too"])
async def met(request: pytest.FixtureRequest) -> AsyncIterator[Meeting]:
    """With direct packets and without."""
    hub = Hub()
    one, two = Plugin(hub), Plugin(hub)
    configs = [local_config(extra_plugins=(("r", plugin),), direct=request.param) for plugin in (one, two)]
    async with Endpoint.bind(configs[0]) as a, Endpoint.bind(configs[1]) as b:
        yield Meeting(a, b, (one, two), hub)


async def test_a_dial_through_a_relay(met: Meeting) -> None:
    """The home relay is in our address, a dial goes through it, and goes on directly where that is wanted."""
    assert met.b.node_addr().relay_urls == (URL,)
    accepting = asyncio.create_task(accept_one(met.b))
    connection = await met.a.connect(NodeAddr(met.b.node_id, (URL,)), ALPN, timeout=5)
    accepted = await accepting
    assert (URL, True) in met.plugins[0].transport.opened
    if met.a.config.direct:
        async with asyncio.timeout(5):
            while not any(path.active and path.kind == "direct" for path in connection.paths()):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
    else:
        assert [path.addr for path in connection.paths()] == [URL]
        assert [path.addr for path in accepted.paths()] == [URL]
    stream = await connection.open_uni()
    stream.write(b"x" * 100_000)
    stream.finish()
    assert len(await (await accepted.accept_uni()).read()) == 100_000


@pytest.mark.parametrize("dht_only", [False, True])
async def test_a_node_that_no_source_knows_is_looked_for_at_our_relays(dht_only: bool) -> None:
    """It may be at one that we have in common; with `dht_only` no relay hears whom we look for."""
    hub = Hub()
    plugins = Plugin(hub), Plugin(hub)
    configs = [local_config(extra_plugins=(("r", p),), relay=(str(URL),), direct=False) for p in plugins]
    async with (
        Endpoint.bind(attrs.evolve(configs[0], dht_only=dht_only)) as a,
        Endpoint.bind(configs[1]) as b,
    ):
        if dht_only:
            with pytest.raises(DiscoveryError):
                await a.connect(b.node_id, ALPN)
            assert hub.passed == 0
        else:
            accepting = asyncio.create_task(accept_one(b))
            await a.connect(b.node_id, ALPN)
            await accepting


async def test_a_relay_that_gives_packets_another_name_is_not_believed(met: Meeting) -> None:
    """Where the relay's word and the proven key differ, its path is not used, and nobody crashes."""
    met.hub.alias[met.a.node_id] = SecretKey.generate().node_id
    with pytest.raises(DialError):
        await met.a.connect(NodeAddr(met.b.node_id, (URL,)), ALPN, timeout=1)


async def test_a_transport_that_raises_harms_nobody(met: Meeting) -> None:
    """The dial fails in its time, what failed is counted, and the endpoint goes on."""
    met.plugins[0].transport.fail = True
    with pytest.raises(DialError):
        await met.a.connect(NodeAddr(met.b.node_id, (URL,)), ALPN, timeout=0.5)
    assert met.a._magic.counters["relay transport: failed"] > 0
    met.plugins[0].transport.fail = False
    accepting = asyncio.create_task(accept_one(met.b))
    await met.a.connect(NodeAddr(met.b.node_id, (URL,)), ALPN, timeout=5)
    await accepting


async def test_a_relays_word_on_an_address_is_passed_on(met: Meeting) -> None:
    """A question goes to the path's transport and an answer to who waits; what nobody carries or waits for is lost."""
    relays, transport = met.a._magic.relays, met.plugins[0].transport
    transport.attested(URL, met.b.node_id, "198.51.100.7")
    told: list[tuple[NodeId, str]] = []
    relays.attested = lambda node_id, ip: told.append((node_id, ip))
    relays.attest(RelayPath(URL, met.b.node_id))
    relays.attest(RelayPath(RelayUrl.parse("other://relay/"), met.b.node_id))
    assert transport.asked == [(URL, met.b.node_id)]
    transport.attested(URL, met.b.node_id, "198.51.100.8")
    assert told == [(met.b.node_id, "198.51.100.8")]
    transport.fail = True
    relays.attest(RelayPath(URL, met.b.node_id))
    assert met.a._magic.counters["relay transport: failed"] == 1


async def test_an_answer_through_a_relay_is_held_to_three_times_the_question(met: Meeting) -> None:
    """A first flight of one packet gets at most three times its size in return before its sender has answered."""
    sizes: list[int] = []
    stranger = SecretKey.generate().node_id
    met.hub.receivers[stranger] = lambda _url, _node, datagrams, _ecn: sizes.extend(map(len, datagrams))
    flights: list[bytes] = []
    receive = met.hub.receivers[met.b.node_id]
    met.hub.receivers[met.b.node_id] = lambda _u, _n, datagrams, _e: flights.extend(datagrams)
    with pytest.raises(DialError):
        await met.a.connect(NodeAddr(met.b.node_id, (URL,)), ALPN, timeout=0.3)
    initial = next(data for data in flights if data[0] & 0xC0 == 0xC0)
    receive(URL, stranger, [initial], 0)
    await asyncio.sleep(3)
    assert 0 < sum(sizes) <= 3 * len(initial)


async def test_network_changed_is_passed_on(met: Meeting) -> None:
    """Transports hear of it, and connections go on."""
    accepting = asyncio.create_task(accept_one(met.b))
    connection = await met.a.connect(NodeAddr(met.b.node_id, (URL,)), ALPN, timeout=5)
    accepted = await accepting
    met.a.network_changed()
    assert met.plugins[0].transport.changes == 1
    connection.send_datagram(b"still here")
    assert await asyncio.wait_for(accepted.read_datagram(), 5) == b"still here"


async def test_without_a_transport_relays_are_passed_over() -> None:
    """A relay that nobody carries is no error while there is another way, and is named where there is none."""
    async with Endpoint.bind(local_config(relay=("test://relay",))) as a, Endpoint.bind(local_config()) as b:
        accepting = asyncio.create_task(accept_one(b))
        await a.connect(NodeAddr(b.node_id, (URL,), b.node_addr().direct_addrs), ALPN, timeout=5)
        await accepting
        assert a.relays() == []


def test_only_hashes_are_signed_for_relays() -> None:
    """Nothing that could be read as a mutable item, and nothing of another length."""
    signer = NodeSigner(SecretKey.generate())
    assert len(signer.sign_relay_challenge(bytes(32))) == 64
    for wrong in (
        b"",
        bytes(31),
        bytes(33),
        b"3:seqi1e1:v20:".ljust(32, b"x"),
        b"4:salt1:x3:seqi1e1:v9:".ljust(32, b"x"),
    ):
        with pytest.raises(InvalidInputError):
            signer.sign_relay_challenge(wrong)
