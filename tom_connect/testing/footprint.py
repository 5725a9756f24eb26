"""What code leaves behind: tasks that run on and sockets that stay open."""

from __future__ import annotations

import asyncio
import gc
import os
import socket
from pathlib import Path
from typing import Final

_FDS: Final = Path("/proc/self/fd")
_LOOK_EVERY: Final = 0.005


def open_sockets() -> set[str]:
    """Each open socket of this process, as a text that tells it from others."""
    if _FDS.is_dir():
        found = set()
        for name in os.listdir(_FDS):  # noqa: PTH208 - one call each test: speed
            try:
                target = os.readlink(_FDS / name)  # noqa: PTH115
            except OSError:
                continue
            if target.startswith("socket:"):
                found.add(f"fd {name} ({target})")
        return found
    return {repr(o) for o in gc.get_objects() if isinstance(o, socket.socket) and o.fileno() >= 0}


class Footprint:
    """The tasks and sockets of this process as they are when it is made."""

    def __init__(self) -> None:
        self._tasks = asyncio.all_tasks()
        self._sockets = open_sockets()

    def new_tasks(self) -> list[str]:
        """The names of the tasks that run now and did not then, this one aside."""
        new = asyncio.all_tasks() - self._tasks - {asyncio.current_task()}
        return sorted(f"task {task.get_name()!r} ({task.get_coro()!r})" for task in new if not task.done())

    def new_sockets(self) -> list[str]:
        """The sockets that are open now and were not then."""
        return sorted(open_sockets() - self._sockets)

    async def left(self, *, sockets: bool, within: float) -> list[str]:
        """What is new and still there after `within` seconds, or nothing as soon as nothing is."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + within
        while True:
            found = self.new_tasks()
            if sockets and (new := self.new_sockets()):
                gc.collect()  # what only a dead cycle holds is reported by its ResourceWarning
                found += new and self.new_sockets()
            if not found or loop.time() >= deadline:
                return found
            # Its end is nobody's to tell: not even whose it is is known.
            await asyncio.sleep(_LOOK_EVERY)
