"""The children of a campaign on this machine: nodes, the private DHT and relays, behind one launcher."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any, Final

import attrs

from tom_campaign.core.errors import ControlError, NodeGoneError
from tom_campaign.networks.channel import Channel

START_TIMEOUT: Final = 90.0
"""Seconds for a DHT or relay to be there: a second or two, on a machine that is very busy many more."""
END_TIMEOUT: Final = 10.0
"""Seconds for the launcher to end all children and itself."""
LINE_LIMIT: Final = 1 << 20


@attrs.frozen
class ChildSpec:
    """A child to start: its name, what it is, in which network namespace, and its options."""

    name: str
    role: str
    namespace: str | None = None
    options: Mapping[str, Any] = attrs.field(factory=dict)


def own_process(module: str) -> tuple[list[str], dict[str, Any]]:
    """How a helper process is started: the command, and options for `create_subprocess_exec`.

    Ctrl-C in a terminal does not reach it: it ends, and cleans up, when its input does, even if we were killed.
    """
    environ = {key: value for key, value in os.environ.items() if not key.startswith("TOM_CONNECT_")}
    options: dict[str, Any] = {
        "stdin": asyncio.subprocess.PIPE,
        "stdout": asyncio.subprocess.PIPE,
        "stderr": asyncio.subprocess.PIPE,
        "env": environ,
        "limit": LINE_LIMIT,
    }
    if sys.platform == "win32":
        options["creationflags"] = subprocess.CREATE_NEW_PROCESS_GROUP
    else:
        options["start_new_session"] = True
    return [sys.executable, "-m", module], options


@attrs.define(eq=False)
class Children:
    """All children, by name; made by `children`."""

    process: asyncio.subprocess.Process
    channels: dict[str, Channel]
    on_death: Callable[[str], None]
    ready: dict[str, asyncio.Future[dict[str, Any]]] = attrs.Factory(dict)
    """What DHT and relays say once they are there."""
    stderr: collections.deque[str] = attrs.Factory(lambda: collections.deque(maxlen=20))

    async def until_ready(self, name: str) -> dict[str, Any]:
        """What a DHT or relay says once it is there; raises ControlError."""
        try:
            async with asyncio.timeout(START_TIMEOUT):
                return await self.ready[name]
        except TimeoutError:
            raise ControlError(f"{name} was not ready within {START_TIMEOUT:g} s") from None

    def send(self, name: str, line: bytes) -> None:
        """Give a line to a child."""
        assert self.process.stdin is not None
        with contextlib.suppress(OSError, RuntimeError):
            self.process.stdin.write(name.encode() + b" " + line)

    async def kill(self, name: str) -> None:
        """End a child at once, and wait until it has ended."""
        channel = self.channels[name]
        self.send(name, b"kill\n")
        async with asyncio.timeout(END_TIMEOUT):
            while channel.gone is None:  # noqa: ASYNC110 - its end is told by a line, for which others wait as well
                await asyncio.sleep(0.005)

    async def read(self) -> None:
        """Take what children say until the launcher ends."""
        assert self.process.stdout is not None
        why = "the processes of the campaign have ended"
        try:
            while line := await self.process.stdout.readline():
                name, _, rest = line.partition(b" ")
                self._take(name.decode(errors="replace"), rest)
        except (ValueError, ControlError) as exc:
            why = f"the processes of the campaign said what makes no sense: {exc}"
        for channel in self.channels.values():
            channel.ended(why)

    def _take(self, name: str, line: bytes) -> None:
        channel = self.channels.get(name)
        if channel is None:
            return
        if line.startswith(b'{"ended"'):
            status = json.loads(line)["ended"]
            how = f"signal {-status}" if status < 0 else f"exit status {status}"
            self._gone(name, channel, f"the process of {name} has ended ({how})")
        elif line.startswith(b'{"failed"'):
            self._gone(name, channel, f"{name}: {json.loads(line)['failed']}")
        elif line.startswith(b'{"ready"'):
            if name in self.ready and not self.ready[name].done():
                self.ready[name].set_result(json.loads(line)["ready"])
        else:
            channel.line_received(line)

    def _gone(self, name: str, channel: Channel, why: str) -> None:
        first = channel.gone is None
        channel.ended(why)
        if name in self.ready and not self.ready[name].done():
            self.ready[name].set_exception(NodeGoneError(why))
            self.ready[name].exception()
        if first:
            self.on_death(name)

    async def read_errors(self) -> None:
        """Keep the last lines that children wrote on standard error."""
        assert self.process.stderr is not None
        with contextlib.suppress(ValueError):
            while line := await self.process.stderr.readline():
                self.stderr.append(line.decode(errors="replace").rstrip())


@contextlib.asynccontextmanager
async def children(specs: Sequence[ChildSpec], on_death: Callable[[str], None]) -> AsyncIterator[Children]:
    """Start children, and end all of them with the block; `on_death` hears the name of one that ends before."""
    command, options = own_process("tom_campaign.nodes.launcher")
    process = await asyncio.create_subprocess_exec(*command, **options)
    assert process.stdin is not None
    found = Children(process, {}, on_death)
    for spec in specs:
        found.channels[spec.name] = Channel(spec.name, lambda line, name=spec.name: found.send(name, line))  # type: ignore[misc]
        if spec.role != "node":
            found.ready[spec.name] = asyncio.get_running_loop().create_future()
    readers = [asyncio.create_task(found.read()), asyncio.create_task(found.read_errors())]
    try:
        process.stdin.write(json.dumps({"children": [attrs.asdict(spec) for spec in specs]}).encode() + b"\n")
        yield found
    finally:
        found.on_death = lambda _name: None
        await ended(process, END_TIMEOUT)
        for reader in readers:
            reader.cancel()
        await asyncio.gather(*readers, return_exceptions=True)


async def ended(process: asyncio.subprocess.Process, timeout: float) -> None:
    """Close a helper's input and wait until it has ended; kill it after `timeout` seconds."""
    assert process.stdin is not None
    with contextlib.suppress(OSError, RuntimeError):
        process.stdin.close()
    try:
        async with asyncio.timeout(timeout):
            await process.wait()
    except TimeoutError:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
