"""Transfers over a connection of tom-connect: one stream for each, and a last word that arrives."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

from tom_connect.connection import Connection
from tom_connect.streams import BiStream
from tom_connect.transfer.errors import TransferError, TransferInterruptedError
from tom_connect.transfer.shell import (
    LAST_WORD,
    OFFER_TIMEOUT,
    STALL_TIMEOUT,
    Decide,
    ProgressListener,
    TransferResult,
    receive_stream,
    send_stream,
)
from tom_connect.transfer.source import Source, scan
from tom_connect.transfer.threads import in_thread

STOPPED = 1
"""Application error code of a stream that is abandoned."""


async def send(
    connection: Connection, source: Path | Source, *, on_progress: ProgressListener | None = None
) -> TransferResult:
    """Send a file or folder; returns when the receiver has verified and stored all of it. Raises TransferError."""
    if isinstance(source, Path):
        source = await in_thread(scan, source)
    stream = await connection.open_bi()
    try:
        return await send_stream(stream, stream, source, on_progress=on_progress)
    except TransferError:
        await _last_word(connection)
        raise
    except BaseException:
        _abandon(stream)
        raise


async def receive(
    connection: Connection,
    into: Path,
    *,
    overwrite: bool = False,
    decide: Decide | None = None,
    on_progress: ProgressListener | None = None,
    offer_timeout: float = OFFER_TIMEOUT,
    stall_timeout: float = STALL_TIMEOUT,
) -> TransferResult:
    """Receive what the other side sends into the folder `into`; parameters and errors are those of `receive_stream`.

    The connection may be closed when this has returned or raised: the other side knows the outcome then.
    """
    try:
        async with asyncio.timeout(offer_timeout):
            stream = await connection.accept_bi()
    except TimeoutError:
        raise TransferInterruptedError(f"the sender offered nothing for {offer_timeout:g} s") from None
    try:
        result = await receive_stream(
            stream,
            stream,
            into,
            overwrite=overwrite,
            decide=decide,
            on_progress=on_progress,
            offer_timeout=offer_timeout,
            stall_timeout=stall_timeout,
        )
    except TransferError:
        stream.stop(STOPPED)
        await _last_word(connection)
        raise
    except BaseException:
        _abandon(stream)
        raise
    await _last_word(connection)
    return result


async def _last_word(connection: Connection) -> None:
    """Give what was written time to arrive; a connection that is closed at once would throw it away."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(LAST_WORD):
            await connection.flush()


def _abandon(stream: BiStream) -> None:
    stream.reset(STOPPED)
    stream.stop(STOPPED)
