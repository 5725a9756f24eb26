"""A real iroh endpoint in a child process."""

from __future__ import annotations

import importlib.util
import json
from types import TracebackType
from typing import Any, Self

import attrs

from tests.interop.peers.process import LineProcess, PeerMissing, python_module


@attrs.frozen
class Dialed:
    """A connection that the peer dialed: its number, whom the peer saw, the ALPN, and milliseconds to connect."""

    number: int
    remote: bytes
    alpn: str
    ms: float


@attrs.define(eq=False)
class IrohPeer:
    """An iroh endpoint that echoes bidirectional streams and datagrams of whoever connects.

    A unidirectional stream is answered by one that carries the SHA-256 of what came.
    """

    process: LineProcess
    node_id: bytes
    addresses: list[str]

    @classmethod
    def start(
        cls,
        alpns: tuple[str, ...] = ("echo/1",),
        *,
        secret_key: bytes | None = None,
        bind: str = "127.0.0.1:0",
        relays: tuple[str, ...] = (),
        namespace: str | None = None,
        discovery: bool = False,
    ) -> IrohPeer:
        """Bind the endpoint; raise PeerMissing without iroh, PeerError if it does not come up.

        `relays`: URLs of the only relays that it uses; `namespace`: the Linux network namespace that it runs in;
        `discovery`: publish to and look up at iroh's own servers, which only a namespace of ours may stand in for.
        """
        if importlib.util.find_spec("iroh") is None:
            raise PeerMissing("iroh is not installed: pip install iroh (dependency group interop)")
        secret = secret_key.hex() if secret_key else None
        options = {
            "secret_key": secret,
            "bind": bind,
            "alpns": list(alpns),
            "relays": list(relays),
            "discovery": discovery,
        }
        command = python_module("tests.interop.peers.iroh_process", json.dumps(options))
        inside = ["ip", "netns", "exec", namespace] if namespace else []
        process = LineProcess.start([*inside, *command])
        return cls(process, bytes.fromhex(process.ready["node_id"]), process.ready["addresses"])

    async def dial(
        self,
        node_id: bytes,
        addresses: list[str],
        alpn: str = "echo/1",
        *,
        relay: str | None = None,
        timeout: float = 30.0,
    ) -> Dialed:
        """Connect to a node (its 32-byte key) at `host:port` addresses, or through a relay."""
        where = {"addresses": addresses, "relay": relay}
        reply = await self.process.call("dial", timeout=timeout, node_id=node_id.hex(), alpn=alpn, **where)
        return Dialed(reply["connection"], bytes.fromhex(reply["remote"]), reply["alpn"], reply["ms"])

    async def stream(self, dialed: Dialed, data: bytes) -> bytes:
        """Send bytes on a new bidirectional stream and return the answer."""
        reply = await self.process.call("stream", connection=dialed.number, data=data.hex())
        return bytes.fromhex(reply["data"])

    async def uni(self, dialed: Dialed, data: bytes) -> bytes:
        """Send bytes on a unidirectional stream and return what the other side sends on one."""
        reply = await self.process.call("uni", connection=dialed.number, data=data.hex())
        return bytes.fromhex(reply["data"])

    async def datagram(self, dialed: Dialed, data: bytes) -> bytes:
        """Send a datagram and return the one that comes back."""
        reply = await self.process.call("datagram", connection=dialed.number, data=data.hex())
        return bytes.fromhex(reply["data"])

    async def hang_up(self, dialed: Dialed, code: int = 0, reason: str = "") -> None:
        """Close a connection that the peer dialed."""
        await self.process.call("hang_up", connection=dialed.number, code=code, reason=reason)

    async def closed(self, dialed: Dialed) -> str:
        """Wait until a connection that the peer dialed is closed, and return the reason in iroh's words."""
        reply = await self.process.call("closed", connection=dialed.number)
        return str(reply["reason"])

    async def online(self, *, timeout: float = 30.0) -> None:
        """Wait until a relay has let the peer in."""
        await self.process.call("online", timeout=timeout)

    async def paths(self, dialed: Dialed) -> list[dict[str, Any]]:
        """Return the paths of a connection: addr, relay (whether it is one), used."""
        reply = await self.process.call("paths", connection=dialed.number)
        return list(reply["paths"])

    async def accepted(self) -> list[dict[str, Any]]:
        """Return the connections that the peer accepted: remote (hex), alpn, and reason once they are closed."""
        reply = await self.process.call("list_accepted")
        return list(reply["accepted"])

    def close(self) -> None:
        """End the process."""
        self.process.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
