"""What discovery and publisher of one endpoint have in common: the servers, our record, and the warnings."""

from __future__ import annotations

import asyncio
import contextlib
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, cast

from tom_connect.abc import PluginContext
from tom_connect.record import SignedRecord
from tom_signaling_legacy.client.config import SignalingConfig, host_of

if TYPE_CHECKING:
    import aiohttp

    from tom_signaling_legacy.client.connection import ServerConnection

_KEY = "service"
MAX_CALLS = 64
"""Calls that wait to be opened."""


class SignalingService:
    """Connects with its first user and disconnects with its last."""

    def __init__(self, ctx: PluginContext) -> None:
        self.ctx = ctx
        self.config: SignalingConfig = ctx.config if ctx.config is not None else SignalingConfig()
        self.record: SignedRecord | None = None
        """Our newest, None before one was published."""
        self.found = 0
        """Nodes that were found through signaling."""
        self.calls: asyncio.Queue[bytes | None] = asyncio.Queue(MAX_CALLS)
        """Sealed calls of others that nobody has taken yet; None at the end."""
        self._servers: tuple[ServerConnection, ...] = ()
        self._http: aiohttp.ClientSession | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._users: set[object] = set()
        self._changed: set[asyncio.Future[None]] = set()
        self._warned: set[str] = set()

    @classmethod
    def of(cls, ctx: PluginContext) -> SignalingService:
        """The service of an endpoint, made at the first call."""
        if _KEY not in ctx.shared:
            ctx.shared[_KEY] = cls(ctx)
        return cast(SignalingService, ctx.shared[_KEY])

    @property
    def servers(self) -> tuple[ServerConnection, ...]:
        """The servers; empty while nobody uses the service."""
        return self._servers

    def acquire(self, user: object) -> None:
        """Count a user in; raises DeprecationWarning, and does nothing, where that is an error."""
        self.warn("use", f"we register with {', '.join(map(host_of, self.config.wanted))}")
        self._users.add(user)
        if self._http is None:
            from tom_signaling_legacy.client.connection import ServerConnection, new_session

            self._http = http = new_session()
            username = self.config.username or f"tom-{self.ctx.node_id!s:.8}"
            self._servers = tuple(
                ServerConnection(self.ctx, url, username, lambda: self.record, self._wake, self._called)
                for url in self.config.wanted
            )
            self._tasks = [
                self.ctx.create_task(server.run(http), f"signaling {server.url}") for server in self._servers
            ]

    async def release(self, user: object) -> None:
        """Count a user out; harmless for one that was never in."""
        self._users.discard(user)
        if not self._users and self._http is not None:
            http, self._http = self._http, None
            tasks, self._tasks, self._servers = self._tasks, [], ()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await http.close()

    async def until(self, condition: Callable[[], bool], timeout: float) -> bool:
        """Wait until a condition of the servers holds, `timeout` seconds at most; whether it does."""
        try:
            async with asyncio.timeout(timeout):
                while not condition():
                    waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
                    self._changed.add(waiter)
                    try:
                        await waiter
                    finally:
                        self._changed.discard(waiter)
        except TimeoutError:
            return condition()
        return True

    def warn(self, kind: str, what: str) -> None:
        """In the phase in which signaling is deprecated, say so, once for each kind of use."""
        deprecation = self.config.deprecation
        if deprecation is None or kind in self._warned:
            return
        # Where it is an error (python -W error) it is one at each use: half of signaling would be worse than none.
        warnings.warn(f"{deprecation} ({what})", DeprecationWarning, stacklevel=3)
        self._warned.add(kind)
        self.ctx.logger.warning("%s (%s)", deprecation, what)

    def _called(self, sealed: bytes) -> None:
        with contextlib.suppress(asyncio.QueueFull):  # who calls in vain calls again
            self.calls.put_nowait(sealed)

    def _wake(self) -> None:
        for waiter in self._changed:
            if not waiter.done():
                waiter.set_result(None)


class LiveDiagnostics(Mapping[str, object]):
    """How we stand with each server, and how much signaling is still needed, read at the moment it is shown."""

    def __init__(self, service: SignalingService) -> None:
        self._service = service

    def _read(self) -> dict[str, object]:
        service = self._service
        shown: dict[str, object] = {}
        if service.config.deprecation is not None:
            shown["deprecated"] = service.config.deprecation
        shown["phase"] = service.config.phase
        for server in service.servers:
            text = f"registered, {server.present()} other nodes are there" if server.is_registered else server.problem
            shown[server.url] = text
        return {**shown, "nodes found by signaling": service.found}

    def __getitem__(self, key: str) -> object:
        return self._read()[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._read())

    def __len__(self) -> int:
        return len(self._read())
