"""File and folder transfer over one connection: verified by SHA-256, resumed where it broke off, never overwriting.

    connection = await endpoint.connect(node_id, ALPN)
    await send(connection, Path("film.mkv"))            # here

    await receive(connection, Path("downloads"))        # there

`send_stream` and `receive_stream` do the same over any pair of asyncio streams. The protocol is described in
`tom_connect.transfer.wire`, what happens to files in `tom_connect.transfer.store`.
"""

from __future__ import annotations

from tom_connect.transfer.errors import (
    DiskFullError,
    SourceError,
    StoreError,
    TransferError,
    TransferInterruptedError,
    TransferProtocolError,
    TransferRefusedError,
    UnsafeNameError,
    VerificationError,
)
from tom_connect.transfer.manifest import PARTIAL_SUFFIX, Entry, Manifest
from tom_connect.transfer.over_connection import receive, send
from tom_connect.transfer.shell import Progress, TransferResult, receive_stream, send_stream
from tom_connect.transfer.source import Source, scan
from tom_connect.transfer.wire import ALPN

__all__ = [
    "ALPN",
    "PARTIAL_SUFFIX",
    "DiskFullError",
    "Entry",
    "Manifest",
    "Progress",
    "Source",
    "SourceError",
    "StoreError",
    "TransferError",
    "TransferInterruptedError",
    "TransferProtocolError",
    "TransferRefusedError",
    "TransferResult",
    "UnsafeNameError",
    "VerificationError",
    "receive",
    "receive_stream",
    "scan",
    "send",
    "send_stream",
]
