"""Blocking calls in threads, such that nothing is closed under one that still runs."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Generic, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class Job(Generic[T]):
    """A call that runs in a thread from now on; it can't be cancelled, so await `settle` before what it uses goes."""

    def __init__(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> None:
        loop = asyncio.get_running_loop()
        self._future: asyncio.Future[T] = loop.run_in_executor(None, lambda: function(*args, **kwargs))

    @property
    def is_done(self) -> bool:
        """Whether it has returned or raised."""
        return self._future.done()

    async def result(self) -> T:
        """What it returned or raised; being cancelled here leaves it running."""
        return await asyncio.shield(self._future)

    async def settle(self) -> None:
        """Wait for its end, however it ends, even if cancelled meanwhile; that is raised afterwards."""
        cancelled = None
        while not self._future.done():
            try:
                await asyncio.wait((self._future,))
            except asyncio.CancelledError as exc:
                cancelled = exc
        with contextlib.suppress(Exception):
            self._future.result()
        if cancelled is not None:
            raise cancelled


async def in_thread(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call in a thread; being cancelled takes effect when the call has ended."""
    job = Job(function, *args, **kwargs)
    try:
        return await job.result()
    finally:
        await job.settle()
