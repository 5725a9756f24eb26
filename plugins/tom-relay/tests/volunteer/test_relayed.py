"""Nodes talk through a node that is a relay for others, named by its key."""

from __future__ import annotations

import asyncio

import pytest

from tom_connect import Endpoint, NodeAddr
from tom_connect.addr import RelayUrl
from tom_connect.exceptions import TomError
from tom_connect.keys import SecretKey

from .nodes import ALPN, config, home, kinds, meet, passes, sessions_of, until, volunteer_of, volunteering


async def test_two_nodes_meet_at_a_volunteer() -> None:
    """A node whose home relay is another node is dialed through it, by its key and the relay's URL alone."""
    async with (
        volunteering() as (volunteer, url),
        Endpoint.bind(config(url)) as server,
        Endpoint.bind(config()) as dialer,
    ):
        assert (await home(server)).relay_urls == (url,)
        here, there = await meet(dialer, server)
        assert kinds(here) == kinds(there) == {"relay"}
        await passes(here, there, b"through you" * 20_000)
        assert len(sessions_of(volunteer)) == 2
        assert volunteer_of(volunteer).hub.counters.relayed.bytes > 400_000
        await here.close()


async def test_large_packets_travel_as_datagrams() -> None:
    """The ends find an MTU that fits into the relay's QUIC datagrams, so that hardly anything waits on the stream."""
    async with (
        volunteering() as (volunteer, url),
        Endpoint.bind(config(url)) as server,
        Endpoint.bind(config()) as dialer,
    ):
        await home(server)
        here, there = await meet(dialer, server)
        async with asyncio.timeout(30):
            while here.stats().mtu == 1200:
                await passes(here, there, bytes(10_000))
        assert here.stats().mtu < 1420
        assert sessions_of(volunteer).counters["datagrams too large for the path"] < 40
        await here.close()


async def test_another_node_at_the_address_is_no_relay() -> None:
    """A relay's URL names its key: whoever else answers there gets nothing."""
    async with volunteering() as (volunteer, _url):
        other = RelayUrl.of_node(SecretKey.generate().node_id, volunteer.local_addrs[0])
        async with Endpoint.bind(config(other)) as node:
            await until(lambda: any("answered at that address" in (r.problem or "") for r in node.relays()))
            assert not node.node_addr().relay_urls and len(sessions_of(volunteer)) == 0


async def test_a_node_that_is_no_relay_says_so() -> None:
    """A node that passes nothing on refuses those who ask it to."""
    async with Endpoint.bind(config(bind=("127.0.0.2:0",), addr_deny=())) as plain:
        url = RelayUrl.of_node(plain.node_id, plain.local_addrs[0])
        async with Endpoint.bind(config(url)) as node:
            await until(lambda: any(r.problem for r in node.relays()))
            assert not node.node_addr().relay_urls


async def test_a_volunteer_that_stops_is_left_at_once() -> None:
    """A volunteer may go at any time: its clients hear of it and take another relay, and their connection lives on."""
    async with volunteering() as (first, one), volunteering() as (_second, two):
        async with Endpoint.bind(config(one, two)) as server, Endpoint.bind(config()) as dialer:
            addr = await home(server)
            await until(lambda: all(relay.connected for relay in server.relays()))
            here, there = await meet(dialer, server, NodeAddr(server.node_id, (one, two)))
            await passes(here, there, b"before")
            gone = addr.relay_urls[0]
            await (first if gone == one else _second).close()
            after = await home(server, other_than=(gone,), within=5.0)
            assert after.relay_urls[0] == (two if gone == one else one)
            await passes(here, there, b"after")
            await here.close()


async def test_limits_of_clients_and_of_bytes_a_day() -> None:
    """A full volunteer refuses further nodes, saying why; one that has passed on enough stops until the next day."""
    async with volunteering(clients=1, daily=1 << 20) as (volunteer, url):
        async with Endpoint.bind(config(url)) as node, Endpoint.bind(config(url)) as other:
            await until(lambda: any(r.connected for r in (*node.relays(), *other.relays())))
            await until(lambda: any("full" in (r.problem or "") for r in (*node.relays(), *other.relays())))
        serving = volunteer_of(volunteer)
        serving.hub.counters.relayed.bytes += 1 << 20
        await until(lambda: not serving.serving)
        async with Endpoint.bind(config(url)) as node:
            with pytest.raises(TomError):
                await node.connect(NodeAddr(SecretKey.generate().node_id, (url,)), ALPN, timeout=1.5)


async def test_who_sends_too_much_is_slowed_down_and_lives() -> None:
    """Each client's rate is bounded: what passes takes as long as the rate says, and the connection survives it."""
    async with volunteering(client_rate=1 << 20) as (_volunteer, url):
        async with Endpoint.bind(config(url)) as server, Endpoint.bind(config()) as dialer:
            await home(server)
            here, there = await meet(dialer, server)
            loop = asyncio.get_running_loop()
            begun = loop.time()
            stream = await here.open_uni()
            stream.write(bytes(3 << 20))
            stream.finish()
            async with asyncio.timeout(60):
                received = await (await there.accept_uni()).read()
            assert len(received) == 3 << 20
            # A burst of 1 MiB is free.
            assert loop.time() - begun > 1.5
            await here.close()


async def test_a_volunteer_dials_its_own_clients() -> None:
    """A volunteer can't be its own relay, and need not: it knows where its clients' connections come from."""
    async with volunteering() as (volunteer, url), Endpoint.bind(config(url, addr_deny=())) as client:
        await home(client)
        connecting = asyncio.create_task(volunteer.connect(NodeAddr(client.node_id, (url,)), ALPN, timeout=10))
        async with asyncio.timeout(15):
            there = await (await anext(client.accept())).accept()
            here = await connecting
        assert kinds(here) == {"direct"}
        await passes(here, there, b"hello")
        await here.close()
