"""The plugin keeps its contract, says what is wrong with a file, and leads to nodes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tom_address_book
from tom_address_book import AddressBookConfig, tom_discovery

from tom_connect.addr import NodeAddr
from tom_connect.exceptions import DiscoveryError
from tom_connect.record import SignedRecord
from tom_connect.testing.conformance import check_discovery
from tom_connect.testing.endpoints import connected


def write(path: Path, *addrs: NodeAddr) -> None:
    """Write a book."""
    path.write_text(json.dumps({str(addr.node_id): [str(direct) for direct in addr.direct_addrs] for addr in addrs}))


async def test_discovery_keeps_its_contract(tmp_path: Path, plugin_context: Callable[..., Any]) -> None:
    """Everything that the core relies on holds."""
    path, known = tmp_path / "book.json", {}

    async def publish(record: SignedRecord) -> None:
        known[record.node_id] = record.addr
        write(path, *known.values())

    await check_discovery(
        tom_discovery,
        publish=publish,
        context=lambda: plugin_context(AddressBookConfig(file=path)),
        unreachable=lambda: plugin_context(AddressBookConfig(file=tmp_path / "missing.json")),
        signed=False,  # anybody can write into a file
    )


@pytest.mark.parametrize("text", ["", "[]", '{"ID": 7}', '{"ID": ["nowhere"]}'])
async def test_a_wrong_file_is_named(text: str, tmp_path: Path, plugin_context: Callable[..., Any]) -> None:
    """What can't be read is an error that names the file."""
    path = tmp_path / "book.json"
    ctx = plugin_context(AddressBookConfig(file=path))
    path.write_text(text.replace("ID", str(ctx.node_id)))
    with pytest.raises(DiscoveryError, match=r"book\.json"):
        async for _ in tom_discovery(ctx).resolve(ctx.node_id):
            pass


async def test_nodes_meet(tmp_path: Path, endpoint_pair: Callable[..., Any]) -> None:
    """A node is dialed by its id alone, which only the book can answer."""
    path = tmp_path / "book.json"
    config = {"address_book": AddressBookConfig(file=path)}
    async with endpoint_pair(("address-book", tom_address_book), plugin_configs=config) as (alice, bob):
        write(path, bob.node_addr())
        ours, _theirs = await connected(alice, bob, bob.node_id)
        assert ours.remote_node_id == bob.node_id
