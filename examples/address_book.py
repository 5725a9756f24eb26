"""Find nodes in a file: a discovery plugin that lives in the application.

    python examples/address_book.py BOOK NODE_ID ALPN

The file is JSON: `{"<node id>": ["192.0.2.7:4433", "[2001:db8::7]:4433"]}`. The program dials the node and prints the
round-trip time. As a package of its own, for any program: examples/tom-address-book.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path

from tom_connect import DiscoveryError, Endpoint, EndpointConfig, NodeAddr, NodeId, TomError
from tom_connect.abc import Discovery, FoundAddr, PluginContext
from tom_connect.hookspecs import hookimpl


class AddressBook(Discovery):
    """Looks nodes up in a file, anew each time."""

    name = "address book"
    serverless = True

    def __init__(self, file: Path) -> None:
        self._file = file

    async def resolve(self, node_id: NodeId) -> AsyncIterator[FoundAddr]:
        """Give the addresses that the file has for the node, if any."""
        try:
            book = json.loads(await asyncio.to_thread(self._file.read_text, encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise DiscoveryError(f"can't read {self._file}: {error}") from error
        if addrs := book.get(str(node_id)):
            yield FoundAddr(NodeAddr(node_id, direct_addrs=addrs), source=self.name)


class AddressBookPlugin:
    """What the endpoint calls when it binds."""

    def __init__(self, file: Path) -> None:
        self._file = file

    @hookimpl
    def tom_discovery(self, ctx: PluginContext) -> Discovery:
        """Make the discovery for one endpoint."""
        return AddressBook(self._file)


async def main(file: Path, target: str, alpn: str) -> None:
    """Dial a node that only the book knows."""
    plugin = AddressBookPlugin(file)
    config = EndpointConfig(allow_local=True, plugins=("address-book",), extra_plugins=(("address-book", plugin),))
    async with Endpoint.bind(config) as endpoint, await endpoint.connect(target, alpn) as connection:
        path = connection.stats().path
        print(f"{connection.remote_node_id.short()} at {path.addr if path else '?'}: {connection.rtt * 1000:.1f} ms")


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit("usage: address_book.py BOOK NODE_ID ALPN")
    try:
        asyncio.run(main(Path(sys.argv[1]), sys.argv[2], sys.argv[3]))
    except TomError as error:
        sys.exit(str(error))
