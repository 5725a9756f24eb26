"""Blocks on a stream, whose arrival and hash the other side tells."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import random

from tom_campaign.core.control import Transfer
from tom_campaign.core.summing import Measured
from tom_campaign.nodes.acceptor import BLOCK, SINK
from tom_campaign.nodes.session import Session, path_kind
from tom_connect import BiStream, TomError

_HASH = 32


async def transferred(session: Session, ask: Transfer) -> Measured:
    """Send the blocks and have them verified; never raises a TomError.

    Where it breaks, those blocks count as received that the other side has told of. If the hash is wrong, none do.
    """
    loop = asyncio.get_running_loop()
    began = loop.time()
    received, wrong, error = 0, False, None
    stream: BiStream | None = None
    sender: asyncio.Task[bytes] | None = None
    try:
        async with asyncio.timeout(ask.timeout):
            connection = await session.opened(ask.timeout)
            began = loop.time()
            stream = await connection.open_bi()
            sender = asyncio.create_task(_send(stream, ask.blocks), name="sending blocks")
            while True:
                word = await stream.readexactly(1)
                if word == b"b" and received < ask.blocks:
                    received += 1
                    continue
                wrong = word != b"h" or await stream.readexactly(_HASH) != await sender
                break
    except TimeoutError:
        error = f"not done within {ask.timeout:g} s"
    except (TomError, asyncio.IncompleteReadError) as exc:
        error = str(exc)
    finally:
        if sender is not None:
            sender.cancel()
            await asyncio.gather(sender, return_exceptions=True)
    if stream is not None and (error or wrong):
        with contextlib.suppress(TomError):
            stream.reset(1)
            stream.stop(1)
    if wrong:
        received, error = 0, "what arrived is not what was sent"
    elapsed = loop.time() - began
    return Measured(
        sent=ask.blocks,
        received=received,
        path_kind=path_kind(session.connection),
        discovery_source=session.source,
        bytes=received * BLOCK,
        bytes_per_s=round(received * BLOCK / elapsed, 1) if elapsed > 0 else None,
        error=error,
    )


async def _send(stream: BiStream, blocks: int) -> bytes:
    """Send the blocks; the hash of all of them."""
    # Other bytes each time, but not from the system for each block: that would be what is measured.
    block = bytearray(random.randbytes(BLOCK))
    digest = hashlib.sha256()
    stream.write(SINK)
    for number in range(blocks):
        block[:8] = number.to_bytes(8, "big")
        digest.update(block)
        stream.write(block)
        await stream.drain()
    stream.finish()
    return digest.digest()
