"""Nodes meet through a DHT where it matters where they look, and when: as contacts, and behind routers with a trap."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextlib import AbstractContextManager

import pytest

from tests.interop.conftest import running
from tests.interop.peers.process import LineProcess, python_module
from tests.netns.dht import DhtNet
from tom_connect.keys import SecretKey
from tom_connect.testing.natlab import Host, Lab, Nat, Router, Wire, missing

#: With the same at the DHT, 50 ms from home to home and from home to the DHT and back.
UPLINK = Wire(delay=0.0125)
#: Seconds for a dial on a machine that is busy with other things.
PATIENCE = 30.0
#: Seconds for a dial that is to fail.
SHORT = 5.0


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    """A lab for all of these tests."""
    if lacking := missing():
        pytest.skip(f"a network lab needs {', '.join(lacking)}")
    with Lab() as lab:
        yield lab


@pytest.fixture(scope="module")
def dht(lab: Lab) -> Iterator[DhtNet]:
    """A DHT of 50 nodes, and 5 dead ones."""
    yield from running(lambda: DhtNet.start(lab, wire=UPLINK))


def homes(lab: Lab, name: str, *rejects: bool) -> tuple[list[Router], list[Host]]:
    """Port-restricted routers, with the trap where `rejects` says so, and a machine behind each."""
    routers = [lab.router(f"{name}{n}", Nat.MODERATE, reject=reject, wire=UPLINK) for n, reject in enumerate(rejects)]
    return routers, [lab.host(f"{name}host{n}", router) for n, router in enumerate(routers)]


def node_on(host: Host) -> AbstractContextManager[LineProcess]:
    """A process on a machine that runs one endpoint with `dht_only`."""
    return contextlib.closing(LineProcess.start(host.command(python_module("tests.netns.rendezvous_process"))))


def ask_nothing(host: Host, other: Router) -> None:
    """Let a host send no message of the DHT to another home, which the lab's few nodes name; of millions none would."""
    begins_with_d = f"ip daddr {other.wan} meta l4proto udp @th,64,8 0x64 drop"
    hook = "type filter hook output priority 0; policy accept;"
    host.run(["nft", "-f", "-"], input=f"table inet few {{\nchain out {{\n{hook}\n{begins_with_d}\n}}\n}}\n")


@pytest.mark.parametrize("trap", [(True, False), (False, True), (True, True)], ids=["caller", "callee", "both"])
async def test_routers_that_remember_unasked_packets_are_no_trap(
    lab: Lab, dht: DhtNet, request: pytest.FixtureRequest, trap: tuple[bool, bool]
) -> None:
    """Such a router gives the answer to a packet that came too early another port: neither end sends any too early."""
    routers, hosts = homes(lab, request.node.callspec.id, *trap)
    for host, other in zip(hosts, reversed(routers), strict=True):
        ask_nothing(host, other)
    with node_on(hosts[0]) as dialer, node_on(hosts[1]) as listener:
        node_id = (await listener.call("bind", bootstrap=dht.names))["node_id"]
        await listener.call("invited", wait=PATIENCE)
        await dialer.call("bind", bootstrap=dht.names)
        said = await dialer.call("talk", node_id=node_id, wait=PATIENCE)
        assert said["seconds"] is not None, said
        (paths,) = (await dialer.call("paths"))["paths"]
        assert paths[0].startswith("direct ")


async def test_contacts_meet_where_nobody_else_looks(lab: Lab, dht: DhtNet) -> None:
    """Each names the other and is published for nobody else: they meet, and a third who knows the key finds nothing."""
    _, hosts = homes(lab, "contact", False, False)
    seeds = [bytes([number]) * 32 for number in (1, 2)]
    ids = [str(SecretKey(seed).node_id) for seed in seeds]
    with node_on(hosts[0]) as dialer, node_on(hosts[1]) as listener, node_on(lab.host("third")) as third:
        for node, seed, contact in ((listener, seeds[1], ids[0]), (dialer, seeds[0], ids[1])):
            told = {"contacts": (contact,), "contacts_only": True}
            await node.call("bind", bootstrap=dht.names, seed=seed.hex(), dht=told)
        await listener.call("invited", wait=PATIENCE)
        said = await dialer.call("talk", node_id=ids[1], wait=PATIENCE)
        assert said["seconds"] is not None, said
        await third.call("bind", bootstrap=dht.names)
        said = await third.call("talk", node_id=ids[1], wait=SHORT)
        assert said["seconds"] is None
