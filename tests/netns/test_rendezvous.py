"""Two nodes behind NATs meet through a DHT of libtorrent's nodes: no relay, no STUN, nothing else on the internet."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextlib import AbstractContextManager

import pytest

from tests.interop.conftest import running
from tests.interop.peers.process import LineProcess, python_module
from tests.netns.dht import DhtNet
from tom_connect.testing.natlab import Host, Lab, Nat, Router, Wire

#: With the same at the DHT, 50 ms from home to home and from home to the DHT and back.
UPLINK = Wire(delay=0.0125)
#: Seconds for a dial on a machine that is busy with other things.
PATIENCE = 30.0
#: Seconds within which a connection comes back after its NAT has forgotten it, as is promised.
BACK_WITHIN = 15.0
PLAIN = [
    (Nat.MODERATE, Nat.MODERATE),
    (Nat.OPEN, Nat.MODERATE),
    (Nat.NONE, Nat.MODERATE),
    (Nat.STRICT, Nat.OPEN),
    (Nat.NONE, Nat.STRICT),
    (Nat.OPEN, Nat.STRICT),
]


@pytest.fixture
def dht(natlab: Lab) -> Iterator[DhtNet]:
    """A DHT of 50 nodes, and 5 dead ones."""
    yield from running(lambda: DhtNet.start(natlab, wire=UPLINK))


def node_on(host: Host) -> AbstractContextManager[LineProcess]:
    """A process on a machine that runs one endpoint with `dht_only`."""
    return contextlib.closing(LineProcess.start(host.command(python_module("tests.netns.rendezvous_process"))))


def homes(lab: Lab, *kinds: Nat) -> list[Router]:
    """A router of each kind."""
    return [lab.router(f"home{n}", kind, wire=UPLINK) for n, kind in enumerate(kinds)]


async def listening(node: LineProcess, dht: DhtNet) -> str:
    """Bind a node that can be called; its id."""
    node_id: str = (await node.call("bind", bootstrap=dht.names))["node_id"]
    await node.call("invited", wait=PATIENCE)
    return node_id


@pytest.mark.parametrize("kinds", PLAIN, ids=lambda kinds: f"{kinds[0].value}-{kinds[1].value}")
async def test_a_pair_meets(natlab: Lab, dht: DhtNet, kinds: tuple[Nat, Nat]) -> None:
    """The dialer knows the other's key and one name of the DHT, and they talk directly."""
    routers = homes(natlab, *kinds)
    hosts = [natlab.host(f"host{n}", router) for n, router in enumerate(routers)]
    with node_on(hosts[0]) as dialer, node_on(hosts[1]) as listener:
        node_id = await listening(listener, dht)
        await dialer.call("bind", bootstrap=dht.names)
        said = await dialer.call("talk", node_id=node_id, wait=PATIENCE)
        assert said["seconds"] is not None, said
        (paths,) = (await dialer.call("paths"))["paths"]
        assert paths[0].startswith("direct ")


@pytest.mark.parametrize(
    "kinds", [(Nat.MODERATE, Nat.STRICT), (Nat.STRICT, Nat.MODERATE)], ids=["callee-shifts", "caller-shifts"]
)
async def test_a_pair_that_needs_port_probing_meets(natlab: Lab, dht: DhtNet, kinds: tuple[Nat, Nat]) -> None:
    """One NAT gives each destination another port: a sealed call tells both ends to probe, and they talk directly."""
    routers = homes(natlab, *kinds)
    hosts = [natlab.host(f"host{n}", router) for n, router in enumerate(routers)]
    with node_on(hosts[0]) as dialer, node_on(hosts[1]) as listener:
        node_id = await listening(listener, dht)
        await dialer.call("bind", bootstrap=dht.names)
        await dialer.call("invited", wait=PATIENCE)
        said = await dialer.call("talk", node_id=node_id, wait=2 * PATIENCE)
        assert said["seconds"] is not None, said
        assert (await listener.call("counters"))["rendezvous: calls answered"] > 0


async def test_a_node_that_is_called_again_comes_again(natlab: Lab, dht: DhtNet) -> None:
    """A second call from the same address, which already stands in the mailbox, is noticed all the same."""
    routers = homes(natlab, Nat.MODERATE, Nat.MODERATE)
    hosts = [natlab.host(f"host{n}", router) for n, router in enumerate(routers)]
    with node_on(hosts[0]) as dialer, node_on(hosts[1]) as listener:
        node_id = await listening(listener, dht)
        await dialer.call("bind", bootstrap=dht.names)
        for _ in range(2):
            said = await dialer.call("talk", node_id=node_id, wait=PATIENCE)
            assert said["seconds"] is not None, said
            await dialer.call("hang_up")
            # What the routers remember of the first call must not help the second.
            for router in routers:
                router.rebind(keep_ports=True)


async def test_a_connection_whose_nat_forgets_comes_back(natlab: Lab, dht: DhtNet) -> None:
    """One NAT forgets its mappings and gives new ports: neither end hears the other, one calls, and they talk on."""
    routers = homes(natlab, Nat.MODERATE, Nat.MODERATE)
    hosts = [natlab.host(f"host{n}", router) for n, router in enumerate(routers)]
    with node_on(hosts[0]) as dialer, node_on(hosts[1]) as listener:
        node_id = await listening(listener, dht)
        await dialer.call("bind", bootstrap=dht.names)
        assert (await dialer.call("talk", node_id=node_id, wait=PATIENCE))["seconds"] is not None
        routers[0].rebind()
        said = await dialer.call("say", wait=PATIENCE)
        assert said["seconds"] is not None and said["seconds"] < BACK_WITHIN, said
