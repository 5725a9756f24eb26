"""The command line as a process: signals, readers that go away, and the time to start."""

from __future__ import annotations

import os
import pathlib
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import pytest

PROGRAM = pathlib.Path(__file__).with_name("plugin_for_tests.py")
Start = Callable[..., "subprocess.Popen[str]"]
posix = pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals and pipes")


@pytest.fixture
def start(tmp_path: pathlib.Path) -> Iterator[Start]:
    """Starts `tom-connect` with the test plugin; what still runs at the end is killed."""
    started: list[subprocess.Popen[str]] = []

    def start_it(*args: str) -> subprocess.Popen[str]:
        command = [sys.executable, str(PROGRAM), str(tmp_path / "started"), *args]
        process = subprocess.Popen(
            command,
            cwd=tmp_path,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path)},
        )
        started.append(process)
        return process

    yield start_it
    for process in started:
        process.kill()
        process.communicate()


@posix
@pytest.mark.parametrize(
    ("how", "says"),
    [("", "closed\n"), ("thread", "closed\n"), ("stubborn", ""), ("error", "closed\n")],
)
@pytest.mark.parametrize("number", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_interrupt(start: Start, how: str, says: str, number: str) -> None:
    """Ctrl-C ends a command within a second with exit code 130 and no word, whatever hangs; what can close, closes."""
    process = start("hang", "--how", how)
    assert process.stderr is not None
    assert process.stderr.readline() == "ready\n"
    began = time.monotonic()
    process.send_signal(signal.Signals[number])
    _, err = process.communicate(timeout=10)
    assert time.monotonic() - began < 1.5
    assert process.returncode == 130
    assert err == says


@posix
def test_nohup(start: Start) -> None:
    """A command that was started with SIGHUP ignored outlives its terminal."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        process = start("hang")
    finally:
        signal.signal(signal.SIGHUP, before)
    assert process.stderr is not None
    assert process.stderr.readline() == "ready\n"
    process.send_signal(signal.SIGHUP)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(timeout=0.5)


@posix
def test_interrupt_of_a_background_job(start: Start) -> None:
    """A command that a shell script started with `&`, and so with SIGINT ignored, still closes on SIGINT."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        process = start("hang")
    finally:
        signal.signal(signal.SIGINT, before)
    assert process.stderr is not None
    assert process.stderr.readline() == "ready\n"
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=10) == 130


@posix
@pytest.mark.parametrize("module", ["tom_connect.cli.main", "click", "tom_connect.cli.ping"])
def test_interrupt_while_starting(tmp_path: pathlib.Path, module: str) -> None:
    """Ctrl-C while modules are imported ends the program with 130, and without a word or an empty line."""
    script = (
        "import os, signal, sys\n"
        "class Finder:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name == {module!r}:\n"
        "            os.kill(os.getpid(), signal.SIGINT)\n"
        "sys.meta_path.insert(0, Finder())\n"
        "sys.argv = ['tom-connect', 'ping']\n"
        "from tom_connect.cli.entry import main\n"
        "main()\n"
    )
    done = run_cli("-c", script, home=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


@posix
@pytest.mark.parametrize("args", [["talk"], ["talk", "--json"]])
def test_reader_goes_away(start: Start, args: list[str]) -> None:
    """A command whose output nobody reads any more ends without a word."""
    process = start(*args)
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.readline()
    process.stdout.close()
    assert process.wait(timeout=10) == 1
    assert process.stderr.read() == ""
    process.stdout = None


def run_cli(*args: str, home: pathlib.Path) -> subprocess.CompletedProcess[str]:
    environ = os.environ | {"HOME": str(home), "XDG_CONFIG_HOME": str(home), "XDG_DATA_HOME": str(home)}
    return subprocess.run(
        [sys.executable, *args], cwd=home, env=environ, capture_output=True, text=True, timeout=60, check=False
    )


@pytest.mark.skipif(not pathlib.Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("args", ["--help", "config", "config --json"])
def test_full_disk(tmp_path: pathlib.Path, args: str) -> None:
    """Output that can't be written gives exit code 1 and one line."""
    script = f"{sys.executable} -m tom_connect {args} > /dev/full"
    done = subprocess.run(
        ["/bin/sh", "-c", script],
        cwd=tmp_path,
        env=os.environ | {"HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr == "tom-connect: error: No space left on device\n"


@posix
def test_no_standard_output(tmp_path: pathlib.Path) -> None:
    """A process that was given no standard output or error works all the same."""
    done = subprocess.run(
        ["/bin/sh", "-c", f"{sys.executable} -m tom_connect plugins >&- 2>&-"],
        cwd=tmp_path,
        env=os.environ | {"HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path)},
        timeout=60,
        check=False,
    )
    assert done.returncode == 0


def test_help_imports_little(tmp_path: pathlib.Path) -> None:
    """Help needs neither QUIC, DNS nor rich, so that it is shown at once."""
    script = (
        "import sys\nfrom tom_connect.cli.main import run\nfrom tom_connect.cli.options import Surroundings\n"
        "from tom_connect.plugins import PluginCatalog\n"
        "run(['--help'], Surroundings(catalog=PluginCatalog(lambda: ())))\n"
        "slow = {'aioquic', 'rich', 'dns', 'tom_connect.endpoint', 'tom_connect.quic'}\n"
        "print(*slow.intersection(sys.modules))\n"
    )
    done = run_cli("-c", script, home=tmp_path)
    assert done.stdout.splitlines()[-1] == ""
    assert done.stderr == ""


def test_module_is_the_command(tmp_path: pathlib.Path) -> None:
    """`python -m tom_connect` is `tom-connect`."""
    done = run_cli("-m", "tom_connect", "--help", home=tmp_path)
    assert (done.returncode, done.stdout.startswith("Usage: tom-connect ")) == (0, True)
