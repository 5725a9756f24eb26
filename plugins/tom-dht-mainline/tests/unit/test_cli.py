"""`tom-connect dht`: what it prints, and how it ends."""

from __future__ import annotations

import json
import os
import pathlib
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import attrs
import pytest

from tom_connect.cli.main import run
from tom_connect.cli.options import Surroundings
from tom_connect.keys import SecretKey
from tom_connect.plugins import InstalledPlugin, PluginCatalog
from tom_dht_mainline import plugin
from tom_dht_mainline.testing import threaded_testnet

_PROGRAM = """
import sys
from tom_connect.cli.main import run
from tom_connect.cli.options import Surroundings
from tom_connect.plugins import InstalledPlugin, PluginCatalog
from tom_dht_mainline import plugin
catalog = PluginCatalog(lambda: [InstalledPlugin("dht", None, None, lambda: plugin)])
sys.exit(run(sys.argv[1:], Surroundings(catalog=catalog)))
"""


@pytest.fixture(scope="module")
def bootstrap() -> Iterator[tuple[str, ...]]:
    """A DHT on loopback for the commands of this module."""
    with threaded_testnet(10) as bootstrap:
        yield bootstrap


@attrs.frozen
class Outcome:
    """How a command ended and what it printed."""

    code: int
    out: str
    err: str

    @property
    def events(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.out.splitlines()]


@pytest.fixture
def tom(capsys: pytest.CaptureFixture[str], tmp_path: pathlib.Path) -> Any:
    """Runs a command line with a home of its own."""
    catalog = PluginCatalog(lambda: [InstalledPlugin("dht", "tom-dht-mainline", "0.1.0", lambda: plugin)])
    environ = {"TOM_CONNECT_DATA_DIR": str(tmp_path / "data"), "TOM_CONNECT_SECRET_KEY_FILE": str(tmp_path / "key")}

    def call(*args: str) -> Outcome:
        code = run(["dht", *args], Surroundings(environ=environ, catalog=catalog))
        printed = capsys.readouterr()
        return Outcome(code, printed.out, printed.err)

    return call


def _joined(bootstrap: tuple[str, ...]) -> list[str]:
    return ["--bind", "127.0.0.1:0", *(word for node in bootstrap for word in ("--bootstrap", node))]


def test_an_immutable_item_is_put_and_got(tom: Any, bootstrap: tuple[str, ...]) -> None:
    """`put` prints the target under which `get` finds the value."""
    put = tom("put", "hello", "--json", *_joined(bootstrap))
    assert put.code == 0
    (stored,) = put.events
    assert stored["event"] == "stored"
    assert stored["nodes"] >= 8
    got = tom("get", stored["target"], "--json", *_joined(bootstrap))
    assert got.code == 0
    (value,) = got.events
    assert (value["event"], value["text"], value["value"]) == ("value", "hello", b"hello".hex())
    assert "hello" in tom("get", stored["target"], *_joined(bootstrap)).out


def test_a_mutable_item_is_replaced(tom: Any, bootstrap: tuple[str, ...]) -> None:
    """Items of our key rise by themselves; an explicit number below is refused with the reason."""
    first = tom("put", "one", "--salt", "s", "--json", *_joined(bootstrap)).events[0]
    second = tom("put", "two", "--salt", "s", "--json", *_joined(bootstrap)).events[0]
    assert first["node_id"] == second["node_id"]
    assert first["seq"] < second["seq"]
    got = tom("get", first["node_id"], "--salt", "s", "--json", *_joined(bootstrap))
    assert (got.events[-1]["text"], got.events[-1]["seq"], got.events[-1]["salt"]) == ("two", second["seq"], "s")
    older = tom("put", "old", "--salt", "s", "--seq", "1", *_joined(bootstrap))
    assert older.code == 1
    assert "higher sequence number" in older.err
    raced = tom("put", "x", "--salt", "s", "--cas", "1", *_joined(bootstrap))
    assert raced.code == 1
    assert "sequence number" in raced.err


def test_a_record_is_shown_with_its_addresses(tom: Any, bootstrap: tuple[str, ...], tmp_path: pathlib.Path) -> None:
    """What a node published about itself is printed as addresses."""
    from tom_connect.addr import NodeAddr
    from tom_connect.keyfile import load_or_create_secret_key
    from tom_connect.record import build_dns_packet

    key = load_or_create_secret_key(tmp_path / "key")
    (tmp_path / "packet").write_bytes(build_dns_packet(NodeAddr(key.node_id, direct_addrs=("192.0.2.1:4",))))
    put = tom("put", "--file", str(tmp_path / "packet"), "--mutable", "--json", *_joined(bootstrap))
    assert put.events[0]["node_id"] == str(key.node_id)
    got = tom("get", str(key.node_id), "--first", "--json", *_joined(bootstrap))
    assert got.events[0]["direct_addrs"] == ["192.0.2.1:4"]
    assert "addr: 192.0.2.1:4" in tom("get", str(key.node_id), *_joined(bootstrap)).out


def test_ping_measures(tom: Any, bootstrap: tuple[str, ...]) -> None:
    """Each pong has its number, time and id; a summary ends it."""
    outcome = tom("ping", bootstrap[0], "--count", "2", "--interval", "0", "--json", "--bind", "127.0.0.1:0")
    assert outcome.code == 0
    pong, _, summary = outcome.events
    assert (pong["event"], pong["seq"], pong["addr"]) == ("pong", 0, bootstrap[0])
    assert pong["rtt_ms"] > 0
    assert len(pong["dht_id"]) == 40
    assert (summary["event"], summary["sent"], summary["received"]) == ("summary", 2, 2)


def test_what_is_not_there_is_a_failure(tom: Any, bootstrap: tuple[str, ...]) -> None:
    """No item, and nobody who answers: exit code 1, one line that says which of both."""
    nobody = str(SecretKey.generate().node_id)
    missing = tom("get", nobody, *_joined(bootstrap))
    assert missing.code == 1
    assert "holds no item" in missing.err
    assert missing.err.count("\n") == 1
    with threaded_testnet(1) as gone:
        pass
    silent = tom("ping", gone[0], "--count", "1", "--bind", "127.0.0.1:0")
    assert silent.code == 1
    assert "no DHT node answers" in silent.err
    lonely = tom("get", nobody, "--bootstrap", "none", "--bind", "127.0.0.1:0")
    assert lonely.code == 1
    assert "no bootstrap node was given" in lonely.err


@pytest.mark.parametrize(
    "args",
    [
        ["get"],
        ["get", "xyz"],
        ["get", "00" * 32],
        ["get", "00" * 20, "--salt", "s"],
        ["get", "00" * 20, "--bootstrap", "nonsense"],
        ["get", "00" * 20, "--bind", "nonsense"],
        ["get", "00" * 20, "--dht-server", "maybe"],
        ["put"],
        ["put", "x", "--file", "y"],
        ["put", "x" * 997],
        ["put", "--file", "/does/not/exist"],
        ["put", "x", "--seq", "-1"],
        ["put", "x", "--salt", "s" * 65],
        ["put", "x", "--seq", "many"],
        ["ping", "127.0.0.1"],
        ["ping", "127.0.0.1:99999"],
        ["ping", "127.0.0.1:1", "--count", "0"],
        ["ping", "127.0.0.1:1", "--interval", "-1"],
        ["node", "--interval", "-1"],
        ["node", "--dht-port", "99999"],
        ["nonsense"],
    ],
)
def test_wrong_usage_is_one_line_and_exit_2(tom: Any, args: list[str], bootstrap: tuple[str, ...]) -> None:
    """Wrong arguments, ids, values and options: exit code 2, one line, no traceback."""
    safe = _joined(bootstrap)  # whatever goes wrong, no test asks a public node
    options = [] if args == ["nonsense"] else safe[2:] if "--bind" in args else safe
    outcome = tom(*args, *(options[:2] if "--bootstrap" in args else options))
    assert outcome.code == 2
    assert outcome.err.startswith("tom-connect: error: ")
    assert outcome.err.count("\n") == 1
    assert "Traceback" not in outcome.err


def test_a_taken_port_is_one_line_and_exit_1(tom: Any, bootstrap: tuple[str, ...]) -> None:
    """A port in use is not the user's syntax but a failure."""
    outcome = tom("node", "--bind", bootstrap[0], "--bootstrap", "none")
    assert outcome.code == 1
    assert bootstrap[0] in outcome.err


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")
def test_a_node_serves_until_interrupted(tom: Any, bootstrap: tuple[str, ...], tmp_path: pathlib.Path) -> None:
    """`dht node` says where it is, joins, answers others, and ends soon after Ctrl-C with code 130."""
    environ = os.environ | {"TOM_CONNECT_DATA_DIR": str(tmp_path), "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", _PROGRAM, "dht", "node", "--json", "--interval", "0.2", *_joined(bootstrap)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environ) as process:
        assert process.stdout is not None
        try:
            online = json.loads(process.stdout.readline())
            joined = json.loads(process.stdout.readline())
            assert (online["event"], joined["event"]) == ("online", "joined")
            assert joined["nodes"] >= 1
            assert tom("ping", online["addrs"][0], "--count", "1", "--bind", "127.0.0.1:0").code == 0
            status = json.loads(process.stdout.readline())
            assert (status["event"], status["serving"], status["failures"]) == ("status", True, 0)
            interrupted = time.monotonic()
            process.send_signal(signal.SIGINT)
            assert process.wait(5) == 130
            assert time.monotonic() - interrupted < 2
        finally:
            process.kill()
