"""npm's ws: signaling clients as ToM's first programs have them, in one node.js child."""

from __future__ import annotations

from types import TracebackType
from typing import Any, Self

import attrs

from tests.interop.peers.npm import start_node
from tests.interop.peers.process import LineProcess


@attrs.define(eq=False)
class NpmWs:
    """A child with signaling clients, which are numbered in the order of their start."""

    process: LineProcess

    @classmethod
    def start(cls) -> NpmWs:
        """Start the child; raises PeerMissing without node.js or its packages."""
        return cls(start_node("ws", "signaling-process.mjs"))

    async def open(self, url: str) -> int:
        """Connect one more client; its number."""
        return int((await self.process.call("open", url=url))["client"])

    async def say(self, client: int, message: Any) -> None:
        """Send a value as JSON."""
        await self.process.call("say", client=client, message=message)

    async def say_text(self, client: int, text: str) -> None:
        """Send a text as it is."""
        await self.process.call("say", client=client, text=text)

    async def hear(self, client: int, kind: str | None = None) -> dict[str, Any]:
        """The next message, or the next of a type."""
        message: dict[str, Any] = (await self.process.call("hear", client=client, type=kind))["message"]
        return message

    async def register(self, client: int, node_id: str, **more: Any) -> list[dict[str, Any]]:
        """Register; the participants that are told then."""
        await self.say(client, {"type": "register", "nodeId": node_id, **more})
        participants: list[dict[str, Any]] = (await self.hear(client, "participants"))["participants"]
        return participants

    async def close_client(self, client: int) -> None:
        """Close a client's connection."""
        await self.process.call("close", client=client)

    async def pause(self, client: int) -> None:
        """Let a client read nothing more."""
        await self.process.call("pause", client=client)

    async def is_open(self, client: int) -> bool:
        """Whether a client's connection is open."""
        return bool((await self.process.call("state", client=client))["open"])

    def close(self) -> None:
        """End the process."""
        self.process.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
