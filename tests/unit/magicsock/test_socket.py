"""The magic socket on real loopback sockets."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import math
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

import pytest

from tests.unit.magicsock.test_demux import Claims
from tests.unit.magicsock.waiting import until
from tom_connect.abc import PathInfo, PathSelector, SharedSocket
from tom_connect.addr import RelayUrl, SocketAddr
from tom_connect.exceptions import EndpointClosedError, InvalidKeyError, LocalError
from tom_connect.holepunch import disco, meeting, pathprobing
from tom_connect.holepunch.events import PathEvent, PathSelected
from tom_connect.holepunch.path import RelayPath
from tom_connect.keys import NodeId, SecretKey
from tom_connect.magicsock import provisional as provisional_module
from tom_connect.magicsock import sockets as sockets_module
from tom_connect.magicsock.remote import Remote
from tom_connect.magicsock.socket import MagicSocket

V4, V6 = SocketAddr("127.0.0.1", 0), SocketAddr("::1", 0)
QUIC = b"\x40" + bytes(1199)

Make = Callable[..., Awaitable[MagicSocket]]


@pytest.fixture
async def make() -> AsyncIterator[Make]:
    """Makes bound magic sockets, and closes them."""
    made: list[MagicSocket] = []

    async def bound(*addrs: SocketAddr, allow_local: bool = True, key: SecretKey | None = None) -> MagicSocket:
        magic = MagicSocket(key or SecretKey.generate(), allow_local=allow_local)
        made.append(magic)
        await magic.bind(addrs or (V4,))
        return magic

    yield bound
    for magic in made:
        await magic.aclose()


class Inbox:
    """Takes QUIC datagrams and tells of them."""

    def __init__(self, magic: MagicSocket) -> None:
        self.got: list[tuple[object, bytes]] = []
        self.batch_ends = 0
        self.changed = asyncio.Event()
        magic.set_quic_receiver(self.receive)
        magic.set_batch_end(self.end)

    def receive(self, path: object, datagrams: Sequence[bytes], now: float) -> None:
        self.got += [(path, data) for data in datagrams]

    def end(self, now: float) -> None:
        self.batch_ends += 1
        self.changed.set()

    async def until(self, count: int) -> None:
        async with asyncio.timeout(5):
            while len(self.got) < count:
                self.changed.clear()
                await self.changed.wait()


async def met(a: MagicSocket, b: MagicSocket) -> tuple[Remote, Remote]:
    """Both ends of a proven path."""
    there, back = a.remote(b.node_id), b.remote(a.node_id)
    there.add_candidates(b.local_addrs, "dht", trusted=False)
    async with asyncio.timeout(5):
        await there.wait_usable()
        await back.wait_usable()
    return there, back


async def test_two_sockets_find_each_other_and_carry_quic(make: Make) -> None:
    """Told of candidates, they prove them by disco, and QUIC flows both ways under constant addresses."""
    a, b = await make(V4, V6), await make(V4, V6)
    seen: list[tuple[SocketAddr, NodeId]] = []
    a.set_observed(lambda addr, by: seen.append((addr, by)))
    there, back = await met(a, b)
    inbox_a, inbox_b = Inbox(a), Inbox(b)
    for _ in range(20):
        a.send_quic(there.address, [QUIC] * 50, time.monotonic())
        await inbox_b.until(len(inbox_b.got) + 50)
    b.send_quic(back.address, [b"\xc0short"], time.monotonic())
    await inbox_a.until(1)
    assert [data for _path, data in inbox_b.got] == [QUIC] * 1000
    assert {path for path, _data in inbox_b.got} <= set(a.local_addrs)
    assert inbox_b.batch_ends < 1000
    assert there.speaks_disco is True
    assert there.active_path in b.local_addrs
    assert there.paths()[0].active
    assert seen[0] in [(addr, b.node_id) for addr in a.local_addrs]
    assert not a.counters
    assert not b.counters


async def test_untrusted_candidates_get_no_quic_before_a_pong(make: Make) -> None:
    """To an address of a record that does not answer goes nothing but pings; to one that the caller gave, at once."""
    a = await make()
    listener = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with contextlib.closing(listener):
        listener.bind(("127.0.0.1", 0))
        listener.settimeout(2)
        where = SocketAddr(*listener.getsockname())
        peer = a.remote(SecretKey.generate().node_id)
        peer.add_candidates([where], "dht", trusted=False)
        assert not peer.usable()
        a.send_quic(peer.address, [QUIC], time.monotonic())
        assert a.counters["send: no path"] == 1
        await asyncio.sleep(0.05)
        assert listener.recv(2000)[0] == 4
        peer.add_candidates([where], "caller", trusted=True)
        assert peer.usable()
        a.send_quic(peer.address, [QUIC], time.monotonic())
        while (data := listener.recv(2000))[0] == 4:
            pass
        assert data == QUIC


async def test_a_knock_has_its_address_pinged_at_once(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """The ping that was due next, a minute later, is brought forward although nothing else is to be sent."""
    monkeypatch.setattr(meeting, "STEPS", ((math.inf, 60.0),))
    monkeypatch.setattr(pathprobing, "PROBES", (60.0, 60.0))
    a = await make()
    loop = asyncio.get_running_loop()
    listener = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with contextlib.closing(listener):
        listener.bind(("127.0.0.1", 0))
        listener.setblocking(False)
        peer = a.remote(SecretKey.generate().node_id)
        peer.add_candidates([SocketAddr(*listener.getsockname())], "dht", trusted=False)
        a.doorstep.meet(peer)
        with contextlib.suppress(TimeoutError):
            while True:
                async with asyncio.timeout(0.5):
                    await loop.sock_recv(listener, 2000)
        (own,) = a.local_addrs
        listener.sendto(disco.KNOCK, (own.host, own.port))
        async with asyncio.timeout(20):
            assert (await loop.sock_recv(listener, 2000))[0] == disco.KIND_SEALED
        peer.release()


async def test_local_candidates_need_permission(make: Make) -> None:
    """Without allow_local a record's loopback address is refused and counted; the caller's own word is taken."""
    a = await make(allow_local=False)
    peer = a.remote(SecretKey.generate().node_id)
    peer.add_candidates([SocketAddr("127.0.0.1", 9)], "dht", trusted=False)
    assert peer.paths() == []
    assert a.counters["candidate refused by the address filter"] == 1
    peer.add_candidates([SocketAddr("127.0.0.1", 9)], "caller", trusted=True)
    assert peer.usable()


async def test_provisional_addresses(make: Make) -> None:
    """One object for each path and connection id; it answers to its path, and follows the node once bound."""
    a, b = await make(), await make()
    inbox = Inbox(a)
    path = a.local_addrs[0]
    address = b.provisional(path, b"\x80cid")
    assert b.provisional(path, b"\x80cid") is address
    assert b.provisional(path, b"\x80other") is not address
    assert b.provisional(SocketAddr("127.0.0.1", 1), b"\x80cid") is not address
    b.send_quic(address, [b"\xc0handshake"], time.monotonic())
    await inbox.until(1)
    events: list[PathEvent] = []
    node = b.bind_provisional(address, a.node_id, path)
    node.remote.add_listener(events.append)
    assert address.node is node
    assert node.remote.active_path == path
    assert b.remote(a.node_id).address is node
    for dest in (address, node):
        b.send_quic(dest, [QUIC], time.monotonic())
    await inbox.until(3)
    assert b.provisional(path, b"\x80cid") is not address
    b.drop_provisional(address)
    assert hash(address) != hash(b.provisional(path, b"\x80cid"))


async def test_the_provisional_table_is_bounded(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """A flood of Initials pushes the oldest provisional addresses out."""
    monkeypatch.setattr(provisional_module, "MAX_PROVISIONAL", 10)
    a = await make()
    first = a.provisional(V4, b"\x800")
    for i in range(1, 30):
        a.provisional(V4, b"\x80%d" % i)
    assert len(a._provisional) == 10
    assert a.provisional(V4, b"\x800") is not first


async def test_relay_paths_are_values_that_nothing_carries_yet(make: Make) -> None:
    """Sending to a relay path is counted as having no path, and breaks nothing."""
    a = await make()
    path = RelayPath(RelayUrl.parse("https://relay.test"), SecretKey.generate().node_id)
    assert path == RelayPath(RelayUrl.parse("https://RELAY.test/"), path.node_id)
    a.send_quic(a.provisional(path, b"\x80"), [QUIC], time.monotonic())
    assert a.counters["send: no path"] == 1


async def test_a_port_in_use_is_said_plainly(make: Make) -> None:
    """The error names the port and what to do; nothing stays open after it."""
    a = await make()
    other = MagicSocket(SecretKey.generate())
    with pytest.raises(LocalError, match=rf"port {a.local_addrs[0].port} .*in use: choose another"):
        await other.bind([V6, a.local_addrs[0]])
    assert other.local_addrs == ()
    await other.aclose()


@pytest.mark.parametrize(
    ("addrs", "message"),
    [
        ([SocketAddr("192.0.2.1", 0)], "no address 192.0.2.1"),
        ([V4, SocketAddr("0.0.0.0", 0)], "two addresses of one family"),
        ([], "no address to bind to"),
        ([SocketAddr("127.0.0.1", 70000)], "0 to 65535"),
    ],
)
async def test_what_can_not_be_bound_is_refused(addrs: list[SocketAddr], message: str) -> None:
    """Foreign addresses, two of a family, none at all and bad ports each get their own message."""
    magic = MagicSocket(SecretKey.generate())
    with pytest.raises(LocalError, match=message):
        await magic.bind(addrs)
    await magic.aclose()


@pytest.mark.parametrize("number", [errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL])
async def test_a_missing_family_is_left_out(
    make: Make, number: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Without IPv6 the IPv4 socket works alone, and a log line says so; without any, binding fails."""
    real = sockets_module.open_socket

    def no_ipv6(addr: SocketAddr) -> socket.socket:
        if addr.family == socket.AF_INET6:
            raise OSError(number, "no IPv6 here")
        return real(addr)

    monkeypatch.setattr(sockets_module, "open_socket", no_ipv6)
    caplog.set_level(logging.INFO)
    a, b = await make(SocketAddr("0.0.0.0", 0), SocketAddr("::", 0)), await make(V4, V6)
    assert [addr.family for addr in a.local_addrs] == [socket.AF_INET]
    assert "no IPv6 on this machine" in caplog.text
    peer = a.remote(b.node_id)
    peer.add_candidates([SocketAddr("::1", 9), *b.local_addrs], "caller", trusted=True)
    await until(lambda: peer.active_path is not None)
    alone = MagicSocket(SecretKey.generate())
    with pytest.raises(LocalError, match="no network"):
        await alone.bind([SocketAddr("::", 0)])
    await alone.aclose()


async def test_a_node_does_not_dial_itself(make: Make) -> None:
    """Our own id is refused, so that no path leads back to us."""
    a = await make()
    with pytest.raises(InvalidKeyError, match="our own node id"):
        a.remote(a.node_id)


async def test_after_close_nothing_works_and_waiters_hear_of_it(make: Make) -> None:
    """A task that waits for a path ends with EndpointClosedError; closing twice is one; sends are counted."""
    a, b = await make(V4, V6), await make()
    there, _back = await met(a, b)
    stuck = a.remote(SecretKey.generate().node_id)
    waiter = asyncio.create_task(stuck.wait_usable())
    await asyncio.sleep(0)
    await a.aclose()
    await a.aclose()
    with pytest.raises(EndpointClosedError):
        await waiter
    with pytest.raises(EndpointClosedError):
        a.remote(b.node_id)
    a.send_quic(there.address, [QUIC], time.monotonic())
    assert a.counters["send: closed"] == 1
    assert not a.send(b"x", b.local_addrs[0])
    there.release()
    assert a.local_addrs == ()


async def test_waiting_can_be_cancelled(make: Make) -> None:
    """A cancelled wait leaves nothing behind."""
    a = await make()
    peer = a.remote(SecretKey.generate().node_id)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await peer.wait_usable()
    assert a.waiting == set()


async def test_paths_change_under_a_constant_address(make: Make) -> None:
    """When the socket of one family dies under traffic, the other carries it within 2 s under the same address."""
    a, b = await make(V4, V6), await make(V4, V6)
    there, back = await met(a, b)
    address = there.address
    inbox = Inbox(b)
    a.set_quic_receiver(lambda path, datagrams, now: there.quic_validated(path, now))
    b.set_quic_receiver(
        lambda path, datagrams, now: (inbox.receive(path, datagrams, now), back.quic_validated(path, now))  # type: ignore[arg-type,func-returns-value]
    )
    events: list[PathEvent] = []
    there.add_listener(events.append)

    async def talk(seconds: float) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            now = time.monotonic()
            a.send_quic(address, [QUIC], now)
            b.send_quic(back.address, [QUIC], now)
            await asyncio.sleep(0.02)

    await until(lambda: sum(info.rtt is not None for info in there.paths()) == 2)
    await talk(0.2)
    first = there.active_path
    assert isinstance(first, SocketAddr)
    dead = next(udp for udp in b.udp_sockets if udp.family == first.family)
    asyncio.get_running_loop().remove_reader(dead._sock.fileno())  # as if a firewall dropped all
    cut = time.monotonic()
    await talk(2.2)
    selected = [e for e in events if isinstance(e, PathSelected)]
    assert [e.old for e in selected] == [first]
    assert selected[0].at - cut < 2.0
    assert there.active_path != first
    assert there.address is address
    assert {path.family for path, _data in inbox.got[-20:]} != {first.family}  # type: ignore[attr-defined]
    there.remove_listener(events.append)


async def test_listeners_and_drivers_that_raise_are_survived(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    """A raising listener, driver, batch end or selector is logged and counted; paths work on."""
    a, b = await make(V4, V6), await make(V4, V6)

    def bad(*args: object) -> None:
        raise RuntimeError("broken")

    class BadSelector(PathSelector):
        def select(self, node_id: NodeId, paths: Sequence[PathInfo]) -> PathInfo | None:
            raise RuntimeError("broken")

    a.set_path_selector(BadSelector())
    b.set_quic_receiver(bad)
    b.set_batch_end(bad)
    a.set_observed(bad)
    there = a.remote(b.node_id)
    there.add_listener(bad)
    there.add_candidates(b.local_addrs, "dht", trusted=False)
    async with asyncio.timeout(5):
        await there.wait_usable()
        a.send_quic(there.address, [QUIC], time.monotonic())
    await until(lambda: b.counters["quic: failed"] >= 2 and a.counters["path selector: failed"] > 0)
    assert a.counters["listener: failed"] > 0
    a.set_path_selector(None)


class SlowClaims(Claims):
    """Works for a millisecond on each datagram."""

    def datagrams_received(self, datagrams: Sequence[tuple[bytes, SocketAddr]]) -> None:
        super().datagrams_received(datagrams)
        done = time.monotonic() + 0.001 * len(datagrams)
        while time.monotonic() < done:
            pass


async def test_plugins_share_the_port_and_do_not_starve_quic(make: Make) -> None:
    """Under a flood of 5,000 queries to a slow protocol, QUIC datagrams all arrive, and soon."""
    a, b = await make(), await make()
    dht = SlowClaims(b"d1:", name="dht")
    b.add_protocol(dht)
    there, _back = await met(a, b)
    inbox = Inbox(b)
    shared: SharedSocket = a.shared
    assert shared.local_addrs == a.local_addrs
    late = 0.0
    for _ in range(50):
        for _ in range(100):
            assert shared.send(b"d1:query", b.local_addrs[0])
        sent_at = time.monotonic()
        a.send_quic(there.address, [QUIC], sent_at)
        await inbox.until(len(inbox.got) + 1)
        late = max(late, time.monotonic() - sent_at)
    assert len(inbox.got) == 50
    assert b.counters["dht: queue full"] > 0
    assert dht.got
    assert late < 0.2
    b.remove_protocol(dht)
    assert not shared.send(b"x", SocketAddr("::1", 9))
    assert not shared.send(b"x", SocketAddr("no.such.host", 9))


async def test_remotes_are_shared_and_counted(make: Make) -> None:
    """Two users of a node get the same Remote; after both let go a ping of its peer is a stranger's."""
    a, b = await make(), await make()
    one, two = a.remote(b.node_id), a.remote(b.node_id)
    assert one is two
    one.release()
    assert one.core.holders == 1
    two.release()
    assert one.core.holders == 0
    two.release()
    assert one.core.holders == 0
    again = a.remote(b.node_id)
    assert again.core is one.core


async def test_own_candidates_are_told_to_the_peer(make: Make) -> None:
    """What we say about ourselves reaches a peer with a path, in a sealed call-me-maybe, and is probed there."""
    a, b = await make(V4, V6), await make(V4, V6)
    v4_only = [addr for addr in b.local_addrs if addr.family == socket.AF_INET]
    there, _back = a.remote(b.node_id), b.remote(a.node_id)
    there.add_candidates(v4_only, "dht", trusted=False)
    await there.wait_usable()
    b.set_own_candidates(b.local_addrs)
    await until(lambda: {info.addr for info in there.paths() if info.rtt is not None} == set(b.local_addrs))


async def test_garbage_of_every_kind_is_survived(make: Make) -> None:
    """Random datagrams of all first bytes and lengths leave the socket working."""
    a, b = await make(), await make()
    for first in range(256):
        for size in (0, 1, 7, 60, 1300):
            a.send((bytes((first,)) * size), b.local_addrs[0])
        await asyncio.sleep(0)
    there, _back = await met(a, b)
    assert there.usable()


async def test_mtu_is_what_the_driver_says(make: Make) -> None:
    """The driver's path MTU shows in the list of paths."""
    a, b = await make(), await make()
    there, _back = await met(a, b)
    assert there.active_path is not None
    there.set_mtu(there.active_path, 1452)
    assert there.paths()[0].mtu == 1452


def test_making_one_needs_no_loop() -> None:
    """A socket can be made before the loop runs; it opens nothing."""
    magic: Any = MagicSocket(SecretKey.generate())
    assert magic.local_addrs == ()
    assert not magic.congested
