"""Takes requests from a control channel and answers them, several at a time."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any

import attrs

from tom_campaign.core.control import (
    MAX_REQUESTS,
    Ask,
    BadRequestError,
    Window,
    error_line,
    event_line,
    ok_line,
    parsed_request,
)
from tom_connect import TomError

_logger = logging.getLogger("tom_connect.plugin.campaign")
Handler = Callable[[Ask, Callable[[Window], None]], Awaitable[Mapping[str, Any]]]
Write = Callable[[bytes], None]


async def serve_requests(lines: AsyncIterator[bytes], write: Write, handler: Handler) -> None:
    """Answer the requests in `lines` until they end; those under way are cancelled then.

    Raises ControlError for a line that is no request: whoever sends such is no controller.
    """
    running: set[asyncio.Task[None]] = set()
    try:
        async for line in lines:
            if not line:  # what begins a stream
                continue
            try:
                number, ask = parsed_request(line)
            except BadRequestError as exc:
                write(error_line(exc.number, str(exc)))
                continue
            if len(running) >= MAX_REQUESTS:
                write(error_line(number, f"{MAX_REQUESTS} requests are under way already"))
                continue
            task = asyncio.create_task(_answer(number, ask, write, handler), name=f"request {number}")
            running.add(task)
            task.add_done_callback(running.discard)
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


async def _answer(number: int, ask: Ask, write: Write, handler: Handler) -> None:
    try:
        answer = await handler(ask, lambda window: write(event_line(number, attrs.asdict(window))))
    except TomError as exc:
        write(error_line(number, str(exc) or type(exc).__name__))
    except (OSError, ValueError) as exc:
        write(error_line(number, f"{type(exc).__name__}: {exc}"))
    except Exception as exc:  # a mistake of ours must not leave the controller waiting
        _logger.exception("request %d failed", number)
        write(error_line(number, f"internal error: {type(exc).__name__}: {exc}"))
    else:
        write(ok_line(number, answer))
