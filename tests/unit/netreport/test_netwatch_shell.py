"""The network watch in an event loop, with a network and clocks of the test's own."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator

import pytest

from tom_connect.netreport.interfaces import DefaultRoute, InterfaceAddress, NetworkState
from tom_connect.netreport.netwatch.clocks import boot_time
from tom_connect.netreport.netwatch.core import NetworkChange
from tom_connect.netreport.netwatch.shell import NetworkWatch


def at(host: str) -> NetworkState:
    route = DefaultRoute(4, "eth0", "192.0.2.1")
    return NetworkState((InterfaceAddress("eth0", 2, host, 24),), (route,), (host,))


HOME, AWAY = at("192.0.2.5"), at("192.0.2.7")


class Network:
    """A network that can be changed, and what was told of it."""

    def __init__(self) -> None:
        self.state = HOME
        self.fails = False
        self.failed = asyncio.Event()
        self.asleep = 0.0
        self.changes: asyncio.Queue[NetworkChange] = asyncio.Queue()

    def look(self) -> NetworkState:
        if self.fails:
            self.failed.set()
            raise OSError("no such device")
        return self.state

    def boot(self) -> float:
        return asyncio.get_running_loop().time() + self.asleep

    @contextlib.asynccontextmanager
    async def watched(self, wake: socket.socket | None = None) -> AsyncIterator[None]:
        watch = NetworkWatch(
            self.changes.put_nowait,
            HOME,
            look=self.look,
            wake=lambda: wake,
            poll=0.02,
            check=0.01,
            clock=asyncio.get_running_loop().time,
            boot=self.boot,
        )
        task = asyncio.create_task(watch.run())
        try:
            await asyncio.wait_for(watch.listening.wait(), 10)
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def told(self) -> NetworkChange:
        return await asyncio.wait_for(self.changes.get(), 10)


async def test_polling_sees_each_change() -> None:
    """Where nothing wakes us, looking every now and then finds the change, and the way back."""
    network = Network()
    async with network.watched():
        for state in (AWAY, HOME):
            network.state = state
            change = await network.told()
            assert change.major and change.state == state
    assert network.changes.empty()


async def test_what_changed_before_the_watch_is_told() -> None:
    """A change between the caller's own look and the watch's first one is not lost."""
    network = Network()
    network.state = AWAY
    async with network.watched():
        assert (await network.told()).state == AWAY


async def test_a_look_that_fails_is_repeated() -> None:
    """An error of the system's is no change and no end."""
    network = Network()
    async with network.watched():
        network.fails = True
        network.state = AWAY
        await asyncio.wait_for(network.failed.wait(), 10)
        network.fails = False
        assert (await network.told()).state == AWAY


async def test_sleep_is_told() -> None:
    """When the boot-time clock jumps, a major change says how long we slept though the network is the same."""
    network = Network()
    async with network.watched():
        network.asleep = 60.0
        change = await network.told()
        assert change.major and 59 < change.slept < 61
        assert change.state == HOME


async def test_a_socket_that_wakes_us() -> None:
    """What another program sends us is not taken for the kernel's word, and the watch goes on."""
    network = Network()
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    ours.setblocking(False)
    with theirs:
        async with network.watched(Peer(ours)):
            network.state = AWAY
            theirs.send(bytes.fromhex("14000000140000000000000000000000 00000000"))
            assert (await network.told()).state == AWAY
            network.state = HOME
            theirs.send(b"garbage")
            theirs.send(bytes.fromhex("14000000140000000000000000000000 00000000"))
            assert (await network.told()).state == HOME


class Peer(socket.socket):
    """A socket whose datagrams seem to be the kernel's."""

    def __init__(self, sock: socket.socket) -> None:
        super().__init__(sock.family, sock.type, sock.proto, sock.detach())

    def recvfrom(self, size: int, flags: int = 0) -> tuple[bytes, object]:  # type: ignore[override]
        return self.recv(size, flags), (0, 0)


@pytest.mark.skipif(not hasattr(time, "CLOCK_BOOTTIME"), reason="this system has no clock that counts sleep")
def test_the_boot_clock_goes_on() -> None:
    """The clock that counts sleep is at least as far as the one that does not, and goes on as fast."""
    first, began = boot_time(), time.monotonic()
    second, ended = boot_time(), time.monotonic()
    assert first is not None and second is not None
    assert first <= second
    assert first >= began - 1
    assert abs((second - first) - (ended - began)) < 1
