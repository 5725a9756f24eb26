"""Runs the blocks of one page in order, as a reader would: in one folder, with programs left running meanwhile."""

from __future__ import annotations

import contextlib
import doctest
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import sysconfig
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Self

import attrs

from tests.docs.markdown import Block

TIMEOUT = 60.0
LEAVES_WITHIN = 30.0
"""Seconds: a machine that is busy with other tests takes long to end a program."""
_CHECKER = doctest.OutputChecker()
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")  # some programs paint whatever NO_COLOR says


def matches(want: str, got: str) -> bool:
    """Whether `got` is what a page promises: `...` stands for anything, runs of white space are alike."""
    return _CHECKER.check_output(want, got, doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)


def commands(block: Block) -> Iterator[tuple[str, str]]:
    """The commands of a console block (after `$ `) with the output that the page shows for each."""
    if block.language in {"sh", "bash"}:
        yield block.text, ""
        return
    command, shown = "", ""
    for line in block.text.splitlines(keepends=True):
        if line.startswith("$ "):
            if command:
                yield command, shown
            command, shown = line[2:], ""
        elif command.endswith("\\\n"):
            command += line
        else:
            shown += line
    if not command:
        raise AssertionError(f"{block}: a console block needs a line that begins with '$ '")
    yield command, shown


@attrs.define(eq=False)
class Background:
    """A program that a page leaves running."""

    name: str
    process: subprocess.Popen[str]
    output: str = ""
    _changed: threading.Condition = attrs.field(factory=threading.Condition)
    _reader: threading.Thread | None = None
    _ended: bool = False

    def __attrs_post_init__(self) -> None:
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self._changed:
                self.output += line
                self._changed.notify_all()
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def wait_for(self, pattern: str, timeout: float = TIMEOUT) -> None:
        """Return when the output matches; AssertionError if the program ends or time is up before."""
        deadline = time.monotonic() + timeout
        with self._changed:
            while not re.search(pattern, self.output):
                left = deadline - time.monotonic()
                if self._ended or left <= 0:
                    why = "it ended" if self._ended else f"{timeout:.0f} s went by"
                    raise AssertionError(f"{self.name}: {why} before {pattern!r} was printed:\n{self.output}")
                self._changed.wait(left)

    def stop(self) -> None:
        """Interrupt it as Ctrl-C does, and require that it leaves cleanly and soon."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        try:
            code = self.process.wait(LEAVES_WITHIN)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise AssertionError(
                f"{self.name} did not leave in {LEAVES_WITHIN:g} s of Ctrl-C:\n{self.output}"
            ) from None
        finally:
            if self._reader is not None:
                self._reader.join(5)
            if self.process.stdout is not None:
                self.process.stdout.close()
        assert code in {0, 130, -signal.SIGINT}, f"{self.name} left with status {code}:\n{self.output}"
        assert "Traceback" not in self.output, f"{self.name}:\n{self.output}"


@attrs.define(eq=False)
class PageRun:
    """A folder, an environment and the programs of one page.

    `machines`: for each machine of a lab, what to put before a command that runs there; each has a folder and a home of
    its own.
    """

    folder: Path
    machines: Mapping[str, Sequence[str]] = attrs.field(factory=dict)
    names: dict[str, str] = attrs.field(factory=dict)
    clean: Mapping[str, str] | None = None
    """Variables of a run in which nothing of this process's environment is found, tools aside; None: it is used."""
    background: dict[str, Background] = attrs.field(factory=dict)
    last_output: str = ""

    def place(self, block: Block) -> Path:
        """The folder that a block's commands run in."""
        machine = block.get("on")
        return self.folder if machine is None else self.folder / machine

    def environment(self, folder: Path) -> dict[str, str]:
        """This process's, but with a home, a configuration and a Python of the page's own."""
        home = folder / ".home"
        home.mkdir(parents=True, exist_ok=True)
        scripts = f"{Path(sys.executable).parent}{os.pathsep}{sysconfig.get_path('scripts')}"
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("TOM_CONNECT_", "XDG_"))}
        kept.pop("PYTHONSAFEPATH", None)  # a reader's script imports the one beside it
        path = f"{scripts}{os.pathsep}{os.environ['PATH']}"
        if self.clean is not None:
            kept = {k: v for k, v in kept.items() if not k.startswith(("PYTHON", "VIRTUAL_ENV"))} | self.clean
            path = self._clean_path()
            if self._venv.is_dir():
                kept["VIRTUAL_ENV"] = str(self._venv)
        return kept | {
            "HOME": str(home),
            "APPDATA": str(home),
            "LOCALAPPDATA": str(home),
            "PATH": path,
            "PYTHONUNBUFFERED": "1",
            "PYTHONUTF8": "1",
            "NO_COLOR": "1",
            "COLUMNS": "120",
            # No router of the machine that tests is asked for a port.
            "TOM_CONNECT_DISABLE_PLUGINS": "portmap",
        }

    @property
    def _venv(self) -> Path:
        """The environment that a page makes, and activates in the same breath."""
        return self.folder / ".venv"

    def _clean_path(self) -> str:
        """Where programs are found: in the page's own environment, among tools, and in the system."""
        tools = self.folder / ".tools"
        tools.mkdir(exist_ok=True)
        for tool in ("uv", "uvx"):
            found = shutil.which(tool)
            if found is not None and not (tools / tool).exists():
                (tools / tool).symlink_to(found)
        ours = {Path(sys.prefix).resolve(), Path(sysconfig.get_path("scripts")).resolve()}
        system = [
            entry
            for entry in os.environ["PATH"].split(os.pathsep)
            if not ours & {Path(entry).resolve(), *Path(entry).resolve().parents}
        ]
        return os.pathsep.join([str(self._venv / "bin"), str(tools), *system])

    def filled_in(self, text: str) -> str:
        """The text with the words that earlier blocks have set."""
        for name, value in self.names.items():
            text = re.sub(rf"\b{name}\b", value.replace("\\", r"\\"), text)
        return text

    def run(self, block: Block) -> None:
        """Run one block, or raise AssertionError with what differs from the page."""
        if name := block.get("file"):
            path = self.place(block) / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(self.filled_in(block.text), encoding="utf-8")
        elif block.get("output") is not None:
            self.compare(block, block.text)
        elif name := block.get("shows"):
            for line in filter(None, map(str.strip, block.text.splitlines())):
                pattern = ".*".join(re.escape(part) for part in line.split("..."))
                self.background[name].wait_for(pattern)
        elif block.language == "python":
            script = self.place(block) / f"line_{block.line}.py"
            script.write_text(self.filled_in(block.text), encoding="utf-8")
            python = sys.executable if self.clean is None else self._venv / "bin" / "python"
            self.execute(block, f'"{python}" {script.name}', "")
        else:
            for command, shown in commands(block):
                self.execute(block, command, shown)
        if name := block.get("stop"):
            self.background.pop(name).stop()

    def execute(self, block: Block, command: str, shown: str) -> None:
        """Run one command line and check its status and output."""
        command = self.filled_in(command).strip()
        folder = self.place(block)
        environment = self.environment(folder)
        if (machine := block.get("on")) is not None:
            command = shlex.join(
                [*self.machines[machine], "sh", "-c", f"exec {command}" if block.get("background") else command]
            )
        if name := block.get("background"):
            # exec: the signal then reaches the program and not a shell around it.
            process = subprocess.Popen(
                f"exec {command}" if os.name == "posix" else command,
                shell=True,
                cwd=folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                encoding="utf-8",
            )
            program = self.background[name] = Background(name, process)
            program.wait_for(block.get("wait") or ".")
            self.last_output = program.output
        else:
            done = subprocess.run(
                command,
                shell=True,
                cwd=folder,
                env=environment,
                input=(block.get("stdin") or "").encode().decode("unicode_escape"),
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                encoding="utf-8",
                timeout=TIMEOUT,
                check=False,
            )
            self.last_output = _COLOUR.sub("", done.stdout)
            expected = int(block.get("code") or 0)
            assert done.returncode == expected, f"{block}: status {done.returncode}\n$ {command}\n{done.stdout}"
        for setting in block.directions.get("set", []):
            name, _, pattern = setting.partition("=")
            found = re.search(pattern, self.last_output)
            assert found, f"{block}: {pattern!r} is not in:\n{self.last_output}"
            self.names[name] = found[1]
        if shown.strip():
            self.compare(block, shown)

    def compare(self, block: Block, shown: str) -> None:
        """Raise AssertionError unless the page shows what was printed."""
        assert matches(self.filled_in(shown), self.last_output), f"{block}: the page differs from:\n{self.last_output}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        with contextlib.ExitStack() as stack:
            for program in self.background.values():
                stack.callback(program.stop)
