"""Discovery from a file that the user keeps: one ticket a line."""

from __future__ import annotations

import pathlib
from collections.abc import AsyncIterator
from typing import Final

from tom_connect.abc import Discovery, FoundAddr
from tom_connect.addr import NodeAddr
from tom_connect.exceptions import ConfigError, InvalidAddrError
from tom_connect.keys import NodeId
from tom_connect.tickets import parse_ticket

MAX_FILE: Final = 8 << 20
"""Bytes of a file of nodes: some ten thousand tickets."""
_Stamp = tuple[int, int, int]


class NodesFile(Discovery):
    """Knows the nodes of a file; asked before everybody else, and read again when the file has changed.

    A line holds a ticket; blank lines and what follows a `#` do not count. Of several tickets of one node the last
    counts. Raises ConfigError, which names the line, where the file can't be read as it is.
    """

    name = "file"
    serverless = True
    asks_nobody = True

    def __init__(self, path: pathlib.Path) -> None:
        self._path = path
        self._stamp: _Stamp | None = None
        self._nodes: dict[NodeId, NodeAddr] = {}
        self._read()

    async def resolve(self, node_id: NodeId) -> AsyncIterator[FoundAddr]:
        """See `Discovery`."""
        self._read()
        addr = self._nodes.get(node_id)
        if addr is not None:
            yield FoundAddr(addr, self.name)

    def _read(self) -> None:
        try:
            status = self._path.stat()
            stamp = status.st_mtime_ns, status.st_size, status.st_ino
            if stamp == self._stamp:
                return
            with self._path.open("rb") as file:
                data = file.read(MAX_FILE + 1)
        except OSError as exc:
            raise ConfigError(f"nodes_file: {self._path}: {exc.strerror or exc}") from None
        if len(data) > MAX_FILE:
            raise ConfigError(f"nodes_file: {self._path} has more than {MAX_FILE} bytes; a ticket a line is expected")
        self._nodes = dict(self._parse(data))
        self._stamp = stamp

    def _parse(self, data: bytes) -> list[tuple[NodeId, NodeAddr]]:
        nodes = []
        for number, line in enumerate(data.decode(errors="replace").splitlines(), 1):
            text = line.partition("#")[0].strip()
            if text:
                try:
                    addr = parse_ticket(text)
                except InvalidAddrError as exc:
                    raise ConfigError(f"nodes_file: {self._path}, line {number}: {exc}") from None
                nodes.append((addr.node_id, addr))
        return nodes
