"""Two nodes behind every pair of NAT kinds, dialed through a relay, get a direct path; so in odder nets."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from benchmarks.nat.pairs import Couple, couple
from benchmarks.nat.settings import EXTRAS, PAIRS, RELAYED, homes
from tom_connect.testing.natlab import Nat, missing

pytest.importorskip("tom_relay", reason="needs the relay plugin: pip install 'tom-connect[relay]'")

RUNS = 3
#: Seconds for a direct path, on a machine that is busy with other things.
PATIENCE = 30.0
#: Seconds after which a pair that must be relayed is believed to stay so.
RELAYED_FOR = 3.0


@pytest.fixture(scope="module")
def nodes() -> Iterator[Couple]:
    """One lab and two node processes for all tests: hosts move, and each run opens endpoints that no router has met."""
    if lacking := missing():
        pytest.skip(f"a network lab needs {', '.join(lacking)}")
    with couple() as made:
        yield made


def name(cell: tuple[Nat, Nat]) -> str:
    """A pair as test ids and routers have it."""
    return "-".join(kind.value for kind in cell)


@pytest.mark.parametrize("cell", [cell for cell in PAIRS if cell not in RELAYED], ids=name)
async def test_gets_a_direct_path(nodes: Couple, cell: tuple[Nat, Nat]) -> None:
    """The dial succeeds and traffic ends on a direct path, every time."""
    nodes.settle(homes(nodes.lab, name(cell), *cell))
    for _ in range(RUNS):
        assert (await nodes.meet(PATIENCE)).direct is not None


@pytest.mark.slow
@pytest.mark.parametrize("cell", RELAYED, ids=name)
async def test_stays_relayed(nodes: Couple, cell: tuple[Nat, Nat]) -> None:
    """What can't be direct (RELAYED says why) is connected all the same, goes on through the relay, and says why."""
    nodes.settle(homes(nodes.lab, name(cell), *cell))
    for _ in range(RUNS):
        met = await nodes.meet(RELAYED_FOR, until="symmetric_both")
        assert (met.direct, met.why) == (None, "symmetric_both")


@pytest.mark.parametrize("net", EXTRAS)
async def test_gets_a_direct_path_in_odder_nets(nodes: Couple, net: str) -> None:
    """So do two nodes of one LAN, behind carriers, with remapped ports, by IPv6 alone, or with one family in common."""
    nodes.settle(EXTRAS[net](nodes.lab, net, None))
    for _ in range(RUNS):
        assert (await nodes.meet(PATIENCE)).direct is not None


async def test_a_node_that_has_no_udp_says_so(nodes: Couple) -> None:
    """Behind a router that blocks UDP the dialer is told why it is relayed; once UDP passes, a dial ends direct."""
    dialer = nodes.lab.router("blocked-a", block_udp=True)
    nodes.settle((dialer, nodes.lab.router("blocked-b")))
    met = await nodes.meet(RELAYED_FOR, until="blocked_udp")
    assert (met.direct, met.why) == (None, "blocked_udp")
    dialer.block_udp(False)
    assert (await nodes.meet(PATIENCE)).direct is not None
