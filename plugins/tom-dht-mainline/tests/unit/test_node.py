"""The asyncio shell of a DHT node: its operations against real nodes on loopback."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import aclosing

import pytest

from tom_connect.addr import SocketAddr
from tom_connect.exceptions import NetworkError, TomError
from tom_connect.keys import SecretKey
from tom_dht_mainline import (
    BindError,
    CasMismatchError,
    CoreConfig,
    DhtClosedError,
    DhtNode,
    DhtUnreachableError,
    DhtUsageError,
    ItemError,
    MutableItem,
    SupersededError,
    UdpTransport,
)
from tom_dht_mainline.testing import Testnet

LOOPBACK = SocketAddr("127.0.0.1", 0)
MakeClient = Callable[..., DhtNode]
Eventually = Callable[[Callable[[], bool]], Awaitable[None]]


async def test_get_finds_the_highest_seq(net: Testnet, client: MakeClient) -> None:
    """Of two items of one key the later one is got, and its signature, key and salt are there to be checked."""
    key = SecretKey.generate()
    async with client() as writer, client() as reader:
        await writer.put_mutable(key, b"one", seq=1)
        await writer.put_mutable(key, b"two", seq=2)
        item = await reader.get(key.node_id.raw)
        assert item is not None
        assert (item.value, item.seq, item.public_key, item.salt) == (b"two", 2, key.node_id.raw, b"")
        assert item.signature_is_valid()


async def test_salts_keep_items_apart(net: Testnet, client: MakeClient) -> None:
    """Items of one key with different salts are different items."""
    key = SecretKey.generate()
    async with client() as node:
        await node.put_mutable(key, b"a", salt=b"one")
        await node.put_mutable(key, b"b", salt=b"two")
        one, two, none = [await node.get(key.node_id.raw, salt) for salt in (b"one", b"two", b"")]
        assert one is not None
        assert two is not None
        assert (one.value, two.value, none) == (b"a", b"b", None)


async def test_values_without_seq_replace_each_other(net: Testnet, client: MakeClient) -> None:
    """Without a sequence number each put is above the one before, however fast they come."""
    key = SecretKey.generate()
    async with client() as node:
        results = [await node.put_mutable(key, b"%d" % i) for i in range(5)]
        assert [r.seq for r in results] == sorted({r.seq for r in results if r.seq is not None})
        item = await node.get(key.node_id.raw)
        assert item is not None
        assert item.value == b"4"


async def test_values_stream_as_they_arrive(net: Testnet, client: MakeClient) -> None:
    """The stream gives rising sequence numbers only, and ends with the newest."""
    key = SecretKey.generate()
    async with client() as writer, client() as reader:
        await writer.put_mutable(key, b"old", seq=1, wait_for="all")
        # At the quorum some nodes still hold the old one, so that a reader may well meet it first.
        await writer.put_mutable(key, b"new", seq=2, wait_for="quorum")
        seqs = []
        async with aclosing(reader.get_values(key.node_id.raw)) as values:
            async for item in values:
                seqs.append(item.seq)
        assert seqs == sorted(set(seqs))
        assert seqs[-1] == 2


async def test_immutable_items_are_named_by_their_hash(net: Testnet, client: MakeClient) -> None:
    """What is put under its own hash is got under it, also a value that is no byte string."""
    async with client() as node:
        stored = await node.put_immutable([b"list", 7])
        item = await node.get_immutable(stored.target)
        assert item is not None
        assert item.value == [b"list", 7]
        assert stored.seq is None
        assert await node.get_immutable(bytes(20)) is None


async def test_an_older_seq_is_superseded(net: Testnet, client: MakeClient) -> None:
    """A put below what the DHT holds fails, and says so."""
    key = SecretKey.generate()
    async with client() as one, client() as other:
        await one.put_mutable(key, b"new", seq=10, wait_for="all")
        with pytest.raises(SupersededError, match="higher sequence number"):
            await other.put_mutable(key, b"old", seq=9)


async def test_compare_and_swap_fails_where_somebody_wrote_in_between(net: Testnet, client: MakeClient) -> None:
    """With `cas` an item is replaced only if it is still the one that was read."""
    key = SecretKey.generate()
    async with client() as node, client() as other:
        await node.put_mutable(key, b"a", seq=1, wait_for="all")
        await node.put_mutable(key, b"b", seq=2, cas=1, wait_for="all")
        with pytest.raises(CasMismatchError):
            await other.put_mutable(key, b"c", seq=3, cas=1)


async def test_peers_are_announced_and_found(net: Testnet, client: MakeClient) -> None:
    """An announced peer is found with the port that it gave, or with the one it was seen at."""
    info_hash = bytes(range(20))
    async with client() as peer, client() as other, client() as seeker:
        assert await peer.announce_peer(info_hash, 4242) >= 6
        assert await other.announce_peer(info_hash) >= 6
        async with aclosing(seeker.get_peers(info_hash)) as found:
            peers = {addr async for addr in found}
        assert peers == {("127.0.0.1", 4242), tuple(other.local_addrs[0])}


async def test_ping_and_find_node(net: Testnet, client: MakeClient) -> None:
    """A ping tells id and round-trip time; find_node the nodes nearest to an id, in order."""
    async with client() as node:
        pong = await node.ping(net.nodes[3].local_addrs[0])
        assert pong.node_id == net.nodes[3].node_id()
        assert 0 < pong.rtt < 5
        closest = await node.find_node(net.nodes[4].node_id())
        assert closest[0].node_id == net.nodes[4].node_id()
        assert closest[0].address == tuple(net.nodes[4].local_addrs[0])


async def test_a_cancelled_get_leaves_nothing_behind(net: Testnet, client: MakeClient, eventually: Eventually) -> None:
    """Cancelling a get ends its operation; the node goes on to work."""
    silent = UdpTransport((LOOPBACK,))
    await silent.open(lambda batch: None)
    node = client(bootstrap=[str(silent.local_addrs[0])])
    async with node:
        task = asyncio.create_task(node.get(bytes(range(32))))
        await eventually(lambda: node.stats().sent > 0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert node.pending == 1  # the join, which is the node's own
        await node.bootstrap(net.bootstrap)
        assert await node.get(bytes(range(32))) is None
    await silent.close()


async def test_leaving_a_stream_early_ends_its_get(net: Testnet, client: MakeClient) -> None:
    """A consumer that has seen enough breaks off, and the get is cancelled."""
    key = SecretKey.generate()
    async with client() as node:
        await node.put_mutable(key, b"x", wait_for="all")
        async with client() as reader:
            await reader.bootstrap()
            async with aclosing(reader.get_values(key.node_id.raw)) as values:
                async for item in values:
                    assert item.value == b"x"
                    break
            assert reader.pending == 0


async def test_closing_ends_what_waits(client: MakeClient, eventually: Eventually) -> None:
    """A get that is under way when the node closes fails with DhtClosedError, as does any later call."""
    silent = UdpTransport((LOOPBACK,))
    await silent.open(lambda batch: None)
    node = client(bootstrap=[str(silent.local_addrs[0])])
    await node.start()
    tasks = [
        asyncio.create_task(node.get(bytes(range(32)))),
        asyncio.create_task(anext(node.get_values(bytes(range(32))))),
        asyncio.create_task(anext(node.get_peers(bytes(20)))),
        asyncio.create_task(node.put_immutable(b"x")),
        asyncio.create_task(node.bootstrap()),
        asyncio.create_task(node.ping(silent.local_addrs[0])),
    ]
    await eventually(lambda: node.pending >= 6)
    await node.aclose()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(result) for result in results] == [DhtClosedError] * len(tasks)
    with pytest.raises(DhtClosedError):
        await node.get(bytes(range(32)))
    with pytest.raises(DhtClosedError):
        node.stats()
    await node.aclose()
    await silent.close()


async def test_a_node_that_was_not_started_says_so(client: MakeClient) -> None:
    """Every operation of a node outside its `async with` raises DhtClosedError."""
    node = client()
    with pytest.raises(DhtClosedError, match="async with"):
        await node.get(bytes(32))
    await node.aclose()


async def test_bad_arguments_are_refused(net: Testnet, client: MakeClient) -> None:
    """What the DHT can't carry raises an error that says what is wrong with it."""
    key = SecretKey.generate()
    async with client() as node:
        with pytest.raises(DhtUsageError, match="32 bytes"):
            await node.get(b"short")
        with pytest.raises(DhtUsageError, match="salt"):
            await node.get(bytes(32), b"s" * 65)
        with pytest.raises(ItemError, match="1000"):
            await node.put_mutable(key, b"x" * 997)
        with pytest.raises(ItemError, match="signature"):
            await node.put(MutableItem(key.node_id.raw, b"1:x", 1, bytes(64)))
        with pytest.raises(DhtUsageError):
            await node.get_immutable(b"short")
        with pytest.raises(DhtUsageError):
            await node.ping(("127.0.0.1", 0))


async def test_a_taken_port_is_one_clear_error(net: Testnet) -> None:
    """A port that is in use raises BindError that names it, and leaves nothing open."""
    taken = net.nodes[0].local_addrs[0]
    node = DhtNode(UdpTransport((taken,)))
    with pytest.raises(BindError, match=str(taken.port)):
        await node.start()
    await node.aclose()


async def test_one_family_suffices(net: Testnet) -> None:
    """An address that can't be bound is left out while another can."""
    taken = net.nodes[0].local_addrs[0]
    transport = UdpTransport((taken, SocketAddr("::1", 0)))
    try:
        await transport.open(lambda batch: None)
    except BindError:
        pytest.skip("needs an IPv6 loopback address")
    assert [addr.host for addr in transport.local_addrs] == ["::1"]
    await transport.close()


async def test_errors_belong_to_the_project(net: Testnet) -> None:
    """Everything that a node raises on purpose is a TomError, and what the network did is a NetworkError."""
    assert issubclass(DhtUnreachableError, NetworkError)
    assert issubclass(SupersededError, NetworkError)
    for error in (BindError, DhtClosedError, DhtUnreachableError, ItemError, DhtUsageError):
        assert issubclass(error, TomError)


async def test_hostile_datagrams_are_counted_and_harm_nothing(net: Testnet, client: MakeClient) -> None:
    """Garbage, bencode bombs and oversized datagrams are dropped; the node answers the next query as before."""
    node = net.nodes[0]
    attacker = UdpTransport((LOOPBACK,))
    await attacker.open(lambda batch: None)
    junk = [b"", b"d", b"de", b"d1:", b"l" * 1500, b"d" * 1500 + b"e" * 1500, b"i" + b"9" * 1400 + b"e", bytes(5000)]
    attacker.send((data, node.local_addrs[0]) for data in junk)
    async with client() as friend:
        await friend.ping(node.local_addrs[0])
        assert sum(node.stats().dropped.values()) >= len(junk) - 1
        assert node.failures == 0
    await attacker.close()


async def test_a_node_that_is_alone_says_what_to_do() -> None:
    """Without anybody to ask, an operation fails at once and names the option that helps."""
    async with DhtNode(UdpTransport((LOOPBACK,)), config=CoreConfig(ipv6=False)) as node:
        assert await node.bootstrap() == 0
        with pytest.raises(DhtUnreachableError, match="no bootstrap node was given"):
            await node.get(bytes(range(32)))


async def test_a_node_finds_what_it_stores_itself() -> None:
    """In a DHT of two, what one puts lies on the other alone, which finds it without anybody's help."""
    key = SecretKey.generate()
    async with Testnet(2) as net:
        first, second = net.nodes
        await second.put_mutable(key, b"mutable", wait_for="all")
        stored = await second.put_immutable(b"immutable", wait_for="all")
        mutable, immutable = await first.get(key.node_id.raw), await first.get_immutable(stored.target)
        assert mutable is not None
        assert immutable is not None
        assert (mutable.value, immutable.value) == (b"mutable", b"immutable")
        assert await first.get(key.node_id.raw, min_seq=mutable.seq + 1) is None
        assert first.pending == 0


async def test_an_older_item_is_not_put_beside_the_newer_one(client: MakeClient) -> None:
    """Where more nodes exist than replicas, the refusals of the closest are not made good by the consent of others."""
    key = SecretKey.generate()
    async with Testnet(20) as net, client(bootstrap=net.bootstrap) as node:
        await node.put_mutable(key, b"newer", seq=5, wait_for="all")
        # The tokens of the first put are fresh, so that the next ones write at once.
        with pytest.raises(SupersededError):
            await node.put_mutable(key, b"older", seq=4, wait_for="all")
        with pytest.raises(CasMismatchError):
            await node.put_mutable(key, b"newest", seq=6, cas=3, wait_for="all")
        # Eight replicas, and one or two for a first choice that a cold node made before it knew better.
        assert sum("put" in n.stats().queries_in for n in net.nodes) <= 10
