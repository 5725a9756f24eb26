"""A tom-connect plugin that finds nodes by their signed records in Redis, and keeps our own there.

A record stands under `PREFIX<node id>` for as long as the option `expiry` says. It is the signed packet of
`tom_connect.record`: whoever may write to the server can delete a record, but not forge one.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from urllib.parse import urlsplit

import attrs
from redis.asyncio import Redis
from redis.exceptions import RedisError

from tom_connect.abc import Discovery, FoundAddr, PluginContext, Publisher, PublishReport
from tom_connect.config import option, seconds_between
from tom_connect.exceptions import ConfigError, DiscoveryError, NetworkError, RecordError
from tom_connect.hookspecs import hookimpl
from tom_connect.keys import NodeId
from tom_connect.plugins import ConfigRegistry
from tom_connect.record import SignedRecord

TOM_CONNECT_API = (1, 0)
"""The version of the plugin interface that this was written for."""


def _redis_url(_self: object, _field: object, value: str) -> None:
    if value and urlsplit(value).scheme not in ("redis", "rediss", "unix"):
        raise ConfigError("url: not allowed; expected redis://HOST:PORT, rediss://HOST:PORT or unix://PATH")


@attrs.frozen(kw_only=True)
class RedisConfig:
    """The options: `[redis]` in the file, `TOM_CONNECT_REDIS_*`, `--redis-*`."""

    url: str = attrs.field(
        default="",
        repr=False,  # it may have a password
        validator=_redis_url,
        metadata=option("where Redis is: redis://HOST:PORT, rediss:// or unix://; without it the plugin rests"),
    )
    prefix: str = attrs.field(default="tom:", metadata=option("what the keys of records begin with"))
    expiry: float = attrs.field(
        default=7200.0, validator=seconds_between(2, 86_400), metadata=option("seconds that Redis keeps a record")
    )
    timeout: float = attrs.field(
        default=3.0, validator=seconds_between(0.1, 60), metadata=option("seconds that Redis has to answer")
    )


class RedisRecords(Discovery, Publisher):
    """Finds nodes by the records that they have signed, and publishes ours; one for each endpoint."""

    name = "redis"

    def __init__(self, ctx: PluginContext) -> None:
        self._config: RedisConfig = ctx.config
        self._signer = ctx.signer
        self.republish_after = self._config.expiry / 2
        self.timeout = 4 * self._config.timeout
        self._redis: Redis | None = None

    async def start(self) -> None:
        """Make ready; connections are opened when they are needed."""
        seconds = self._config.timeout
        self._redis = Redis.from_url(self._config.url, socket_timeout=seconds, socket_connect_timeout=seconds)

    async def aclose(self) -> None:
        """Close the connections."""
        if self._redis is not None:
            await self._redis.aclose()

    async def resolve(self, node_id: NodeId) -> AsyncIterator[FoundAddr]:
        """What the node has signed; anybody may have written what it has not."""
        with self._failing_as(DiscoveryError) as redis:
            packet = await redis.get(self._key(node_id))
        record = verified(node_id, packet)
        if record is not None:
            yield FoundAddr(record.addr, self.name, record.timestamp_us)
        elif packet is not None:
            raise DiscoveryError(f"Redis holds something that {node_id!r} has not signed; it is not used")

    async def publish(self, record: SignedRecord) -> PublishReport:
        """Store our record; where a newer one of ours is, of a clock that ran ahead, sign it anew above that one."""
        key = self._key(record.node_id)
        with self._failing_as(NetworkError) as redis:
            async with redis.pipeline() as pipe:
                await pipe.watch(key)  # if another program of ours writes before `execute`, that fails
                held = verified(record.node_id, await pipe.get(key))
                if held is not None and held.timestamp_us > record.timestamp_us:
                    record = self._signer.sign_record(record.addr, held.timestamp_us + 1)
                pipe.multi()
                pipe.set(key, record.to_bytes(), px=int(self._config.expiry * 1000))
                await pipe.execute()
        return PublishReport(self.name, 1)

    def _key(self, node_id: NodeId) -> str:
        return self._config.prefix + str(node_id)

    @contextlib.contextmanager
    def _failing_as(self, kind: type[NetworkError]) -> Iterator[Redis]:
        assert self._redis is not None, "start() comes first"
        try:
            yield self._redis
        except (RedisError, OSError) as error:
            parts = urlsplit(self._config.url)  # without the password, which no message shows
            place = f"{parts.hostname}:{parts.port or 6379}" if parts.hostname else parts.path
            reason = str(error) or type(error).__name__
            raise kind(f"Redis at {place} can't be used: {reason}; is it running, is redis.url right?") from error
        if (task := asyncio.current_task()) and task.cancelling():
            raise asyncio.CancelledError  # which wait_for of Python 3.11, by which the client sends, may have lost


def verified(node_id: NodeId, packet: bytes | None) -> SignedRecord | None:
    """The record in a packet; None if there is none that this node has signed."""
    try:
        record = SignedRecord.from_bytes(packet or b"")
    except RecordError:
        return None
    return record if record.node_id == node_id else None


def _records(ctx: PluginContext) -> RedisRecords | None:
    if not ctx.config.url:
        return None
    records: RedisRecords = ctx.shared.setdefault("records", RedisRecords(ctx))
    return records


@hookimpl
def tom_register_config(registry: ConfigRegistry) -> None:
    """Declare the options."""
    registry.register("redis", RedisConfig)


@hookimpl
def tom_discovery(ctx: PluginContext) -> Discovery | None:
    """Find nodes in Redis, if its place is known."""
    return _records(ctx)


@hookimpl
def tom_publisher(ctx: PluginContext) -> Publisher | None:
    """Publish in Redis, if its place is known."""
    return _records(ctx)
