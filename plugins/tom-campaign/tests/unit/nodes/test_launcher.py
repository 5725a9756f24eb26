"""The launcher carries lines to and from its children, tells of their ends, and leaves none behind."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from tom_campaign.core.control import Bind, request_line

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]
# Where a process can't be forked each child is started anew; that way works on every system, so it is tested on any.
WAYS = {"as here": "", "started anew": "import sys; sys.platform = 'without fork'; "}
BIND = Bind(config={"bind": ["127.0.0.1:0"], "allow_local": True, "persist": False, "plugins": []})


@contextlib.contextmanager
def launcher(before: str, *names: str) -> Iterator[subprocess.Popen[bytes]]:
    """A launcher with nodes of these names."""
    code = f"from tom_campaign.nodes.launcher import main; {before}main()"
    process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin is not None and process.stdout is not None
    children = [{"name": name, "role": "node", "namespace": None, "options": {}} for name in names]
    say(process, json.dumps({"children": children}).encode() + b"\n")
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdin.close()
        process.stdout.close()


def say(process: subprocess.Popen[bytes], line: bytes) -> None:
    assert process.stdin is not None
    process.stdin.write(line)
    process.stdin.flush()


def heard(process: subprocess.Popen[bytes], name: str, key: str) -> Any:
    """What a child says under a key, in its next line that has it."""
    assert process.stdout is not None
    for line in process.stdout:
        who, _, rest = line.partition(b" ")
        message = json.loads(rest)
        if who.decode() == name and key in message:
            return message[key]
    raise AssertionError(f"the launcher ended without {key} of {name}")


@pytest.mark.parametrize("way", WAYS)
def test_children_live_and_die_with_the_launcher(way: str) -> None:
    """Two nodes bind under keys of their own; one that is killed is told; the other ends with the launcher's input."""
    with launcher(WAYS[way], "one", "other") as process:
        ids = set()
        for name in ("one", "other"):
            say(process, name.encode() + b" " + request_line(1, BIND))
            ids.add(heard(process, name, "hello")["node_id"])
        assert len(ids) == 2
        say(process, b"nobody {}\n")  # a line for nobody harms nobody
        say(process, b"one kill\n")
        assert heard(process, "one", "ended") in ((-9,) if os.name == "posix" else (1,))
        assert process.stdin is not None
        process.stdin.close()
        assert heard(process, "other", "ended") == 0
        assert process.wait(60) == 0


def test_a_node_must_be_bound_first() -> None:
    """Any other request before that is refused, and a wrong configuration is told and can be put right."""
    with launcher("", "one") as process:
        say(process, b'one {"id": 1, "do": "close", "target": "x"}\n')
        assert heard(process, "one", "error") == "the first request is to bind"
        say(process, b"one " + request_line(2, Bind(config={"idle_timeout": -1})))
        assert "idle_timeout: -1.0 is not allowed" in heard(process, "one", "error")
        say(process, b"one " + request_line(3, BIND))
        assert heard(process, "one", "ok") == {}
