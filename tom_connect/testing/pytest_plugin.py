"""Fixtures: `pytest_plugins = ["tom_connect.testing.pytest_plugin"]` in the topmost conftest.py brings them.

None of them is asynchronous, so that it does not matter by what your tests run coroutines.
"""

from __future__ import annotations

import contextlib
import zlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pytest

from tom_connect.testing import plugincontext
from tom_connect.testing.clock import VirtualClock
from tom_connect.testing.fakenet import FakeNet
from tom_connect.testing.natlab import Lab, missing
from tom_connect.testing.plugincontext import FakeSharedSocket, LentContext

if TYPE_CHECKING:
    from tom_connect.endpoint import Endpoint


@pytest.fixture
def fake_net(request: pytest.FixtureRequest) -> FakeNet:
    """An empty simulated network, seeded by the name of the test, so that a test sees the same one every time."""
    return FakeNet(zlib.crc32(request.node.nodeid.encode()))


@pytest.fixture
def natlab() -> Iterator[Lab]:
    """An empty lab of network namespaces, removed after the test; skips the test where the machine can't have one."""
    if lacking := missing():
        pytest.skip(f"a network lab needs {', '.join(lacking)}")
    with Lab() as lab:
        yield lab


@pytest.fixture
def virtual_clock() -> VirtualClock:
    """A clock that stands still until the test turns it: `plugin_context(clock=virtual_clock)`."""
    return VirtualClock()


@pytest.fixture
def shared_socket() -> FakeSharedSocket:
    """A shared socket that sends nothing and remembers all: `plugin_context(socket=shared_socket)`."""
    return FakeSharedSocket()


@pytest.fixture
def plugin_context() -> Iterator[Callable[..., LentContext]]:
    """Makes what a plugin gets from an endpoint: `plugin_context(config, key=..., clock=...)`.

    A test that leaves one of its `tasks` running, or in which one failed, fails at its end.
    """
    made: list[LentContext] = []

    def make(*args: object, **kwargs: object) -> LentContext:
        made.append(plugincontext.plugin_context(*args, **kwargs))  # type: ignore[arg-type]
        return made[-1]

    yield make
    failures = [failure for ctx in made for failure in ctx.failures]
    if failures:
        raise failures[0]
    running = [task.get_name() for ctx in made for task in ctx.tasks if not task.done()]
    if running:
        pytest.fail(f"tasks that the plugin was lent are running: {', '.join(running)}; await ctx.end_tasks()")


@pytest.fixture
def endpoint_pair() -> Callable[..., contextlib.AbstractAsyncContextManager[tuple[Endpoint, Endpoint]]]:
    """Makes two endpoints on loopback: `async with endpoint_pair(my_plugin) as (alice, bob): ...`."""
    from tom_connect.testing import endpoints  # QUIC is for those who use it

    return endpoints.endpoint_pair
