"""A node behind a strict NAT whose router runs miniupnpd: mapped, reached, renewed, released."""

from __future__ import annotations

from pathlib import Path

import pytest

from tom_connect.testing.natlab import Lab, Nat

from .conftest import Start, dial
from .gateway import Gateway, until

pytestmark = [pytest.mark.interop, pytest.mark.slow]
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
