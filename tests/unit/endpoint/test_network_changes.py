"""What an endpoint does when its network is another one."""

from __future__ import annotations

import asyncio
import errno
import socket

import pytest

from tests.unit.endpoint.pairs import ALPN, Pair, accept_one, local_config
from tests.unit.magicsock.waiting import until
from tom_connect import DialError, Endpoint, NodeAddr, SocketAddr
from tom_connect import own_addrs as own_addrs_module
from tom_connect.magicsock import rebinding as rebinding_module
from tom_connect.magicsock.udp import open_socket
from tom_connect.netreport.interfaces import InterfaceAddress, NetworkState
from tom_connect.netreport.netwatch.core import NetworkChange

HOME = NetworkState((InterfaceAddress("eth0", 2, "203.0.113.5", 24),))
AWAY = NetworkState(
    (InterfaceAddress("eth0", 2, "203.0.113.9", 24), InterfaceAddress("docker0", 4, "198.51.100.1", 24))
)


async def both_ways(pair: Pair, count: int = 200) -> None:
    """Numbered records in both directions on one stream, each answered before the next is sent."""
    stream = await pair.dialed.open_bi()
    stream.write((0).to_bytes(4))
    echo = await pair.accepted.accept_bi()

    async def answer() -> None:
        for _ in range(count):
            echo.write(await echo.readexactly(4))

    answering = asyncio.create_task(answer())
    try:
        async with asyncio.timeout(30):
            for number in range(1, count):
                assert await stream.readexactly(4) == (number - 1).to_bytes(4)
                stream.write(number.to_bytes(4))
            assert await stream.readexactly(4) == (count - 1).to_bytes(4)
            await answering
    finally:
        answering.cancel()


@pytest.mark.parametrize("side", ["client", "server"])
@pytest.mark.parametrize("port", ["same port", "another port"])
async def test_a_rebound_socket_keeps_its_connections(
    pair: Pair, monkeypatch: pytest.MonkeyPatch, side: str, port: str
) -> None:
    """A stream goes on whole while the socket under either end is replaced again and again, at its port or another."""

    def taken(addr: SocketAddr) -> socket.socket:
        if addr.port and port == "another port":
            raise OSError(errno.EADDRINUSE, "taken")
        return open_socket(addr)

    endpoint: Endpoint = getattr(pair, side)
    magic = endpoint._magic
    monkeypatch.setattr(magic._sockets.rebinding, "_opened", taken)
    udp = magic.udp_sockets[0]
    first = endpoint.local_addrs
    for times in range(1, 4):
        talking = asyncio.create_task(both_ways(pair))
        await asyncio.sleep(0)
        magic._sockets.rebinding.request(udp)
        await talking
        await until(lambda times=times: magic.counters["socket rebound"] == times)  # type: ignore[misc]
    await both_ways(pair, 20)
    assert (endpoint.local_addrs == first) is (port == "same port")
    assert endpoint.node_addr().direct_addrs == endpoint.local_addrs


async def test_a_dial_under_way_goes_on() -> None:
    """A change of the network, told in the middle of a dial, neither ends nor breaks it."""
    async with Endpoint.bind(local_config()) as server, Endpoint.bind(local_config()) as client:
        accepting = asyncio.create_task(accept_one(server))
        dialing = asyncio.create_task(client.connect(server.node_addr(), ALPN))
        while not dialing.done():
            client.network_changed()
            client._network_has_changed(NetworkChange(HOME, True, ("test",)))
            await asyncio.sleep(0.001)
        dialed, accepted = await dialing, await accepting
        await both_ways(Pair(client, server, dialed, accepted), 20)


async def test_a_change_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The endpoint's own watch sees other addresses and tells them, unless `watch_network` is off."""
    monkeypatch.setattr(own_addrs_module, "network_state", lambda: HOME)
    config = local_config(bind=("0.0.0.0:0",), allow_local=False)
    async with Endpoint.bind(config) as endpoint:
        # The machine that runs the test is another one than the one the endpoint believes to be on, which is a change.
        other = await asyncio.wait_for(endpoint.watch_addr().other_than(endpoint.node_addr()), 10)
        assert "203.0.113.5" not in {addr.host for addr in other.direct_addrs}
        assert endpoint._own.state != HOME
    off = local_config(bind=("0.0.0.0:0",), allow_local=False, watch_network=False)
    async with Endpoint.bind(off) as endpoint:
        assert not [task for task in endpoint._tasks if "watching" in task.get_name()]
        assert [a.host for a in endpoint.node_addr().direct_addrs] == ["203.0.113.5"]


async def test_minor_changes_leave_paths_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """A minor change is told to those who read addresses, and asks no path anew; a major one does."""
    monkeypatch.setattr(own_addrs_module, "network_state", lambda: HOME)
    config = local_config(bind=("0.0.0.0:0",), allow_local=False, watch_network=False)
    async with Endpoint.bind(config) as endpoint:
        asked: list[float] = []
        monkeypatch.setattr(endpoint._magic._core, "network_changed", asked.append)
        port = endpoint.local_addrs[0].port
        endpoint._network_has_changed(NetworkChange(AWAY, False, ("test",)))
        assert endpoint.node_addr() == NodeAddr(endpoint.node_id, (), [SocketAddr("203.0.113.9", port)])
        assert asked == []
        endpoint._network_has_changed(NetworkChange(HOME, True, ("test",)))
        assert len(asked) == 1


async def test_skipped_interfaces_are_the_users_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    """Interfaces are left out by the patterns that the configuration names, and by no others where it names its own."""
    monkeypatch.setattr(own_addrs_module, "network_state", lambda: AWAY)
    for skip, hosts in ((("eth*",), ["198.51.100.1"]), (("x",), ["203.0.113.9", "198.51.100.1"])):
        config = local_config(bind=("0.0.0.0:0",), allow_local=False, watch_network=False, skip_interfaces=skip)
        async with Endpoint.bind(config) as endpoint:
            assert [a.host for a in endpoint.node_addr().direct_addrs] == hosts


def test_the_retries_end_at_a_few_seconds() -> None:
    """However long an address was gone, it is in use again at most about two seconds after it is back."""
    assert max(rebinding_module.RETRIES) <= 2.0


async def test_a_denied_address_is_not_dialed() -> None:
    """Not even where the caller names it: nothing is sent there, the error says why, and who dials from there is not
    answered."""
    async with (
        Endpoint.bind(local_config()) as server,
        Endpoint.bind(local_config(addr_deny=("127.0.0.0/8",))) as client,
    ):
        assert client.node_addr().is_empty()
        with pytest.raises(DialError, match=r"not tried: 127\.0\.0\.1:\d+ \(see direct, .* addr_deny\)"):
            await client.connect(server.node_addr(), ALPN, timeout=0.3)
        assert not server._driver.links
        with pytest.raises(DialError, match="no answer"):
            await server.connect(NodeAddr(client.node_id, (), client.local_addrs), ALPN, timeout=0.5)
        assert client._magic.counters["disco: source refused by the address filter"] > 0
        assert client._magic.counters["quic: source refused by the address filter"] > 0
        assert not client._driver.links
