"""Sends each incoming connection to the handler of its application protocol."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Awaitable, Callable
from typing import Self

from tom_connect.connection import Connection
from tom_connect.endpoint import Endpoint
from tom_connect.exceptions import LocalError, TomError

logger = logging.getLogger(__name__)

Handler = Callable[[Connection], Awaitable[None]]
HANDLER_FAILED = 1
"""Application error code with which a connection is closed whose handler raised."""
MAX_CONNECTIONS = 4096
"""Handlers that run at once; further connections are refused."""


class Router:
    """`await Router(endpoint).route("chat/1", handler).serve()`; `handler(connection)` is a coroutine function.

    A connection is closed when its handler returns, after what it wrote on finished streams has arrived, and with code
    1 if it raised. Handlers that still run when `serve` is cancelled are cancelled too.
    """

    def __init__(self, endpoint: Endpoint, *, max_connections: int = MAX_CONNECTIONS) -> None:
        self._endpoint = endpoint
        self._handlers: dict[str, Handler] = {}
        self._slots = max_connections
        self._serving = False

    def route(self, alpn: str, handler: Handler) -> Self:
        """Let `handler` take the connections of an ALPN, which the endpoint accepts from now on."""
        if not inspect.iscoroutinefunction(handler) and not inspect.iscoroutinefunction(
            getattr(handler, "__call__", None)  # noqa: B004 - an object with an asynchronous __call__ will do
        ):
            raise LocalError(f"the handler of {alpn!r} must be an `async def` function, not {handler!r}")
        if alpn in self._handlers:
            raise LocalError(f"the protocol {alpn!r} has a handler already")
        self._handlers[alpn] = handler
        self._endpoint.add_alpn(alpn)
        return self

    async def serve(self) -> None:
        """Accept connections until cancelled or until the endpoint is closed.

        Raises LocalError if this router serves already: each would take connections that the other waits for.
        """
        if self._serving:
            raise LocalError("this router serves already; await its first serve(), or cancel it before the next")
        self._serving = True
        try:
            await self._serve()
        finally:
            self._serving = False

    async def _serve(self) -> None:
        async with asyncio.TaskGroup() as group:
            async for incoming in self._endpoint.accept():
                handler = self._handlers.get(incoming.alpn)
                if handler is None:
                    incoming.refuse(f"nobody speaks {incoming.alpn!r} here")
                elif self._slots <= 0:
                    incoming.refuse("too many connections")
                else:
                    try:
                        connection = await incoming.accept()
                    except TomError:
                        continue
                    self._slots -= 1
                    group.create_task(self._handle(handler, connection), name=f"handler of {incoming.alpn}")

    async def _handle(self, handler: Handler, connection: Connection) -> None:
        try:
            await handler(connection)
            await connection.flush()
        except TomError as exc:
            # A peer that goes away is daily business; a program's own mistake is not.
            logger.info("connection with %s ended: %s", connection.remote_node_id.short(), exc)
            await connection.close(HANDLER_FAILED, "the handler failed")
        except Exception:
            logger.exception("the handler of %r failed", connection.alpn)
            await connection.close(HANDLER_FAILED, "the handler failed")
        finally:
            self._slots += 1
            await connection.close()
