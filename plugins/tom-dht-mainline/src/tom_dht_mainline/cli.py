"""`tom-connect dht`: run a DHT node, and read, write and measure the DHT."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import pathlib
import re
import statistics
import time
from collections.abc import AsyncIterator
from typing import Any

import click

from tom_connect.addr import NodeAddr, SocketAddr
from tom_connect.cli.options import Invocation, tom_command
from tom_connect.exceptions import InvalidInputError, RecordError
from tom_connect.keys import NodeId, SecretKey
from tom_connect.plugins.context import plugin_data_dir
from tom_connect.record import LEGACY_SALT, LegacyItem, parse_dns_packet

from .bootstrap import BootstrapNode, resolve
from .config import DhtConfig, Server
from .core import MAX_VALUE, ImmutableItem, Item, MutableItem
from .errors import DhtUnreachableError, ItemNotFoundError, SupersededError
from .node import DhtNode
from .results import PutResult
from .store import StateStore
from .transport import UdpTransport

_TARGET = re.compile(r"[0-9a-fA-F]{40}")
_logger = logging.getLogger("tom_connect.plugin.dht")


@click.group("dht")
def dht() -> None:
    """Run a Mainline DHT node; get, put and ping in the DHT."""


def _config(run: Invocation) -> DhtConfig:
    config = run.config.plugin_configs.get("dht")
    return config if isinstance(config, DhtConfig) else DhtConfig()


def _store(run: Invocation) -> StateStore | None:
    directory = plugin_data_dir(run.config, "dht")
    return None if directory is None else StateStore(directory, _config(run).bootstrap, _logger)


@contextlib.asynccontextmanager
async def _running(run: Invocation, store: StateStore | None, *, server: Server = "off") -> AsyncIterator[DhtNode]:
    """A node as the options say, bound to `--bind`."""
    config = _config(run)
    versions = {version for version, on in ((4, config.ipv4), (6, config.ipv6)) if on}
    bind = config.bind_addrs if config.own_socket else run.config.bind_addrs
    node = DhtNode(
        UdpTransport([addr for addr in bind if addr.ip.version in versions]),
        config=config.core_config(server),
        bootstrap=config.bootstrap_nodes,
        store=store,
        logger=_logger,
    )
    async with node:
        yield node


@tom_command("node")
@click.option("--interval", default=60.0, help="Seconds between two status lines; 0: none.", metavar="SECONDS")
async def node_command(run: Invocation, interval: float) -> None:
    """Run a DHT node until interrupted.

    It answers queries from the start, unless --dht-server says off. With --bootstrap none it is the first of a DHT.
    """
    if not 0 <= interval < 1e6:
        raise InvalidInputError(f"--interval: {interval} is not allowed; expected 0 or more seconds")
    config = _config(run)
    async with _running(run, _store(run), server="off" if config.server == "off" else "on") as node:
        started = time.monotonic()
        addrs = [str(addr) for addr in node.local_addrs]
        run.output.event("online", f"DHT node on {', '.join(addrs)}", addrs=addrs, dht_ids=node.stats().node_ids)
        count = await node.bootstrap()
        at = time.monotonic() - started
        text = f"joined after {at:.2f} s: {count} nodes known" if count else "no node found yet; waiting for others"
        run.output.event("joined", text, nodes=count, at=round(at, 4))
        while True:
            await asyncio.sleep(interval or 3600.0)
            if interval:
                _status(run, node)


def _status(run: Invocation, node: DhtNode) -> None:
    stats = node.stats()
    external = {family: str(SocketAddr(*address)) for family, address in stats.external.items()}
    queries = sum(stats.queries_in.values())
    run.output.event(
        "status",
        f"{sum(stats.table.values())} nodes known, {queries} queries answered, {stats.received} datagrams in, "
        f"{stats.sent} out" + (f", seen at {', '.join(external.values())}" if external else ""),
        nodes=stats.table,
        dht_size=stats.dht_size,
        external=external,
        serving=stats.serving,
        queries_answered=queries,
        received=stats.received,
        sent=stats.sent,
        dropped=stats.dropped,
        failures=stats.failures,
    )


@tom_command("get")
@click.argument("key")
@click.option("--salt", help="Salt of the item, text.", metavar="TEXT")
@click.option("--first", is_flag=True, help="End with the first valid value instead of looking for the newest.")
async def get_command(run: Invocation, key: str, salt: str | None, first: bool) -> None:
    """Get an item. KEY is a NodeId, or the 40 hex digits that name an immutable item.

    Of a NodeId without a salt that is its address record. Each value is printed as it comes, newer ones later.
    """
    started = time.monotonic()
    is_target = bool(_TARGET.fullmatch(key))
    if is_target and salt is not None:
        raise click.UsageError("an immutable item has no salt")
    node_id = None if is_target else NodeId.parse(key)
    found = False
    async with _running(run, _store(run)) as node:
        if node_id is None:
            immutable = await node.get_immutable(bytes.fromhex(key))
            if immutable is not None:
                found = True
                _show(run, immutable, None, time.monotonic() - started)
        else:
            values = node.get_values(node_id.raw, (salt or "").encode())
            async with contextlib.aclosing(values):
                async for item in values:
                    found = True
                    _show(run, item, node_id, time.monotonic() - started)
                    if first:
                        break
    if not found:
        what = f"item {key}" if node_id is None else f"item of {node_id}" + (f" with salt {salt!r}" if salt else "")
        raise ItemNotFoundError(f"the DHT holds no {what} (nodes drop items 2 h after they were last put)")


def _show(run: Invocation, item: Item, node_id: NodeId | None, at: float) -> None:
    value = item.value
    raw = value if isinstance(value, bytes) else item.encoded
    fields: dict[str, Any] = {
        "target": item.target,
        "value": raw,
        "text": _text(raw),
        "bencoded": not isinstance(value, bytes),
        "at": round(at, 4),
    }
    lines = [f"{at:.3f} s  {item.target.hex()}"]
    if isinstance(item, MutableItem):
        fields |= {"seq": item.seq, "salt": _text(item.salt) or item.salt}
        lines.append(f"  seq: {item.seq}")
    addr = _addr(item, node_id)
    if addr is not None:
        fields |= {
            "direct_addrs": addr.direct_addrs,
            "relay_urls": [str(url) for url in addr.relay_urls],
            "user_data": addr.user_data,
        }
        lines += [f"  addr: {direct}" for direct in addr.direct_addrs]
        lines += [f"  relay: {url}" for url in addr.relay_urls]
        if addr.user_data is not None:
            lines.append(f"  user data: {_text(addr.user_data.encode()) or repr(addr.user_data)}")
    else:
        lines.append(f"  {fields['text'] if fields['text'] is not None else raw.hex()}")
    run.output.event("value", "\n".join(lines), **fields)


def _text(data: bytes) -> str | None:
    """The bytes as text, None if that could not be printed."""
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return None
    return text if text.isprintable() else None


def _addr(item: Item, node_id: NodeId | None) -> NodeAddr | None:
    """The addresses in a record or legacy item, None if it is something else."""
    value = item.value
    if node_id is None or not isinstance(item, MutableItem) or not isinstance(value, bytes):
        return None
    try:
        if item.salt == LEGACY_SALT:
            return LegacyItem.from_json(node_id, value).addr
        return None if item.salt else parse_dns_packet(node_id, value)
    except RecordError:
        return None


@tom_command("put")
@click.argument("value", required=False)
@click.option("--file", "path", type=click.Path(path_type=pathlib.Path), help="Take the value from a file.")
@click.option("--mutable", is_flag=True, help="Sign the value with our key, so that it can be replaced.")
@click.option("--salt", help="Salt of the mutable item, text; keeps several apart. Implies --mutable.", metavar="TEXT")
@click.option("--seq", type=int, help="Sequence number; default: the time in microseconds. Implies --mutable.")
@click.option("--cas", type=int, help="Store only where this is the sequence number now. Implies --mutable.")
async def put_command(
    run: Invocation,
    value: str | None,
    path: pathlib.Path | None,
    mutable: bool,
    salt: str | None,
    seq: int | None,
    cas: int | None,
) -> None:
    """Put a VALUE of at most 996 bytes: an immutable item, or with --mutable one of our key.

    Nodes drop items after 2 h. A mutable item without a salt takes the place of our address record.
    """
    started = time.monotonic()
    if (value is None) == (path is None):
        raise click.UsageError("give either VALUE or --file")
    data = await asyncio.to_thread(_read, path) if path is not None else (value or "").encode()
    if len(data) > MAX_VALUE:
        raise InvalidInputError(f"the value has {len(data)} bytes; at most {MAX_VALUE} can be put")
    key: SecretKey | None = None
    if mutable or salt is not None or seq is not None or cas is not None:
        key = run.endpoint_config().secret_key
    store = _store(run)
    async with _running(run, store) as node:
        if key is None:
            result = await node.put(ImmutableItem.create(data), wait_for="all")
        else:
            result = await _put_mutable(node, store, key, data, (salt or "").encode(), seq, cas)
    at = time.monotonic() - started
    fields: dict[str, Any] = {"target": result.target, "nodes": result.acknowledged, "at": round(at, 4)}
    if key is not None:
        fields |= {"node_id": key.node_id, "salt": salt or "", "seq": result.seq}
    name = result.target.hex() if key is None else str(key.node_id)
    run.output.event("stored", f"stored on {result.acknowledged} nodes after {at:.2f} s: {name}", **fields)


def _read(path: pathlib.Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(MAX_VALUE + 1)
    except OSError as exc:
        raise InvalidInputError(f"--file: {path} can't be read: {exc.strerror or exc}") from None


async def _put_mutable(
    node: DhtNode, store: StateStore | None, key: SecretKey, data: bytes, salt: bytes, seq: int | None, cas: int | None
) -> PutResult:
    chosen = seq
    if chosen is None:
        last = 0 if store is None else store.last_published(key.node_id, salt)
        chosen = max(time.time_ns() // 1000, last + 1)
    try:
        result = await node.put_mutable(key, data, seq=chosen, salt=salt, cas=cas, wait_for="all")
    except SupersededError as exc:
        newer = None if seq is not None else exc.item or await node.get(key.node_id.raw, salt)
        if not isinstance(newer, MutableItem):
            raise
        result = await node.put_mutable(key, data, seq=newer.seq + 1, salt=salt, cas=cas, wait_for="all")
    if store is not None and result.seq is not None:
        store.note_published(key.node_id, result.seq, salt)
    return result


@tom_command("ping")
@click.argument("node")
@click.option("--count", default=4, type=click.IntRange(1, 1_000_000), help="How many pings to send.", metavar="N")
@click.option("--interval", default=1.0, help="Seconds between two pings.", metavar="SECONDS")
async def ping_command(run: Invocation, node: str, count: int, interval: float) -> None:
    """Ping the DHT node at NODE, HOST:PORT."""
    if not 0 <= interval < 1e6:
        raise InvalidInputError(f"--interval: {interval} is not allowed; expected 0 or more seconds")
    place = BootstrapNode.parse(node)
    try:
        address = (await resolve(place))[0]
    except TimeoutError:
        raise DhtUnreachableError(f"{place.host}: the name server did not answer") from None
    except (OSError, IndexError) as exc:
        raise DhtUnreachableError(f"{place.host}: name not found ({exc})") from None
    rtts: list[float] = []
    pinger = DhtNode(
        UdpTransport([addr for addr in run.config.bind_addrs if (":" in addr.host) == (":" in address[0])]),
        config=DhtConfig(bootstrap=()).core_config("off"),
        logger=_logger,
    )
    async with pinger:
        for seq in range(count):
            if seq:
                await asyncio.sleep(interval)
            try:
                pong = await pinger.ping(address)
            except DhtUnreachableError as exc:
                run.output.event("lost", str(exc), seq=seq)
                continue
            rtts.append(pong.rtt)
            rtt_ms = round(pong.rtt * 1000, 3)
            text = f"pong {seq} from {SocketAddr(*address)}: {rtt_ms:.1f} ms, id {pong.node_id.hex()}"
            run.output.event("pong", text, seq=seq, rtt_ms=rtt_ms, addr=SocketAddr(*address), dht_id=pong.node_id)
    median = round(statistics.median(rtts) * 1000, 3) if rtts else None
    text = f"{count} sent, {len(rtts)} answered" + (f", median {median:.1f} ms" if median is not None else "")
    run.output.event("summary", text, sent=count, received=len(rtts), rtt_ms=median)
    if not rtts:
        raise DhtUnreachableError(f"no DHT node answers at {SocketAddr(*address)}")


for _command in (node_command, get_command, put_command, ping_command):
    dht.add_command(_command)
