"""The plugin as an endpoint uses it: publishing, finding, sharing a node and a socket, and living through restarts."""

from __future__ import annotations

import asyncio
import logging
import pathlib
import socket
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing
from typing import Any, cast

import attrs
import pytest

from tom_connect.abc import Discovery, FoundAddr, PluginContext, Publisher
from tom_connect.addr import NodeAddr, SocketAddr
from tom_connect.config import EndpointConfig
from tom_connect.exceptions import DiscoveryError
from tom_connect.keys import NodeId, SecretKey
from tom_connect.plugins import InstalledPlugin, PluginCatalog, PluginHost
from tom_connect.record import LEGACY_SALT, LegacyItem, sign_record
from tom_connect.testing.plugincontext import LentContext
from tom_dht_mainline import CoreConfig, DhtNode, DhtUnreachableError, Mode, UdpTransport, plugin
from tom_dht_mainline.config import MAX_QUORUM, DhtConfig
from tom_dht_mainline.core import mutable_target
from tom_dht_mainline.deferred import DeferredDatagrams, DeferredDiscovery, DeferredPublisher
from tom_dht_mainline.rendezvous import DhtRendezvous
from tom_dht_mainline.service import DhtService
from tom_dht_mainline.testing import Testnet

Lend = Callable[..., PluginContext]
MakeClient = Callable[..., DhtNode]
Eventually = Callable[[Callable[[], bool]], Awaitable[None]]


class Running:
    """The plugin's objects of one endpoint, started, as the endpoint would hold them; `wait`: and loaded."""

    def __init__(self, ctx: PluginContext, *, wait: bool = True) -> None:
        self.ctx = ctx
        self._wait = wait
        self.discovery = cast(DeferredDiscovery, plugin.tom_discovery(ctx))
        self.publisher = cast(DeferredPublisher, plugin.tom_publisher(ctx))
        self.datagrams = cast(DeferredDatagrams | None, plugin.tom_datagram_protocol(ctx))
        self.service = DhtService.of(ctx)

    @property
    def objects(self) -> list[DeferredDiscovery | DeferredPublisher | DeferredDatagrams]:
        return [obj for obj in (self.discovery, self.publisher, self.datagrams) if obj is not None]

    async def __aenter__(self) -> Running:
        if self.datagrams is not None:
            self.ctx.socket.protocols.append(self.datagrams)  # type: ignore[attr-defined]
        for obj in self.objects:
            await obj.start()
        for obj in self.objects if self._wait else ():
            await obj.loaded()
        return self

    async def __aexit__(self, *exc: object) -> None:
        for obj in self.objects:
            await obj.aclose()
        if self.datagrams is not None:
            self.ctx.socket.protocols.remove(self.datagrams)  # type: ignore[attr-defined]


async def _resolve(discovery: Discovery, node_id: NodeId) -> list[FoundAddr]:
    return [found async for found in discovery.resolve(node_id)]


def _config(net: Testnet, **options: Any) -> DhtConfig:
    return DhtConfig(**{"bootstrap": net.bootstrap, "ipv6": False, "own_socket": True, "host": "127.0.0.1"} | options)


def _addr(key: SecretKey, *direct: str) -> NodeAddr:
    return NodeAddr(key.node_id, direct_addrs=direct or ("192.0.2.1:4000",), user_data="hi")


def _now_us() -> int:
    return time.time_ns() // 1000


@pytest.mark.parametrize("own_socket", [True, False])
async def test_a_published_record_is_found(net: Testnet, lend: Lend, own_socket: bool) -> None:
    """One endpoint publishes, another that knows only the NodeId finds it, with sockets of their own or shared."""
    key = SecretKey.generate()
    config = _config(net, own_socket=own_socket)
    async with Running(lend(config, key=key)) as alice:
        record = sign_record(key, _addr(key), _now_us())
        report = await alice.publisher.publish(record)
        assert (report.by, report.nodes >= 6) == ("dht", True)
        found = await _resolve(alice.discovery, key.node_id)
        assert found == [FoundAddr(_addr(key), "dht", record.timestamp_us)]
    async with Running(lend(_config(net))) as bob:
        assert await _resolve(bob.discovery, key.node_id) == found
        assert await _resolve(bob.discovery, SecretKey.generate().node_id) == []


async def test_it_is_ready_once_it_has_joined(net: Testnet, lend: Lend) -> None:
    """While nobody is in the routing table, later sources are not to wait for the DHT; from joining on they are."""
    running = Running(lend(_config(net)))
    assert not running.discovery.ready
    async with running as alice:
        await alice.service.node.bootstrap()
        assert alice.discovery.ready
    assert not running.discovery.ready
    async with Running(lend(_config(net, bootstrap=("none",)))) as alone:
        assert not alone.discovery.ready


async def test_a_look_up_is_repeated_once_the_node_has_joined(
    net: Testnet, lend: Lend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that began with hardly any node and found nothing is done again when there are more to begin with."""
    key = SecretKey.generate()
    record = sign_record(key, _addr(key), _now_us())
    async with Running(lend(_config(net), key=key)) as alice, Running(lend(_config(net))) as bob:
        await bob.service.node.bootstrap()

        async def join() -> int:
            # Nothing was there to be found before: what comes of the look-up is the second one's.
            await alice.publisher.publish(record)
            return 20

        sizes = iter([1])
        monkeypatch.setattr(bob.service.node, "table_size", lambda: next(sizes, 20))
        monkeypatch.setattr(bob.service.node, "bootstrap", join)
        found = await _resolve(bob.discovery, key.node_id)
        assert found == [FoundAddr(_addr(key), "dht", record.timestamp_us)]
        assert found[0].record == record
        assert await _resolve(bob.discovery, SecretKey.generate().node_id) == []


@pytest.mark.parametrize(("grows", "enough"), [(True, True), (False, False)])
async def test_what_too_few_nodes_took_is_put_again(
    net: Testnet, lend: Lend, monkeypatch: pytest.MonkeyPatch, grows: bool, enough: bool
) -> None:
    """Once the node knows more of the DHT a put that reached few is repeated; if it does not, the core hears of it."""
    key = SecretKey.generate()
    async with Running(lend(_config(net), key=key)) as alice:
        node = alice.service.node
        await node.bootstrap()
        put, puts = node.put, []

        async def few_at_first(item: Any, **options: Any) -> Any:
            puts.append(item)
            result = await put(item, **options)
            return attrs.evolve(result, acknowledged=2) if len(puts) == 1 else result

        sizes = iter([1])
        monkeypatch.setattr(node, "put", few_at_first)
        monkeypatch.setattr(node, "table_size", lambda: next(sizes, 20 if grows else 1))
        report = await alice.publisher.publish(sign_record(key, _addr(key), _now_us()))
        assert (len(puts), report.enough, report.nodes >= 6) == (2 if grows else 1, enough, enough)


async def test_the_shared_socket_carries_the_dht_and_learns_its_address(
    net: Testnet, lend: Any, eventually: Eventually
) -> None:
    """With the endpoint's socket shared, nodes see that socket, and what they see is reported to the endpoint."""
    async with Running(lend(_config(net, own_socket=False))) as alice:
        await alice.service.node.bootstrap()
        await eventually(lambda: bool(lend.external))
        assert lend.external == list(lend.socket.local_addrs)
        assert alice.service.node.local_addrs == tuple(lend.socket.local_addrs)


async def test_two_protocols_share_one_socket(net: Testnet, lend: Any, client: MakeClient) -> None:
    """Datagrams that are not the DHT's stay with the others, and the DHT's reach it."""
    async with Running(lend(_config(net, own_socket=False, server="on"))) as alice, client() as stranger:
        place = lend.socket.local_addrs[0]
        stranger._transport.send([(b"\x40quic", place), (b"\x04disco", place)])
        assert (await stranger.ping(place)).node_id == alice.service.node.node_id()
        assert sorted(lend.socket.refused) == [b"\x04disco", b"\x40quic"]


async def test_two_endpoints_in_one_process_have_nodes_of_their_own(net: Testnet, lend: Lend) -> None:
    """Nothing of the plugin is shared between endpoints but what the DHT itself carries."""
    async with Running(lend(_config(net))) as alice, Running(lend(_config(net))) as bob:
        assert alice.service.node is not bob.service.node
        assert alice.service.node.node_id() != bob.service.node.node_id()


async def test_one_node_serves_all_objects_of_an_endpoint(net: Testnet, lend: Lend) -> None:
    """The node starts with its first user and closes with its last, in whatever order they come and go."""
    running = Running(lend(_config(net)))
    service = running.service
    await running.publisher.start()
    node_id = service.node.node_id()
    await running.discovery.start()
    await running.publisher.aclose()
    await running.publisher.aclose()
    assert service.is_running
    assert service.node.node_id() == node_id
    await running.discovery.aclose()
    assert not service.is_running
    await running.discovery.aclose()


async def test_with_the_endpoints_socket_nobody_waits_for_the_dht(net: Testnet, lend: Any) -> None:
    """Starting the objects loads nothing; they work when it is done, and what comes before is dropped."""
    async with Running(lend(_config(net, own_socket=False)), wait=False) as alice:
        assert not alice.service.is_running
        assert alice.datagrams is not None
        alice.datagrams.datagrams_received([(b"d1:", SocketAddr("127.0.0.1", 1))])
        assert await _resolve(alice.discovery, SecretKey.generate().node_id) == []
        assert alice.service.is_running
    assert not alice.service.is_running


async def test_one_that_is_closed_while_it_loads_leaves_nothing(net: Testnet, lend: Lend) -> None:
    """Closing in the same moment as starting: no node is left running, and asking is an error, not a hang."""
    async with Running(lend(_config(net, own_socket=False)), wait=False) as alice:
        pass
    assert not alice.service.is_running
    with pytest.raises(asyncio.CancelledError):
        await alice.discovery.loaded()


async def test_a_dht_that_can_not_be_loaded_is_reported(
    net: Testnet, lend: Lend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A damaged installation: the endpoint's task fails with the reason, and so does whoever asks."""

    def damaged(_module: str) -> None:
        raise ImportError("no module named 'gone'")

    monkeypatch.setattr("tom_dht_mainline.deferred._import", damaged)
    ctx = lend(_config(net, own_socket=False))
    assert isinstance(ctx, LentContext)
    async with Running(ctx, wait=False) as alice:
        with pytest.raises(ImportError, match="gone"):
            await _resolve(alice.discovery, SecretKey.generate().node_id)
        await asyncio.gather(*ctx.tasks)
    assert [str(error) for error in ctx.failures] == 3 * ["no module named 'gone'"]


def test_the_quorum_is_bounded_as_the_core_has_it() -> None:
    """The options know the core's number of replicas without importing it."""
    assert CoreConfig().replicas == MAX_QUORUM


async def test_a_failed_start_is_told_to_each_object_and_leaves_nothing(net: Testnet, lend: Lend) -> None:
    """A port that is taken: each object fails with the reason, and closing them is harmless."""
    taken = net.nodes[0].local_addrs[0]
    running = Running(lend(_config(net, port=taken.port)))
    for obj in running.objects:
        with pytest.raises(Exception, match=str(taken.port)):
            await obj.start()
    for obj in running.objects:
        await obj.aclose()


@pytest.mark.parametrize(
    ("hours", "usable"), [(0, True), (23.9, True), (24.1, False), (-1.9, True), (-2.1, False), (-24 * 365, False)]
)
async def test_records_count_for_a_day(net: Testnet, lend: Any, client: MakeClient, hours: float, usable: bool) -> None:
    """A record is taken up to 24 h after its timestamp, and up to 2 h before it for clocks that are wrong."""
    key = SecretKey.generate()
    async with client() as writer, Running(lend(_config(net, read_legacy_item=False))) as bob:
        record = sign_record(key, _addr(key), _now_us() - int(hours * 3600e6))
        await writer.put_mutable(key, record.dns_packet, seq=record.timestamp_us)
        if usable:
            assert [found.addr for found in await _resolve(bob.discovery, key.node_id)] == [_addr(key)]
        else:
            with pytest.raises(DiscoveryError, match="no usable record"):
                await _resolve(bob.discovery, key.node_id)


@pytest.mark.parametrize("value", [b"no DNS packet", 7, [b"list"], b""])
async def test_what_is_no_record_is_refused(net: Testnet, lend: Lend, client: MakeClient, value: Any) -> None:
    """A key's item that is something else is an error that says so, not a crash."""
    key = SecretKey.generate()
    async with client() as writer, Running(lend(_config(net, read_legacy_item=False))) as bob:
        await writer.put_mutable(key, value)
        with pytest.raises(DiscoveryError, match="no usable record"):
            await _resolve(bob.discovery, key.node_id)


async def test_the_legacy_item_is_read_and_written(net: Testnet, lend: Lend, client: MakeClient) -> None:
    """With `write_legacy_item` older programs find us; their items are found by us in any case."""
    key, old = SecretKey.generate(), SecretKey.generate()
    async with Running(lend(_config(net, write_legacy_item=True), key=key)) as alice, client() as reader:
        await alice.publisher.publish(sign_record(key, _addr(key), _now_us()))
        item = await reader.get(key.node_id.raw, LEGACY_SALT)
        assert item is not None
        assert isinstance(item.value, bytes)
        assert LegacyItem.from_json(key.node_id, item.value).addr.direct_addrs == (SocketAddr("192.0.2.1", 4000),)
        legacy = LegacyItem(NodeAddr(old.node_id, direct_addrs=("192.0.2.7:7",)), _now_us() // 1000)
        await reader.put_mutable(old, legacy.to_json(), salt=LEGACY_SALT, seq=legacy.timestamp_ms)
        (found,) = await _resolve(alice.discovery, old.node_id)
        assert found.addr == legacy.addr
        assert found.timestamp_us == legacy.timestamp_ms * 1000


async def test_a_stale_legacy_item_is_refused(net: Testnet, lend: Lend, client: MakeClient) -> None:
    """A legacy item counts for two hours."""
    old = SecretKey.generate()
    async with Running(lend(_config(net))) as bob, client() as writer:
        legacy = LegacyItem(NodeAddr(old.node_id, direct_addrs=("192.0.2.7:7",)), _now_us() // 1000 - 7_300_000)
        await writer.put_mutable(old, legacy.to_json(), salt=LEGACY_SALT, seq=legacy.timestamp_ms)
        with pytest.raises(DiscoveryError, match=r"legacy item is 2\.0 h old"):
            await _resolve(bob.discovery, old.node_id)


async def test_the_record_beats_an_older_legacy_item(net: Testnet, lend: Lend, client: MakeClient) -> None:
    """Of both items the newer one counts: an older one that comes later is not given."""
    key = SecretKey.generate()
    async with Running(lend(_config(net))) as bob, client() as writer:
        legacy = LegacyItem(_addr(key, "192.0.2.7:7"), _now_us() // 1000 - 60_000)
        await writer.put_mutable(key, legacy.to_json(), salt=LEGACY_SALT, seq=legacy.timestamp_ms)
        record = sign_record(key, _addr(key), _now_us())
        await writer.put_mutable(key, record.dns_packet, seq=record.timestamp_us)
        assert [found.addr for found in await _resolve(bob.discovery, key.node_id)] == [_addr(key)]


async def test_closing_a_resolve_early_ends_its_work(net: Testnet, lend: Lend) -> None:
    """The dial that has its address closes the iterator; no get goes on."""
    key = SecretKey.generate()
    async with Running(lend(_config(net), key=key)) as alice:
        await alice.publisher.publish(sign_record(key, _addr(key), _now_us()))
        await alice.service.node.bootstrap()
        async with aclosing(alice.discovery.resolve(key.node_id)) as found:  # type: ignore[type-var]
            async for one in found:
                assert one.addr == _addr(key)
                break
        task = asyncio.create_task(_resolve(alice.discovery, SecretKey.generate().node_id))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        # What may be left is the repair of the put.
        assert alice.service.node.pending <= 1


async def test_timestamps_rise_across_restarts_though_the_clock_was_set_back(
    net: Testnet, lend: Lend, tmp_path: pathlib.Path
) -> None:
    """After a restart an hour in the past the record is signed anew above the last one, and replaces it."""
    key = SecretKey.generate()
    first, second = _now_us(), _now_us() - 3_600_000_000
    async with Running(lend(_config(net), key=key, data_dir=tmp_path)) as alice:
        await alice.publisher.publish(sign_record(key, _addr(key), first))
    async with Running(lend(_config(net), key=key, data_dir=tmp_path)) as alice:
        await alice.publisher.publish(sign_record(key, _addr(key, "192.0.2.2:2"), second))
        (found,) = await _resolve(alice.discovery, key.node_id)
        assert found.addr == _addr(key, "192.0.2.2:2")
        assert found.timestamp_us == first + 1


async def test_a_newer_record_of_our_own_key_is_overtaken(net: Testnet, lend: Lend, client: MakeClient) -> None:
    """If the DHT holds a higher timestamp of ours, from a clock that ran ahead, ours is raised above it."""
    key = SecretKey.generate()
    ahead = _now_us() + 60_000_000
    async with client() as other, Running(lend(_config(net), key=key)) as alice:
        record = sign_record(key, _addr(key, "192.0.2.9:9"), ahead)
        await other.put_mutable(key, record.dns_packet, seq=ahead, wait_for="all")
        await alice.publisher.publish(sign_record(key, _addr(key), _now_us()))
        (found,) = await _resolve(alice.discovery, key.node_id)
        assert found.addr == _addr(key)
        assert found.timestamp_us is not None
        assert found.timestamp_us > ahead


async def test_publishing_without_a_dht_says_what_was_tried(lend: Lend) -> None:
    """With no node to be had, publisher and discovery fail with the reason, quickly."""
    key = SecretKey.generate()
    config = DhtConfig(bootstrap=(), own_socket=True, host="127.0.0.1", ipv6=False)
    async with Running(lend(config, key=key)) as alice:
        with pytest.raises(DhtUnreachableError, match="no bootstrap node was given"):
            await alice.publisher.publish(sign_record(key, _addr(key), _now_us()))
        with pytest.raises(DiscoveryError, match="no bootstrap node was given"):
            await _resolve(alice.discovery, key.node_id)


@pytest.mark.parametrize("content", [b"", b"{", bytes(range(100, 200))], ids=["empty", "cut", "no text"])
async def test_damaged_state_does_not_stop_the_start(
    net: Testnet, lend: Lend, tmp_path: pathlib.Path, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """Every file of the plugin overwritten with garbage: it is reported, and the plugin works."""
    key = SecretKey.generate()
    async with Running(lend(_config(net), key=key, data_dir=tmp_path)) as alice:
        await alice.publisher.publish(sign_record(key, _addr(key), _now_us()))
    damaged = list(tmp_path.glob("*.json"))  # noqa: ASYNC240 - a test may block
    assert len(damaged) == 2
    for path in damaged:
        path.write_bytes(content)
    with caplog.at_level(logging.WARNING):
        async with Running(lend(_config(net), key=key, data_dir=tmp_path)) as alice:
            await alice.publisher.publish(sign_record(key, _addr(key), _now_us()))
    assert all(path.name in caplog.text for path in damaged)


def test_only_krpc_is_claimed(lend: Lend) -> None:
    """The DHT takes `d`, a digit, `:`; QUIC, STUN, disco and fragments of KRPC stay with others (RFC 7983)."""
    datagrams = DeferredDatagrams(lend(DhtConfig()))
    for head in (b"d1:ad2:id", b"d2:ip6:ab", b"d1:"):
        assert datagrams.claims(head)
    for head in (b"", b"d", b"d1", b"de", b"dx:", b"d12:", b"l1:a", b"\x00\x01\x00\x00", b"\x40abc", b"\xc3\x00\x00"):
        assert not datagrams.claims(head)


async def test_diagnostics_are_read_when_they_are_shown(net: Testnet, lend: Lend) -> None:
    """Doctor sees the node as it is at that moment, and that it does not run where it does not."""
    ctx = lend(_config(net))
    shown = plugin.tom_diagnostics(ctx)
    assert dict(shown) == {"state": "not running"}
    async with Running(ctx) as alice:
        await alice.service.node.bootstrap()
        assert shown["state"] == "joined"
        assert shown["failures"] == 0
        assert len(shown) == len(list(shown))
        bootstrap = shown["bootstrap"]
        assert isinstance(bootstrap, dict)
        assert set(bootstrap.values()) == {"answered"}


def test_the_host_accepts_the_plugin() -> None:
    """The plugin fits the host's API: every hook is known, its options become a section, its command a command."""
    catalog = PluginCatalog(lambda: [InstalledPlugin("dht", "tom-dht-mainline", "0.1.0", lambda: plugin)])
    host = PluginHost.load(EndpointConfig(), catalog=catalog, environ={})
    (info,) = [info for info in host.infos if info.name == "dht"]
    assert (info.state, info.reason) == ("loaded", "")
    assert set(info.hooks) == {
        "tom_cli_commands", "tom_datagram_protocol", "tom_diagnostics", "tom_discovery", "tom_publisher",
        "tom_register_config", "tom_rendezvous", "tom_topic_directory",
    }  # fmt: skip
    assert host.config_classes == {"dht": DhtConfig}
    assert list(host.commands(reserved={})) == ["dht"]


def test_what_the_core_needs_to_know_is_declared(lend: Lend) -> None:
    """Both work without anybody's server, and the record is renewed twice before it expires."""
    ctx = lend(DhtConfig())
    discovery: Discovery = plugin.tom_discovery(ctx)
    publisher: Publisher = plugin.tom_publisher(ctx)
    assert discovery.serverless
    assert publisher.serverless
    assert discovery.stage == 0
    assert publisher.republish_after <= 7200 / 2
    names: Sequence[str] = (discovery.name, publisher.name)
    assert set(names) == {"dht"}


@pytest.mark.parametrize("known_by", ["record", "call"])
async def test_a_peer_that_is_to_be_punched_is_asked_nothing(
    net: Testnet, lend: Lend, client: MakeClient, eventually: Eventually, known_by: str
) -> None:
    """An address that a record named, or that has called, gets no query although the DHT names it as a node later."""
    key, own = SecretKey.generate(), SecretKey.generate()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
        free.bind(("127.0.0.1", 0))
        peer = SocketAddr(*free.getsockname())
    async with client() as other, Running(lend(_config(net), key=own)) as alice:
        rendezvous = DhtRendezvous(alice.service)
        await rendezvous.start()
        if known_by == "record":
            record = sign_record(key, _addr(key, str(peer)), now := _now_us())
            await other.put_mutable(key, record.dns_packet, seq=now, wait_for="all")
            assert await _resolve(alice.discovery, key.node_id)
        else:
            await other.announced(mutable_target(own.node_id.raw), peer.port)
            await eventually(lambda: bool(alice.service._excluded))
        config = CoreConfig(ipv6=False, mode=Mode.SERVER)
        async with DhtNode(UdpTransport((peer,)), config=config, bootstrap=net.bootstrap) as node:
            await asyncio.gather(*(each.ping((peer.host, peer.port)) for each in net.nodes))
            for searcher in (other, alice.service.node):
                await searcher.find_node(node.node_id())
                assert searcher.has_asked((peer.host, peer.port)) is (searcher is other)
        await rendezvous.aclose()
