"""A real iroh node finds a node of ours by DNS: knot stands in for iroh's own name server, in a namespace of its own.

iroh 1.2.0's binding lets nobody choose the domain or the Pkarr server, which it wants by HTTPS with a public
certificate. So its look-up by DNS is what can be tried: in the namespace `dns.iroh.link` is ours, and nothing leaves
it.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.interop.peers import IrohPeer, LineProcess, PeerError, PeerMissing
from tests.interop.peers.name_servers import knot
from tests.interop.peers.process import python_module
from tom_connect import NodeAddr, SecretKey, SocketAddr
from tom_connect.record import build_dns_packet, parse_dns_packet

ORIGIN = "dns.iroh.link"
KEY = SecretKey(bytes(31) + b"\x05")
WHERE = "127.0.0.1:4433"
VOLUNTEER = f"tom://{SecretKey(bytes(31) + b'v').node_id}@127.0.0.1:4434"


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, timeout=20)


@pytest.fixture
def namespace() -> Iterator[str]:
    """A network namespace with a loopback alone, whose name server is 127.0.0.1."""
    if sys.platform != "linux" or shutil.which("ip") is None or os.geteuid() != 0:
        pytest.skip("needs Linux, root and the command ip, for network namespaces")
    name = f"tom-dns-{secrets.token_hex(3)}"
    etc = Path("/etc/netns") / name
    with contextlib.ExitStack() as stack:
        try:
            ip("netns", "add", name)
        except subprocess.CalledProcessError as error:
            pytest.skip(f"needs network namespaces: {error.stderr.decode().strip()}")
        stack.callback(subprocess.run, ["ip", "netns", "del", name], check=False, capture_output=True, timeout=20)
        ip("-n", name, "link", "set", "lo", "up")
        etc.mkdir(parents=True)
        stack.callback(shutil.rmtree, etc)
        (etc / "resolv.conf").write_text("nameserver 127.0.0.1\n")
        yield name


@pytest.mark.parametrize("relays", [(), (VOLUNTEER,)])
async def test_iroh_finds_us_by_dns(namespace: str, tmp_path: Path, relays: tuple[str, ...]) -> None:
    """iroh dials our NodeId alone, with the records of our own writer in the zone, and its stream comes back.

    A relay that is a node, of which it knows nothing, keeps it from nothing.
    """
    addr = NodeAddr(KEY.node_id, relays, (WHERE,))
    assert parse_dns_packet(KEY.node_id, build_dns_packet(addr)) == addr
    inside = ("ip", "netns", "exec", namespace)
    name = f"_iroh.{KEY.node_id.z32()}"
    records = [*((name, f"relay={relay}") for relay in relays), (name, f"addr={WHERE}")]
    with contextlib.ExitStack() as stack:
        child = python_module("tests.interop.peers.tom_process", KEY.seed().hex(), WHERE)
        stack.enter_context(LineProcess.start([*inside, *child]))
        try:
            at = SocketAddr("127.0.0.1", 53)
            stack.enter_context(knot(tmp_path, ORIGIN, records, addr=at, prefix=inside))
            iroh = stack.enter_context(IrohPeer.start(namespace=namespace, discovery=True))
        except PeerMissing as missing:
            pytest.skip(str(missing))
        dialed = await iroh.dial(KEY.node_id.raw, [], timeout=60)
        assert dialed.remote == KEY.node_id.raw
        assert await iroh.stream(dialed, b"found by DNS") == b"found by DNS"
        with pytest.raises(PeerError):
            await iroh.dial(SecretKey.generate().node_id.raw, [], timeout=60)
