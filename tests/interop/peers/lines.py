"""The child's side of the JSON line protocol that process.py describes."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import threading
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

Handler = Callable[..., Awaitable[Mapping[str, Any]]]


def emit(message: Mapping[str, Any]) -> None:
    """Write one line to the parent at once."""
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


def _read_stdin(loop: asyncio.AbstractEventLoop, queue: asyncio.Queue[bytes | None]) -> None:
    # os.read and not sys.stdin: a thread blocked in a buffered reader makes the interpreter abort on its way out.
    rest = b""
    while chunk := os.read(0, 65536):
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            loop.call_soon_threadsafe(queue.put_nowait, line)
    loop.call_soon_threadsafe(queue.put_nowait, None)


async def serve(handlers: Mapping[str, Handler], **ready: Any) -> None:
    """Say ready with the given fields, then answer requests, each in a task of its own, until stdin ends."""
    queue: asyncio.Queue[bytes | None] = asyncio.Queue()
    loop = asyncio.get_running_loop()
    threading.Thread(target=_read_stdin, args=(loop, queue), daemon=True).start()
    emit({"event": "ready", **ready})
    tasks: set[asyncio.Task[None]] = set()
    while (line := await queue.get()) is not None:
        request = json.loads(line)
        task = asyncio.create_task(_answer(handlers, request))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def _answer(handlers: Mapping[str, Handler], request: dict[str, Any]) -> None:
    number, name = request.pop("id"), request.pop("do")
    try:
        reply = await handlers[name](**request)
    except Exception as error:  # whatever a peer throws belongs to the test that asked
        emit({"id": number, "error": f"{name}: {type(error).__name__}: {error}"})
    else:
        emit({"id": number, "ok": dict(reply)})
