"""Nodes that have nothing but a DHT: libtorrent's nodes are all that there is on the internet of the lab."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any

import pytest

from benchmarks.dht.krpc import decode, encode
from tests.interop.conftest import running
from tests.interop.peers.process import LineProcess, python_module
from tests.netns.dht import DhtNet
from tom_connect.testing.natlab import Host, Lab, Nat, Wire
from tom_dht_mainline.core.nodeid import matches_ip

#: With the same at the DHT, 50 ms from home to home and from home to the DHT and back.
UPLINK = Wire(delay=0.0125)
#: Seconds for a dial on a machine that is busy with other things.
PATIENCE = 30.0


@pytest.fixture
def dht(natlab: Lab) -> Iterator[DhtNet]:
    """A DHT of 50 nodes, and 5 dead ones."""
    yield from running(lambda: DhtNet.start(natlab, wire=UPLINK))


def node_on(host: Host) -> AbstractContextManager[LineProcess]:
    """A process on a machine that runs one endpoint with `dht_only`."""
    return contextlib.closing(LineProcess.start(host.command(python_module("benchmarks.serverless.tom_process"))))


async def test_nodes_behind_nats_find_each_other(natlab: Lab, dht: DhtNet) -> None:
    """Two nodes behind home routers learn their outer addresses from the DHT, publish them and look each other up."""
    homes = [natlab.router(name, Nat.MODERATE, wire=UPLINK) for name in ("one", "two")]
    hosts = [natlab.host(f"host-{home.name}", home) for home in homes]
    with node_on(hosts[0]) as one, node_on(hosts[1]) as two:
        ids = [(await node.call("bind", bootstrap=dht.names))["node_id"] for node in (one, two)]
        for node in (one, two):
            assert (await node.call("published"))["stored"] > 0
        for asker, wanted, home in ((one, ids[1], homes[1]), (two, ids[0], homes[0])):
            found = await asker.call("find", node_id=wanted)
            assert [addr.rpartition(":")[0] for addr in found["addresses"]] == [home.wan], found
            assert found["source"] == "dht"


async def test_a_node_without_nat_is_dialed_by_its_key(natlab: Lab, dht: DhtNet) -> None:
    """From behind a home router to a machine with a public address, knowing its key and one name of the DHT."""
    home = natlab.router("home", Nat.MODERATE, wire=UPLINK)
    here, there = natlab.host("here", home), natlab.host("there", natlab.router("office", Nat.NONE, wire=UPLINK))
    with node_on(here) as dialer, node_on(there) as listener:
        node_id = (await listener.call("bind", bootstrap=dht.names[:1]))["node_id"]
        await listener.call("published")
        await dialer.call("bind", bootstrap=dht.names[:1])
        met = await dialer.call("dial", node_id=node_id, wait=PATIENCE)
        assert met["direct"] is not None, met
        assert met["addr"].rpartition(":")[0] == there.addr


async def test_the_dht_of_the_lab_is_what_it_says(natlab: Lab, dht: DhtNet) -> None:
    """3 of 10 nodes refuse get with error 204 and serve peers, dead ones are named and silent, ids are by BEP 42."""
    asker = natlab.host("asker")
    with asker.socket() as sock:
        sock.bind((asker.addr, 0))
        sock.settimeout(PATIENCE)
        target = os.urandom(20)
        named: set[tuple[str, int]] = set()
        for kind, refusal in ((dht.modern, False), (dht.old, True)):
            for address in kind:
                assert (b"e" in ask(sock, address, b"get", target=target)) is refusal
                reply = ask(sock, address, b"get_peers", info_hash=target)[b"r"]
                assert matches_ip(reply[b"id"], address[0])
                named |= set(compact_addresses(reply[b"nodes"]))
        assert (len(dht.modern), len(dht.old)) == (35, 15)
        prefixes = {host.split(".")[0] for host, _ in (*dht.modern, *dht.old)}
        assert len(prefixes) == 50
        assert named & set(dht.dead)
        sock.settimeout(0.3)
        for address in dht.dead:
            with pytest.raises(TimeoutError):
                ask(sock, address, b"ping")


def ask(sock: socket.socket, address: tuple[str, int], query: bytes, **arguments: bytes) -> dict[bytes, Any]:
    """Send a node a query, and return its answer."""
    body = {name.encode(): value for name, value in arguments.items()}
    message = {b"t": b"test", b"y": b"q", b"q": query, b"ro": 1, b"a": {b"id": bytes(20), **body}}
    sock.sendto(encode(message), address)
    while True:
        data, source = sock.recvfrom(2000)
        if source == address and (answer := decode(data)).get(b"y") in (b"r", b"e"):
            found: dict[bytes, Any] = answer
            return found


def compact_addresses(nodes: bytes) -> Iterator[tuple[str, int]]:
    """The addresses of a list of nodes (BEP 5)."""
    for at in range(0, len(nodes), 26):
        yield socket.inet_ntoa(nodes[at + 20 : at + 24]), int.from_bytes(nodes[at + 24 : at + 26])
