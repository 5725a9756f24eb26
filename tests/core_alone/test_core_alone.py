"""The core without any plugin: what `pip install tom-connect` alone gives."""

from __future__ import annotations

import asyncio
import hashlib
import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from importlib import metadata
from pathlib import Path

import pytest

from tom_connect import (
    BiStream,
    Connection,
    DiscoveryError,
    Endpoint,
    EndpointConfig,
    Router,
    encode_ticket,
)

ALPN = "core-alone/1"

pytestmark = pytest.mark.skipif(
    bool(metadata.entry_points(group="tom_connect")), reason="needs an environment without plugins: tox -e core-alone"
)


async def digest(connection: Connection) -> None:
    """Answer each stream with the SHA-256 of what came in."""

    async def answer(stream: BiStream) -> None:
        found = hashlib.sha256()
        async for chunk in stream:
            found.update(chunk)
        stream.write(found.digest())
        stream.finish()

    await answer(await connection.accept_bi())
    await connection.closed()


@pytest.fixture
async def server() -> AsyncIterator[Endpoint]:
    async with asyncio.TaskGroup() as tasks, Endpoint.bind(EndpointConfig(allow_local=True)) as endpoint:
        tasks.create_task(Router(endpoint).route(ALPN, digest).serve())
        yield endpoint


def test_no_plugin_is_installed() -> None:
    """The environment has the core alone."""
    assert importlib.util.find_spec("tom_dht_mainline") is None


@pytest.mark.parametrize("kind", ["address", "ticket"])
async def test_full_address_can_be_dialed(server: Endpoint, kind: str) -> None:
    """A NodeAddr, or the ticket of one, is all that a dial needs; 3 MB arrive as they were sent."""
    addr = server.node_addr()
    assert not addr.is_empty()
    target = addr if kind == "address" else encode_ticket(addr)
    data = os.urandom(3_000_000)
    async with (
        Endpoint.bind(EndpointConfig(allow_local=True)) as client,
        await client.connect(target, ALPN) as connection,
    ):
        assert client.plugins == []
        stream = await connection.open_bi()
        stream.write(data)
        stream.finish()
        assert await stream.read() == hashlib.sha256(data).digest()


async def test_bare_node_id_says_what_is_missing(server: Endpoint) -> None:
    """A NodeId alone can't be resolved; the error says that no discovery plugin is in use."""
    async with Endpoint.bind(EndpointConfig(allow_local=True)) as client:
        with pytest.raises(DiscoveryError, match="plugin"):
            await client.connect(server.node_id, ALPN)


def test_commands_work(tmp_path: Path) -> None:
    """`tom-connect id` and `plugins` work; the latter lists none; `demo` says in one line what to install."""

    def tom_connect(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "tom_connect", *arguments],
            env=os.environ | {"HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path)},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            encoding="utf-8",
            timeout=60,
            check=False,
        )

    shown = tom_connect("id", "--json", "--secret-key-file", str(tmp_path / "key"))
    assert shown.returncode == 0, shown.stderr
    assert len(json.loads(shown.stdout)["node_id"]) == 64
    listed = tom_connect("plugins", "--json")
    assert listed.returncode == 0, listed.stderr
    assert [line for line in map(json.loads, listed.stdout.splitlines()) if line.get("event") == "plugin"] == []
    demo = tom_connect("demo")
    assert demo.returncode == 1, demo.stdout + demo.stderr
    assert "tom-connect[dht]" in demo.stderr
    assert "Traceback" not in demo.stderr
