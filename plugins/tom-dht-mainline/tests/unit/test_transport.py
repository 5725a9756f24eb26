"""UDP sockets of the node's own on any event loop, and its share of the endpoint's socket."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import pytest

from tom_connect.addr import SocketAddr
from tom_dht_mainline import BindError, SharedTransport, UdpTransport
from tom_dht_mainline.transport import BATCH, QUEUE

LOOPBACK = SocketAddr("127.0.0.1", 0)
Eventually = Callable[[Callable[[], bool]], Awaitable[None]]
Datagrams = Sequence[tuple[bytes, tuple[str, int]]]


class Inbox:
    """Remembers the batches it was given."""

    def __init__(self) -> None:
        self.batches: list[Datagrams] = []

    def __call__(self, batch: Datagrams) -> None:
        self.batches.append(batch)

    @property
    def datagrams(self) -> list[bytes]:
        return [data for batch in self.batches for data, _ in batch]


@pytest.mark.parametrize("watches", [True, False], ids=["add_reader", "tasks"])
async def test_datagrams_arrive_on_every_kind_of_loop(
    watches: bool, monkeypatch: pytest.MonkeyPatch, eventually: Eventually
) -> None:
    """Where a loop can't watch sockets, as Windows' proactor can't, a task reads instead; both batch."""
    if not watches:

        def cannot(*args: object) -> None:
            raise NotImplementedError

        monkeypatch.setattr(asyncio.get_running_loop(), "add_reader", cannot)
    inbox = Inbox()
    receiver, sender = UdpTransport((LOOPBACK,)), UdpTransport((LOOPBACK,))
    await receiver.open(inbox)
    monkeypatch.undo()
    await sender.open(lambda batch: None)
    sent = [b"%d" % number for number in range(100)]
    sender.send((data, receiver.local_addrs[0]) for data in sent)
    await eventually(lambda: len(inbox.datagrams) == 100)
    assert inbox.datagrams == sent
    assert max(map(len, inbox.batches)) <= BATCH
    assert {addr for batch in inbox.batches for _, addr in batch} == {tuple(sender.local_addrs[0])}
    await receiver.close()
    await sender.close()


async def test_what_cannot_be_sent_is_counted() -> None:
    """No socket of the family, too large, or no such port: dropped, counted, never raised."""
    transport = UdpTransport((LOOPBACK,))
    await transport.open(lambda batch: None)
    transport.send([(b"x", ("::1", 9)), (bytes(70000), ("127.0.0.1", 9)), (b"x", ("127.0.0.1", 70000))])
    assert transport.dropped == 3
    await transport.close()


async def test_a_closed_port_does_not_stop_reading(eventually: Eventually) -> None:
    """An ICMP error about an earlier datagram is skipped, and later datagrams still arrive."""
    inbox = Inbox()
    transport, gone = UdpTransport((LOOPBACK,)), UdpTransport((LOOPBACK,))
    await transport.open(inbox)
    await gone.open(lambda batch: None)
    nobody = gone.local_addrs[0]
    await gone.close()
    transport.send([(b"x", nobody)] * 3)
    transport.send([(b"to myself", transport.local_addrs[0])])
    await eventually(lambda: inbox.datagrams == [b"to myself"])
    await transport.close()


async def test_no_address_is_an_error() -> None:
    """Without any address to bind the error says so."""
    with pytest.raises(BindError, match="no address was given"):
        await UdpTransport(()).open(lambda batch: None)


class Recorder:
    """A shared socket that takes what it is told to."""

    local_addrs = (LOOPBACK,)

    def __init__(self, takes: bool = True) -> None:
        self.takes = takes
        self.sent: list[tuple[bytes, SocketAddr]] = []

    def send(self, data: bytes, addr: SocketAddr) -> bool:
        self.sent.append((data, addr))
        return self.takes


async def test_a_flood_through_the_shared_socket_is_bounded_and_takes_turns() -> None:
    """At most QUEUE datagrams wait, the rest is dropped and counted; others get the loop between two batches."""
    inbox = Inbox()
    transport = SharedTransport(Recorder())
    await transport.open(inbox)
    transport.feed([(b"%d" % number, ("127.0.0.1", 1)) for number in range(QUEUE + 100)])
    assert transport.dropped == 100
    assert inbox.batches == []
    turns = 0
    while len(inbox.datagrams) < QUEUE:
        await asyncio.sleep(0)
        turns += 1
    assert turns >= QUEUE // BATCH
    assert inbox.datagrams == [b"%d" % number for number in range(QUEUE)]
    await transport.close()


async def test_nothing_is_handled_before_opening_or_after_closing() -> None:
    """Datagrams outside the transport's life are dropped, also those that waited when it closed."""
    inbox = Inbox()
    transport = SharedTransport(Recorder())
    transport.feed([(b"early", ("127.0.0.1", 1))])
    await transport.open(inbox)
    transport.feed([(b"waiting", ("127.0.0.1", 1))])
    await transport.close()
    transport.feed([(b"late", ("127.0.0.1", 1))])
    await asyncio.sleep(0)
    assert inbox.batches == []
    assert transport.dropped == 2


async def test_the_shared_socket_sends_and_its_losses_are_counted() -> None:
    """Datagrams leave as SocketAddr values; what the socket refuses counts as dropped."""
    shared = Recorder(takes=False)
    transport = SharedTransport(shared)
    transport.send([(b"x", ("192.0.2.1", 5))])
    assert shared.sent == [(b"x", SocketAddr("192.0.2.1", 5))]
    assert transport.dropped == 1
    assert transport.local_addrs == (LOOPBACK,)
