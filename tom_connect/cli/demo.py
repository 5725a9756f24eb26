"""`tom-connect demo`: two nodes find each other, on this machine alone."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import importlib
import json
import os
import pathlib
import sys
import tempfile
import threading
from collections.abc import AsyncIterator
from typing import Any

import attrs
import click

from tom_connect.cli.options import Invocation, tom_command
from tom_connect.exceptions import PluginError, TomError
from tom_connect.transfer.threads import in_thread

TESTNET = "tom_dht_mainline.testing"
TIME_LIMIT = 120.0
"""Seconds after which the demo gives up; it takes three, and ten times that on a machine with much else to do."""
MIB = 1024 * 1024


class DemoError(TomError):
    """The demo did not do what it shows; the message says which part failed."""


@tom_command("demo")
@click.option(
    "--size", type=click.IntRange(1, 1024), default=64, show_default=True, help="Size of the file that is sent, MiB."
)
@click.option("--nodes", type=click.IntRange(8, 200), default=20, show_default=True, help="Size of the DHT, nodes.")
async def command(run: Invocation, size: int, nodes: int) -> None:
    """See two nodes find each other by NodeId alone, connect, and transfer a verified file.

    Starts a small DHT and two other processes, Bob and Alice, on this machine; nothing goes to any other. Bob runs
    `tom-connect receive`, Alice `tom-connect send`, and Alice is told nothing but Bob's NodeId. Your own key,
    configuration and files are not touched, and nothing is left behind.
    """
    testnet = _testnet()
    with tempfile.TemporaryDirectory(prefix="tom-connect-demo-") as folder:
        demo = _Demo(run, pathlib.Path(folder), size)
        try:
            async with asyncio.timeout(TIME_LIMIT):
                await demo.play(testnet(nodes), nodes)
        except TimeoutError:
            raise DemoError(f"the demo did not end within {TIME_LIMIT:g} s; {demo.last_words()}") from None


def _testnet() -> Any:
    """The class that runs a DHT for tests; the core knows no plugin, so it is found by name."""
    try:
        return importlib.import_module(TESTNET).Testnet
    except ImportError as exc:
        if exc.name is not None and not TESTNET.startswith(exc.name):
            raise
        raise PluginError("the demo needs the DHT plugin: pip install 'tom-connect[dht]'") from None


def player() -> None:
    """Run as `tom-connect` does, but only while standard input is open: as long as the demo lives, even if killed."""
    from tom_connect.cli.entry import main

    def wait_for_end() -> None:
        os.read(0, 1)
        os._exit(1)

    threading.Thread(target=wait_for_end, name="waiting for the demo's end", daemon=True).start()
    main()


@attrs.define
class _Player:
    """A child process that runs a command of tom-connect with --json."""

    name: str
    process: asyncio.subprocess.Process
    errors: pathlib.Path
    trouble: str = ""

    async def next(self, *wanted: str) -> dict[str, Any]:
        """Its next event of one of these kinds; raises DemoError if it fails or ends before."""
        assert self.process.stdout is not None
        async for line in self.process.stdout:
            event: dict[str, Any] = json.loads(line)
            if event["event"] == "error":
                raise DemoError(f"{self.name} failed: {event['message']}")
            if event["event"] == "failed":
                self.trouble = event["message"]
            if event["event"] in wanted:
                return event
        await self.process.wait()
        raise DemoError(f"{self.name} ended before time: {self.last_words() or 'without a word'}")

    def last_words(self) -> str:
        """What went wrong, as far as it said."""
        errors = self.errors.read_text(errors="replace").strip() if self.errors.exists() else ""
        return self.trouble or errors.rpartition("\n")[2]


class _Demo:
    def __init__(self, run: Invocation, folder: pathlib.Path, size: int) -> None:
        self._run = run
        self._folder = folder
        self._size = size
        self._players: list[_Player] = []
        self._loop = asyncio.get_running_loop()
        self._began = self._loop.time()

    def last_words(self) -> str:
        """What the players said of trouble."""
        return "; ".join(f"{p.name}: {p.last_words() or 'no error'}" for p in self._players) or "the DHT did not start"

    async def play(self, testnet: Any, nodes: int) -> None:
        """All of it."""
        self._run.output.event(
            "start",
            f"Two programs, Alice and Bob, find each other by key alone and transfer a file of {self._size} MiB.\n"
            "All of it happens on this machine.\n",
            size=self._size * MIB,
            nodes=nodes,
        )
        original = self._folder / "gift.bin"
        digest = hashlib.sha256()
        for _ in range(self._size):  # in pieces, so that Ctrl-C ends it between two
            await in_thread(_append, original, digest)
        async with testnet as net:
            self._step("testnet", "DHT", f"{nodes} nodes of a BitTorrent Mainline DHT are running", nodes=nodes)
            shared = [option for node in net.bootstrap for option in ("--bootstrap", node)]
            await self._transfer(original, digest.hexdigest(), shared)

    async def _transfer(self, original: pathlib.Path, digest: str, shared: list[str]) -> None:
        inbox = self._folder / "inbox"
        key_file = str(self._folder / "bob.key")
        async with self._player(
            "Bob", "receive", "--yes", "--into", str(inbox), "--secret-key-file", key_file, *shared
        ) as bob:
            online = await bob.next("online")
            node_id = online["node_id"]
            self._step(
                "online", "Bob", f"started with a fresh key; its public half is his NodeId:\n{node_id}", **online
            )
            published = await bob.next("published")
            text = f"told the DHT where he is: {published['nodes']} nodes keep the record, which his key has signed"
            self._step("published", "Bob", text, **published)
            async with self._player("Alice", "send", str(original), node_id, *shared) as alice:
                await self._send(alice)
                received = await bob.next("received")
                await self._verify(pathlib.Path(received["place"]), digest)

    async def _send(self, alice: _Player) -> None:
        self._step("started", "Alice", "started with a fresh key, told nothing but Bob's NodeId")
        resolved = await alice.next("resolved")
        where = ", ".join(resolved["direct_addrs"])
        text = f"asked the DHT for that NodeId, and learned after {resolved['at']:.2f} s: Bob is at {where}"
        self._step("resolved", "Alice", text, **resolved)
        connected = await alice.next("connected")
        text = f"connected by QUIC {connected['at']:.2f} s after she began to look; each has proven to hold its key"
        self._step("connected", "Alice", text, **connected)
        sent = await alice.next("sent")
        rate = sent["bytes_per_second"] / 1e6
        text = f"sent {self._size} MiB in {sent['seconds']:.1f} s, {rate:.0f} MB/s, encrypted all the way"
        self._step("sent", "Alice", text, **sent)

    async def _verify(self, copy: pathlib.Path, digest: str) -> None:
        if await in_thread(_sha256, copy) != digest:
            raise DemoError("the file that arrived is not the file that was sent")
        self._step(
            "verified", "Bob", f"has the very file: SHA-256 {digest[:16]}… is that of the original", sha256=digest
        )
        seconds = self._loop.time() - self._began
        self._run.output.event(
            "summary",
            f"\nDone in {seconds:.1f} s; nothing is left behind. The same between two machines:\n"
            "  tom-connect receive              (shows its NodeId)\n"
            "  tom-connect send FILE NODE_ID",
            seconds=round(seconds, 3),
            ok=True,
        )

    def _step(self, event: str, who: str, text: str, /, **fields: Any) -> None:
        at = self._loop.time() - self._began
        first, *more = text.split("\n")
        lines = [f"{at:6.2f} s  {who:<6} {first}", *(f"{'':17}{line}" for line in more)]
        own = {key: value for key, value in fields.items() if key not in ("event", "at")}
        took = {"took": fields["at"]} if "at" in fields else {}
        self._run.output.event(event, "\n".join(lines), who=who.lower(), at=round(at, 4), **took, **own)

    @contextlib.asynccontextmanager
    async def _player(self, name: str, *args: str) -> AsyncIterator[_Player]:
        errors = self._folder / f"{name}.err"
        no_config = self._folder / "no-config.toml"
        no_config.touch()
        options = ("--json", "--bind", "127.0.0.1:0", "--allow-local", "--no-persist", "--config", str(no_config))
        environ = {key: value for key, value in os.environ.items() if not key.startswith("TOM_CONNECT_")}
        with errors.open("wb") as stderr:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-c", f"from {__name__} import player; player()", *args, *options),
                stdin=asyncio.subprocess.PIPE,  # it ends with us: see `player`
                stdout=asyncio.subprocess.PIPE,
                stderr=stderr,
                env=environ,
            )
        player = _Player(name, process, errors)
        self._players.append(player)
        try:
            yield player
        finally:
            # All that it keeps is in our folder, so there is nothing that it would have to put in order.
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()


def _append(path: pathlib.Path, digest: hashlib._Hash) -> None:
    """Add a MiB of random bytes to a file and to its SHA-256."""
    block = os.urandom(MIB)
    digest.update(block)
    with path.open("ab") as file:
        file.write(block)


def _sha256(path: pathlib.Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
