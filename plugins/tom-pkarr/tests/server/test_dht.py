"""The Mainline DHT behind the relay: real nodes on loopback."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import sys
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from tom_connect.addr import NodeAddr
from tom_connect.keys import SecretKey
from tom_connect.record import SignedRecord, build_dns_packet, sign_record
from tom_pkarr.errors import PkarrServerError
from tom_pkarr.server import PkarrRelay

WAIT = 30.0


@contextlib.asynccontextmanager
async def dht(count: int = 10) -> AsyncIterator[Any]:
    """A DHT on loopback, or a skip where tom-dht-mainline is not installed."""
    if importlib.util.find_spec("tom_dht_mainline") is None:
        pytest.skip("needs tom-dht-mainline")
    from tom_dht_mainline.testing import Testnet

    async with Testnet(count) as net:
        yield net


def behind(run: Any, net: Any, **options: Any) -> PkarrRelay:
    made = run(dht="on", bootstrap=None, udp_listen=("127.0.0.1:0",), **options)
    made._bootstrap = net.bootstrap
    return made  # type: ignore[no-any-return]


async def put_in_dht(net: Any, key: SecretKey, wall: float, port: int) -> None:
    addr = NodeAddr(key.node_id, direct_addrs=(f"192.0.2.1:{port}",))
    await net.nodes[-1].put_mutable(key, build_dns_packet(addr), seq=int(wall * 1e6), wait_for="all")


async def get(relay: PkarrRelay, key: SecretKey) -> tuple[int, int | None]:
    """Status, and the port of the first address."""
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(WAIT)) as http:
        async with http.get(f"{relay.url}/{key.node_id.z32()}") as response:
            body = await response.read()
            if response.status != 200:
                return response.status, None
            addr = SignedRecord.from_relay_payload(key.node_id, body).addr
            return 200, addr.direct_addrs[0].port


async def put(relay: PkarrRelay, record: SignedRecord, **headers: str) -> int:
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(WAIT)) as http:
        url = f"{relay.url}/{record.node_id.z32()}"
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        async with http.put(url, data=record.relay_payload(), headers=named) as response:
            return response.status


def record(key: SecretKey, wall: float, port: int) -> SignedRecord:
    return sign_record(key, NodeAddr(key.node_id, direct_addrs=(f"192.0.2.1:{port}",)), int(wall * 1e6))


async def test_what_is_missing_is_found_in_the_dht_and_kept(run: Any) -> None:
    """A miss is looked for in the DHT once, however many ask at the same time; then the relay has it."""
    key = SecretKey.generate()
    async with dht() as net, behind(run, net, lookup_timeout=20.0) as relay:
        await put_in_dht(net, key, relay.wall(), 7)
        answers = await asyncio.gather(*(get(relay, key) for _ in range(5)))
        assert answers == [(200, 7)] * 5
        assert relay.dht is not None
        assert relay.dht.lookups["found"] == 1
        assert await get(relay, key) == (200, 7)
        assert relay.dht.lookups["found"] == 1


async def test_what_is_nowhere_is_remembered(run: Any) -> None:
    """A key of which the DHT knows nothing is 404, and is not looked for again at once."""
    key = SecretKey.generate()
    async with dht() as net, behind(run, net, lookup_timeout=20.0) as relay:
        assert [await get(relay, key) for _ in range(3)] == [(404, None)] * 3
        assert relay.dht is not None
        assert relay.dht.lookups["missed"] == 1
        # Once it is put, it is there.
        assert await put(relay, record(key, relay.wall(), 1)) == 204
        assert await get(relay, key) == (200, 1)


async def test_what_is_put_is_published(run: Any, eventually: Any) -> None:
    """A packet that the relay takes is in the DHT soon, for those who use no relay."""
    key = SecretKey.generate()
    async with dht() as net, behind(run, net) as relay:
        assert await put(relay, record(key, relay.wall(), 5)) == 204
        assert relay.dht is not None
        published = relay.dht.published
        await eventually(lambda: published["stored"] == 1)
        item = await net.nodes[3].get(key.node_id.raw)
        assert SignedRecord(key.node_id, item.signature, item.seq, item.value).addr.direct_addrs[0].port == 5


async def test_a_stale_packet_is_looked_up_again(run: Any, clock: Any) -> None:
    """After its TTL a packet is compared with the DHT, whose newer one is given; one that is nowhere newer stays."""
    key, alone = SecretKey.generate(), SecretKey.generate()
    async with dht() as net, behind(run, net, wall=clock.wall, lookup_timeout=20.0) as relay:
        assert relay.dht is not None
        for each, port in ((key, 1), (alone, 3)):
            # Into the store alone, not the DHT.
            from tom_pkarr.core.rules import Packet
            from tom_pkarr.server.store import PutOrder

            await relay.shelf.put(PutOrder(Packet.of(record(each, clock.wall(), port)), each.node_id.z32()))
        await put_in_dht(net, key, clock.wall() + 1, 2)
        assert await get(relay, key) == (200, 1)
        clock.seconds += 61
        assert await get(relay, key) == (200, 2)
        assert await get(relay, alone) == (200, 3)
        assert relay.dht.lookups["missed"] == 1


async def test_while_one_is_published_another_must_name_it(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """428 until the packet on its way is in the DHT, except for who names it."""
    key = SecretKey.generate()
    async with dht(3) as net, behind(run, net) as relay:
        assert relay.dht is not None
        under_way, go_on = asyncio.Event(), asyncio.Event()
        genuine = relay.dht.node.put

        async def slow(*args: Any, **options: Any) -> Any:
            under_way.set()
            await go_on.wait()
            return await genuine(*args, **options)

        monkeypatch.setattr(relay.dht.node, "put", slow)
        first, second = record(key, relay.wall(), 1), record(key, relay.wall() + 1, 2)
        assert await put(relay, first) == 204
        async with asyncio.timeout(WAIT):
            await under_way.wait()
        assert await put(relay, second) == 428
        assert await put(relay, second, If_Match=str(first.timestamp_us)) == 204
        go_on.set()


async def test_a_dht_that_is_not_there(run: Any) -> None:
    """Where no DHT node answers, what is stored is served, and the rest is 404 after the time-out."""
    key = SecretKey.generate()
    async with dht(1) as net:
        bootstrap = net.bootstrap
    made = run(dht="on", udp_listen=("127.0.0.1:0",), lookup_timeout=0.5)
    made._bootstrap = bootstrap
    async with made as relay:
        assert await get(relay, key) == (404, None)
        assert await put(relay, record(key, relay.wall(), 1)) == 204
        assert await get(relay, key) == (200, 1)


async def test_without_the_dht_package(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without tom-dht-mainline the relay serves and says so; where the DHT is asked for, it refuses to start."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "tom_dht_mainline"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "tom_dht_mainline", None)
    async with run(dht="auto") as relay:
        assert relay.dht is None
        assert relay.dht_missing == "tom-dht-mainline is not installed"
        assert await get(relay, SecretKey.generate()) == (404, None)
    with pytest.raises(PkarrServerError, match="tom-dht-mainline is not installed"):
        await run(dht="on").start()
