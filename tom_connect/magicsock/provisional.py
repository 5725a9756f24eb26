"""The bounded table of addresses for peers whose key is not proven yet."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from tom_connect.holepunch.path import Path
from tom_connect.magicsock.address import ProvisionalAddress

MAX_PROVISIONAL: Final = 4096
"""Handshakes under way at once, far above what one core completes in the seconds that each may take."""


class ProvisionalTable:
    """One ProvisionalAddress for each path and connection id; those made first go first when there are too many."""

    def __init__(self) -> None:
        self._table: OrderedDict[tuple[Path, bytes], ProvisionalAddress] = OrderedDict()

    def get(self, path: Path, dcid: bytes) -> ProvisionalAddress:
        """The address for `path` and `dcid`, made if need be."""
        key = (path, dcid)
        address = self._table.get(key)
        if address is None:
            address = self._table[key] = ProvisionalAddress(path, dcid)
            if len(self._table) > MAX_PROVISIONAL:
                self._table.popitem(last=False)
        return address

    def drop(self, address: ProvisionalAddress) -> None:
        """Forget an address; those who hold it may still send to it."""
        key = (address.path, address.dcid)
        if self._table.get(key) is address:
            del self._table[key]

    def clear(self) -> None:
        """Forget all."""
        self._table.clear()

    def __len__(self) -> int:
        return len(self._table)
