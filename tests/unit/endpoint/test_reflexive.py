"""What becomes of the addresses that servers and plugins say they see."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence

import pytest

from tests.unit.endpoint.pairs import ALPN, accept_one, local_config
from tom_connect import Endpoint, NodeAddr, NodeId, RelayUrl, SocketAddr, hookimpl
from tom_connect.abc import AddressSource, PluginContext, ProbeServer, RelayInfo, RelayTransport
from tom_connect.netreport.prober import REQUESTS
from tom_connect.netreport.report import Mapping, NetReport
from tom_connect.netreport.stun import BindingRequest, binding_success
from tom_connect.plugins import PluginState
from tom_connect.watch import Watch

SEEN = SocketAddr("203.0.113.1", 4000)
LIE = SocketAddr("198.51.100.66", 666)


class Server(asyncio.DatagramProtocol):
    """A STUN server that says what it is told to say."""

    def __init__(self, told: SocketAddr) -> None:
        self.told = told
        self.asked = 0
        self.asked_from: set[int] = set()
        self.silent = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self.asked += 1
        self.asked_from.add(addr[1])
        if self.silent:
            return
        request = BindingRequest.decode(data)
        self.transport.sendto(binding_success(request.transaction_id, self.told), addr)  # type: ignore[attr-defined]


@contextlib.asynccontextmanager
async def serving(*told: SocketAddr) -> AsyncIterator[list[Server]]:
    """A server on loopback for each of the addresses that they tell."""
    loop = asyncio.get_running_loop()
    servers = []
    for addr in told:
        _, server = await loop.create_datagram_endpoint(lambda addr=addr: Server(addr), ("127.0.0.1", 0))  # type: ignore[misc]
        servers.append(server)
    try:
        yield servers
    finally:
        for server in servers:
            server.transport.close()
        await asyncio.sleep(0)


class Transport(RelayTransport):
    """Carries nothing, and names servers to ask."""

    schemes = frozenset({"test"})

    def __init__(self, servers: Sequence[Server]) -> None:
        self.servers = list(servers)
        self.other_port: int | None = None
        self.broken = False
        self.home: Watch[RelayUrl | None] = Watch(None)

    def send(self, relay: RelayUrl, node_id: NodeId, datagrams: Sequence[bytes], ecn: int) -> bool:
        return False

    def set_receiver(self, receive: Callable[[RelayUrl, NodeId, Sequence[bytes], int], None]) -> None:
        pass

    def home_relay(self) -> Watch[RelayUrl | None]:
        return self.home

    def relays(self) -> Sequence[RelayInfo]:
        if self.broken:
            raise RuntimeError("broken plugin")
        return ()

    def probes(self) -> Sequence[ProbeServer]:
        if self.broken:
            raise RuntimeError("broken plugin")
        return [
            ProbeServer(
                RelayUrl.parse(f"test://relay{number}/"),
                "127.0.0.1",
                stun_port=server.transport.get_extra_info("sockname")[1],
                qad_port=None,
                certain=True,
                stun_other_port=self.other_port,
            )
            for number, server in enumerate(self.servers)
        ]


class Router(AddressSource):
    """A router that maps nothing, and says where it is."""

    def __init__(self, outside: str) -> None:
        self.outside = outside
        self.addrs: Watch[tuple[SocketAddr, ...]] = Watch(())

    def watch(self) -> Watch[tuple[SocketAddr, ...]]:
        return self.addrs

    def router_addresses(self) -> Sequence[str]:
        return [self.outside]


class Plugin:
    """Brings the transport, and keeps its context."""

    def __init__(self, servers: Sequence[Server]) -> None:
        self.transport = Transport(servers)
        self.router: AddressSource | None = None
        self.ctx: PluginContext

    @hookimpl
    def tom_address_source(self) -> AddressSource | None:
        return self.router

    @hookimpl
    def tom_diagnostics(self) -> dict[str, object]:
        return {"servers": len(self.transport.servers)}

    @hookimpl
    def tom_relay_transport(self, ctx: PluginContext) -> RelayTransport:
        self.ctx = ctx
        return self.transport


@contextlib.asynccontextmanager
async def asking(plugin: Plugin, **changes: object) -> AsyncIterator[Endpoint]:
    """An endpoint on loopback with the plugin."""
    async with Endpoint.bind(local_config(extra_plugins=(("asker", plugin),), **changes)) as endpoint:
        yield endpoint


async def addr_with(watch: Watch[NodeAddr], *addrs: SocketAddr) -> NodeAddr:
    """The first address that has all of these."""
    async with asyncio.timeout(20):
        async for addr in watch:
            if set(addrs) <= set(addr.direct_addrs):
                return addr
    raise AssertionError("the endpoint was closed")


async def test_what_a_server_sees_is_published_first() -> None:
    """It comes before the interfaces' addresses, which fewer can reach."""
    async with serving(SEEN) as servers, asking(Plugin(servers)) as endpoint:
        addr = await addr_with(endpoint.watch_addr(), SEEN)
        assert addr.direct_addrs == (SEEN, *endpoint.local_addrs)


async def test_a_liar_among_servers_is_not_published_but_tried() -> None:
    """Two agree: their address alone is told to the world, while peers may try both."""
    async with serving(LIE, SEEN, SEEN) as servers:
        # All are on one host, so they are told apart by their relays' names.
        plugin = Plugin(servers)
        async with asking(plugin) as endpoint:
            await addr_with(plugin.ctx.local_addrs, SEEN, LIE)
            async with asyncio.timeout(20):
                async for report in endpoint.net_report():
                    if report.ipv4.confirmed == (SEEN,):
                        break
            assert endpoint.node_addr().direct_addrs == (SEEN, *endpoint.local_addrs)
            assert report.ipv4.mapping is Mapping.ENDPOINT_INDEPENDENT


async def test_of_a_server_and_a_plugin_that_disagree_none_is_published() -> None:
    """What the DHT says contradicts a server that lies: neither is published until they agree."""
    async with serving(LIE) as servers:
        plugin = Plugin(servers)
        async with asking(plugin) as endpoint:
            await addr_with(endpoint.watch_addr(), LIE)
            plugin.ctx.report_external_addr(SEEN)
            assert endpoint.node_addr().direct_addrs == endpoint.local_addrs
            servers[0].told = SEEN
            endpoint.network_changed()
            addr = await addr_with(endpoint.watch_addr(), SEEN)
            assert LIE not in addr.direct_addrs


async def test_no_server_is_asked_where_only_the_dht_may_be() -> None:
    """`dht_only` means no STUN: nothing is sent to a relay's server."""
    async with serving(SEEN) as servers:
        plugin = Plugin(servers)
        async with asking(plugin, dht_only=True) as endpoint:
            async with asyncio.timeout(20):
                async for report in endpoint.net_report():
                    if report.complete:
                        break
            assert servers[0].asked == 0
            plugin.ctx.report_external_addr(SEEN)
            assert SEEN in endpoint.node_addr().direct_addrs


async def test_a_new_home_relay_is_asked() -> None:
    """Relays that appear later are asked as soon as one becomes the home relay."""
    async with serving(SEEN) as servers:
        plugin = Plugin([])
        async with asking(plugin) as endpoint:
            assert SEEN not in endpoint.node_addr().direct_addrs
            plugin.transport.servers = servers
            plugin.transport.home.set(RelayUrl.parse("test://relay0/"))
            await addr_with(endpoint.watch_addr(), SEEN)


async def report_that(endpoint: Endpoint, condition: Callable[[NetReport], bool]) -> NetReport:
    """The first report for which the condition holds."""
    async with asyncio.timeout(20):
        async for report in endpoint.net_report():
            if condition(report):
                return report
    raise AssertionError("the endpoint was closed")


async def test_a_dht_whose_nodes_see_different_ports_and_a_server_tell_a_hard_nat() -> None:
    """Port 0 of a plugin is evidence, not an address: none with that port is told to anybody."""
    async with serving(SEEN) as servers:
        plugin = Plugin(servers)
        async with asking(plugin) as endpoint:
            plugin.ctx.report_external_addr(SocketAddr(SEEN.host, 0))
            report = await report_that(
                endpoint, lambda report: report.ipv4.endpoint_dependent and bool(report.ipv4.reflexive)
            )
            assert report.ipv4.public_ip == SEEN.ip
            assert endpoint.node_addr().direct_addrs == endpoint.local_addrs
            assert plugin.ctx.local_addrs.value.direct_addrs == (*endpoint.local_addrs, SEEN)


@pytest.mark.parametrize("hard", [True, False])
async def test_one_relay_with_two_ports_tells_a_hard_nat_at_once(hard: bool) -> None:
    """Both ports are asked over a socket that is closed again; the endpoint's own asks the first one alone."""
    second = SocketAddr(SEEN.host, SEEN.port + hard)
    async with serving(SEEN, second) as (server, other):
        plugin = Plugin([server])
        plugin.transport.other_port = other.transport.get_extra_info("sockname")[1]
        async with asking(plugin) as endpoint:
            report = await report_that(endpoint, lambda report: report.ipv4.mapping is not Mapping.UNKNOWN)
            assert report.ipv4.endpoint_dependent is hard
            assert report.ipv4.confirmed == (() if hard else (SEEN,))
            asked_us = endpoint.local_addrs[0].port
            assert asked_us not in other.asked_from and asked_us in server.asked_from
            endpoint.network_changed()
            other.told = SEEN if hard else SocketAddr(SEEN.host, 9)
            await report_that(endpoint, lambda report: report.ipv4.endpoint_dependent is not hard)


async def test_a_dht_alone_tells_a_hard_nat() -> None:
    """Without any server, nodes that see different ports show the kind of NAT and the IP, and no address to tell."""
    plugin = Plugin([])
    async with asking(plugin) as endpoint:
        plugin.ctx.report_external_addr(SocketAddr(SEEN.host, 0))
        report = await report_that(endpoint, lambda report: report.ipv4.endpoint_dependent)
        assert report.ipv4.public_ip == SEEN.ip
        assert report.ipv4.reflexive == ()
        assert endpoint.node_addr().direct_addrs == endpoint.local_addrs


@pytest.mark.parametrize(("outside", "carrier"), [("100.64.3.4", True), ("192.168.7.1", True), ("203.0.113.1", False)])
async def test_what_the_router_has_outside_shows_a_carriers_nat(outside: str, carrier: bool) -> None:
    """A router with a private or shared address is behind another NAT."""
    async with serving(SEEN) as servers:
        plugin = Plugin(servers)
        plugin.router = Router(outside)
        async with asking(plugin) as endpoint:
            report = await report_that(endpoint, lambda report: report.complete and bool(report.ipv4.reflexive))
            assert report.ipv4.carrier_nat is carrier


async def test_a_silent_server_is_asked_again_and_given_up() -> None:
    """Repetitions leave on time although nothing else happens, and in the end it is known that nobody answers."""
    async with serving(SEEN) as servers:
        servers[0].silent = True
        async with asking(Plugin(servers)) as endpoint:
            report = await report_that(endpoint, lambda report: report.ipv4.answers is False)
            assert report.complete
            assert report.udp_blocked is None  # no relay is connected, so that all may be down
            assert servers[0].asked == REQUESTS


async def test_no_dial_waits_for_the_report() -> None:
    """While the only server says nothing, which takes seconds to be sure of, a dial is over."""
    async with serving(SEEN) as servers, Endpoint.bind(local_config()) as server:
        servers[0].silent = True
        async with asking(Plugin(servers)) as endpoint:
            accepting = asyncio.create_task(accept_one(server))
            connection = await endpoint.connect(server.node_addr(), ALPN)
            await accepting
            assert not endpoint.net_report().value.complete
            assert connection.remote_node_id == server.node_id


async def test_a_transport_that_fails_is_reported_once_and_others_are_heard() -> None:
    """What a relay plugin raises when it is asked for servers ends nothing; what other plugins say still counts."""
    async with serving(SEEN) as servers:
        plugin = Plugin(servers)
        async with asking(plugin) as endpoint:
            await report_that(endpoint, lambda report: bool(report.ipv4.reflexive))
            plugin.transport.broken = True
            for _ in range(3):
                endpoint.network_changed()
                endpoint.net_report()
            plugin.ctx.report_external_addr(LIE)
            await addr_with(plugin.ctx.local_addrs, LIE)
            info = next(info for info in endpoint.plugins if info.name == "asker")
            assert info.state is PluginState.FAILED
            assert "broken plugin" in info.reason
            assert info.reason.count("broken plugin") == 1


async def test_plugins_tell_of_themselves() -> None:
    """What a plugin's hook for diagnostics returns is there under its name."""
    async with asking(Plugin([])) as endpoint:
        assert endpoint.diagnostics() == {"asker": {"servers": 0}}
