"""The DHT that tests of anyone's get."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
import time

import pytest

from tom_connect.addr import SocketAddr
from tom_connect.keys import SecretKey
from tom_dht_mainline import DhtNode, UdpTransport
from tom_dht_mainline.testing import Testnet, threaded_testnet


@pytest.mark.parametrize("size", [1, 2, 7, 20])
async def test_what_one_node_puts_every_other_gets(size: int) -> None:
    """All nodes of a Testnet are found by all others, whatever its size."""
    async with Testnet(size) as net:
        assert len(net.nodes) == size
        assert len(net.bootstrap) == min(size, 3)
        key = SecretKey.generate()
        async with DhtNode(UdpTransport((SocketAddr("127.0.0.1", 0),)), bootstrap=net.bootstrap) as writer:
            stored = await writer.put_mutable(key, b"value", wait_for="all")
        assert stored.acknowledged >= min(size, 8)
        async with DhtNode(UdpTransport((SocketAddr("127.0.0.1", 0),)), bootstrap=net.bootstrap[-1:]) as reader:
            item = await reader.get(key.node_id.raw)
        assert item is not None
        assert item.value == b"value"
        for node in net.nodes[1:]:
            item = await node.get(key.node_id.raw)
            assert item is not None
            assert item.value == b"value"


async def test_twenty_nodes_are_ready_in_half_a_second() -> None:
    """Whoever tests against a DHT does not wait for it: the best of three starts counts, since machines are busy."""
    took = []
    for _ in range(3):
        started = time.perf_counter()
        async with Testnet(20) as net:
            took.append(time.perf_counter() - started)
            assert all(node.table_size() >= 8 for node in net.nodes)
    assert min(took) < 0.5


async def test_a_node_can_be_added_and_is_closed_with_the_others() -> None:
    """`add_node` gives a node that is part of the DHT."""
    async with Testnet(5) as net:
        node = await net.add_node()
        assert node in net.nodes
        assert node.table_size() == 5
        stored = await net.nodes[0].put_immutable(b"x", wait_for="all")
        assert stored.acknowledged == 5
    assert net.nodes == []


async def test_ids_are_repeatable_with_a_seed() -> None:
    """Two Testnets of one seed have the same nodes, those of different seeds have not."""
    ids = []
    for seed in (1, 1, 2):
        async with Testnet(3, seed=seed) as net:
            ids.append([node.node_id() for node in net.nodes])
    assert ids[0] == ids[1]
    assert ids[0] != ids[2]


def _has_ipv6() -> bool:
    if not socket.has_ipv6:
        return False
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind(("::1", 0))
        except OSError:
            return False
    return True


@pytest.mark.skipif(not _has_ipv6(), reason="needs an IPv6 loopback address")
async def test_the_ipv6_dht_works_too() -> None:
    """With `ipv6=True` nodes live on ::1 and serve those who are there (BEP 32)."""
    async with Testnet(5, ipv6=True) as net:
        assert net.bootstrap[0].startswith("[::1]:")
        stored = await net.nodes[1].put_immutable(b"six", wait_for="all")
        item = await net.nodes[2].get_immutable(stored.target)
        assert item is not None
        assert item.value == b"six"


@pytest.mark.parametrize("size", [0, -1, 1001])
def test_a_size_that_makes_no_sense_is_refused(size: int) -> None:
    """A Testnet has 1 to 1000 nodes."""
    with pytest.raises(ValueError, match="1 to 1000"):
        Testnet(size)


def test_a_testnet_runs_in_a_thread_for_programs_without_a_loop() -> None:
    """`threaded_testnet` serves code that has its own event loop, or none."""

    async def put_and_get(bootstrap: tuple[str, ...]) -> object:
        async with DhtNode(UdpTransport((SocketAddr("127.0.0.1", 0),)), bootstrap=bootstrap) as node:
            stored = await node.put_immutable(b"threaded")
            item = await node.get_immutable(stored.target)
            return item and item.value

    with threaded_testnet(5) as bootstrap:
        assert asyncio.run(put_and_get(bootstrap)) == b"threaded"


def test_a_testnet_that_cannot_start_says_why() -> None:
    """What goes wrong in the thread reaches the caller."""
    with pytest.raises(ValueError, match="1 to 1000"):
        with threaded_testnet(0):
            pytest.fail("it must not start")


def test_the_command_prints_bootstrap_nodes() -> None:
    """`python -m tom_dht_mainline.testing` serves programs in any language."""
    with subprocess.Popen(
        [sys.executable, "-m", "tom_dht_mainline.testing", "--nodes", "4"], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        try:
            lines = [process.stdout.readline().strip() for _ in range(3)]
        finally:
            process.kill()
    assert all(line.startswith("127.0.0.1:") for line in lines)
    assert len(set(lines)) == 3
