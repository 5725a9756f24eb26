"""The plugin with a real Redis server: it keeps the contracts, expires, and says what is wrong."""

from __future__ import annotations

import time
from collections.abc import Callable

import attrs
import pytest
import tom_discovery_redis
from redis.asyncio import Redis
from tom_discovery_redis import RedisConfig, RedisRecords, tom_discovery, tom_publisher

from tom_connect import Endpoint
from tom_connect.addr import NodeAddr
from tom_connect.exceptions import ConfigError, DiscoveryError, NetworkError
from tom_connect.keys import NodeId, SecretKey
from tom_connect.record import SignedRecord
from tom_connect.testing.conformance import check_discovery, check_publisher
from tom_connect.testing.endpoints import connected
from tom_connect.testing.plugincontext import LentContext, plugin_context


def unreachable() -> LentContext:
    """A server that is not there."""
    return plugin_context(RedisConfig(url="redis://user:secret@127.0.0.1:9"))


@pytest.fixture
def context(redis_url: str) -> Callable[[], LentContext]:
    """Makes contexts that lead to the server."""
    return lambda: plugin_context(RedisConfig(url=redis_url))


async def stored(url: str, node_id: NodeId) -> bytes | None:
    """What is in Redis."""
    async with Redis.from_url(url) as redis:
        packet: bytes | None = await redis.get(f"tom:{node_id}")
        return packet


async def store(url: str, node_id: NodeId, packet: bytes) -> None:
    """Write what one likes."""
    async with Redis.from_url(url) as redis:
        await redis.set(f"tom:{node_id}", packet, ex=600)


async def test_discovery_keeps_its_contract(redis_url: str, context: Callable[[], LentContext]) -> None:
    """Nodes are found by what they signed, and by nothing else."""

    async def publish(record: SignedRecord) -> None:
        await store(redis_url, record.node_id, record.to_bytes())

    async def forge(node_id: NodeId, packet: bytes) -> None:
        await store(redis_url, node_id, packet)

    await check_discovery(tom_discovery, publish=publish, context=context, unreachable=unreachable, forge=forge)


async def test_the_publisher_keeps_its_contract(redis_url: str, context: Callable[[], LentContext]) -> None:
    """What it stores is in Redis, the newest record always."""

    async def find(node_id: NodeId) -> SignedRecord | None:
        packet = await stored(redis_url, node_id)
        return None if packet is None else SignedRecord.from_bytes(packet)

    await check_publisher(tom_publisher, find=find, context=context, unreachable=unreachable)


async def test_two_endpoints_meet(redis_url: str, endpoint_pair: Callable[..., object]) -> None:
    """One dials the other by its node id alone, which Redis alone can answer."""
    config = {"redis": RedisConfig(url=redis_url)}
    plugin = ("redis", tom_discovery_redis)
    async with endpoint_pair(plugin, plugin_configs=config) as (alice, bob):  # type: ignore[attr-defined]
        assert isinstance(bob, Endpoint)
        await bob.watch_published().other_than(())
        ours, _theirs = await connected(alice, bob, bob.node_id)
        assert ours.remote_node_id == bob.node_id


async def test_a_record_expires(redis_url: str) -> None:
    """Redis forgets a record that is not published again; the publisher comes back in half of that time."""
    ctx = plugin_context(RedisConfig(url=redis_url, expiry=100))
    records = RedisRecords(ctx)
    await records.start()
    await records.publish(ctx.signer.sign_record(ctx.local_addrs.value, time.time_ns() // 1000))
    await records.aclose()
    async with Redis.from_url(redis_url) as redis:
        assert 0 < await redis.ttl(f"tom:{ctx.node_id}") <= 100
    assert records.republish_after == 50


async def test_an_account_that_may_do_little(redis_url: str) -> None:
    """The account that the README tells to make is enough to publish and to find, and no more than that."""
    rights = ["~tom:*", "+get", "+set", "+watch", "+unwatch", "+multi", "+exec"]
    async with Redis.from_url(redis_url) as redis:
        await redis.execute_command("ACL", "SETUSER", "node", "on", ">secret", *rights)
    ctx = plugin_context(RedisConfig(url=redis_url.replace("unix://", "unix://node:secret@")))
    records = RedisRecords(ctx)
    await records.start()
    record = ctx.signer.sign_record(NodeAddr(ctx.node_id, direct_addrs=["192.0.2.1:1"]), time.time_ns() // 1000)
    await records.publish(record)
    assert [found.addr async for found in records.resolve(ctx.node_id)] == [record.addr]
    await records.aclose()
    other = RedisRecords(plugin_context(attrs.evolve(ctx.config, prefix="other:")))
    await other.start()
    with pytest.raises(NetworkError, match="no permissions"):
        await other.publish(record)
    await other.aclose()


async def test_what_is_wrong_is_said_without_the_password() -> None:
    """Where Redis is away the error names its place and what to look at, to those who find and those who publish."""
    ctx = unreachable()
    records = RedisRecords(ctx)
    await records.start()
    with pytest.raises(DiscoveryError, match=r"127\.0\.0\.1:9 can't be used: .*; is it running") as finding:
        async for _ in records.resolve(SecretKey.generate().node_id):
            pass
    with pytest.raises(NetworkError, match="is it running") as publishing:
        await records.publish(ctx.signer.sign_record(ctx.local_addrs.value, 1))
    await records.aclose()
    assert "secret" not in str(finding.value) + str(publishing.value) + repr(ctx.config)


def test_options() -> None:
    """Without a place the plugin rests; one that is none is refused with what is expected."""
    assert tom_discovery(plugin_context(RedisConfig())) is None
    assert tom_publisher(plugin_context(RedisConfig())) is None
    with pytest.raises(ConfigError, match="redis://HOST:PORT"):
        RedisConfig(url="127.0.0.1:6379")
