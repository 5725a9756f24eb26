"""Nodes that have nothing but a DHT: libtorrent's nodes are all that there is on the internet of the lab."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks.dht.krpc import decode, encode
from benchmarks.nat.settings import PAIRS, RELAYED, homes
from benchmarks.serverless import pairs
from tests.interop.conftest import running
from tests.netns.dht import DhtNet
from tests.netns.town import UPLINK, Town, child_on
from tom_connect.testing.natlab import Host, Lab, Nat
from tom_dht_mainline.core.nodeid import matches_ip

NODE = "benchmarks.serverless.tom_process"
#: Seconds for a dial on a machine that is busy with other things.
PATIENCE = 30.0
#: The same where ports are tried, or a relay is found first.
MORE_PATIENCE = 60.0
#: Seconds after which a pair that must be relayed is believed to stay so.
RELAYED_FOR = 3.0
VOLUNTEERS = 2


@pytest.fixture(scope="module")
def couple(town: Town) -> Iterator[pairs.Couple]:
    """Two machines that move from home to home, with a node process in each."""
    with pairs.couple(town.lab, town.dht) as made:
        yield made


def name(cell: tuple[Nat, Nat]) -> str:
    """A pair as test ids and routers have it."""
    return "-".join(kind.value for kind in cell)


@pytest.mark.timeout(240)
@pytest.mark.parametrize("cell", [cell for cell in PAIRS if cell not in RELAYED], ids=name)
async def test_a_pair_gets_a_direct_path(couple: pairs.Couple, cell: tuple[Nat, Nat]) -> None:
    """With fresh keys on both sides, who knows the other's key and the DHT's names alone talks to it directly."""
    couple.settle(homes(couple.lab, name(cell), *cell, wire=UPLINK))
    met = await couple.meet(MORE_PATIENCE)
    assert met.direct is not None, met


@pytest.mark.timeout(300)
@pytest.mark.parametrize("cell", RELAYED, ids=name)
async def test_a_pair_without_a_direct_path_meets_through_a_volunteer(
    couple: pairs.Couple, cell: tuple[Nat, Nat]
) -> None:
    """Where both NATs shift ports (RELAYED says why) the DHT leads both to a node that is a relay for others."""
    couple.settle(homes(couple.lab, name(cell), *cell, wire=UPLINK))
    async with pairs.volunteers([couple], VOLUNTEERS):
        met = await couple.meet(MORE_PATIENCE, relayed_for=RELAYED_FOR)
    assert met.connected is not None and met.direct is None, met


async def test_nodes_behind_nats_find_each_other(town: Town) -> None:
    """Two nodes behind home routers learn their outer addresses from the DHT, publish them and look each other up."""
    routers, hosts = town.homes(Nat.MODERATE, Nat.MODERATE)
    with child_on(hosts[0], NODE) as one, child_on(hosts[1], NODE) as two:
        ids = [(await node.call("bind", bootstrap=town.dht.names))["node_id"] for node in (one, two)]
        for node in (one, two):
            assert (await node.call("published"))["stored"] > 0
        for asker, wanted, home in ((one, ids[1], routers[1]), (two, ids[0], routers[0])):
            found = await asker.call("find", node_id=wanted)
            assert [addr.rpartition(":")[0] for addr in found["addresses"]] == [home.wan], found
            assert found["source"] == "dht"


@pytest.fixture
def names(town: Town) -> Iterator[None]:
    """The names of the DHT, which come back for the next test."""
    yield
    town.dht.set_names(town.lab)


async def test_a_restart_needs_no_name(town: Town, names: None, tmp_path: Path) -> None:
    """With bootstrap names that nobody resolves a node joins by the table it saved, and dials a peer that it knows.

    The same node without its saved state stays alone.
    """
    _, (here, there) = town.homes(Nat.MODERATE, Nat.NONE)
    seed, data_dir = os.urandom(32).hex(), str(tmp_path)
    bind = {"seed": seed, "data_dir": data_dir, "port": 4433}
    with child_on(there, NODE) as listener:
        node_id = (await listener.call("bind", bootstrap=town.dht.names))["node_id"]
        await listener.call("published")
        with child_on(here, NODE) as dialer:
            await dialer.call("bind", bootstrap=town.dht.names, **bind)
            await dialer.call("published")
            assert (await dialer.call("dial", node_id=node_id, wait=PATIENCE))["direct"] is not None
            before = (await dialer.call("dht"))["dht"]
        town.lab.set_names({})
        with child_on(here, NODE) as dialer:
            await dialer.call("bind", bootstrap=town.dht.names, **bind)
            await dialer.call("published")
            after = (await dialer.call("dht"))["dht"]
            assert after["state"] == "joined"
            assert all(outcome.startswith("name not found") for outcome in after["bootstrap"].values()), after
            assert after["seen by others at"] == before["seen by others at"]
            found = await dialer.call("find", node_id=node_id)
            assert {source.split(":")[0] for source in found["outcomes"]} == {"known", "dht"}
            assert all(": 1 address found" in outcome for outcome in found["outcomes"]), found
            assert (await dialer.call("dial", node_id=node_id, wait=PATIENCE))["direct"] is not None
            await dialer.call("bind", bootstrap=town.dht.names, **bind | {"data_dir": str(tmp_path / "other")})
            met = await dialer.call("dial", node_id=node_id, wait=5.0)
            assert met["connected"] is None and "name not found" in met["why"], met


async def test_peers_lead_into_the_dht(town: Town) -> None:
    """A node whose bootstrap names are dead, but which is dialed by a node in the DHT, joins through it and publishes.

    The one that dials is behind a NAT, so that no DHT node would ask it anything.
    """
    _, (here, there) = town.homes(Nat.MODERATE, Nat.NONE)
    with child_on(here, NODE) as dialer, child_on(there, NODE) as listener:
        bound = await listener.call("bind", bootstrap=["nobody.example:6881"], port=4433)
        await dialer.call("bind", bootstrap=town.dht.names)
        await dialer.call("published")
        assert (await listener.call("dht"))["dht"]["state"] == "not joined"
        met = await dialer.call("stay", node_id=bound["node_id"], addr=f"{there.addr}:4433")
        assert met["direct"] is not None, met
        await listener.call("published")
        assert (await listener.call("dht"))["dht"]["state"] == "joined"


@pytest.fixture
def dht(natlab: Lab) -> Iterator[DhtNet]:
    """A DHT that nobody has used yet: the dead are forgotten with time."""
    yield from running(lambda: DhtNet.start(natlab, wire=UPLINK))


async def test_the_dht_of_the_lab_is_what_it_says(natlab: Lab, dht: DhtNet) -> None:
    """3 of 10 nodes refuse get with error 204 and serve peers, dead ones are named and silent, ids are by BEP 42."""
    asker = natlab.host("asker")
    with asker.socket() as sock:
        sock.bind((asker.addr, 0))
        sock.settimeout(2.0)
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
                ask(sock, address, b"ping", times=1)


def ask(
    sock: socket.socket, address: tuple[str, int], query: bytes, *, times: int = 5, **arguments: bytes
) -> dict[bytes, Any]:
    """Send a node a query, again where it or the answer was lost, and return its answer; raises TimeoutError."""
    body = {name.encode(): value for name, value in arguments.items()}
    number = os.urandom(4)
    message = {b"t": number, b"y": b"q", b"q": query, b"ro": 1, b"a": {b"id": bytes(20), **body}}
    for _ in range(times):
        sock.sendto(encode(message), address)
        with contextlib.suppress(TimeoutError):
            while True:
                data, source = sock.recvfrom(2000)
                if source == address and (answer := decode(data)).get(b"t") == number and answer[b"y"] != b"q":
                    found: dict[bytes, Any] = answer
                    return found
    raise TimeoutError(f"no answer of {address}")


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
def test_doctor_says_who_reaches_us_without_a_server(town: Town, tmp_path: Path, kind: Nat) -> None:
    """A stranger finds the node at the address that others see, and doctor says what its NAT means for them."""
    (router,), (host,) = town.homes(kind)
    said = doctor(host, tmp_path, "--wait", "20")
    report = said["serverless"]
    assert report["sources"] == ["dht"] and report["source"] == "dht" and report["stored"] > 0, said
    outer = host.addr if kind is Nat.NONE else router.wan
    assert {addr.rpartition(":")[0] for addr in report["found"]} <= {outer}
    about = " ".join(finding["text"] for finding in said["findings"] if "no server at all" in finding["text"])
    assert "a stranger who knew nothing but our key found us" in about
    if kind is Nat.NONE:
        assert "everybody who knows our key" in about


def test_doctor_knows_that_a_strict_nat_has_no_address_to_publish(town: Town, tmp_path: Path) -> None:
    """Behind a NAT that maps by destination no record is found, and doctor says who can call the node all the same."""
    _, (host,) = town.homes(Nat.STRICT)
    said = doctor(host, tmp_path, "--wait", "20")
    about = [
        finding
        for finding in said["findings"]
        if "server" in finding["text"] and "relay is conf" not in finding["text"]
    ]
    assert said["nat"]["ipv4"] == "endpoint-dependent", said
    assert any("if they have no NAT or an easy one" in finding["text"] for finding in about), about
    assert said["serverless"]["found"] is None and said["serverless"]["called"].startswith("invited")


def test_doctor_says_what_stands_in_the_way(town: Town, tmp_path: Path) -> None:
    """Where UDP is blocked nothing is published, and doctor names the bootstrap nodes that don't answer."""
    host = town.host(town.router(block_udp=True))
    said = doctor(host, tmp_path, "--wait", "4")
    (finding,) = [each for each in said["findings"] if each["text"].startswith("Without a server nobody finds")]
    assert finding["level"] == "fails" and "Allow outgoing UDP" in finding["advice"]
    assert said["serverless"]["found"] is None and said["serverless"]["told"] is False
