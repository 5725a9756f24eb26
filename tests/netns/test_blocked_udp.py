"""Behind a router that lets no UDP through, a node dials and is dialed through a relay; all as the commands do it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.commands import Command
from tom_connect.testing.natlab import Host, Lab, Nat

pytest.importorskip("tom_relay", reason="needs the relay plugin: pip install 'tom-connect[relay]'")

PORT = 3340
NODE = ("--no-persist", "--json")


@contextlib.contextmanager
def relay_on(host: Host, home: Path) -> Iterator[str]:
    """`tom-connect relay` on a host; its URL."""
    where = ("--dev", "--json", "--listen", f"{host.addr}:{PORT}", "--stun-listen", f"{host.addr}:3478")
    with Command(home, "relay", *where, by=host.command([])) as relay:
        relay.wait_for("serving")
        yield f"http://{host.addr}:{PORT}"


@pytest.mark.parametrize("blocked", ["dialer", "listener", "both"])
def test_a_node_without_udp_is_reached_through_the_relay(natlab: Lab, tmp_path: Path, blocked: str) -> None:
    """Whoever of two has no UDP, the dial works, every ping is answered, and all go through the relay."""
    relay = natlab.host("relay")
    hosts = {
        name: natlab.host(name, natlab.router(f"{name}-home", Nat.MODERATE, block_udp=blocked in (name, "both")))
        for name in ("dialer", "listener")
    }
    dialer, listener = (hosts[name].command([]) for name in ("dialer", "listener"))
    with relay_on(relay, tmp_path / "relay") as url:
        at_relay = (*NODE, "--relay", url)
        with Command(tmp_path / "listener", "listen", "--echo", *at_relay, by=listener) as listening:
            online = listening.wait_for("online")
            assert online["relay_urls"] == [f"{url}/"]
            ping = ("ping", online["ticket"], "--count", "5", "--interval", "0.2", *at_relay)
            with Command(tmp_path / "dialer", *ping, by=dialer) as pinging:
                assert pinging.wait_for("connected")["path"] == "relay"
                rest = pinging.rest()
                assert pinging.exit_code() == 0
    assert [event["path"] for event in rest if event["event"] in ("path", "pong")] == ["relay"] * 5
    summary = rest[-1]
    assert (summary["event"], summary["sent"], summary["received"]) == ("summary", 5, 5)
