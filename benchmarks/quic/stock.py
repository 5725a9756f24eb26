"""The asyncio server and client that aioquic's documentation shows, and that qh3, its descendant, has kept."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import ssl
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from benchmarks.quic.contender import Serve, Where

ALPN = "bench/1"
#: Seconds; idle connections must outlive the memory measurement.
IDLE_TIMEOUT = 600.0


def self_signed(folder: Path) -> tuple[Path, Path]:
    """Write a plain self-signed certificate and its key, and return the two files."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    start = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(start)
        .not_valid_after(start + datetime.timedelta(days=36500))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    files = folder / "certificate.pem", folder / "key.pem"
    files[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    files[1].write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return files


@attrs.define(eq=False)
class StockStream:
    """asyncio's reader and writer as a stream."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def read(self, limit: int) -> bytes:
        """Return up to `limit` bytes, none at the end."""
        return await self.reader.read(limit)

    async def write(self, data: bytes) -> None:
        """Send bytes; these writers cannot drain, so let the loop turn."""
        self.writer.write(data)
        await asyncio.sleep(0)

    async def finish(self) -> None:
        """Say that no more comes."""
        self.writer.write_eof()


@attrs.define(eq=False)
class StockConnection:
    """A client's connection and the context that closes it."""

    protocol: Any
    stack: contextlib.AsyncExitStack

    async def open_stream(self) -> StockStream:
        """Open a bidirectional stream."""
        return StockStream(*await self.protocol.create_stream())

    async def close(self) -> None:
        """Close the connection and its socket."""
        await self.stack.aclose()


@attrs.define(eq=False)
class Stock:
    """The contender, made of a package's own connect, serve and configuration."""

    package_connect: Callable[..., contextlib.AbstractAsyncContextManager[Any]]
    package_serve: Callable[..., Any]
    configuration: Callable[..., Any]
    _server: Any = None
    _tasks: set[asyncio.Task[None]] = attrs.field(factory=set)

    async def listen(self, serve: Serve) -> Where:
        """Listen on a free port of 127.0.0.1."""
        configuration = self.configuration(is_client=False, alpn_protocols=[ALPN], idle_timeout=IDLE_TIMEOUT)
        with tempfile.TemporaryDirectory() as folder:
            configuration.load_cert_chain(*self_signed(Path(folder)))

        def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.ensure_future(serve(StockStream(reader, writer)))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

        self._server = await self.package_serve("127.0.0.1", 0, configuration=configuration, stream_handler=handle)
        return {"port": self._server._transport.get_extra_info("sockname")[1]}

    async def connect(self, where: Where) -> StockConnection:
        """Dial, without a check of the certificate."""
        configuration = self.configuration(
            is_client=True, alpn_protocols=[ALPN], verify_mode=ssl.CERT_NONE, idle_timeout=IDLE_TIMEOUT
        )
        stack = contextlib.AsyncExitStack()
        context = self.package_connect("127.0.0.1", where["port"], configuration=configuration)
        return StockConnection(await stack.enter_async_context(context), stack)

    async def close(self) -> None:
        """Close the server."""
        if self._server is not None:
            self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
