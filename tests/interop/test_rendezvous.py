"""A caller that was written from the page alone and an endpoint of ours meet through libtorrent's nodes."""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
from collections.abc import AsyncIterator
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from tests.interop.flooding import flood, stranger
from tests.interop.peers import LibtorrentNet
from tests.interop.peers.process import REPOSITORY, python_module
from tests.interop.rendezvous_parts import dht, disco, formats
from tom_connect import Endpoint, EndpointConfig
from tom_dht_mainline.config import DhtConfig

pytestmark = pytest.mark.interop

#: Seconds for each step, on a machine that is busy with other things.
PATIENCE = 30.0
VECTORS: dict[str, Any] = json.loads(
    (Path(REPOSITORY) / "plugins/tom-dht-mainline/tests/vectors/rendezvous.json").read_text()
)


@contextlib.asynccontextmanager
async def callee(net: LibtorrentNet) -> AsyncIterator[Endpoint]:
    """An endpoint that has said how it is to be called."""
    config = EndpointConfig(
        alpns=("meet/1",),
        bind=("127.0.0.1:0",),
        allow_local=True,
        persist=False,
        dht_only=True,
        plugins=("dht",),
        plugin_configs={"dht": DhtConfig(bootstrap=tuple(net.bootstrap), ipv6=False)},
    )
    async with Endpoint.bind(config) as endpoint:
        async with asyncio.timeout(PATIENCE):
            while not str(endpoint.diagnostics()["dht"].get("calls")).startswith("invited"):  # noqa: ASYNC110 - nobody tells
                await asyncio.sleep(0.05)
        yield endpoint


async def call(net: LibtorrentNet, node_id: str, *options: str) -> tuple[str, str]:
    """Run the caller; what it says at the end, and what happened before."""
    command = python_module("tests.interop.rendezvous_caller", node_id, "--bind", "127.0.0.1:0", *options)
    for addr in net.bootstrap[:3]:
        command += ["--bootstrap", addr]
    command += ["--patience", str(PATIENCE)]
    process = await asyncio.create_subprocess_exec(
        *command, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    out, happened = await process.communicate()
    return out.decode().strip(), happened.decode()


async def test_a_caller_written_from_the_page_finds_a_node_by_its_record(libtorrent_net: LibtorrentNet) -> None:
    """It reads record and invitation, and its ping is answered where the record says."""
    async with callee(libtorrent_net) as endpoint:
        said, happened = await call(libtorrent_net, str(endpoint.node_id), "--call", "announced")
        assert said.startswith(f"pong from {endpoint.local_addrs[0]} after "), happened
        assert "Invitation(filtered=False, port_each=False, interval=1.1, nodes=8, " in happened


async def test_a_caller_written_from_the_page_is_knocked_for(libtorrent_net: LibtorrentNet) -> None:
    """Without the record it announces itself, is knocked for, and its ping is answered where the knock came from."""
    async with callee(libtorrent_net) as endpoint:
        said, happened = await call(libtorrent_net, str(endpoint.node_id), "--call", "announced", "--blind")
        assert said.startswith(f"pong from {endpoint.local_addrs[0]} after "), happened
        assert "announced on " in happened
        assert f"knock from {(endpoint.local_addrs[0].host, endpoint.local_addrs[0].port)}" in happened
        assert endpoint._magic.counters["rendezvous: knocks"] > 0


async def test_a_sealed_call_written_from_the_page_is_read(libtorrent_net: LibtorrentNet) -> None:
    """Nothing is announced but the two ports; the callee fetches and opens the item, and pings the address in it."""
    async with callee(libtorrent_net) as endpoint:
        said, happened = await call(libtorrent_net, str(endpoint.node_id), "--call", "sealed", "--blind")
        assert said.startswith(f"pong from {endpoint.local_addrs[0]} after "), happened
        assert "sealed call on 8 nodes" in happened and "knock from" not in happened
        assert endpoint._magic.counters["rendezvous: calls answered"] == 1


async def mailbox_of(krpc: dht.Krpc, node_id: bytes, start: list[disco.Addr]) -> bytes:
    """What the newest invitation of a node says of it."""
    said: list[tuple[int, bytes]] = []

    def take(reply: dht.Reply) -> None:
        item = formats.read_item(reply, node_id, formats.SALT)
        if item is not None:
            said.append(item)

    await dht.Lookup(krpc, formats.target(node_id, formats.SALT), b"get", take).run(start)
    return formats.read_invitation(max(said)[1]).mailbox


async def test_a_caller_written_from_the_page_follows_a_flooded_mailbox(
    libtorrent_net: LibtorrentNet,
) -> None:
    """Sixty strangers are announced; the callee polls elsewhere and says so, and is called there."""
    async with callee(libtorrent_net) as endpoint, asyncio.timeout(3 * PATIENCE):
        node_id = endpoint.node_id.raw
        record = formats.target(node_id)
        async with stranger() as krpc:
            await flood(krpc, record, libtorrent_net)
            while (mailbox := await mailbox_of(krpc, node_id, libtorrent_net.addresses[:3])) == record:
                pass
        assert mailbox[:12] == record[:12]
        out, happened = await call(libtorrent_net, str(endpoint.node_id), "--call", "announced", "--blind")
        assert out.startswith(f"pong from {endpoint.local_addrs[0]} after "), happened
        assert "knock from" in happened


def test_the_caller_reads_the_vectors_of_invitations() -> None:
    """What the page says of places, bytes and signature gives the vectors' values."""
    node_id = bytes.fromhex(VECTORS["node_id"])
    assert formats.target(node_id).hex() == VECTORS["record_target"]
    assert formats.target(node_id, formats.SALT).hex() == VECTORS["invitation_target"]
    for vector in VECTORS["invitations"]:
        read = formats.read_invitation(bytes.fromhex(vector["value"]))
        filtered = {0: None, 1: True, 2: False}[vector["filtering"]]
        assert read == formats.Invitation(
            filtered=filtered,
            port_each=vector["ports_differ"],
            interval=vector["interval"],
            nodes=vector["nodes"],
            mailbox=bytes.fromhex(vector["mailbox"]),
            key=bytes.fromhex(vector["key"]),
            ip=vector["ip"],
        )
    value, signature = VECTORS["invitations"][0]["value"], VECTORS["signature_of_the_first"]
    reply: dict[bytes, Any] = {b"k": node_id, b"seq": VECTORS["seq"], b"sig": bytes.fromhex(signature)}
    assert formats.read_item(reply | {b"v": bytes.fromhex(value)}, node_id, formats.SALT)
    assert not formats.read_item(reply | {b"v": bytes.fromhex(value)[:-1] + b"\1"}, node_id, formats.SALT)


@pytest.mark.parametrize("vector", VECTORS["calls"], ids=lambda vector: vector["ip"])
def test_the_caller_seals_the_vectors_calls(vector: dict[str, str]) -> None:
    """The second port, the item's key and all 849 bytes are those of the vector."""
    key, ip, port = bytes.fromhex(vector["callee_key"]), ip_address(vector["ip"]).packed, int(vector["port"])
    assert formats.second_port(key, ip, port) == int(vector["check_port"])
    assert formats.item_seed(key, ip, port).hex() == vector["item_seed"]
    content, secret = bytes.fromhex(vector["content"]), bytes.fromhex(vector["caller_secret"])
    assert formats.seal_call(key, ip, port, content, secret).hex() == vector["value"]


def test_the_caller_seals_the_pages_ping() -> None:
    """The packet of disco's worked example, made from its description."""
    receiver = "29acbae141bccaf0b22e1a94d34d0bc7361e526d0bfe12c89794bc9322966dd7"
    seal = disco.Seal(bytes(range(32)), bytes.fromhex(receiver), bytes.fromhex("1011121314151617"))
    packet = seal.seal(disco.ping(bytes(range(0xA0, 0xAC)))).hex()
    page = (Path(REPOSITORY) / "docs/reference/disco.md").read_text()
    assert packet in page.split("<!-- doc: output -->")[-1].replace("\n", "")
