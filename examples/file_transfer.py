"""Share one file with whoever has the ticket.

    python examples/file_transfer.py share FILE [--allow-local]
    python examples/file_transfer.py fetch TICKET FILE [--allow-local]

`share` prints a ticket: it carries the node id and the addresses, so no discovery is needed and no plugin used. The
`send` and `receive` commands of tom-connect do more: folders, progress, resuming.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import hashlib
import sys
from pathlib import Path

from tom_connect import Connection, Endpoint, EndpointConfig, Router, TomError, encode_ticket

ALPN = "share-one-file/1"
CHUNK = 1 << 18
DIGEST_SIZE = 32


async def share(file: Path, config: EndpointConfig) -> None:
    """Send the file to each who connects, and its SHA-256 after it."""

    async def serve(connection: Connection) -> None:
        stream = await connection.open_uni()
        digest = hashlib.sha256()
        with file.open("rb") as source:
            while chunk := await asyncio.to_thread(source.read, CHUNK):
                digest.update(chunk)
                stream.write(chunk)
                await stream.drain()
        stream.write(digest.digest())
        stream.finish()
        await connection.closed()

    async with Endpoint.bind(config) as endpoint:
        print(encode_ticket(endpoint.node_addr()), flush=True)
        await Router(endpoint).route(ALPN, serve).serve()


async def fetch(ticket: str, file: Path, config: EndpointConfig) -> None:
    """Write what the other sends, and keep it only if its SHA-256 is right."""
    part = file.with_name(file.name + ".part")
    async with Endpoint.bind(config) as endpoint, await endpoint.connect(ticket, ALPN) as connection:
        stream = await connection.accept_uni()
        digest = hashlib.sha256()
        tail = b""
        with part.open("wb") as target:
            async for chunk in stream:
                tail += chunk
                body, tail = tail[:-DIGEST_SIZE], tail[-DIGEST_SIZE:]
                digest.update(body)
                await asyncio.to_thread(target.write, body)
    if digest.digest() != tail:
        part.unlink()
        raise SystemExit("the file was damaged on its way")
    part.replace(file)
    print(f"{file}: {digest.hexdigest()}")


async def main() -> None:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--allow-local", action="store_true", help="use local addresses too")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("share").add_argument("file", type=Path)
    fetching = commands.add_parser("fetch")
    fetching.add_argument("ticket")
    fetching.add_argument("file", type=Path)
    options = parser.parse_args()

    config = EndpointConfig(allow_local=options.allow_local, plugins=())
    if options.command == "share":
        await share(options.file, config)
    else:
        await fetch(options.ticket, options.file, config)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        try:
            asyncio.run(main())
        except (TomError, OSError) as error:
            sys.exit(str(error))
