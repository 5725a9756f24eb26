"""Nodes that are known from a file."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from tom_connect import Endpoint, EndpointConfig
from tom_connect.addr import NodeAddr
from tom_connect.discovery import NodesFile
from tom_connect.exceptions import ConfigError, TomError
from tom_connect.keys import SecretKey
from tom_connect.record import SignedRecord
from tom_connect.testing.conformance import check_discovery
from tom_connect.tickets import encode_ticket

NODE = SecretKey(bytes(32)).node_id
ADDR = NodeAddr(NODE, (), ["198.51.100.7:4433"])


async def resolve(source: NodesFile) -> list[NodeAddr]:
    return [found.addr async for found in source.resolve(NODE)]


async def test_a_ticket_a_line(tmp_path: Path) -> None:
    """Comments and blank lines do not count, of two tickets of a node the last does, and a change is seen."""
    path = tmp_path / "nodes"
    old = NodeAddr(NODE, (), ["198.51.100.1:1"])
    path.write_text(f"# my nodes\n\n{encode_ticket(old)}\n  {encode_ticket(ADDR)}  # the laptop\n")
    source = NodesFile(path)
    assert await resolve(source) == [ADDR]
    path.write_text("# nobody any more\n")
    os.utime(path, ns=(1, 1))
    assert await resolve(source) == []


@pytest.mark.parametrize(
    ("text", "says"),
    [("# fine\ntom1qqqq\n", "line 2"), (str(NODE), "line 1"), ("tom2abc", "version 2"), ("\x00\xff", "line 1")],
)
def test_what_is_no_ticket_is_named_with_its_line(tmp_path: Path, text: str, says: str) -> None:
    """A file that can't be read as tickets is refused with the place and the reason."""
    path = tmp_path / "nodes"
    path.write_text(text)
    with pytest.raises(ConfigError, match=says):
        NodesFile(path)


async def test_an_endpoint_refuses_a_file_that_is_not_there(tmp_path: Path) -> None:
    """The error names the option and the file, and no endpoint is left behind."""
    with pytest.raises(ConfigError, match=r"nodes_file: .*missing: No such file"):
        await Endpoint.bind(EndpointConfig(nodes_file=tmp_path / "missing", plugins=()))


async def test_a_node_of_the_file_is_dialed_by_its_key(tmp_path: Path) -> None:
    """With no plugin at all, the file alone leads a dial to the node; one that is not in it is not found."""
    config = EndpointConfig(bind=("127.0.0.1:0",), allow_local=True, plugins=(), persist=False)
    async with Endpoint.bind(config) as plain:
        server_config = EndpointConfig(
            alpns=("test/1",), bind=("127.0.0.1:0",), allow_local=True, plugins=(), persist=False
        )
        async with Endpoint.bind(server_config) as server:
            path = tmp_path / "nodes"
            path.write_text(encode_ticket(server.node_addr()))
            client_config = EndpointConfig(
                bind=("127.0.0.1:0",), allow_local=True, plugins=(), nodes_file=path, data_dir=tmp_path
            )
            async with Endpoint.bind(client_config) as client:
                accepting = aiter(server.accept())
                connecting = asyncio.ensure_future(client.connect(server.node_id, "test/1"))
                connection = await (await anext(accepting)).accept()
                assert connection.remote_node_id == client.node_id
                assert (await connecting).remote_node_id == server.node_id
                assert client.discovery_counts()["file"].found == 1
                with pytest.raises(TomError, match="file: nothing found"):
                    await client.connect(plain.node_id, "test/1")


async def test_discovery_keeps_its_contract(tmp_path: Path) -> None:
    """With a file of tickets, which are not signed, everything that the core relies on holds."""
    path = tmp_path / "nodes"

    async def publish(record: SignedRecord) -> None:
        with path.open("a") as file:
            file.write(encode_ticket(record.addr) + "\n")

    await check_discovery(lambda ctx: NodesFile(path), publish=publish, signed=False)
