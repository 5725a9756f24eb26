"""`tom-connect doctor` in networks of every kind names what stands between us and the internet."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import attrs
import pytest

from tom_connect.testing.natlab import Host, Lab, Nat

pytestmark = pytest.mark.timeout(120)

PORT = 3340
PATIENCE = 60.0


@attrs.frozen
class Clinic:
    """A lab with a relay on the internet, and what is needed to examine a host."""

    lab: Lab
    relay: Host
    home: Path

    def examine(self, host: Host, *arguments: str, relay: str | None = None, wait: float = 15.0) -> dict[str, Any]:
        """What doctor says on a host, as JSON."""
        done = self._run(host, "--json", "--wait", f"{wait:g}", *arguments, relay=relay)
        (line,) = done.stdout.splitlines()
        said = json.loads(line)
        assert isinstance(said, dict)
        return said

    def words(self, host: Host) -> str:
        """What doctor says on a host, for people."""
        return str(self._run(host).stdout)

    def _run(self, host: Host, *arguments: str, relay: str | None = None) -> subprocess.CompletedProcess[str]:
        url = relay or f"http://{self.relay.addr}:{PORT}"
        command = [sys.executable, "-m", "tom_connect", "doctor", "--relay", url, "--no-persist", *arguments]
        environ = os.environ | {"HOME": str(self.home), "TOM_CONNECT_PLUGINS": "relay"}
        return host.run(command, env=environ, timeout=PATIENCE)


@pytest.fixture
def clinic(natlab: Lab, tmp_path: Path) -> Clinic:
    """A relay that runs, with its UDP services."""
    relay = natlab.host("relay")
    environ = os.environ | {"HOME": str(tmp_path), "TOM_CONNECT_PLUGINS": "relay-server"}
    command = [sys.executable, "-m", "tom_connect", "relay", "--json"]
    process = relay.popen(command, env=environ, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert json.loads(process.stdout.readline())["event"]
    return Clinic(natlab, relay, tmp_path)


def advice(said: dict[str, Any]) -> str:
    """All that doctor says is to be done."""
    return " ".join(finding["advice"] or "" for finding in said["findings"])


def texts(said: dict[str, Any], level: str) -> str:
    """All findings of one level."""
    return " ".join(finding["text"] for finding in said["findings"] if finding["level"] == level)


PORTAL = """
import http.server, sys

class Portal(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(302)
        self.send_header("Location", "http://login.hotel.example/")
        self.end_headers()

server = http.server.ThreadingHTTPServer((sys.argv[1], int(sys.argv[2])), Portal)
print("serving", flush=True)
server.serve_forever()
"""


NATS = {
    Nat.OPEN: ("endpoint-independent", "endpoint-independent", "address-dependent"),
    Nat.RESTRICTED: ("endpoint-independent", "endpoint-independent", "address-dependent"),
    Nat.MODERATE: ("endpoint-independent", "endpoint-independent", "address-and-port-dependent"),
    Nat.STRICT: ("endpoint-dependent", "endpoint-dependent", "address-and-port-dependent"),
}


@pytest.mark.parametrize("kind", NATS, ids=lambda kind: kind.value)
def test_each_kind_of_nat_is_named(clinic: Clinic, kind: Nat) -> None:
    """One relay is enough to tell how the NAT maps and filters, and the outer address is the router's."""
    router = clinic.lab.router("router", kind)
    said = clinic.examine(clinic.lab.host("host", router))
    name, mapping, filtering = NATS[kind]
    ipv4 = said["report"]["ipv4"]
    assert said["nat"] == {"ipv4": name, "ipv6": "absent"}
    assert (ipv4["mapping"], ipv4["filtering"], ipv4["nat"]) == (mapping, filtering, True)
    assert {addr.rpartition(":")[0] for addr in ipv4["reflexive"]} == {router.wan}
    assert said["report"]["udp_blocked"] is False
    if kind is Nat.STRICT:
        assert ipv4["confirmed"] == []
        assert "symmetric" in texts(said, "fails")
        assert "UPnP" in advice(said)
    else:
        assert ipv4["confirmed"] == ipv4["reflexive"]
        assert ipv4["port_preserved"] is True
        assert ipv4["hairpin"] is False
        assert "hole punching works" in texts(said, "works")


def test_a_host_with_a_public_address_has_no_nat(clinic: Clinic) -> None:
    """Of both IP versions its own addresses are those that others see."""
    host = clinic.lab.host("host", clinic.lab.router("router", Nat.NONE, ipv6="open"))
    said = clinic.examine(host)
    assert said["nat"]["ipv4"] == "no NAT"
    assert {addr.rpartition(":")[0] for addr in said["report"]["ipv4"]["confirmed"]} == {host.addr}
    assert "Others reach this node directly" in texts(said, "works")


def test_a_router_that_refuses_aloud_is_no_hard_nat(clinic: Clinic) -> None:
    """One that takes unsolicited packets for itself, and remembers them, is named as what it is."""
    router = clinic.lab.router("router", Nat.MODERATE, reject=True)
    said = clinic.examine(clinic.lab.host("host", router))
    assert said["nat"]["ipv4"] == "endpoint-independent"
    assert said["report"]["ipv4"]["filtering"] == "address-and-port-dependent"
    assert said["report"]["ipv4"]["confirmed"] == said["report"]["ipv4"]["reflexive"]
    assert "hole punching works" in texts(said, "works")


@pytest.mark.parametrize("kind", [Nat.MODERATE, Nat.STRICT], ids=lambda kind: kind.value)
@pytest.mark.parametrize("reject", [False, True], ids=["drops", "answers"])
def test_of_two_nats_in_a_row_the_harder_one_counts(clinic: Clinic, kind: Nat, reject: bool) -> None:
    """Behind a home router and a carrier's NAT the outer address is the carrier's, and so is the kind."""
    carrier = clinic.lab.router("carrier", kind, reject=reject)
    home = clinic.lab.router("home", Nat.MODERATE, reject=reject, behind=carrier)
    said = clinic.examine(clinic.lab.host("host", home))
    name, mapping, filtering = NATS[kind]
    ipv4 = said["report"]["ipv4"]
    assert said["nat"]["ipv4"] == name
    assert (ipv4["mapping"], ipv4["filtering"], ipv4["nat"]) == (mapping, filtering, True)
    assert {addr.rpartition(":")[0] for addr in ipv4["reflexive"]} == {carrier.wan}


def test_hairpinning_and_remapped_ports_are_seen(clinic: Clinic) -> None:
    """Where the NAT turns our own packets back, that is known, and so is that it chooses other ports."""
    router = clinic.lab.router("router", Nat.MODERATE, remap=True, hairpin=True)
    said = clinic.examine(clinic.lab.host("host", router))
    ipv4 = said["report"]["ipv4"]
    assert said["nat"]["ipv4"] == "endpoint-independent"
    assert "hole punching works" in texts(said, "works") and "no hairpinning" not in texts(said, "note")
    assert (ipv4["hairpin"], ipv4["port_preserved"]) == (True, False)
    assert ipv4["mapping"] == "endpoint-independent"


def test_blocked_udp_is_named(clinic: Clinic) -> None:
    """Where relays answer over TCP alone, doctor says that UDP is blocked and what that means."""
    host = clinic.lab.host("host", clinic.lab.router("router", block_udp=True))
    said = clinic.examine(host)
    assert said["nat"]["ipv4"] == "blocked"
    assert said["report"]["udp_blocked"] is True
    assert said["report"]["ipv4"]["answers"] is False
    assert "UDP is blocked" in texts(said, "fails")
    assert "Allow outgoing UDP" in advice(said)
    assert said["report"]["relays"][0]["connected"] is True


@pytest.mark.parametrize(("ipv6", "kind"), [("open", "no NAT"), ("firewall", "firewall")])
def test_an_ipv6_only_network_is_examined_over_ipv6(clinic: Clinic, ipv6: Any, kind: str) -> None:
    """Without IPv4 the relay is reached over IPv6, and a firewall is told from an open line."""
    host = clinic.lab.host("host", clinic.lab.router("router", ipv4=False, ipv6=ipv6))
    said = clinic.examine(host, relay=f"http://[{clinic.relay.addr6}]:{PORT}")
    assert said["nat"] == {"ipv4": "absent", "ipv6": kind}
    (confirmed,) = said["report"]["ipv6"]["confirmed"]
    assert confirmed.startswith(f"[{host.addr6}]:")
    assert said["report"]["relays"][0]["connected"] is True
    if kind == "firewall":
        assert "IPv6 firewall" in texts(said, "works")


def test_a_captive_portal_is_named(clinic: Clinic) -> None:
    """Where a login page answers in the relay's place, the reader is sent to the browser before all else."""
    portal = clinic.lab.host("portal")
    process = portal.popen([sys.executable, "-c", PORTAL, portal.addr, "80"], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline()
    hotel = clinic.lab.router("hotel", block_udp=True)
    said = clinic.examine(clinic.lab.host("guest", hotel), relay=f"http://{portal.addr}/", wait=8.0)
    assert said["report"]["captive_portal"] is True
    assert "captive portal" in said["findings"][0]["text"]
    assert "web browser" in advice(said)


def test_a_relay_that_is_not_there_is_told(clinic: Clinic) -> None:
    """A wrong URL is named, and nothing is said about UDP that nobody can know."""
    nowhere = f"http://{clinic.lab.host('nobody').addr}:9/"
    said = clinic.examine(clinic.lab.host("host"), relay=nowhere, wait=3.0)
    assert nowhere in texts(said, "fails")
    assert said["report"]["udp_blocked"] is None


def test_people_get_sentences(clinic: Clinic) -> None:
    """The same without --json: what works, what does not, what to do, and what plugins say."""
    said = clinic.words(clinic.lab.host("host", clinic.lab.router("router", Nat.STRICT)))
    for words in ("What works:", "What does not work:", "symmetric, hard", "What to do:", "Plugin relay:", "connected"):
        assert words in said
