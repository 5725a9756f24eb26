"""The network watch on a real kernel: what `ip` does to a machine is told, each thing once."""

from __future__ import annotations

import json
import queue
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tom_connect.testing.natlab import Host, Lab, Nat

PROGRAM = Path(__file__).with_name("netwatch_process.py")
PATIENCE = 20.0


class Watched:
    """A host in whose namespace a network watch runs."""

    def __init__(self, host: Host, how: str) -> None:
        self.host = host
        self.process = host.popen([sys.executable, PROGRAM, how], stdout=-1, text=True)
        self._told: queue.Queue[dict[str, Any]] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        assert self.next() == {"listening": True}

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._told.put(json.loads(line))

    def next(self) -> dict[str, Any]:
        return self._told.get(timeout=PATIENCE)

    def until(self, why: str) -> list[dict[str, Any]]:
        """The changes up to the one with these words. A busy machine may look within a burst, once or twice."""
        told = [self.next()]
        while why not in told[-1]["why"]:
            told.append(self.next())
        assert len(told) <= 3
        return told

    def ip(self, *commands: str) -> None:
        """Carry out `ip` commands in one go, as network managers do."""
        self.host.run(["ip", "-batch", "-"], input="".join(f"{command}\n" for command in commands))

    def sentinel(self, number: int) -> None:
        """The next change is one of ours that nothing else can be: so nothing was told between."""
        self.ip(f"address add 10.250.0.{number}/32 dev lo")
        told = self.next()
        assert told["why"] == [f"10.250.0.{number} on lo is new"], told

    def close(self) -> None:
        self.process.terminate()
        self.process.wait(PATIENCE)
        self._reader.join(PATIENCE)


@pytest.fixture(params=["netlink", "poll"])
def watched(natlab: Lab, request: pytest.FixtureRequest) -> Iterator[Watched]:
    """A host behind a router, watched in both ways."""
    watched = Watched(natlab.host("laptop", natlab.router("home", Nat.MODERATE)), request.param)
    yield watched
    watched.close()


def test_addresses_beside_ours(watched: Watched) -> None:
    """A further address, and its end, are minor changes, told once each."""
    watched.ip("address add 10.9.9.1/24 dev eth0")
    assert watched.next() == {"major": False, "why": ["10.9.9.1 on eth0 is new"], "slept": 0.0}
    watched.ip("address del 10.9.9.1/24 dev eth0")
    assert watched.next() == {"major": False, "why": ["10.9.9.1 on eth0 is gone"], "slept": 0.0}
    watched.sentinel(1)


def test_a_virtual_bridge(watched: Watched) -> None:
    """A bridge with an address, as a container engine makes, is one minor change."""
    watched.ip("link add docker0 type bridge", "address add 172.17.0.1/16 dev docker0", "link set docker0 up")
    told = watched.next()
    assert not told["major"]
    assert told["why"] == ["172.17.0.1 on docker0 is new"]
    watched.sentinel(1)


def test_another_address_in_the_same_network(watched: Watched) -> None:
    """Our address exchanged for another one, route and all, is a major change, told once it is whole."""
    old, length = watched.host.addr, watched.host.link.length
    gateway = watched.host.link.gateway
    other = old.rsplit(".", 1)[0] + ".77"
    watched.ip(
        f"address del {old}/{length} dev eth0",
        f"address add {other}/{length} dev eth0",
        f"route replace default via {gateway} dev eth0",
    )
    told = watched.next()
    assert told["major"]
    if f"address in use: {old} -> {other}" not in told["why"]:  # the machine was so busy that it looked in between
        assert f"address in use: {old} -> none" in told["why"]
        assert watched.until(f"address in use: none -> {other}")[-1]["major"]
    watched.sentinel(1)


def test_another_default_route(watched: Watched) -> None:
    """Another gateway is a major change, though every address stays."""
    gateway = watched.host.link.gateway.rsplit(".", 1)[0] + ".254"
    watched.ip(f"route replace default via {gateway} dev eth0 onlink")
    told = watched.next()
    assert told["major"]
    assert told["why"] == [f"default route IPv4: eth0 {watched.host.link.gateway} -> eth0 {gateway}"]
    watched.sentinel(1)


def test_down_and_up(watched: Watched) -> None:
    """A network that goes is one major change, and one when it is back."""
    watched.host.flap(down=True)
    assert watched.until(f"address in use: {watched.host.addr} -> none")[-1]["major"]
    watched.host.flap(down=False)
    assert watched.until(f"address in use: none -> {watched.host.addr}")[-1]["major"]
    watched.sentinel(1)


def test_to_another_router(natlab: Lab, watched: Watched) -> None:
    """A move to another router ends with a major change to the new address."""
    other = natlab.router("cafe", Nat.MODERATE)
    watched.host.move(other)
    told = watched.next()
    assert told["major"]
    while f"-> {watched.host.addr}" not in ", ".join(told["why"]):  # it was seen unplugged first
        told = watched.next()
    assert told["major"]
    watched.sentinel(1)


def test_a_link_that_is_lost_for_a_moment(natlab: Lab) -> None:
    """With netlink a cable that is pulled and plugged in again is told, though all addresses and routes stay."""
    watched = Watched(natlab.host("desktop", natlab.router("home", Nat.MODERATE)), "netlink")
    link = watched.host.link
    port = ["ip", "link", "set", link.far_device]
    router = watched.host.router
    assert router is not None
    router.run([*port, "down"])
    assert watched.next() == {"major": True, "why": ["eth0: its link was lost or came back"], "slept": 0.0}
    router.run([*port, "up"])
    assert watched.next()["why"] == ["eth0: its link was lost or came back"]
    watched.sentinel(1)
    watched.close()


def test_a_process_that_was_stopped(watched: Watched) -> None:
    """A process that is stopped for some seconds is told that it slept, and of what happened meanwhile, in one."""
    watched.process.send_signal(signal.SIGSTOP)
    began = time.monotonic()
    watched.ip("address add 10.9.9.1/24 dev eth0")
    time.sleep(6.5)  # the sleep itself
    watched.process.send_signal(signal.SIGCONT)
    told = watched.next()
    slept = time.monotonic() - began
    assert told["major"]
    assert 5 < told["slept"] < slept + 5
    watched.sentinel(1)
