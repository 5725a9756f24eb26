"""Nodes that have nothing but a DHT: libtorrent's nodes are all that there is on the internet of the lab."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
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


async def test_a_restart_needs_no_name(natlab: Lab, dht: DhtNet, tmp_path: Path) -> None:
    """With bootstrap names that nobody resolves a node joins by the table it saved, and dials a peer that it knows.

    The same node without its saved state stays alone.
    """
    home = natlab.router("home", Nat.MODERATE, wire=UPLINK)
    here, there = natlab.host("here", home), natlab.host("there", natlab.router("office", Nat.NONE, wire=UPLINK))
    seed, data_dir = os.urandom(32).hex(), str(tmp_path)
    bind = {"seed": seed, "data_dir": data_dir, "port": 4433}
    with node_on(there) as listener:
        node_id = (await listener.call("bind", bootstrap=dht.names))["node_id"]
        await listener.call("published")
        with node_on(here) as dialer:
            await dialer.call("bind", bootstrap=dht.names, **bind)
            await dialer.call("published")
            assert (await dialer.call("dial", node_id=node_id, wait=PATIENCE))["direct"] is not None
            before = (await dialer.call("dht"))["dht"]
        natlab.set_names({})
        with node_on(here) as dialer:
            await dialer.call("bind", bootstrap=dht.names, **bind)
            await dialer.call("published")
            after = (await dialer.call("dht"))["dht"]
            assert after["state"] == "joined"
            assert all(outcome.startswith("name not found") for outcome in after["bootstrap"].values()), after
            assert after["seen by others at"] == before["seen by others at"]
            found = await dialer.call("find", node_id=node_id)
            assert {source.split(":")[0] for source in found["outcomes"]} == {"known", "dht"}
            assert all(": 1 address found" in outcome for outcome in found["outcomes"]), found
            assert (await dialer.call("dial", node_id=node_id, wait=PATIENCE))["direct"] is not None
            await dialer.call("bind", bootstrap=dht.names, **bind | {"data_dir": str(tmp_path / "other")})
            met = await dialer.call("dial", node_id=node_id, wait=5.0)
            assert met["connected"] is None and "name not found" in met["why"], met


async def test_peers_lead_into_the_dht(natlab: Lab, dht: DhtNet) -> None:
    """A node whose bootstrap names are dead, but which is dialed by a node in the DHT, joins through it and publishes.

    The one that dials is behind a NAT, so that no DHT node would ask it anything.
    """
    home = natlab.router("home", Nat.MODERATE, wire=UPLINK)
    here, there = natlab.host("here", home), natlab.host("there", natlab.router("office", Nat.NONE, wire=UPLINK))
    with node_on(here) as dialer, node_on(there) as listener:
        bound = await listener.call("bind", bootstrap=["nobody.example:6881"], port=4433)
        await dialer.call("bind", bootstrap=dht.names)
        await dialer.call("published")
        assert (await listener.call("dht"))["dht"]["state"] == "not joined"
        met = await dialer.call("stay", node_id=bound["node_id"], addr=f"{there.addr}:4433")
        assert met["direct"] is not None, met
        await listener.call("published")
        assert (await listener.call("dht"))["dht"]["state"] == "joined"


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


def doctor(host: Host, home: Path, *options: str) -> dict[str, Any]:
    """What `tom-connect doctor --dht-only` says on a machine."""
    command = [sys.executable, "-m", "tom_connect", "doctor", "--json", "--dht-only", "--no-persist", *options]
    environ = os.environ | {"HOME": str(home), "TOM_CONNECT_PLUGINS": "dht"}
    said: dict[str, Any] = json.loads(host.run(command, env=environ, timeout=4 * PATIENCE).stdout)
    return said


@pytest.mark.parametrize("kind", [Nat.NONE, Nat.MODERATE], ids=lambda kind: kind.value)
def test_doctor_says_who_reaches_us_without_a_server(natlab: Lab, dht: DhtNet, tmp_path: Path, kind: Nat) -> None:
    """A stranger finds the node at the address that others see, and doctor says what its NAT means for them."""
    router = natlab.router("home", kind, wire=UPLINK)
    host = natlab.host("host", router)
    said = doctor(host, tmp_path, "--wait", "20")
    report = said["serverless"]
    assert report["sources"] == ["dht"] and report["source"] == "dht" and report["stored"] > 0, said
    outer = host.addr if kind is Nat.NONE else router.wan
    assert {addr.rpartition(":")[0] for addr in report["found"]} <= {outer}
    about = " ".join(finding["text"] for finding in said["findings"] if "no server at all" in finding["text"])
    assert "a stranger who knew nothing but our key found us" in about
    if kind is Nat.NONE:
        assert "everybody who knows our key" in about


def test_doctor_says_what_stands_in_the_way(natlab: Lab, dht: DhtNet, tmp_path: Path) -> None:
    """Where UDP is blocked nothing is published, and doctor names the bootstrap nodes that don't answer."""
    host = natlab.host("host", natlab.router("home", block_udp=True))
    said = doctor(host, tmp_path, "--wait", "4")
    (finding,) = [each for each in said["findings"] if each["text"].startswith("Without a server nobody finds")]
    assert finding["level"] == "fails" and "Allow outgoing UDP" in finding["advice"]
    assert said["serverless"]["found"] is None and said["serverless"]["told"] is False
