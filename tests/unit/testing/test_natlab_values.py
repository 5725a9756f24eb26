"""What a network lab decides without a kernel: what is missing, how frames fare on a wire, which addresses it has."""

from __future__ import annotations

import ipaddress
import itertools
import os
import random
import shutil

import pytest

from tom_connect.addr import SocketAddr, is_local
from tom_connect.testing.natlab import LabError, Nat, missing
from tom_connect.testing.natlab.addresses import GATEWAY4, INTERNET6, AddressPlan
from tom_connect.testing.natlab.nat import PORT_RANGES, NatRules
from tom_connect.testing.natlab.wire_process import Direction

pytestmark = pytest.mark.skipif(not hasattr(os, "geteuid"), reason="network namespaces are Linux's")


def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without root and without a program, both are told, with the package that brings the program."""
    real = shutil.which
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(shutil, "which", lambda name: None if name == "nft" else real(name))
    assert {"root", "nft (nftables)"} <= set(missing()) or missing() == ["Linux"]


def test_a_wire_without_properties_passes_frames_at_once() -> None:
    """Nothing is lost or late on a plain wire."""
    plain = Direction(0, 1)
    assert [plain.due(1500, now, random.Random(1)) for now in (1.0, 2.0)] == [1.0, 2.0]


def test_a_wire_with_a_rate_sends_one_frame_after_the_other() -> None:
    """Frames leave as fast as the rate lets them, and are dropped where too many wait."""
    slow = Direction(0, 1, delay=0.1, rate=8_000.0, queue=2.0)
    rng = random.Random(1)
    assert [slow.due(1000, 0.0, rng) for _ in range(4)] == [1.1, 2.1, 3.1, None]
    assert slow.due(1000, 10.0, rng) == pytest.approx(11.1)


def test_jitter_and_loss_are_drawn_anew_for_each_frame() -> None:
    """Delays lie between the delay and delay plus jitter, and the share of lost frames is about what was asked."""
    bad = Direction(0, 1, delay=1.0, jitter=0.5, loss=0.25)
    rng = random.Random(1)
    dues = [bad.due(100, 0.0, rng) for _ in range(4000)]
    kept = [due for due in dues if due is not None]
    assert 2850 < len(kept) < 3150
    assert 1.0 <= min(kept) < 1.01
    assert 1.49 < max(kept) <= 1.5


def test_addresses_are_given_once_and_run_out_with_an_error() -> None:
    """No address is given twice, public ones are public to us, and a range that is used up says so."""
    plan = AddressPlan()
    hosts = [plan.public4() for _ in range(5000)]
    assert len(set(hosts)) == 5000
    assert not any(is_local(SocketAddr(host, 1)) for host in (*hosts[::500], plan.public6(), str(plan.routed6()[1])))
    networks = [plan.private4() for _ in range(254)]
    assert len(set(networks)) == 254
    assert all(net.subnet_of(ipaddress.IPv4Network("192.168.0.0/16")) for net in networks)
    with pytest.raises(LabError, match="no addresses"):
        plan.private4()


def test_each_public_node_has_a_network_of_its_own() -> None:
    """Whoever counts by IPv4 /24 and IPv6 /48, as DHT nodes do, sees one for each host or router."""
    plan = AddressPlan()
    hosts = [ipaddress.IPv4Network(f"{plan.public4()}/24", strict=False) for _ in range(255)]
    hosts6 = [ipaddress.IPv6Network(f"{plan.public6()}/48", strict=False) for _ in range(1000)]
    routed6 = [plan.routed6().supernet(new_prefix=48) for _ in range(1000)]
    internet = {
        ipaddress.ip_network(f"{GATEWAY4}/24", strict=False),
        ipaddress.ip_network(f"{INTERNET6}/48", strict=False),
    }
    seen = {*hosts, *(plan.routed4() for _ in range(200)), *hosts6, *routed6, *internet}
    assert len(seen) == 255 + 200 + 1000 + 1000 + 2
    # Where they are used up, a further host shares one, and its address is its own.
    assert plan.public4() == "198.18.1.3"


@pytest.mark.parametrize("kind", Nat, ids=lambda kind: kind.value)
def test_rules_translate_only_where_there_is_a_nat(kind: Nat) -> None:
    """A kind with NAT has rules for its outer address, one without an outer IPv4 address or NAT has a filter alone."""
    assert ("table ip natlab {" in NatRules(kind).text("198.18.0.2")) == (kind is not Nat.NONE)
    assert "table ip natlab {" not in NatRules(kind).text(None)


def test_each_rebinding_has_another_range_of_ports() -> None:
    """Ranges follow one another, round and round, and don't overlap."""
    spans = [tuple(map(int, span.split("-"))) for span in PORT_RANGES]
    assert all(before[1] < after[0] for before, after in itertools.pairwise(spans))
    for number in range(2 * len(PORT_RANGES)):
        assert PORT_RANGES[number % len(PORT_RANGES)] in NatRules(Nat.MODERATE, remap=number).text("198.18.0.2")
