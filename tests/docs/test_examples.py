"""The example programs do what examples/README.md says, as processes of their own."""

from __future__ import annotations

import hashlib
import json
import os
import re
import runpy
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docs.markdown import ROOT
from tests.docs.runner import Background
from tom_connect.record import SignedRecord
from tom_dht_mainline.testing import threaded_testnet

EXAMPLES = ROOT / "examples"
TIMEOUT = 60


@pytest.fixture(scope="module")
def bootstrap() -> Iterator[str]:
    with threaded_testnet(20) as nodes:
        yield nodes[0]


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("TOM_CONNECT_", "XDG_"))}
    kept |= {"HOME": str(tmp_path), "LOCALAPPDATA": str(tmp_path), "PYTHONUNBUFFERED": "1", "PYTHONUTF8": "1"}
    # No router of the machine that tests is asked for a port.
    return kept | {"TOM_CONNECT_DISABLE_PLUGINS": "portmap"}


def command(program: str, *arguments: str | Path) -> list[str]:
    return [sys.executable, str(EXAMPLES / program), *map(str, arguments)]


def run(environment: dict[str, str], program: str, *arguments: str | Path, stdin: str = "") -> str:
    done = subprocess.run(
        command(program, *arguments),
        env=environment,
        input=stdin,
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=TIMEOUT,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


class Running:
    """Starts programs that are stopped at the end of the test."""

    def __init__(self, environment: dict[str, str]) -> None:
        self._environment = environment
        self.programs: list[Background] = []

    def start(self, program: str, *arguments: str | Path, wait: str) -> re.Match[str]:
        process = subprocess.Popen(
            command(program, *arguments),
            env=self._environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="utf-8",
        )
        background = Background(program, process)
        self.programs.append(background)
        background.wait_for(wait)
        found = re.search(wait, background.output)
        assert found
        return found


@pytest.fixture
def running(environment: dict[str, str]) -> Iterator[Running]:
    programs = Running(environment)
    yield programs
    for program in programs.programs:
        if program.process.stdin is not None:
            program.process.stdin.close()
        program.stop()


def test_echo(bootstrap: str, running: Running, environment: dict[str, str]) -> None:
    """The client gets its text back from a server of which it knows the node id alone."""
    local = ("--bootstrap", bootstrap, "--allow-local")
    node_id = running.start("echo_server.py", *local, wait=r"([0-9a-f]{64})\n")[1]
    assert run(environment, "echo_client.py", node_id, "grüß dich", *local) == "grüß dich\n"


def test_chat(bootstrap: str, running: Running, environment: dict[str, str]) -> None:
    """Lines typed on one side appear on the other, both ways, and the chat ends when both inputs have."""
    local = ("--bootstrap", bootstrap, "--allow-local")
    node_id = running.start("chat.py", *local, wait=r"([0-9a-f]{64})\n")[1]
    waiting = running.programs[0]
    assert waiting.process.stdin is not None
    waiting.process.stdin.write("welcome\n")
    waiting.process.stdin.close()
    assert "> welcome" in run(environment, "chat.py", node_id, *local, stdin="hello\nbye\n")
    waiting.wait_for("> hello\n(.|\n)*> bye\n")
    assert waiting.process.wait(10) == 0


def test_file_transfer(tmp_path: Path, running: Running, environment: dict[str, str]) -> None:
    """A file of 5 MB arrives as it was, by a ticket and with no plugin in use."""
    source, target = tmp_path / "source.bin", tmp_path / "target.bin"
    source.write_bytes(os.urandom(5_000_000))
    ticket = running.start("file_transfer.py", "--allow-local", "share", source, wait=r"(tom1[a-z2-7]+)\n")[1]
    output = run(environment, "file_transfer.py", "--allow-local", "fetch", ticket, target)
    assert target.read_bytes() == source.read_bytes()
    assert hashlib.sha256(source.read_bytes()).hexdigest() in output
    assert sorted(path.name for path in tmp_path.glob("*.*in*")) == ["source.bin", "target.bin"]


def test_address_book(tmp_path: Path, bootstrap: str, running: Running, environment: dict[str, str]) -> None:
    """A node is found through the application's own discovery plugin."""
    from tom_connect import parse_ticket

    shared = tmp_path / "file"
    shared.write_bytes(b"x")
    ticket = running.start("file_transfer.py", "--allow-local", "share", shared, wait=r"(tom1[a-z2-7]+)\n")[1]
    addr = parse_ticket(ticket)
    book = tmp_path / "book.json"
    book.write_text(json.dumps({str(addr.node_id): [str(a) for a in addr.direct_addrs]}))
    output = run(environment, "address_book.py", book, str(addr.node_id), "share-one-file/1")
    assert re.match(rf"{addr.node_id.short()} at \S+: [0-9.]+ ms\n", output)


async def test_address_book_keeps_the_contract_of_discovery(tmp_path: Path) -> None:
    """The plugin inside the program is one that the core can rely on."""
    from tom_connect.testing.conformance import check_discovery

    book = runpy.run_path(str(EXAMPLES / "address_book.py"))["AddressBook"]
    known: dict[str, list[str]] = {}

    async def publish(record: SignedRecord) -> None:
        known[str(record.node_id)] = [str(addr) for addr in record.addr.direct_addrs]
        (tmp_path / "book.json").write_text(json.dumps(known))

    await check_discovery(lambda ctx: book(tmp_path / "book.json"), publish=publish, signed=False)


def test_plugin_package(tmp_path: Path, environment: dict[str, str]) -> None:
    """The example plugin package installs beside tom-connect, is loaded, and adds its option to the command line."""
    uv = shutil.which("uv")
    if uv is None:
        pytest.skip("needs uv, to build and install the example package")
    target = tmp_path / "site"
    package = tmp_path / "package"
    shutil.copytree(EXAMPLES / "tom-address-book", package)
    install = [uv, "pip", "install", "--quiet", "--no-deps", "--python", sys.executable, "--target", target, package]
    subprocess.run(list(map(str, install)), check=True, timeout=TIMEOUT)

    def tom_connect(*arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "tom_connect", *arguments],
            env=environment | {"PYTHONPATH": str(target)},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            encoding="utf-8",
            timeout=TIMEOUT,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    plugins = [json.loads(line) for line in tom_connect("plugins", "--json").splitlines()]
    (found,) = [plugin for plugin in plugins if plugin.get("package") == "tom-address-book"]
    assert found["state"] == "loaded"
    assert "--address-book-file" in tom_connect("ping", "--help")
