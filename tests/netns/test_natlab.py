"""A lab's machines, names and programs, and what is left when it ends: nothing."""

from __future__ import annotations

import itertools
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.netns.datagrams import PATIENCE, OpenSocket, come_before, tell
from tom_connect.testing.natlab import Lab, LabError, Nat, Router


def test_one_machine_has_the_addresses_of_many(natlab: Lab, udp: OpenSocket) -> None:
    """A public host gets further addresses, which others reach and from which it answers; one behind a router none."""
    many, other = natlab.host("many"), natlab.host("other")
    many.add_addresses(["60.1.2.3"])
    many.add_addresses(["60.1.2.3", "61.1.2.3"])
    asker = udp(other)
    for addr in ("60.1.2.3", "61.1.2.3"):
        with many.socket() as sock:
            sock.bind((addr, 6881))
            sock.settimeout(PATIENCE)
            sock.sendto(b"hello", asker.getsockname())
            assert asker.recvfrom(100) == (b"hello", (addr, 6881))
            assert tell(asker, sock)[0] == other.addr
    with pytest.raises(LabError, match="behind a router"):
        natlab.host("inside", natlab.router("router")).add_addresses(["62.1.2.3"])


def test_names_are_those_of_the_lab(natlab: Lab) -> None:
    """Programs on machines of the lab, made before or after, resolve the lab's names alone; its end leaves no files."""
    ask = [sys.executable, "-c", "import socket, sys; print(socket.gethostbyname(sys.argv[1]))"]
    early = natlab.host("early")
    natlab.set_names({"dht.example.org": "198.18.0.77"})
    for host in (early, natlab.host("late")):
        assert host.run([*ask, "dht.example.org"]).stdout == "198.18.0.77\n"
        assert host.run([*ask, "www.example.org"], check=False).returncode != 0
    files = Path("/etc/netns", early.namespace)
    assert files.is_dir()
    natlab.close()
    assert not files.exists()


def test_programs_run_inside(natlab: Lab) -> None:
    """Programs run in a host's namespace, with their output, status and time-out as subprocess has them."""
    host = natlab.host("host")
    assert host.addr in host.run(["ip", "-4", "address"]).stdout
    assert host.run(["cat"], input="text").stdout == "text"
    assert host.run(["false"], check=False).returncode == 1
    with pytest.raises(subprocess.CalledProcessError):
        host.run(["false"])
    with pytest.raises(subprocess.TimeoutExpired):
        host.run(["sleep", "60"], timeout=0.1)


async def test_programs_end_with_the_lab(natlab: Lab) -> None:
    """What was started in a lab and still runs is ended when the lab is closed, also what refuses SIGTERM."""
    host = natlab.host("host")
    polite = host.popen(["sleep", "600"])
    stubborn = await host.process(
        [
            sys.executable,
            "-c",
            "import signal; signal.signal(15, signal.SIG_IGN); print('ready', flush=True); signal.pause()",
        ],
        stdout=subprocess.PIPE,
    )
    assert stubborn.stdout is not None
    assert await stubborn.stdout.readline() == b"ready\n"
    natlab.close()
    natlab.close()
    assert polite.poll() == -15
    assert await stubborn.wait() == -9
    assert host.namespace not in namespaces()


def namespaces() -> set[str]:
    """The names of all network namespaces of this machine."""
    found = Path("/run/netns")
    return {each.name for each in found.iterdir()} if found.is_dir() else set()


CRASH = """
import os, signal, subprocess
from tom_connect.testing.natlab import Lab, Nat, Wire
lab = Lab()
host = lab.host("host", lab.router("router", Nat.MODERATE, wire=Wire()))
sleeper = host.popen(["sleep", "600"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
print(host.namespace, sleeper.pid, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_leftovers_of_a_crash_are_removed(natlab: Lab) -> None:
    """The next lab removes namespaces and programs of a process that was killed, and touches no living lab's."""
    mine = natlab.host("mine")
    ended = subprocess.run([sys.executable, "-c", CRASH], capture_output=True, text=True, check=False, timeout=60)
    namespace, pid = ended.stdout.split()
    with Lab():
        assert namespace not in namespaces()
        assert mine.namespace in namespaces()
        deadline = time.monotonic() + PATIENCE
        while is_alive(int(pid)) and time.monotonic() < deadline:
            time.sleep(0.01)
        assert not is_alive(int(pid))
    prefix = namespace.removesuffix("-host")
    assert not any(name.startswith(prefix) for name in namespaces())


def is_alive(pid: int) -> bool:
    """Whether a process exists and is more than a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_labs_exist_side_by_side(natlab: Lab, udp: OpenSocket) -> None:
    """Two labs use the same addresses and never meet."""
    with Lab() as other:
        pairs = [(udp(lab.host("one")), udp(lab.host("two"))) for lab in (natlab, other)]
        assert pairs[0][1].getsockname()[0] == pairs[1][1].getsockname()[0]
        words = (b"first", b"second")
        for (one, two), word in zip(pairs, words, strict=True):
            two.sendto(word, one.getsockname())
        for (one, two), word in zip(pairs, words, strict=True):
            two.sendto(b"last", one.getsockname())
            assert come_before(one, b"last") == {word}


@pytest.mark.parametrize("name", ["", "-x", "Host", "a b", "a/b", "x" * 33, "taken", "internet"])
def test_names_that_cannot_be_are_refused(natlab: Lab, name: str) -> None:
    """A name is short, of plain letters, and used once."""
    natlab.host("taken")
    with pytest.raises(LabError, match="name"):
        natlab.host(name)


def test_a_router_without_nat_needs_the_internet(natlab: Lab) -> None:
    """A public network behind a carrier's NAT does not exist, and is refused."""
    with pytest.raises(LabError, match="without NAT"):
        natlab.router("home", Nat.NONE, behind=natlab.router("carrier"))


def test_a_small_lab_is_built_quickly(natlab: Lab) -> None:
    """Two routers and three hosts take well under a second on an idle machine, and a few on a busy one."""
    began = time.monotonic()
    one, two = natlab.router("one"), natlab.router("two", Nat.STRICT)
    for number, router in enumerate((one, two, None)):
        natlab.host(f"host-{number}", router)
    assert time.monotonic() - began < 5.0


def test_many_hosts_hear_each_other(natlab: Lab, udp: OpenSocket) -> None:
    """Thirty hosts behind ten routers all reach one another's routers: no table of neighbours overflows."""
    routers: list[Router] = [natlab.router(f"router-{number}", Nat.NONE) for number in range(10)]
    hosts = [udp(natlab.host(f"host-{number}", router)) for number, router in enumerate(routers * 3)]
    for one, other in itertools.pairwise([*hosts, hosts[0]]):
        tell(one, other)
