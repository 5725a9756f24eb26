"""A tom-connect plugin that finds nodes in a JSON file: `{"<node id>": ["192.0.2.7:4433"]}`."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import attrs

from tom_connect.abc import Discovery, FoundAddr, PluginContext
from tom_connect.addr import NodeAddr
from tom_connect.config import option
from tom_connect.exceptions import DiscoveryError, InvalidAddrError
from tom_connect.hookspecs import hookimpl
from tom_connect.keys import NodeId
from tom_connect.plugins import ConfigRegistry

TOM_CONNECT_API = (1, 0)
"""The version of the plugin interface that this was written for."""


@attrs.frozen
class AddressBookConfig:
    """The options: `[address_book]` in the file, `TOM_CONNECT_ADDRESS_BOOK_FILE`, `--address-book-file`."""

    file: Path | None = attrs.field(default=None, metadata=option("JSON file with the addresses of nodes"))


class AddressBook(Discovery):
    """Looks nodes up in the file, anew each time."""

    name = "address book"
    serverless = True

    def __init__(self, file: Path) -> None:
        self._file = file

    async def resolve(self, node_id: NodeId) -> AsyncIterator[FoundAddr]:
        """Give the addresses that the file has for the node, if any."""
        try:
            book = json.loads(await asyncio.to_thread(self._file.read_text, encoding="utf-8"))
            addrs = book.get(str(node_id), ())
            found = NodeAddr(node_id, direct_addrs=addrs)
        except (OSError, ValueError, AttributeError, TypeError, InvalidAddrError) as error:
            raise DiscoveryError(f"can't read {self._file}: {error}") from error
        if not found.is_empty():
            yield FoundAddr(found, source=self.name)


@hookimpl
def tom_register_config(registry: ConfigRegistry) -> None:
    """Declare the options."""
    registry.register("address_book", AddressBookConfig)


@hookimpl
def tom_discovery(ctx: PluginContext) -> Discovery | None:
    """Make the discovery for one endpoint; none without a file."""
    return AddressBook(ctx.config.file) if ctx.config.file is not None else None
