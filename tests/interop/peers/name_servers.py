"""Real name servers on loopback: knot holds a zone, unbound resolves before it."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.interop.peers.loopback import free_port
from tests.interop.peers.process import PeerError, PeerMissing
from tom_connect.addr import SocketAddr

START_TIMEOUT = 30.0
_QUESTION = """
import sys, dns.message, dns.query
name, host, port = sys.argv[1:]
assert dns.query.udp(dns.message.make_query(name, "SOA"), host, 2.0, int(port)).answer
"""
_PATH = os.environ.get("PATH", "") + os.pathsep + "/usr/sbin"


def _program(name: str, package: str) -> str:
    found = shutil.which(name, path=_PATH)
    if found is None:
        raise PeerMissing(f"needs {name}: apt-get install {package}")
    return found


def zone(origin: str, records: Sequence[tuple[str, str]]) -> str:
    """The text of a zone with TXT records, pairs of name and text."""
    lines = [f"{origin}. 30 SOA ns.{origin}. admin.{origin}. 1 3600 600 86400 5", f"{origin}. 30 NS ns.{origin}."]
    lines += [f"ns.{origin}. 30 A 127.0.0.1"]
    lines += [f'{name}.{origin}. 30 TXT "{text}"' for name, text in records]
    return "\n".join([*lines, ""])


@contextlib.contextmanager
def _running(command: Sequence[str], addr: SocketAddr, asked: str, prefix: Sequence[str]) -> Iterator[None]:
    """Run a name server until the block ends, from when it answers a query for `asked`."""
    with subprocess.Popen([*prefix, *command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        try:
            _wait(process, addr, asked, prefix)
            yield
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()


def _wait(process: subprocess.Popen[str], addr: SocketAddr, asked: str, prefix: Sequence[str]) -> None:
    deadline = time.monotonic() + START_TIMEOUT
    question = [*prefix, sys.executable, "-c", _QUESTION, asked, addr.host, str(addr.port)]
    while True:
        # From where the server is: a namespace of its own can't be asked from here.
        if subprocess.run(question, check=False, capture_output=True, timeout=START_TIMEOUT).returncode == 0:
            return
        if process.poll() is not None:
            raise PeerError(f"the name server ended: {process.stdout.read() if process.stdout else ''}")
        if time.monotonic() > deadline:
            raise PeerError(f"the name server did not answer within {START_TIMEOUT} s")
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(0.05)


@contextlib.contextmanager
def knot(
    directory: Path,
    origin: str,
    records: Sequence[tuple[str, str]],
    *,
    addr: SocketAddr | None = None,
    prefix: Sequence[str] = (),
) -> Iterator[SocketAddr]:
    """Run knot with a zone; where it answers. `prefix`: before its command, such as `ip netns exec NAME`.

    Raises PeerMissing where it is not installed.
    """
    program = _program("knotd", "knot")
    addr = addr or SocketAddr("127.0.0.1", free_port("127.0.0.1"))
    folder = directory / "knot"
    folder.mkdir()
    (folder / "zone").write_text(zone(origin, records))
    (folder / "knot.conf").write_text(
        f"""
server:
    rundir: "{folder}"
    listen: {addr.host}@{addr.port}
    udp-workers: 1
    tcp-workers: 1
    background-workers: 1
database:
    storage: "{folder}"
log:
  - target: stderr
    any: warning
zone:
  - domain: {origin}
    file: "{folder / "zone"}"
    zonefile-load: whole
    journal-content: none
"""
    )
    with _running([program, "-c", str(folder / "knot.conf")], addr, f"{origin}.", prefix):
        yield addr


@contextlib.contextmanager
def unbound(directory: Path, origin: str, upstream: SocketAddr) -> Iterator[SocketAddr]:
    """Run unbound as a resolver that finds `origin` at `upstream` and asks nobody else; where it answers.

    Raises PeerMissing where it is not installed.
    """
    program = _program("unbound", "unbound")
    addr = SocketAddr("127.0.0.1", free_port("127.0.0.1"))
    file = directory / "unbound.conf"
    file.write_text(
        f"""
server:
    interface: {addr.host}@{addr.port}
    username: ""
    chroot: ""
    directory: "{directory}"
    pidfile: ""
    use-syslog: no
    do-daemonize: no
    num-threads: 1
    do-ip6: no
    do-not-query-localhost: no
    module-config: "iterator"
    root-hints: ""
    access-control: 127.0.0.0/8 allow
    local-zone: "." transparent
stub-zone:
    name: "{origin}."
    stub-addr: {upstream.host}@{upstream.port}
    stub-prime: no
forward-zone:
    name: "."
    forward-addr: {upstream.host}@{upstream.port}
remote-control:
    control-enable: no
"""
    )
    with _running([program, "-d", "-c", str(file)], addr, f"{origin}.", ()):
        yield addr


def silent_addr() -> tuple[socket.socket, SocketAddr]:
    """A bound UDP socket that answers nothing, and where it is."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind(("127.0.0.1", 0))
    return sock, SocketAddr(*sock.getsockname()[:2])
