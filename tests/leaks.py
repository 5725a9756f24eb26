"""A pytest plugin: a test that leaves a task running or a socket open fails.

A test that means to leave something behind says so: `@pytest.mark.leaks("why")`.
"""

from __future__ import annotations

import asyncio
import gc
import inspect
from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio

from tom_connect.testing.footprint import open_sockets

# What was closed or cancelled in the last moment of a test gets this many turns of the loop to be gone.
_TURNS = 10


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "leaks(reason): the test leaves a task or socket behind on purpose")


def pytest_itemcollected(item: pytest.Item) -> None:
    """Give each asynchronous test the task check, before all other fixtures, so that it looks after them."""
    if (
        isinstance(item, pytest.Function)
        and inspect.iscoroutinefunction(inspect.unwrap(item.function))
        and item.get_closest_marker("leaks") is None
    ):
        item.fixturenames.insert(0, "_no_task_left")


@pytest_asyncio.fixture
async def _no_task_left() -> AsyncIterator[None]:
    before = asyncio.all_tasks()
    yield
    for _ in range(_TURNS):
        left = asyncio.all_tasks() - before - {asyncio.current_task()}
        if not left:
            return
        await asyncio.sleep(0)
    pytest.fail("the test left tasks running: " + ", ".join(sorted(map(repr, left))))


@pytest.fixture(autouse=True)
def _no_socket_left(request: pytest.FixtureRequest) -> Iterator[None]:
    if request.node.get_closest_marker("leaks") is not None:
        yield
        return
    before = open_sockets()
    yield
    if open_sockets() - before:
        gc.collect()  # what only a dead cycle holds is reported by its ResourceWarning, with its origin
        left = open_sockets() - before
        if left:
            pytest.fail("the test left sockets open: " + ", ".join(sorted(left)))
