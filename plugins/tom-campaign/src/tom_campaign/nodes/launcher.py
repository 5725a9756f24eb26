"""Starts all children of a campaign, and carries their lines: one process that imports everything once and forks.

Forty nodes are started in a second or two that way, each in a process of its own. The first line that comes in is
`{"children": [{"name": "a-1", "role": "node", "namespace": null, "options": {}}, ...]}`. Each later one is `NAME LINE`,
for a child, or `NAME kill`. What a child says goes out as `NAME LINE`, its end as `NAME {"ended": STATUS}`. When the
input ends so do the children. Where processes can't be forked, each is started anew.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import json
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any, BinaryIO, Final

import attrs

_CLONE_NEWNET: Final = 0x40000000
_NAMESPACES: Final = pathlib.Path("/run/netns")
END_TIMEOUT: Final = 3.0
"""Seconds that children get to leave by themselves: an endpoint closes within one."""
MAX_LINE: Final = 1 << 20


@attrs.define(eq=False)
class Child:
    """One child: its process, and our ends of its pipes."""

    name: str
    pid: int
    to_child: BinaryIO
    from_child: BinaryIO
    process: subprocess.Popen[bytes] | None = None
    """Where it was not forked."""

    def kill(self) -> None:
        """End it at once."""
        with contextlib.suppress(OSError):
            if self.process is not None:
                self.process.kill()
            else:
                os.kill(self.pid, signal.SIGKILL)

    def wait(self) -> int:
        """Its exit status, negative for a signal, once it has ended."""
        if self.process is not None:
            return self.process.wait()
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


def enter_namespace(name: str) -> None:
    """Move this process into a network namespace, as `ip netns` names it; raises OSError."""
    fd = os.open(_NAMESPACES / name, os.O_RDONLY | os.O_CLOEXEC)
    try:
        # os.setns came with Python 3.12.
        if ctypes.CDLL(None, use_errno=True).setns(fd, _CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), f"can't enter the network namespace {name}")
    finally:
        os.close(fd)


def _forked(spec: Mapping[str, Any], others: Sequence[Child]) -> Child:
    child_in, to_child = os.pipe()
    from_child, child_out = os.pipe()
    pid = os.fork()
    if pid:
        os.close(child_in)
        os.close(child_out)
        return Child(spec["name"], pid, os.fdopen(to_child, "wb"), os.fdopen(from_child, "rb"))
    status = 1
    try:
        # An end that stayed open here would keep another child from noticing that its parent is gone.
        for other in others:
            for stream in (other.to_child, other.from_child):
                with contextlib.suppress(OSError):
                    os.close(stream.fileno())
        os.close(to_child)
        os.close(from_child)
        with open(os.devnull, "r+b") as null:  # noqa: PTH123 - a device
            os.dup2(null.fileno(), 0)
            os.dup2(null.fileno(), 1)
        if spec.get("namespace"):
            enter_namespace(spec["namespace"])
        from tom_campaign.nodes.roles import run_role

        with os.fdopen(child_in, "rb") as reading, os.fdopen(child_out, "wb") as writing:
            run_role(spec["role"], spec["options"], reading, writing)
            writing.flush()
            status = 0
            os._exit(status)  # the thread that reads may wait for a line that never comes
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        os._exit(status)


def _started(spec: Mapping[str, Any]) -> Child:
    if spec.get("namespace"):
        raise OSError("network namespaces need Linux")
    command = [sys.executable, "-m", "tom_campaign.nodes.roles", spec["role"], json.dumps(spec["options"])]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)  # noqa: S603 - our own program
    assert process.stdin is not None and process.stdout is not None
    return Child(spec["name"], process.pid, process.stdin, process.stdout, process)  # type: ignore[arg-type]


def _preload() -> None:
    """Import what nodes need, once for all of them."""
    from tom_connect import Endpoint, EndpointConfig  # noqa: F401 - what is imported lazily is imported by naming it
    from tom_connect.plugins import PluginHost

    PluginHost.load(EndpointConfig(), environ={})
    for module in ("tom_relay.client.transport", "tom_relay.server"):
        with contextlib.suppress(ImportError):
            __import__(module)
    gc.freeze()  # so that a collection in a child does not touch, and so copy, the memory of all this


class Launcher:
    """Holds the children."""

    def __init__(self, out: BinaryIO) -> None:
        self._out = out
        self._lock = threading.Lock()
        self._children: dict[str, Child] = {}
        self._threads: list[threading.Thread] = []

    def start(self, specs: Sequence[Mapping[str, Any]]) -> None:
        """Start the children, and then the threads that carry their lines: forking with threads about is unsafe."""
        can_fork = sys.platform == "linux"
        if can_fork:
            _preload()
        for spec in specs:
            child = _forked(spec, tuple(self._children.values())) if can_fork else _started(spec)
            self._children[child.name] = child
        for child in self._children.values():
            thread = threading.Thread(target=self._carry, args=(child,), name=f"lines of {child.name}", daemon=True)
            thread.start()
            self._threads.append(thread)

    def _carry(self, child: Child) -> None:
        prefix = child.name.encode() + b" "
        with contextlib.suppress(OSError, ValueError):
            while line := child.from_child.readline(MAX_LINE):
                self._say(prefix + line if line.endswith(b"\n") else prefix + line + b"\n")
        self._say(prefix + json.dumps({"ended": child.wait()}).encode() + b"\n")

    def _say(self, line: bytes) -> None:
        with self._lock, contextlib.suppress(OSError, ValueError):
            self._out.write(line)
            self._out.flush()

    def pass_on(self, line: bytes) -> None:
        """Give a line to the child that it names."""
        name, _, rest = line.partition(b" ")
        child = self._children.get(name.decode(errors="replace"))
        if child is None:
            return
        if rest.strip() == b"kill":
            child.kill()
            return
        with contextlib.suppress(OSError, ValueError):  # it has ended, which its own thread tells
            child.to_child.write(rest)
            child.to_child.flush()

    def end(self) -> None:
        """Let the children leave, and kill those that don't."""
        for child in self._children.values():
            with contextlib.suppress(OSError, ValueError):
                child.to_child.close()
        deadline = time.monotonic() + END_TIMEOUT
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        for child, thread in zip(self._children.values(), self._threads, strict=False):
            if thread.is_alive():
                child.kill()
                thread.join(END_TIMEOUT)


def main() -> None:
    """Run until the input ends."""
    launcher = Launcher(sys.stdout.buffer)
    reading = sys.stdin.buffer
    try:
        launcher.start(json.loads(reading.readline())["children"])
        while line := reading.readline():
            launcher.pass_on(line)
    finally:
        launcher.end()
        sys.stdout.flush()
        os._exit(0)


if __name__ == "__main__":
    main()
