"""The page about doing without any server is right, on two machines of a lab that has a DHT and nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docs.markdown import ROOT, blocks
from tests.docs.runner import PageRun
from tests.docs.test_pages import runs
from tests.interop.conftest import running
from tests.netns.dht import DhtNet
from tests.netns.town import UPLINK
from tom_connect.testing.natlab import Lab, Nat

PAGE = ROOT / "docs" / "how-to" / "zero-infra.md"
LISTENER = Nat.MODERATE


@pytest.fixture
def dht(natlab: Lab) -> Iterator[DhtNet]:
    """A DHT of 50 nodes, which answers to the names of the public one."""
    yield from running(lambda: DhtNet.start(natlab, wire=UPLINK))


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_commands_of_the_page_run(natlab: Lab, dht: DhtNet, tmp_path: Path) -> None:
    """Every command of the page, as written, on the machine that it belongs to: both are behind home routers."""
    kinds = {"first": LISTENER, "second": Nat.MODERATE}
    machines = {}
    for name, kind in kinds.items():
        host = natlab.host(f"{name}-host", natlab.router(name, kind, wire=UPLINK))
        machines[name] = host.command([])
    with PageRun(tmp_path, machines) as run:
        for block in filter(runs, blocks(PAGE)):
            run.run(block)
