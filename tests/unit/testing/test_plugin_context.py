"""What plugins are lent in tests behaves as what an endpoint lends."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import attrs
import pytest

from tom_connect.abc import DatagramProtocol, Discovery, FoundAddr, PluginContext
from tom_connect.addr import NodeAddr, SocketAddr
from tom_connect.exceptions import DiscoveryError
from tom_connect.hookspecs import hookimpl
from tom_connect.keys import SecretKey
from tom_connect.testing.clock import VirtualClock
from tom_connect.testing.endpoints import connected
from tom_connect.testing.plugincontext import FakeSharedSocket, LentContext

Make = Callable[..., LentContext]


def test_it_has_every_field_of_a_context(plugin_context: Make) -> None:
    """Nothing that an endpoint lends is missing, and a clock, a key and options are those that were given."""
    key, clock, options = SecretKey.generate(), VirtualClock(), object()
    ctx = plugin_context(options, key=key, clock=clock, relay_urls=["https://relay.example/"])
    assert isinstance(ctx, PluginContext)
    assert {field.name for field in attrs.fields(PluginContext)} <= {field.name for field in attrs.fields(type(ctx))}
    assert (ctx.node_id, ctx.signer.node_id, ctx.config) == (key.node_id, key.node_id, options)
    clock.advance(5)
    assert ctx.clock.monotonic() == 1005
    assert [str(url) for url in ctx.relay_urls] == ["https://relay.example/"]
    record = ctx.signer.sign_record(NodeAddr(ctx.node_id, direct_addrs=["192.0.2.1:1"]), 7)
    assert record.node_id == key.node_id


def test_what_is_reported_is_kept(plugin_context: Make) -> None:
    """External addresses that a plugin reports can be looked at."""
    ctx = plugin_context()
    ctx.report_external_addr(SocketAddr("192.0.2.1", 4433))
    assert ctx.external_addrs == [SocketAddr("192.0.2.1", 4433)]


async def test_tasks_end_and_failures_are_kept(plugin_context: Make) -> None:
    """A task is cancelled as at the close of an endpoint, also before its first step; what one raises is kept."""
    ctx = plugin_context()

    async def fail() -> None:
        raise RuntimeError("broken")

    async def wait() -> None:
        await asyncio.Event().wait()

    ctx.create_task(fail(), "failing")
    waiting = ctx.create_task(wait(), "waiting")
    await asyncio.sleep(0)
    unbegun = ctx.create_task(wait(), "not begun")
    assert {task.get_name() for task in ctx.tasks} >= {"tested: waiting", "tested: not begun"}
    await ctx.end_tasks()
    assert waiting.cancelled() and unbegun.cancelled() and not ctx.tasks
    (failure,) = ctx.failures
    assert isinstance(failure, RuntimeError)
    ctx.failures.clear()


def test_the_shared_socket_remembers_and_drops(shared_socket: FakeSharedSocket) -> None:
    """What is sent is kept; a socket that is said to be full drops and counts; delivery asks who claims."""
    there = SocketAddr("192.0.2.1", 1)
    assert shared_socket.send(b"x", there) and list(shared_socket.sent) == [(b"x", there)]
    full = FakeSharedSocket(send=lambda data, addr: False)
    assert not full.send(b"x", there) and full.refused == 1 and not full.sent

    class Protocol(DatagramProtocol):
        taken: list[Any] = []  # noqa: RUF012 - one test

        def claims(self, head: bytes) -> bool:
            return head[:1] == b"x"

        def datagrams_received(self, datagrams: Any) -> None:
            self.taken += datagrams

    protocol = Protocol()
    assert shared_socket.deliver(protocol, b"xyz", "192.0.2.1:1") and not shared_socket.deliver(protocol, b"y", there)
    assert protocol.taken == [(b"xyz", there)]


def test_the_virtual_clock_stands_still(virtual_clock: VirtualClock) -> None:
    """Time passes when the test says so."""
    before = virtual_clock.wall()
    virtual_clock.advance(3600)
    assert virtual_clock.wall() - before == 3600


class Book:
    """A plugin that knows one node."""

    name = "book"

    def __init__(self) -> None:
        self.known: NodeAddr | None = None

    @hookimpl
    def tom_discovery(self, ctx: PluginContext) -> Discovery:
        book = self

        class Reads(Discovery):
            async def resolve(self, node_id: Any) -> Any:
                if book.known is not None and book.known.node_id == node_id:
                    yield FoundAddr(book.known, "book")

        return Reads()


async def test_a_pair_of_endpoints_meets(endpoint_pair: Any) -> None:
    """By address without any plugin, and by node id through the plugin under test alone."""
    book = Book()
    async with endpoint_pair(book) as (alice, bob):
        ours, theirs = await connected(alice, bob)
        assert (ours.remote_node_id, theirs.remote_node_id) == (bob.node_id, alice.node_id)
        assert [info.name for info in alice.plugins if info.state == "loaded"] == ["book"]
        with pytest.raises(DiscoveryError):
            await connected(bob, alice, SecretKey.generate().node_id, timeout=5)
        book.known = alice.node_addr()
    async with endpoint_pair(book) as (alice, bob):
        book.known = bob.node_addr()
        ours, _ = await connected(alice, bob, bob.node_id)
        assert ours.remote_node_id == bob.node_id


FAILING = """
import asyncio
pytest_plugins = ["tom_connect.testing.pytest_plugin"]

def test_failing(plugin_context):
    async def main():
        async def fail():
            raise RuntimeError("unseen by the test")
        ctx = plugin_context()
        ctx.create_task(fail(), "failing")
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    asyncio.run(main())

def test_running(plugin_context):
    async def main():
        ctx = plugin_context()
        ctx.create_task(asyncio.sleep(60), "forgotten")
        await asyncio.sleep(0)
    loop = asyncio.new_event_loop()
    loop.run_until_complete(main())
    globals()["kept"] = loop
"""


def test_the_fixture_fails_a_test_that_leaves_or_breaks_tasks(tmp_path: Any) -> None:
    """What a test does not see of its plugin's tasks is told at its end."""
    (tmp_path / "test_it.py").write_text(FAILING)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_it.py"]
    environ = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}  # what is installed besides takes long to import
    done = subprocess.run(command, cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=110, check=False)
    assert "unseen by the test" in done.stdout, done.stdout + done.stderr
    assert "tested: forgotten" in done.stdout, done.stdout + done.stderr
    assert "2 errors" in done.stdout


def test_the_checks_need_no_pytest() -> None:
    """Whoever uses another test runner can import and call them."""
    program = """
import sys
sys.modules["pytest"] = None
from tom_connect.testing.conformance import check_discovery
from tom_connect.testing.plugincontext import plugin_context
from tom_connect.testing.endpoints import endpoint_pair
print(check_discovery.__name__, plugin_context().node_id is not None)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=110, check=False)
    assert done.stdout == "check_discovery True\n", done.stderr
