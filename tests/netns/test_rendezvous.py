"""Nodes behind NATs that meet through a DHT of libtorrent's nodes: in traps, in secret, by another's caller, again."""

from __future__ import annotations

import asyncio
import functools
import os
import subprocess

import pytest

from tests.interop.peers.process import REPOSITORY, LineProcess, python_module
from tests.netns.town import Town, child_on
from tom_connect.keys import SecretKey
from tom_connect.testing.natlab import Host, Nat, Router

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


def ask_nothing(host: Host, other: Router) -> None:
    """Let a host send no message of the DHT to another home, which the lab's few nodes name; of millions none would."""
    begins_with_d = f"ip daddr {other.wan} meta l4proto udp @th,64,8 0x64 drop"
    hook = "type filter hook output priority 0; policy accept;"
    host.run(["nft", "-f", "-"], input=f"table inet few {{\nchain out {{\n{hook}\n{begins_with_d}\n}}\n}}\n")


@pytest.mark.parametrize("trap", [(True, False), (False, True), (True, True)], ids=["caller", "callee", "both"])
async def test_routers_that_remember_unasked_packets_are_no_trap(town: Town, trap: tuple[bool, bool]) -> None:
    """A router that takes a packet which comes too early for its own gives the answer another port: none comes so."""
    assert await met_behind_traps(town, trap) or await met_behind_traps(town, trap), "twice in vain"


async def met_behind_traps(town: Town, trap: tuple[bool, bool]) -> bool:
    """Whether a pair becomes direct: one in many does not on a busy machine, where a packet may wait too long."""
    routers = [town.router(Nat.MODERATE, reject=reject) for reject in trap]
    hosts = [town.host(router) for router in routers]
    for host, other in zip(hosts, reversed(routers), strict=True):
        ask_nothing(host, other)
    with child_on(hosts[0], TALKER) as dialer, child_on(hosts[1], TALKER) as listener:
        node_id = await listening(listener, town)
        await dialer.call("bind", bootstrap=town.dht.names)
        if (await dialer.call("talk", node_id=node_id, wait=PATIENCE))["seconds"] is None:
            return False
        (paths,) = (await dialer.call("paths"))["paths"]
        return bool(paths[0].startswith("direct "))


async def test_contacts_meet_where_nobody_else_looks(town: Town) -> None:
    """Each names the other and is published for nobody else: they meet, and a third who knows the key finds nothing."""
    _, hosts = town.homes(Nat.MODERATE, Nat.MODERATE)
    seeds = [SecretKey.generate().seed() for _ in hosts]
    ids = [str(SecretKey(seed).node_id) for seed in seeds]
    with child_on(hosts[0], TALKER) as dialer, child_on(hosts[1], TALKER) as listener:
        for node, seed, contact in ((listener, seeds[1], ids[0]), (dialer, seeds[0], ids[1])):
            told = {"contacts": (contact,), "contacts_only": True}
            await node.call("bind", bootstrap=town.dht.names, seed=seed.hex(), dht=told)
        await listener.call("invited", wait=PATIENCE)
        said = await dialer.call("talk", node_id=ids[1], wait=PATIENCE)
        assert said["seconds"] is not None, said
        with child_on(town.host(), TALKER) as third:
            await third.call("bind", bootstrap=town.dht.names)
            said = await third.call("talk", node_id=ids[1], wait=3.0)
            assert said["seconds"] is None


@pytest.mark.parametrize(
    "kinds",
    [(Nat.MODERATE, Nat.MODERATE), (Nat.MODERATE, Nat.STRICT), (Nat.STRICT, Nat.MODERATE)],
    ids=["ports-stay", "callee-shifts", "caller-shifts"],
)
async def test_a_caller_written_from_the_page_meets_a_node(town: Town, kinds: tuple[Nat, Nat]) -> None:
    """It shares no code with us, and does its part of what the page asks of an end: opening, calling, probing ports."""
    _, hosts = town.homes(*kinds)
    with child_on(hosts[1], TALKER) as listener:
        node_id = await listening(listener, town)
        command = python_module("tests.interop.rendezvous_caller", node_id, "--patience", str(2 * PATIENCE))
        for addr in town.dht.bootstrap:
            command += ["--bootstrap", addr]
        environ = os.environ | {"PYTHONPATH": str(REPOSITORY)}
        run = functools.partial(hosts[0].run, command, timeout=3 * PATIENCE, check=False, env=environ)
        said = await asyncio.to_thread(run)
        assert said.stdout.startswith("pong from "), said
        counters = await listener.call("counters")
        assert counters["rendezvous: knocks"] > 0
        assert (counters.get("rendezvous: calls answered", 0) > 0) == (Nat.STRICT in kinds)


@pytest.mark.parametrize(
    "kinds",
    [(Nat.MODERATE, Nat.MODERATE), (Nat.MODERATE, Nat.STRICT), (Nat.STRICT, Nat.MODERATE)],
    ids=["ports-stay", "callee-shifts", "caller-shifts"],
)
async def test_a_node_meets_a_callee_written_from_the_page(town: Town, kinds: tuple[Nat, Nat]) -> None:
    """It knows of us by the mailbox alone: it knocks, opens sealed calls, probes ports, and our QUIC gets there."""
    _, hosts = town.homes(*kinds)
    command = python_module("tests.interop.rendezvous_callee", "--patience", str(2 * PATIENCE))
    for addr in town.dht.bootstrap:
        command += ["--bootstrap", addr]
    environ = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    pipe = subprocess.PIPE
    with hosts[1].popen(command, env=environ, stdout=pipe, stderr=pipe, text=True) as callee:
        try:
            with child_on(hosts[0], TALKER) as dialer:
                bound = await dialer.call("bind", bootstrap=town.dht.names)
                node_id = (await asyncio.to_thread(callee.stdout.readline)).removeprefix("invited ").strip()
                dial = asyncio.ensure_future(dialer.call("talk", node_id=node_id, wait=2 * PATIENCE))
                said, happened = await asyncio.to_thread(callee.communicate)
                dial.cancel()
        finally:
            callee.kill()
    assert said.startswith(f"met {bound['node_id']} at "), (said, happened)
    assert "call from" in happened, happened
    assert ("sealed call of" in happened) == (Nat.STRICT in kinds), happened


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
