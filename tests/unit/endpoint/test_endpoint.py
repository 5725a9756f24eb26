"""Dialing, accepting and closing between real endpoints on loopback."""

from __future__ import annotations

import asyncio
import socket

import pytest

from tests.unit.endpoint.pairs import ALPN, Pair, accept_one, local_config, make_pair
from tom_connect import (
    AlpnError,
    Connection,
    ConnectionClosedError,
    ConnectionRefusedError,  # noqa: A004
    DatagramTooLargeError,
    DialError,
    DiscoveryError,
    Endpoint,
    EndpointClosedError,
    InvalidInputError,
    NodeAddr,
    PeerIdentityError,
    Router,
    SecretKey,
    encode_ticket,
)


async def test_each_side_knows_the_other(pair: Pair) -> None:
    """After the handshake both sides have the other's proven key, the ALPN, a path and an RTT."""
    assert pair.dialed.remote_node_id == pair.server.node_id
    assert pair.accepted.remote_node_id == pair.client.node_id
    assert pair.dialed.alpn == pair.accepted.alpn == ALPN
    active = [path for path in pair.dialed.paths() if path.active]
    assert [path.addr for path in active] == [pair.server.local_addrs[0]]
    assert active[0].kind == "direct"
    assert 0 < pair.dialed.rtt < 5
    assert pair.dialed.stats().bytes_sent > 0


async def test_ticket_dials() -> None:
    """A ticket, as text, is enough to dial."""
    async with Endpoint.bind(local_config()) as server, Endpoint.bind(local_config()) as client:
        accepting = asyncio.create_task(accept_one(server))
        connection = await client.connect(encode_ticket(server.node_addr()), ALPN)
        assert connection.remote_node_id == server.node_id
        await accepting


async def test_datagrams(pair: Pair) -> None:
    """A datagram arrives; one that is too large is refused at once and the next one still goes."""
    await asyncio.sleep(0)
    limit = pair.dialed.max_datagram_size
    assert limit >= 1100
    with pytest.raises(DatagramTooLargeError):
        pair.dialed.send_datagram(bytes(limit + 1))
    pair.dialed.send_datagram(b"x" * limit)
    assert await pair.accepted.read_datagram() == b"x" * limit


async def test_wrong_alpn() -> None:
    """Dialing with a protocol that the other side does not speak says so."""
    async with Endpoint.bind(local_config()) as server, Endpoint.bind(local_config()) as client:
        with pytest.raises(AlpnError, match="other/1"):
            await client.connect(server.node_addr(), "other/1")


async def test_wrong_key() -> None:
    """Whoever answers with another key than the one dialed is refused, by name of both keys."""
    stranger = SecretKey.generate().node_id
    async with Endpoint.bind(local_config()) as server, Endpoint.bind(local_config()) as client:
        with pytest.raises(PeerIdentityError, match=str(stranger)):
            await client.connect(NodeAddr(stranger, (), server.node_addr().direct_addrs), ALPN)
        assert not client._driver.links


async def test_refused() -> None:
    """A refused dial raises ConnectionRefusedError with the reason."""
    async with Endpoint.bind(local_config()) as server, Endpoint.bind(local_config()) as client:
        dialing = asyncio.create_task(client.connect(server.node_addr(), ALPN))
        incoming = await anext(server.accept())
        assert incoming.remote_node_id == client.node_id
        incoming.refuse("not today")
        with pytest.raises(ConnectionRefusedError, match="not today"):
            await dialing


async def test_ignored() -> None:
    """A dial that is ignored ends in the dialer's time-out."""
    async with Endpoint.bind(local_config()) as server, Endpoint.bind(local_config()) as client:
        dialing = asyncio.create_task(client.connect(server.node_addr(), ALPN, timeout=0.5))
        (await anext(server.accept())).ignore()
        with pytest.raises(DialError, match=r"0\.5 s"):
            await dialing


async def test_unreachable_node_says_what_was_tried() -> None:
    """The error of a failed dial names each address and how long it took."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as deaf:
        deaf.bind(("127.0.0.1", 0))
        host, port = deaf.getsockname()
        async with Endpoint.bind(local_config()) as client:
            with pytest.raises(DialError) as caught:
                await client.connect(NodeAddr(SecretKey.generate().node_id, (), [(host, port)]), ALPN, timeout=0.4)
    assert f"{host}:{port}" in str(caught.value)
    assert "no answer" in str(caught.value)
    assert "0.4 s" in str(caught.value)


async def test_without_discovery_a_bare_id_can_not_be_dialed() -> None:
    """A NodeId alone, with no discovery plugin in use, fails at once and says what to install."""
    async with Endpoint.bind(local_config()) as client:
        with pytest.raises(DiscoveryError, match="pip install"):
            await client.connect(SecretKey.generate().node_id, ALPN)


async def test_own_id_and_bad_targets_are_refused() -> None:
    """Dialing ourselves, or a text that is no id and no ticket, is refused with a clear error."""
    async with Endpoint.bind(local_config()) as client:
        with pytest.raises(InvalidInputError, match="ourselves"):
            await client.connect(client.node_id, ALPN)
        for text in ("", "abc", "tom1abc", "z" * 64):
            with pytest.raises(InvalidInputError):
                await client.connect(text, ALPN)


async def test_cancelled_dial_leaves_nothing() -> None:
    """A dial that is cancelled leaves no link, task or path behind."""
    target = NodeAddr(SecretKey.generate().node_id, (), ["127.0.0.1:9"])
    async with Endpoint.bind(local_config()) as client:
        before = asyncio.all_tasks()
        dialing = asyncio.create_task(client.connect(target, ALPN))
        await asyncio.sleep(0.05)
        dialing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await dialing
        assert not client._driver.links
        assert asyncio.all_tasks() == before


async def test_many_dials_at_once() -> None:
    """Fifty connections between two endpoints come up side by side and all carry data."""
    async with Endpoint.bind(local_config()) as server, Endpoint.bind(local_config()) as client:

        async def echo(connection: Connection) -> None:
            stream = await connection.accept_bi()
            stream.write(await stream.read())
            stream.finish()
            await connection.closed()

        async def ask(number: int) -> bytes:
            async with await client.connect(server.node_addr(), ALPN) as connection:
                stream = await connection.open_bi()
                stream.write(b"%d" % number)
                stream.finish()
                return await stream.read()

        serving = asyncio.create_task(Router(server).route(ALPN, echo).serve())
        assert await asyncio.gather(*map(ask, range(50))) == [b"%d" % number for number in range(50)]
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)


async def test_router_sends_each_protocol_to_its_handler() -> None:
    """Two protocols on one endpoint reach their own handlers; what a handler wrote arrives before the close."""
    async with Endpoint.bind(local_config(alpns=())) as server, Endpoint.bind(local_config()) as client:

        async def say(connection: Connection) -> None:
            stream = await connection.open_uni()
            stream.write(connection.alpn.encode() * 10_000)
            stream.finish()

        router = Router(server).route("a/1", say).route("b/1", say)
        serving = asyncio.create_task(router.serve())
        for alpn in ("a/1", "b/1"):
            async with await client.connect(server.node_addr(), alpn) as connection:
                stream = await connection.accept_uni()
                assert await stream.read() == alpn.encode() * 10_000
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)


async def test_failing_handler_closes_with_its_code() -> None:
    """A handler that raises closes its own connection with code 1, and the router goes on."""
    async with Endpoint.bind(local_config(alpns=())) as server, Endpoint.bind(local_config()) as client:

        async def fail(_connection: Connection) -> None:
            raise RuntimeError("a mistake in a handler")

        serving = asyncio.create_task(Router(server).route("f/1", fail).serve())
        for _ in range(2):
            connection = await client.connect(server.node_addr(), "f/1")
            error = await connection.closed()
            assert isinstance(error, ConnectionClosedError)
            assert error.code == 1
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)


async def test_closed_endpoint_refuses_to_work() -> None:
    """After close, connections are over, accept ends and connect raises."""
    async with make_pair() as pair:
        await pair.server.close("bye")
        error = await pair.dialed.closed()
        assert isinstance(error, ConnectionClosedError)
        assert [incoming async for incoming in pair.server.accept()] == []
        with pytest.raises(EndpointClosedError):
            await pair.server.connect(pair.client.node_addr(), ALPN)
        await pair.server.close()


async def test_ipv6_and_ipv4_together() -> None:
    """An endpoint bound to both families is reached by either."""
    if not socket.has_ipv6:
        pytest.skip("needs IPv6 on loopback")
    config = local_config(bind=("127.0.0.1:0", "[::1]:0"))
    async with Endpoint.bind(config) as server, Endpoint.bind(config) as client:
        for addr in server.local_addrs:
            accepting = asyncio.create_task(accept_one(server))
            async with await client.connect(NodeAddr(server.node_id, (), [addr]), ALPN) as connection:
                assert connection.remote_node_id == server.node_id
                await accepting


async def test_bind_needs_no_entering() -> None:
    """`await Endpoint.bind()` gives an endpoint that can be closed by hand, with a fresh key each time."""
    first = await Endpoint.bind(local_config())
    second = await Endpoint.bind(local_config())
    assert first.node_id != second.node_id
    await first.close()
    await second.close()
