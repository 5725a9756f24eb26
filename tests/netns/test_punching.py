"""Two endpoints as processes behind real NATs: a relay connects them, then they get a direct path, or say why not."""

from __future__ import annotations

import json
import queue
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.netns.test_blocked_udp import relay_on
from tom_connect.holepunch import puncher
from tom_connect.testing.natlab import Host, Lab, Nat

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

PROGRAM = Path(__file__).with_name("punch_process.py")
PATIENCE = 60.0
#: Seconds for two rounds of punching more: on a busy machine both ends' first packets may not go at the same time.
DIRECT_PATIENCE = 40.0 + sum(puncher.ROUNDS[:2])


@contextmanager
def listener(host: Host, url: str, **options: Any) -> Iterator[dict[str, Any]]:
    """A node that accepts and echoes; what it says about itself."""
    process = host.popen([sys.executable, PROGRAM, "listen", url, json.dumps(options)], stdout=-1, text=True)
    lines: queue.Queue[str] = queue.Queue()
    assert process.stdout is not None
    reader = threading.Thread(target=lambda: [lines.put(line) for line in process.stdout or ()], daemon=True)
    reader.start()
    try:
        yield json.loads(lines.get(timeout=PATIENCE))
    finally:
        process.kill()
        process.wait()
        reader.join()
        process.stdout.close()


def dial(host: Host, url: str, ticket: str, **options: Any) -> dict[str, Any]:
    """A node that dials and talks until its path is direct, or it knows that it can't be; what it then says."""
    command = [sys.executable, PROGRAM, "dial", url, json.dumps(options), ticket, str(DIRECT_PATIENCE)]
    said: dict[str, Any] = json.loads(host.run(command, timeout=DIRECT_PATIENCE + 2 * PATIENCE).stdout)
    return said


def homes(lab: Lab, *kinds: Nat, reject: bool = False) -> list[Host]:
    """A host behind a router of each kind."""
    return [
        lab.host(f"host{number}", lab.router(f"home{number}", kind, reject=reject)) for number, kind in enumerate(kinds)
    ]


@pytest.mark.parametrize("reject", [False, True], ids=["drops", "answers"])
def test_two_home_routers_are_punched(natlab: Lab, tmp_path: Path, reject: bool) -> None:
    """Two port-restricted NATs, known to each other through the relay alone, let a direct path through at once.

    Where they answer unsolicited packets themselves and remember them, a round that knocks too early is spoiled; a
    later one gets through.
    """
    one, two = homes(natlab, Nat.MODERATE, Nat.MODERATE, reject=reject)
    relay = natlab.host("relay")
    with relay_on(relay, tmp_path / "relay") as url, listener(two, url) as other:
        said = dial(one, url, other["ticket"])
    assert said["direct"] is not None, said
    assert reject or said["direct"] - said["connected"] < puncher.ROUNDS[0] / 3


@pytest.mark.parametrize("kinds", [(Nat.MODERATE, Nat.STRICT), (Nat.STRICT, Nat.MODERATE)], ids=["easy", "hard"])
def test_ports_are_probed_through_a_strict_nat(natlab: Lab, tmp_path: Path, kinds: tuple[Nat, Nat]) -> None:
    """One NAT maps by destination to random ports, the other filters by port: the pair is direct all the same."""
    one, two = homes(natlab, *kinds)
    relay = natlab.host("relay")
    with relay_on(relay, tmp_path / "relay") as url, listener(two, url) as other:
        said = dial(one, url, other["ticket"])
    assert {said["mapping"], other["mapping"]} == {"endpoint-independent", "endpoint-dependent"}
    assert said["direct"] is not None, said


def test_two_strict_nats_stay_relayed_and_say_so(natlab: Lab, tmp_path: Path) -> None:
    """Where both NATs map by destination no way through is worth its packets: relayed, and the reason is told."""
    one, two = homes(natlab, Nat.STRICT, Nat.STRICT)
    relay = natlab.host("relay")
    with relay_on(relay, tmp_path / "relay") as url, listener(two, url) as other:
        said = dial(one, url, other["ticket"])
    assert said["direct"] is None
    assert said["why"] == "symmetric_both"


def test_port_probing_can_be_refused(natlab: Lab, tmp_path: Path) -> None:
    """With `port_probing` off in its config a node behind a strict NAT stays relayed, and says what would help."""
    one, two = homes(natlab, Nat.STRICT, Nat.MODERATE)
    relay = natlab.host("relay")
    with relay_on(relay, tmp_path / "relay") as url, listener(two, url) as other:
        said = dial(one, url, other["ticket"], port_probing=False)
    assert said["direct"] is None
    assert said["why"] == "port_probing_off"
