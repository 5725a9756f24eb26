"""A node behind a strict NAT whose router runs miniupnpd: mapped, reached, renewed, released."""

from __future__ import annotations

from pathlib import Path

import pytest

from tom_connect.testing.natlab import Lab, Nat

from .conftest import Start, dial
from .gateway import Gateway, until

pytestmark = [pytest.mark.netns, pytest.mark.interop, pytest.mark.slow, pytest.mark.timeout(400)]
PROTOCOLS = ["pcp", "nat-pmp", "upnp"]


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_a_public_node_dials_the_mapped_address(lab: Lab, tmp_path: Path, inside: Start, protocol: str) -> None:
    """By each protocol alone: the mapped address is told, a node outside reaches it directly, and closing unmaps it."""
    router = lab.router("home", Nat.STRICT)
    gateway = Gateway(router, tmp_path)
    gateway.start()
    node = await inside(lab.host("inside", router), protocols=[protocol])
    addr = await node.mapped()
    assert addr == f"{gateway.public}:{node.port}"
    said = await node.until(lambda said: addr in said["told"])
    assert said["diagnostics"]["mapping"]["protocol"] == protocol
    assert len(gateway.mapped()) == 1

    reached = await dial(lab.host("outside"), said["node_id"], addr)
    assert reached == {"echo": "through the router", "path": [addr]}

    assert await node.close() < 5
    await until(lambda: not gateway.mapped(), "the mapping is gone")


async def test_the_firewall_of_ipv6_is_opened(lab: Lab, tmp_path: Path, inside: Start) -> None:
    """Our own IPv6 address, behind a firewall, is reached from outside once PCP has opened it, and not before."""
    router = lab.router("home", Nat.STRICT, ipv6="firewall")
    gateway = Gateway(router, tmp_path)
    host, outside = lab.host("inside", router), lab.host("outside")
    node = await inside(host, protocols=["pcp"])
    told = (await node.until(lambda said: said.get("told")))["told"]
    (addr,) = [addr for addr in told if addr.startswith(f"[{host.addr6}]")]
    assert await dial(outside, node.said["node_id"], addr, seconds=2) == {"error": "DialError"}

    gateway.start()
    await until(lambda: "Listening for NAT-PMP/PCP" in gateway.log.read_text(), "the gateway can be asked")
    node.tell("changed")
    await node.until(lambda said: addr in said.get("mapped", ()))
    assert len(gateway.pinholes()) == 1
    reached = await dial(outside, node.said["node_id"], addr)
    assert reached == {"echo": "through the router", "path": [addr]}

    await node.close()
    await until(lambda: not gateway.pinholes(), "the pinhole is gone")


async def test_without_a_mapping_the_node_is_not_reached(lab: Lab, tmp_path: Path, inside: Start) -> None:
    """The control: with the gateway's services off, nothing is told, why is said, and the same dial fails."""
    router = lab.router("home", Nat.STRICT)
    gateway = Gateway(router, tmp_path, enable_natpmp="no", enable_upnp="no")
    gateway.start()
    node = await inside(lab.host("inside", router))
    said = await node.until(lambda said: "problem" in said.get("diagnostics", {}).get("mapping", {}))
    assert said["told"] == said["mapped"] == []
    problem = said["diagnostics"]["mapping"]["problem"]
    assert all(f"192.168.1.1 by {protocol}: " in problem for protocol in PROTOCOLS), problem
    reached = await dial(lab.host("outside"), said["node_id"], f"{gateway.public}:{node.port}", seconds=2)
    assert reached == {"error": "DialError"}


async def test_a_mapping_is_prolonged_and_ends_by_itself(lab: Lab, tmp_path: Path, inside: Start) -> None:
    """A gateway that grants few seconds is asked again and again; without its node, a mapping is gone soon."""
    router = lab.router("home", Nat.STRICT)
    gateway = Gateway(router, tmp_path, max_lifetime="6")
    gateway.start()
    node = await inside(lab.host("inside", router), protocols=["pcp"])
    addr = await node.mapped()
    await until(lambda: gateway.log.read_text().count("PCP MAP: added mapping") >= 4, "it was renewed three times")
    assert len(gateway.mapped()) == 1
    assert node.said["mapped"] == [addr]

    node.process.kill()
    await node.process.wait()
    await until(lambda: not gateway.mapped(), "the mapping has ended")


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_a_gateway_that_restarts_is_asked_again(lab: Lab, tmp_path: Path, inside: Start, protocol: str) -> None:
    """It has lost every mapping; it says to everyone that it is there, and by each protocol ours comes back."""
    router = lab.router("home", Nat.STRICT)
    gateway = Gateway(router, tmp_path)
    gateway.start()
    node = await inside(lab.host("inside", router), protocols=[protocol])
    addr = await node.mapped()
    # Epochs count whole seconds: one that is to be seen to have gone back must have gone on before.
    await until(lambda: gateway.age() > 4, "the gateway has run for some seconds")
    gateway.stop()
    assert not gateway.mapped()
    gateway.start()
    await until(gateway.mapped, "the mapping is there again")
    said = await node.until(lambda said: said.get("mapped") == [addr])
    reached = await dial(lab.host("outside"), said["node_id"], addr)
    assert reached == {"echo": "through the router", "path": [addr]}


async def test_another_network_has_another_mapping(lab: Lab, tmp_path: Path, inside: Start) -> None:
    """A host that moves to another router is mapped there without being told to, and not offered where it was."""
    home, office = lab.router("home", Nat.STRICT), lab.router("office", Nat.STRICT)
    gateways = [Gateway(home, tmp_path), Gateway(office, tmp_path, public="11.0.0.2")]
    for gateway in gateways:
        gateway.start()
    host = lab.host("inside", home)
    node = await inside(host)
    assert await node.mapped() == f"11.0.0.1:{node.port}"
    host.move(office)
    await node.until(lambda said: said.get("mapped") == [f"11.0.0.2:{node.port}"])
    assert len(gateways[1].mapped()) == 1


async def test_a_router_behind_another_maps_nothing(lab: Lab, tmp_path: Path, inside: Start) -> None:
    """Its address is a shared one (CGNAT): nothing is offered or left mapped, and why is said."""
    home = lab.router("home", Nat.STRICT, behind=lab.router("carrier", Nat.STRICT))
    gateway = Gateway(home, tmp_path, public=None)
    gateway.start()
    node = await inside(lab.host("inside", home))
    said = await node.until(lambda said: "problem" in said.get("diagnostics", {}).get("mapping", {}))
    assert said["told"] == said["mapped"] == gateway.mapped() == []
    print(said["diagnostics"])


async def test_a_port_that_is_taken_is_no_obstacle(lab: Lab, tmp_path: Path, inside: Start) -> None:
    """By UPnP, where another machine has the port, another one is mapped, and the node is reached there."""
    router = lab.router("home", Nat.STRICT)
    gateway = Gateway(router, tmp_path, force_igd_desc_v1="yes")
    gateway.start()
    first, second = lab.host("first", router), lab.host("second", router)
    one = await inside(first, protocols=["pcp"])
    assert await one.mapped() == f"{gateway.public}:{one.port}"
    two = await inside(second, bind=f"0.0.0.0:{one.port}", protocols=["upnp"])
    addr = await two.mapped()
    assert two.port == one.port and addr != f"{gateway.public}:{one.port}"
    assert len(gateway.mapped()) == 2
    reached = await dial(lab.host("outside"), two.said["node_id"], addr)
    assert reached == {"echo": "through the router", "path": [addr]}
