"""Real iroh nodes meet through our relay, and don't know that it isn't iroh's."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from tests.interop.peers import IrohPeer, PeerError, PeerMissing
from tom_connect.keys import NodeId
from tom_relay.server import DenyList, OpenAccess, RelayServer, RelayServerConfig

CONFIG = RelayServerConfig.dev(listen=("127.0.0.1:0",))
RELAY_IN_LAB = "http://10.77.0.1:3340"


@contextlib.contextmanager
def iroh_peer(relay: str, **options: Any) -> Iterator[IrohPeer]:
    """Run an iroh node whose only relay is ours."""
    try:
        peer = IrohPeer.start(relays=(relay,), **options)
    except PeerMissing as missing:
        pytest.skip(str(missing))
    with peer:
        yield peer


async def two(relay: str, stack: contextlib.ExitStack, **namespaces: str) -> tuple[IrohPeer, IrohPeer]:
    """Two iroh nodes that are online at the relay; in namespaces `a` and `b` if these are named."""

    async def one(name: str) -> IrohPeer:
        options = {"namespace": namespaces[name], "bind": "0.0.0.0:0"} if namespaces else {}
        peer = await asyncio.to_thread(lambda: stack.enter_context(iroh_peer(relay, **options)))
        await peer.online()
        return peer

    async with asyncio.TaskGroup() as group:
        a, b = group.create_task(one("a")), group.create_task(one("b"))
    return a.result(), b.result()


async def connected(relay: RelayServer, *peers: IrohPeer, within: float) -> None:
    """Wait until peers are connected to a relay; of that it tells nobody."""
    async with asyncio.timeout(within):
        while not all(relay.hub.is_connected(NodeId(peer.node_id)) for peer in peers):  # noqa: ASYNC110
            await asyncio.sleep(0.05)


@contextlib.contextmanager
def lab() -> Iterator[dict[str, str]]:
    """Three network namespaces: `a` and `b` each reach `relay`, which forwards nothing; there is no other way."""
    if sys.platform != "linux" or shutil.which("ip") is None or os.geteuid() != 0:
        pytest.skip("needs Linux, root and the command ip, for network namespaces")
    names = {name: f"tom{os.getpid()}{name}" for name in ("relay", "a", "b")}

    def ip(*arguments: str) -> None:
        subprocess.run(["ip", *arguments], check=True, capture_output=True, timeout=10)

    try:
        try:
            for namespace in names.values():
                ip("netns", "add", namespace)
        except subprocess.CalledProcessError as error:
            pytest.skip(f"needs network namespaces: {error.stderr.decode().strip()}")
        for namespace in names.values():
            ip("-n", namespace, "link", "set", "lo", "up")
            setting = "echo 0 > /proc/sys/net/ipv4/ip_forward; echo 1 > /proc/sys/net/ipv6/conf/all/disable_ipv6"
            ip("netns", "exec", namespace, "sh", "-c", setting)
        ip("-n", names["relay"], "addr", "add", "10.77.0.1/32", "dev", "lo")
        for number, name in enumerate("ab", 1):
            ip("-n", names["relay"], "link", "add", f"to-{name}", "type", "veth", "peer", "name", "eth0")
            ip("-n", names["relay"], "link", "set", "eth0", "netns", names[name])
            ip("-n", names["relay"], "addr", "add", f"10.77.{number}.1/24", "dev", f"to-{name}")
            ip("-n", names["relay"], "link", "set", f"to-{name}", "up")
            ip("-n", names[name], "addr", "add", f"10.77.{number}.2/24", "dev", "eth0")
            ip("-n", names[name], "link", "set", "eth0", "up")
            ip("-n", names[name], "route", "add", "default", "via", f"10.77.{number}.1")
        yield names
    finally:
        for namespace in names.values():
            subprocess.run(["ip", "netns", "del", namespace], check=False, capture_output=True, timeout=10)


@contextlib.contextmanager
def relay_in(namespace: str) -> Iterator[None]:
    """Run `tom-connect relay` in a namespace."""
    command = [sys.executable, "-m", "tom_connect", "relay", "--dev", "--json", "--listen", "10.77.0.1:3340"]
    inside = ["ip", "netns", "exec", namespace, *command]
    with subprocess.Popen(inside, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert json.loads(process.stdout.readline())["event"] == "serving"
            yield
        finally:
            process.terminate()
            assert process.wait(10) == 130


def metric(namespace: str, name: str) -> float:
    """The sum of one of the relay's metrics."""
    program = f"import urllib.request as u; print(u.urlopen('{RELAY_IN_LAB}/metrics').read().decode())"
    command = ["ip", "netns", "exec", namespace, sys.executable, "-c", program]
    text = subprocess.run(command, check=True, capture_output=True, text=True, timeout=20).stdout
    return sum(float(value) for value in re.findall(rf"^tom_relay_{name}(?:{{.*}})? (\S+)$", text, re.MULTILINE))


async def test_two_iroh_nodes_with_no_other_way_talk_through_our_relay() -> None:
    """Streams small and large, a unidirectional stream and datagrams come through; the relay is the only path."""
    with lab() as names, relay_in(names["relay"]), contextlib.ExitStack() as stack:
        a, b = await two(RELAY_IN_LAB, stack, a=names["a"], b=names["b"])
        for here, there in ((a, b), (b, a)):
            dialed = await here.dial(there.node_id, [], relay=RELAY_IN_LAB)
            assert dialed.remote == there.node_id
            for data in (b"hello", os.urandom(2 << 20)):
                assert await here.stream(dialed, data) == data
            data = os.urandom(100_000)
            assert await here.uni(dialed, data) == hashlib.sha256(data).digest()
            assert await here.datagram(dialed, b"x" * 1000) == b"x" * 1000
            paths = await here.paths(dialed)
            assert [path["relay"] for path in paths if path["used"]] == [True], paths
        assert metric(names["relay"], "authenticated_total") == 2
        assert metric(names["relay"], "relayed_bytes_total") > 8 << 20
        assert metric(names["relay"], "dropped_packets_total") == 0
        assert metric(names["relay"], "violations_total") == 0


async def test_iroh_nodes_find_each_other_by_relay_alone() -> None:
    """On one machine, dialed with no address but the relay's: all that is said comes through."""
    async with RelayServer(CONFIG) as relay:
        with contextlib.ExitStack() as stack:
            a, b = await two(relay.url, stack)
            assert relay.sessions.counters.authenticated["iroh-relay-v2"] == 2
            dialed = await a.dial(b.node_id, [], relay=relay.url)
            data = os.urandom(1 << 20)
            assert await a.stream(dialed, data) == data
            assert relay.hub.counters.relayed.packets > 5
            assert not relay.sessions.counters.violations


async def test_iroh_nodes_come_back_to_a_relay_that_restarts() -> None:
    """A graceful restart on the same port: both nodes return and dial each other again."""
    async with RelayServer(CONFIG) as relay:
        with contextlib.ExitStack() as stack:
            a, b = await two(relay.url, stack)
            port = relay.addrs[0].port
            await relay.stop()
            async with RelayServer(RelayServerConfig.dev(listen=(f"127.0.0.1:{port}",))) as again:
                await connected(again, a, b, within=60)
                dialed = await a.dial(b.node_id, [], relay=again.url)
                assert await a.stream(dialed, b"back") == b"back"


async def test_a_denied_iroh_node_is_let_in_once_it_may() -> None:
    """An iroh node that the relay refuses can't be reached through it; when the policy changes it can."""
    async with RelayServer(CONFIG) as relay:
        with contextlib.ExitStack() as stack:
            a, b = await two(relay.url, stack)
            await relay.set_access(DenyList([NodeId(b.node_id)]))
            with pytest.raises(PeerError):
                await a.dial(b.node_id, [], relay=relay.url, timeout=3)
            async with asyncio.timeout(60):
                while not relay.sessions.counters.denied["access"]:  # noqa: ASYNC110 - of that it tells nobody
                    await asyncio.sleep(0.05)
            await relay.set_access(OpenAccess())
            await connected(relay, b, within=60)
            dialed = await a.dial(b.node_id, [], relay=relay.url)
            assert await a.stream(dialed, b"let in") == b"let in"
