"""Network namespaces: their names, work inside one, and the removal of those whose lab has died."""

from __future__ import annotations

import array
import contextlib
import ctypes
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import threading
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Final, TypeVar

from tom_connect.exceptions import TomError

T = TypeVar("T")

_CLONE_NEWNET: Final = 0x40000000
_SIOCETHTOOL: Final = 0x8946
_ETHTOOL_GLINK: Final = 0xA
_DIRECTORY: Final = Path("/run/netns")
#: `ip netns exec NAME` shows a program the files of /etc/netns/NAME in the place of those in /etc: see ip-netns(8).
_ETC: Final = Path("/etc/netns")
_NAME: Final = re.compile(r"natlab-(\d+)\.(\d+)-[0-9a-f]+-.+")
#: Seconds for one of our own commands (ip, nft, conntrack): they take milliseconds, on an overloaded machine a few.
_COMMAND_TIMEOUT: Final = 30.0


NO_NAME_SERVER: Final = "nameserver 127.0.0.1\noptions attempts:1 timeout:1\n"
"""A resolv.conf by which every question fails at once: nothing listens there in a namespace."""


class LabError(TomError):
    """The lab can't do what was asked: a name used twice, a command that failed, no addresses left."""


def missing() -> list[str]:
    """What this machine lacks for a lab, each as one phrase for a skip's reason; empty if a lab can be built."""
    lacking = []
    if not Path("/proc/self/ns/net").exists():
        return ["Linux"]
    if os.geteuid() != 0:
        lacking.append("root")
    lacking += [
        f"{program} ({package})"
        for program, package in (("ip", "iproute2"), ("nft", "nftables"), ("conntrack", "conntrack"))
        if shutil.which(program) is None
    ]
    if not Path("/dev/net/tun").exists():
        lacking.append("/dev/net/tun")
    return lacking


def namespace_prefix(pid: int, token: str) -> str:
    """How the names of a lab's namespaces begin: they name the process, so that leftovers can be told.

    The start of the process (clock ticks since boot) stands there because process ids are used again.
    """
    return f"natlab-{pid}.{_started(pid)}-{token}-"


def _started(pid: int) -> int | None:
    # proc(5): field 22; the name in field 2 may hold anything, but ends with the last parenthesis.
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return None
    return int(stat.rpartition(b")")[2].split()[19])


def remove_leftovers() -> None:
    """Remove the namespaces of labs whose process is no more, and end what still runs in them."""
    if not _DIRECTORY.is_dir():
        return
    dead = []
    for name in os.listdir(_DIRECTORY):  # noqa: PTH208 - names, not paths
        match = _NAME.fullmatch(name)
        if match is not None and _started(int(match[1])) != int(match[2]):
            dead.append(name)
    if dead:
        end_processes(dead)
        remove(dead)


def write_etc(namespace: str, files: Mapping[str, str]) -> None:
    """Give programs that start in a namespace files of their own in /etc, by their names there."""
    (_ETC / namespace).mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (_ETC / namespace / name).write_text(text)


def remove(names: Iterable[str]) -> None:
    """Delete namespaces, and their files; those that are gone already are passed over."""
    names = list(names)
    for name in names:
        shutil.rmtree(_ETC / name, ignore_errors=True)
    batch = "".join(f"netns del {name}\n" for name in names)
    # Another lab that starts at this moment may clean the same leftovers away: -force goes on past what fails.
    subprocess.run(
        ["ip", "-force", "-batch", "-"],
        input=batch,
        text=True,
        capture_output=True,
        check=False,
        timeout=_COMMAND_TIMEOUT,
    )


def end_processes(names: Iterable[str]) -> None:
    """Kill every process that runs in one of the namespaces."""
    inodes = set()
    for name in names:
        with contextlib.suppress(OSError):
            inodes.add((_DIRECTORY / name).stat().st_ino)
    own = os.getpid()
    for pid in map(int, filter(str.isdigit, os.listdir("/proc"))):  # noqa: PTH208 - names, not paths
        with contextlib.suppress(OSError):
            if pid != own and Path(f"/proc/{pid}/ns/net").stat().st_ino in inodes:
                os.kill(pid, signal.SIGKILL)


def within(namespace: str, work: Callable[[], T]) -> T:
    """Call `work` in a thread of its own that is inside the namespace, and return or raise what it does.

    A socket that is made there stays there, wherever it is used afterwards.
    """
    result: list[T] = []
    error: list[BaseException] = []

    def run() -> None:
        try:
            _enter(namespace)
            result.append(work())
        except BaseException as exc:
            error.append(exc)

    thread = threading.Thread(target=run, name=f"within {namespace}")
    thread.start()
    thread.join()
    if error:
        raise error[0]
    return result[0]


def _enter(namespace: str) -> None:
    fd = os.open(_DIRECTORY / namespace, os.O_RDONLY | os.O_CLOEXEC)
    try:
        # os.setns came with Python 3.12. A namespace belongs to a thread, so no other thread notices.
        if ctypes.CDLL(None, use_errno=True).setns(fd, _CLONE_NEWNET) != 0:
            number = ctypes.get_errno()
            raise OSError(number, f"setns to {namespace}: {os.strerror(number)}")
    finally:
        os.close(fd)


def settle(namespace: str, *devices: str) -> None:
    """See to it that the kernel has noticed the carrier of devices that were just brought up. Raises LabError.

    It does so in a work queue of its own, and until then drops what a device is to send, or a bridge port to forward.
    Asking for the link's state (ETHTOOL_GLINK) makes it catch up at once.
    """

    import fcntl  # not there on all systems on which this module is imported

    def ask() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            for device in devices:
                state = array.array("I", [_ETHTOOL_GLINK, 0])
                fcntl.ioctl(sock, _SIOCETHTOOL, struct.pack("16sP16x", device.encode(), state.buffer_info()[0]))
                if not state[1]:
                    raise LabError(f"{device} of {namespace} has no carrier")

    within(namespace, ask)


def set_kernel_options(namespace: str, options: dict[str, str]) -> None:
    """Write sysctls of a namespace, by their path below /proc/sys; those that this kernel lacks are passed over."""

    def write() -> None:
        for name, value in options.items():
            with contextlib.suppress(FileNotFoundError):
                Path("/proc/sys", name).write_text(value)

    within(namespace, write)


def ip(lines: Iterable[str], namespace: str | None = None, *, version: int | None = None) -> None:
    """Run a batch of `ip` commands in a namespace, all or up to the first that fails. Raises LabError.

    `version` of IP, 4 or 6, is for commands that name no address.
    """
    inside = ["-netns", namespace] if namespace is not None else []
    family = [f"-{version}"] if version is not None else []
    _command(["ip", *family, *inside, "-batch", "-"], "".join(line + "\n" for line in lines))


def nft(namespace: str, rules: str) -> None:
    """Load rules in one transaction. Raises LabError."""
    within(namespace, lambda: _command(["nft", "-f", "-"], rules))


def flush_connections(namespace: str) -> None:
    """Forget every tracked connection, and so every mapping of a NAT. Raises LabError."""
    within(namespace, lambda: _command(["conntrack", "-F"]))


def _command(command: list[str], text: str = "") -> None:
    ended = subprocess.run(command, input=text, text=True, capture_output=True, check=False, timeout=_COMMAND_TIMEOUT)
    if ended.returncode:
        raise LabError(f"{' '.join(command)} failed: {ended.stderr.strip()}\n{text}")
