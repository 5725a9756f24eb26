"""STUN with coturn, in both directions on loopback."""

from __future__ import annotations

import asyncio
import re
import shutil
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tom_connect.addr import SocketAddr
from tom_connect.netreport.checks import OtherPortCheck
from tom_connect.netreport.stun import BindingTransaction, is_stun
from tom_relay.stun import StunServer


def program(name: str) -> str:
    """Where a program of coturn is; skips where it is not."""
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"needs {name}: apt-get install coturn")
    return found


@asynccontextmanager
async def running(*command: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """A program that is ended and waited for."""
    process = await asyncio.create_subprocess_exec(
        *command, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_coturns_client_asks_our_server(host: str) -> None:
    """turnutils_stunclient learns from our server the address that its own socket has."""
    command = program("turnutils_stunclient")
    async with StunServer(bind=[SocketAddr(host, 0)], software="tom-relay") as server:
        port = server.addrs[0].port
        async with running(command, "-p", str(port), host) as process:
            async with asyncio.timeout(10):
                out, _ = await process.communicate()
    told = re.search(rb"reflexive addr: (\S+):(\d+)", out)
    assert told is not None, out
    assert told[1].decode() == host and int(told[2]) not in (0, port)
    assert server.counters == {"answered": 1}


OPTIONS = (
    "--stun-only",
    "--no-tcp",
    "--no-tls",
    "--no-dtls",
    "--no-cli",
    "--no-multicast-peers",
    "--log-file=stdout",
)


def free_port(host: str) -> int:
    """A UDP port that nobody has."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM) as free:
        free.bind((host, 0))
        return int(free.getsockname()[1])


async def test_coturn_answers_our_question_from_another_port(tmp_path: Path) -> None:
    """A server of RFC 5780 understands our CHANGE-REQUEST, and our check its answer, which comes from another port."""
    host = "127.0.0.1"
    command, port, other = program("turnserver"), free_port(host), free_port(host)
    files = (f"--pidfile={tmp_path / 'pid'}", f"--userdb={tmp_path / 'db'}", "-c", str(tmp_path / "none"))
    where = ["-L", host, "-L", "127.0.0.2", "-p", str(port), "--alt-listening-port", str(other)]
    async with running(command, "-h") as asked:
        told, _ = await asked.communicate()
    # Newer ones want to be asked; older ones do it wherever they have two addresses, and refuse the option.
    where += ["--rfc5780"] if re.search(rb"^\s*--rfc5780", told, re.MULTILINE) else []
    loop = asyncio.get_running_loop()
    async with running(command, *where, *OPTIONS, *files):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.setblocking(False)
            sock.bind((host, 0))
            us = SocketAddr(*sock.getsockname()[:2])
            for number in range(40):  # until the server has started
                check = OtherPortCheck(us, SocketAddr(host, port), number.to_bytes(12, "big"))
                sock.sendto(check.start(loop.time()), (host, port))
                try:
                    async with asyncio.timeout(0.5):
                        data, source = await loop.sock_recvfrom(sock, 2048)
                except TimeoutError:
                    continue
                assert check.receive(data, SocketAddr(*source[:2]))
                break
    assert check.result is True
    assert source[:2] == (host, other)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_our_client_asks_coturns_server(host: str, tmp_path: Path) -> None:
    """Our transaction learns from a coturn server the address that its own socket has."""
    command = program("turnserver")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    port = free_port(host)
    files = (f"--pidfile={tmp_path / 'pid'}", f"--userdb={tmp_path / 'db'}", "-c", str(tmp_path / "none"))
    loop = asyncio.get_running_loop()
    async with running(command, "-L", host, "-p", str(port), *OPTIONS, *files):
        with socket.socket(family, socket.SOCK_DGRAM) as sock:
            sock.setblocking(False)
            sock.bind((host, 0))
            us, server = SocketAddr(*sock.getsockname()[:2]), SocketAddr(host, port)
            ask = BindingTransaction(server, rto=0.1, requests=9, software="tom-connect")
            request: bytes | None = ask.start(loop.time())
            while not ask.done:
                if request is not None:
                    sock.sendto(request, (host, port))
                at = ask.get_timer()
                assert at is not None
                try:
                    async with asyncio.timeout_at(at):
                        data, source = await loop.sock_recvfrom(sock, 2048)
                    assert is_stun(data[:8])
                    assert ask.receive(data, SocketAddr(*source[:2]), loop.time())
                    request = None
                except TimeoutError:
                    request = ask.handle_timer(loop.time())
    assert ask.result is not None, ask.error
    assert ask.result.addr == us
