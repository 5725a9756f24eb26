"""Joining: names, dead and bad bootstrap nodes, saved nodes, and coming back."""

from __future__ import annotations

import asyncio
import logging
import pathlib
import socket
import threading
import time
from collections.abc import Awaitable, Callable
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tom_connect.addr import SocketAddr
from tom_connect.exceptions import InvalidAddrError
from tom_connect.keys import SecretKey
from tom_connect.testing.plugincontext import plugin_context
from tom_connect.watch import Watch
from tom_dht_mainline import (
    BootstrapNode,
    CoreConfig,
    DhtNode,
    DhtUnreachableError,
    Mode,
    StateStore,
    UdpTransport,
    joining,
)
from tom_dht_mainline import bootstrap as bootstrap_module
from tom_dht_mainline import node as node_module
from tom_dht_mainline.bootstrap import DEFAULT_BOOTSTRAP, parse_bootstrap, resolve
from tom_dht_mainline.config import DhtConfig
from tom_dht_mainline.core import Family
from tom_dht_mainline.service import DhtService
from tom_dht_mainline.testing import Testnet

LOOPBACK = SocketAddr("127.0.0.1", 0)
MakeClient = Callable[..., DhtNode]
Eventually = Callable[[Callable[[], bool]], Awaitable[None]]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("router.bittorrent.com:6881", "router.bittorrent.com:6881"),
        (" 127.0.0.1:1 ", "127.0.0.1:1"),
        ("[::1]:65535", "[::1]:65535"),
        ("[2001:DB8:0::1]:6881", "[2001:db8::1]:6881"),
        ("localhost:6881", "localhost:6881"),
        ("my_host-2.example.:6881", "my_host-2.example.:6881"),
    ],
)
def test_bootstrap_nodes_are_read(text: str, shown: str) -> None:
    """A name, an IPv4 address or a bracketed IPv6 address, and a port."""
    assert str(BootstrapNode.parse(text)) == shown


@pytest.mark.parametrize(
    "text",
    ["", ":", "host", "host:", "host:0", "host:65536", "host:x", ":6881", "::1:6881", "a b:1", "-a:1", "a..b:1",
     "1.2.3:4", "1.2.3.4.5:1", "300.1.1.1:1", "[1.2.3.4]:1", "[::1:1", "[fe80::1%eth0]:1", "http://a:1", "ä:1",
     "a" * 64 + ":1", "host:+1", "host:١", "host\n:1"],
)  # fmt: skip
def test_unreadable_bootstrap_nodes_are_refused(text: str) -> None:
    """Whatever is no HOST:PORT is refused with a reason, before any name server is asked."""
    with pytest.raises(InvalidAddrError):
        BootstrapNode.parse(text)


@given(
    st.text(max_size=60)
    | st.from_regex(r"[\[a-z0-9:._%-]{0,40}\]?:[0-9]{0,6}", fullmatch=True)
    | st.ip_addresses(v=6).map(lambda ip: f"[{ip}]:1")
)
def test_any_text_is_a_bootstrap_node_or_refused(text: str) -> None:
    """No text raises anything but InvalidAddrError, and what is read is written and read back the same."""
    try:
        node = BootstrapNode.parse(text)
    except InvalidAddrError:
        return
    assert 0 < node.port < 65536
    assert BootstrapNode.parse(str(node)) == node


def test_lists_of_bootstrap_nodes() -> None:
    """Each node counts once, `none` is none, one text is not a list, and there is a limit."""
    assert len(parse_bootstrap(DEFAULT_BOOTSTRAP)) == 4
    assert len(parse_bootstrap(["a:1", "a:1"])) == 1
    assert parse_bootstrap(["none"]) == ()
    with pytest.raises(InvalidAddrError, match="sequence"):
        parse_bootstrap("a:1")
    with pytest.raises(InvalidAddrError, match="at most 64"):
        parse_bootstrap([f"a:{port}" for port in range(1, 66)])


async def test_a_name_leads_into_the_dht(net: Testnet, client: MakeClient) -> None:
    """`localhost` is resolved by the system and joined through."""
    port = net.nodes[0].local_addrs[0].port
    async with client(bootstrap=[f"localhost:{port}"]) as node:
        assert await node.bootstrap() > 0
        assert node.stats().bootstrap == {f"localhost:{port}": "answered"}


async def test_a_silent_name_server_holds_nothing_up(
    net: Testnet, client: MakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While one name server is silent the node joins through another node, and closes at once."""
    release = threading.Event()
    asked = socket.getaddrinfo

    def slow(host: Any, *args: Any, **options: Any) -> Any:
        if host == "slow.invalid":
            release.wait(20)
            raise socket.gaierror(socket.EAI_NONAME, "unknown")
        return asked(host, *args, **options)

    monkeypatch.setattr(socket, "getaddrinfo", slow)
    started = time.monotonic()
    async with client(bootstrap=["slow.invalid:1", net.bootstrap[0]]) as node:
        assert await node.bootstrap() > 0
        await node.put_immutable(b"x")
    assert time.monotonic() - started < 2
    release.set()


async def test_an_unknown_name_is_named_in_the_error(client: MakeClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """When nobody could be asked the error says of each bootstrap node why."""

    def unknown(*args: Any, **options: Any) -> Any:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    async with client(bootstrap=["nosuch.invalid:6881"]) as node:
        with pytest.raises(DhtUnreachableError, match=r"no node is known.*nosuch\.invalid:6881 \(name not found"):
            await node.get(bytes(range(32)))


async def test_without_a_network_it_is_said_once(
    client: MakeClient, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, eventually: Eventually
) -> None:
    """Nodes of which the same is known are named together, and a second try that ends alike warns nobody."""

    def unknown(*args: Any, **options: Any) -> Any:
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    monkeypatch.setattr("tom_dht_mainline.joining.FIRST_RETRY", 0.01)
    caplog.set_level(logging.INFO)
    async with client(bootstrap=["one.invalid:1", "two.invalid:2"]):
        await eventually(lambda: len(_tries(caplog)) > 2)
    assert [record.levelno for record in _tries(caplog)[:3]] == [logging.WARNING, logging.INFO, logging.INFO]
    assert "bootstrap: one.invalid:1, two.invalid:2 (name not found: Temporary failure);" in caplog.text


def _tries(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    return [record for record in caplog.records if "no DHT node answered" in record.getMessage()]


async def test_a_name_server_that_never_answers_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Resolving ends by itself, and a late answer disturbs nobody."""
    release = threading.Event()

    def slow(*args: Any, **options: Any) -> Any:
        release.wait(20)
        return []

    monkeypatch.setattr(socket, "getaddrinfo", slow)
    with pytest.raises(TimeoutError):
        await resolve(BootstrapNode.parse("slow.invalid:1"), timeout=0.05)
    release.set()
    await asyncio.sleep(0)


async def test_dead_bootstrap_nodes_are_reported(client: MakeClient) -> None:
    """A bootstrap node that does not answer is named, with the number of queries it got."""
    silent = UdpTransport((LOOPBACK,))
    await silent.open(lambda batch: None)
    place = str(silent.local_addrs[0])
    config = CoreConfig(ipv6=False, bootstrap_retransmits=(0.05,), late_reply_window=0.2, initial_timeout=0.05)
    async with client(bootstrap=[place], config=config) as node:
        with pytest.raises(DhtUnreachableError, match=rf"queries had no reply.*{place} "):
            await node.get(bytes(range(32)))
        assert await node.bootstrap() == 0
    await silent.close()


async def test_one_dead_bootstrap_node_does_not_matter(net: Testnet, client: MakeClient) -> None:
    """All are tried at once, so a dead one costs no time."""
    silent = UdpTransport((LOOPBACK,))
    await silent.open(lambda batch: None)
    started = time.monotonic()
    async with client(bootstrap=[str(silent.local_addrs[0]), *net.bootstrap]) as node:
        await node.put_immutable(b"x")
        assert time.monotonic() - started < 2
        await node.find_node(bytes(20))
        outcomes = node.stats().bootstrap
    assert outcomes.pop(str(silent.local_addrs[0])) != "answered"
    assert set(outcomes.values()) == {"answered"}
    await silent.close()


async def test_a_node_joins_when_the_dht_comes_up_late(client: MakeClient, eventually: Eventually) -> None:
    """A bootstrap node that starts after us is found by a later try."""
    probe = UdpTransport((LOOPBACK,))
    await probe.open(lambda batch: None)
    place = probe.local_addrs[0]
    await probe.close()
    config = CoreConfig(ipv6=False, bootstrap_retransmits=(0.3, 0.6, 0.9))
    async with client(bootstrap=[str(place)], config=config) as node:
        await eventually(lambda: node.stats().sent > 0)
        async with DhtNode(UdpTransport((place,)), config=CoreConfig(ipv6=False, mode=_server())):
            assert await node.bootstrap() == 1


def _server() -> Any:
    from tom_dht_mainline import Mode

    return Mode.SERVER


async def test_saved_nodes_replace_bootstrap_nodes(
    net: Testnet, client: MakeClient, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a restart a node works through the nodes it knew, though no bootstrap node answers; its id stays."""
    bootstrap = ["localhost:" + net.bootstrap[0].rpartition(":")[2]]
    logger = logging.getLogger("test")
    async with client(bootstrap=bootstrap, store=StateStore(tmp_path, bootstrap, logger)) as node:
        await node.bootstrap()
        known, node_id = node.table_size(), node.node_id()
    assert known > 1

    def unknown(*args: Any, **options: Any) -> Any:
        raise socket.gaierror(socket.EAI_NONAME, "unknown")

    monkeypatch.setattr(bootstrap_module.socket, "getaddrinfo", unknown)
    async with client(bootstrap=bootstrap, store=StateStore(tmp_path, bootstrap, logger)) as node:
        assert node.node_id() == node_id
        key = SecretKey.generate()
        assert (await node.put_mutable(key, b"again")).acknowledged >= 6


async def test_saved_nodes_need_not_wait_for_names(
    net: Testnet, client: MakeClient, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where no name server answers, a node that was there before works at once, not when the names are given up."""
    bootstrap = ["localhost:" + net.bootstrap[0].rpartition(":")[2]]
    logger = logging.getLogger("test")
    async with client(bootstrap=bootstrap, store=StateStore(tmp_path, bootstrap, logger)) as node:
        await node.bootstrap()

    async def silent(_node: BootstrapNode) -> list[tuple[str, int]]:
        await asyncio.Event().wait()
        raise AssertionError("unreachable")

    monkeypatch.setattr(joining, "resolve", silent)
    async with client(bootstrap=bootstrap, store=StateStore(tmp_path, bootstrap, logger)) as node:
        async with asyncio.timeout(15):
            await node.put_immutable(b"at once")


async def test_a_crash_costs_little_of_the_table(
    net: Testnet, client: MakeClient, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, eventually: Eventually
) -> None:
    """The table is written while the node runs, not only when it is closed."""
    monkeypatch.setattr(node_module, "_SAVE_INTERVAL", 0.05)
    store = StateStore(tmp_path, net.bootstrap, logging.getLogger("test"))
    async with client(store=store) as node:
        await node.bootstrap()
        await eventually(lambda: (kept := store.load()) is not None and len(kept.families[Family.IPV4].nodes) > 1)


async def test_a_client_lets_those_join_to_whom_it_is_connected(net: Testnet) -> None:
    """It answers nobody else: a node that is told of nothing but this peer gets to know the DHT through it."""
    ours: Watch[tuple[SocketAddr, ...]] = Watch(())
    theirs: Watch[tuple[SocketAddr, ...]] = Watch(())
    config = CoreConfig(ipv6=False, mode=Mode.CLIENT)
    async with (
        DhtNode(UdpTransport((LOOPBACK,)), config=config, bootstrap=net.bootstrap, peers=ours) as joined,
        DhtNode(UdpTransport((LOOPBACK,)), config=config, peers=theirs) as fresh,
    ):
        await joined.bootstrap()
        ours.set((fresh.local_addrs[0],))
        await asyncio.sleep(0)
        theirs.set((joined.local_addrs[0],))
        async with asyncio.timeout(15):
            while not fresh.knows_nodes():  # noqa: ASYNC110 - nobody tells
                await asyncio.sleep(0.02)


@pytest.mark.parametrize("own_socket", [False, True], ids=["shared socket", "own socket"])
async def test_the_endpoints_peers_are_those(own_socket: bool) -> None:
    """With the endpoint's socket they answer where we are connected to them; another socket would not be let in."""
    peers: Watch[tuple[SocketAddr, ...]] = Watch(())
    ctx = attrs.evolve(plugin_context(DhtConfig(own_socket=own_socket)), direct_peers=peers)
    assert DhtService(ctx).node._peers is (None if own_socket else peers)


async def test_a_node_joins_through_peers_it_is_connected_to(eventually: Eventually) -> None:
    """Whoever knows no node joins as soon as a connection brings one, and asks again whenever another comes."""
    async with Testnet(8) as net:
        peers: Watch[tuple[SocketAddr, ...]] = Watch(())
        transport = UdpTransport((LOOPBACK,))
        async with DhtNode(transport, config=CoreConfig(ipv6=False), peers=peers) as node:
            assert not node.knows_nodes()
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
                silent.bind(("127.0.0.1", 0))
                peers.set((SocketAddr(*silent.getsockname()),))
                peers.set((SocketAddr(*silent.getsockname()), net.nodes[3].local_addrs[0]))
                await eventually(node.knows_nodes)
            assert (await node.find_node(bytes(20)))[0].node_id in {other.node_id() for other in net.nodes}


async def test_a_silence_is_told_once(
    net: Testnet,
    client: MakeClient,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    eventually: Eventually,
) -> None:
    """However often joining fails, it is said once why, again when the reason is another, and when it is over."""
    monkeypatch.setattr(joining, "FIRST_RETRY", 0.01)
    monkeypatch.setattr(joining, "LAST_RETRY", 0.01)
    tries = 0

    async def scripted(_node: BootstrapNode) -> list[tuple[str, int]]:
        nonlocal tries
        tries += 1
        if tries <= 10:
            raise OSError(1, "first reason" if tries <= 5 else "second reason")
        return [net.nodes[0].local_addrs[0]]

    monkeypatch.setattr(joining, "resolve", scripted)
    async with client(bootstrap=["name.invalid:1"]):
        await eventually(lambda: "the DHT answers now" in caplog.text)
    told = [record.getMessage() for record in caplog.records if "no DHT node answered" in record.getMessage()]
    assert len(told) == 2 and "first reason" in told[0] and "second reason" in told[1]
