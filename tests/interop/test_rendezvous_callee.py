"""A callee that was written from the pages alone and an endpoint of ours that calls it meet through a DHT."""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import sys
from collections.abc import AsyncIterator
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from tests.interop.dialing import PATIENCE, dialing
from tests.interop.flooding import flood, stranger
from tests.interop.peers import LibtorrentNet
from tests.interop.peers.process import REPOSITORY
from tests.interop.rendezvous_callee import left, sealed
from tests.interop.rendezvous_callee.callee import Callee, Met, Options
from tests.interop.rendezvous_parts import disco, formats
from tom_connect import NodeId, SecretKey

pytestmark = pytest.mark.interop

OTHER = SecretKey(bytes(32)).node_id.raw
VECTORS: dict[str, Any] = json.loads(
    (Path(REPOSITORY) / "plugins/tom-dht-mainline/tests/vectors/rendezvous.json").read_text()
)


@contextlib.asynccontextmanager
async def being_called(
    net: LibtorrentNet, said: list[str], **options: Any
) -> AsyncIterator[tuple[Callee, asyncio.Task[Met]]]:
    """The callee, once it has said how it is to be called, and whom it meets; `said` gets what happens."""
    callee = Callee(Options(net.addresses[:3], ("127.0.0.1", 0), **options), said.append)
    meeting = asyncio.create_task(callee.run())
    try:
        async with asyncio.timeout(PATIENCE):
            await callee.invited.wait()
        yield callee, meeting
    finally:
        meeting.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await meeting


async def test_a_callee_written_from_the_page_is_found_by_its_record(libtorrent_net: LibtorrentNet) -> None:
    """We read its record, it answers our ping, and our QUIC comes to that address."""
    said: list[str] = []
    async with being_called(libtorrent_net, said) as (callee, meeting):
        async with dialing(libtorrent_net.bootstrap, callee.node_id) as endpoint, asyncio.timeout(PATIENCE):
            met = await meeting
            assert met.node_id == endpoint.node_id.raw
            assert met.addr == (endpoint.local_addrs[0].host, endpoint.local_addrs[0].port)


async def test_a_callee_written_from_the_page_is_found_by_its_knock(libtorrent_net: LibtorrentNet) -> None:
    """It has left an invitation and no record: our call has it knock, and we ping where that comes from."""
    said: list[str] = []
    async with being_called(libtorrent_net, said, hidden=True) as (callee, meeting):
        async with dialing(libtorrent_net.bootstrap, callee.node_id) as endpoint, asyncio.timeout(PATIENCE):
            met = await meeting
            assert met.node_id == endpoint.node_id.raw
            assert f"call from {met.addr}" in said


@pytest.mark.parametrize("hidden", [False, True], ids=["record", "knock"])
async def test_a_contact_written_from_the_page_is_found(libtorrent_net: LibtorrentNet, hidden: bool) -> None:
    """All that it leaves lies in places of the pair's, and so does the call."""
    said: list[str] = []
    key = SecretKey.generate()
    options = {"contact": key.node_id.raw, "contacts_only": True, "hidden": hidden}
    async with being_called(libtorrent_net, said, **options) as (callee, meeting):
        node_id = NodeId(callee.node_id)
        contacts = {"contacts": (str(node_id),), "contacts_only": True}
        async with dialing(libtorrent_net.bootstrap, callee.node_id, key=key, **contacts), asyncio.timeout(PATIENCE):
            met = await meeting
            assert met.node_id == key.node_id.raw
            assert (f"call from {met.addr}" in said) or not hidden


async def test_a_callee_written_from_the_page_is_followed_from_a_flooded_mailbox(libtorrent_net: LibtorrentNet) -> None:
    """Sixty strangers are announced; it polls elsewhere and says so, and our call is found there."""
    said: list[str] = []
    async with being_called(libtorrent_net, said, hidden=True) as (callee, meeting), asyncio.timeout(2 * PATIENCE):
        async with stranger() as krpc:
            await flood(krpc, formats.target(callee.node_id), libtorrent_net)
        await callee.moved.wait()
        async with dialing(libtorrent_net.bootstrap, callee.node_id):
            met = await meeting
        moved = next(at for at, line in enumerate(said) if line.startswith("flooded: "))
        assert f"call from {met.addr}" in said[moved:]


def test_the_callee_writes_the_vectors_invitations() -> None:
    """All 73 bytes are those of the vectors."""
    for vector in VECTORS["invitations"]:
        said = formats.Invitation(
            filtered={0: None, 1: True, 2: False}[vector["filtering"]],
            port_each=vector["ports_differ"],
            interval=vector["interval"],
            nodes=vector["nodes"],
            mailbox=bytes.fromhex(vector["mailbox"]),
            key=bytes.fromhex(vector["key"]),
            ip=vector["ip"],
        )
        assert left.invitation(said).hex() == vector["value"]


@pytest.mark.parametrize("vector", VECTORS["contacts"], ids=lambda vector: vector["kind"])
def test_the_callee_leaves_the_vectors_for_contacts(vector: dict[str, str]) -> None:
    """A contact's place, its keys and all 989 bytes are those of the vector."""
    owner, contact = (disco.Seal(bytes.fromhex(vector[name]), OTHER) for name in ("owner_secret", "contact_secret"))
    place = left.place(owner.seed, contact.node_id, owner.node_id, vector["kind"], int(vector["day"]))
    assert place.seed.hex() == vector["item_seed"]
    content, seq = bytes.fromhex(vector["content"]), int(vector["seq"])
    assert place.item(content, seq)[0].hex() == vector["target"]
    assert place.sealed(content, bytes.fromhex(vector["nonce"])).hex() == vector["value"]
    # The contact finds the same with its own key.
    assert left.place(contact.seed, owner.node_id, owner.node_id, vector["kind"], int(vector["day"])).seed == place.seed


@pytest.mark.parametrize("vector", VECTORS["calls"], ids=lambda vector: vector["ip"])
def test_the_callee_opens_the_vectors_calls(vector: dict[str, str]) -> None:
    """A sealed call opens for its IP and port, and not for other ones nor if a bit of it is another."""
    secret = X25519PrivateKey.from_private_bytes(bytes.fromhex(vector["callee_secret"]))
    ip, port, value = ip_address(vector["ip"]).packed, int(vector["port"]), bytes.fromhex(vector["value"])
    assert sealed.open_call(secret, ip, port, value) == bytes.fromhex(vector["content"])
    assert sealed.open_call(secret, ip, port + 1, value) is None
    assert sealed.open_call(secret, ip, port, value[:-1] + bytes([value[-1] ^ 1])) is None
    assert sealed.open_call(secret, ip, port, value + b"\0") is None


@pytest.mark.parametrize("module", ["rendezvous_caller.caller", "rendezvous_callee.callee", "rendezvous_callee.lab"])
def test_what_was_written_from_the_pages_loads_nothing_of_the_project(module: str) -> None:
    """Neither the core nor a plugin is among the modules that an independent node loads."""
    program = (
        f"import sys, tests.interop.{module}; "
        "print([name for name in sys.modules if name.startswith('tom_') or name == 'attrs'])"
    )
    loaded = subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert loaded.stdout.strip() == "[]"
