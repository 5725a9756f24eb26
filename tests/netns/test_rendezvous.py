"""Nodes behind NATs that met through a DHT of libtorrent's nodes meet again, and come back."""

from __future__ import annotations

from tests.interop.peers.process import LineProcess
from tests.netns.town import Town, child_on
from tom_connect.testing.natlab import Nat

TALKER = "tests.netns.rendezvous_process"
#: Seconds for a dial on a machine that is busy with other things.
PATIENCE = 30.0
#: Seconds within which a connection comes back after its NAT has forgotten it, as is promised.
BACK_WITHIN = 15.0


async def listening(node: LineProcess, town: Town) -> str:
    """Bind a node that can be called; its id."""
    node_id: str = (await node.call("bind", bootstrap=town.dht.names))["node_id"]
    await node.call("invited", wait=PATIENCE)
    return node_id


async def test_a_node_that_is_called_again_comes_again(town: Town) -> None:
    """A second call from the same address, which already stands in the mailbox, is noticed all the same."""
    routers, hosts = town.homes(Nat.MODERATE, Nat.MODERATE)
    with child_on(hosts[0], TALKER) as dialer, child_on(hosts[1], TALKER) as listener:
        node_id = await listening(listener, town)
        await dialer.call("bind", bootstrap=town.dht.names)
        for _ in range(2):
            said = await dialer.call("talk", node_id=node_id, wait=PATIENCE)
            assert said["seconds"] is not None, said
            await dialer.call("hang_up")
            # What the routers remember of the first call must not help the second.
            for router in routers:
                router.rebind(keep_ports=True)


async def test_a_connection_whose_nat_forgets_comes_back(town: Town) -> None:
    """One NAT forgets its mappings and gives new ports: neither end hears the other, one calls, and they talk on."""
    routers, hosts = town.homes(Nat.MODERATE, Nat.MODERATE)
    with child_on(hosts[0], TALKER) as dialer, child_on(hosts[1], TALKER) as listener:
        node_id = await listening(listener, town)
        await dialer.call("bind", bootstrap=town.dht.names)
        assert (await dialer.call("talk", node_id=node_id, wait=PATIENCE))["seconds"] is not None
        routers[0].rebind()
        said = await dialer.call("say", wait=PATIENCE)
        assert said["seconds"] is not None and said["seconds"] < BACK_WITHIN, said
