"""Where a put lands: on the nodes at which readers look."""

from __future__ import annotations

import hashlib

import pytest

from tom_connect import SecretKey
from tom_dht_mainline import DhtNode
from tom_dht_mainline.core import Family
from tom_dht_mainline.testing import Testnet

pytestmark = pytest.mark.costly


async def test_put_of_a_node_that_has_just_joined_reaches_the_closest_nodes() -> None:
    """Whichever part of the DHT a newcomer met first, all four nodes nearest to the target hold what it puts."""
    for seed in range(12):
        async with Testnet(20, seed=seed) as net:
            key = SecretKey(bytes([seed]) * 32)
            target = int.from_bytes(hashlib.sha1(key.node_id.raw).digest(), "big")
            async with DhtNode(bootstrap=net.bootstrap) as writer:
                await writer.bootstrap()
                await writer.put_mutable(key, b"here", seq=1, wait_for="all")
            near = sorted(net.nodes, key=lambda n: int.from_bytes(n.node_id(Family.IPV4), "big") ^ target)[:4]
            held = [node.stats().queries_in.get("put", 0) for node in near]
            assert all(held), f"seed {seed}: {held}"
