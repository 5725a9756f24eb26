"""The process that holds a campaign's lab: it builds and changes networks as it is asked, line by line.

It ends when its input does, and removes all namespaces then, even if the campaign itself was killed.
"""

from __future__ import annotations

import json
import signal
import sys
import time
from collections.abc import Mapping
from typing import Any, Final

import attrs

from tom_connect import TomError
from tom_connect.testing.natlab import Host, Lab, LabError, Nat, Wire

DHT: Final = "campaign-dht"
RELAY: Final = "campaign-relay"
NODES_OF_A_PREFIX: Final = 4
"""DHT nodes in one /24: more do not count for others."""
FLAP: Final = 2.0
"""Seconds that a link is down."""


@attrs.define(eq=False)
class CampaignLab:
    """A lab with the hosts of a scenario."""

    lab: Lab
    _hosts: dict[str, Host] = attrs.Factory(dict)
    _wires: dict[str, Wire | None] = attrs.Factory(dict)
    _moves: int = 0

    def build(self, nodes: list[Mapping[str, Any]], dht: int, relays: int) -> dict[str, Any]:
        """Make a host for each node behind a router of its own, and public ones; their namespaces and addresses."""
        addresses: list[str] = []
        if dht:
            self._hosts[DHT] = host = self.lab.host(DHT)
            addresses = [self._more_address(host) for _ in range(-(-dht // NODES_OF_A_PREFIX))]
            addresses = [addr for prefix in addresses for addr in _of_prefix(prefix, host)]
        for number in range(1, relays + 1):
            self._hosts[f"{RELAY}-{number}"] = self.lab.host(f"{RELAY}-{number}")
        for node in nodes:
            wire = self._wires[node["name"]] = _wire(node["wire"])
            router = self.lab.router(f"{node['name']}-home", Nat(node["nat"]), wire=wire)
            self._hosts[node["name"]] = self.lab.host(node["name"], router)
        return {
            "namespaces": {name: host.namespace for name, host in self._hosts.items()},
            "dht_addresses": addresses[:dht],
            "relay_addresses": [self._hosts[f"{RELAY}-{number}"].addr for number in range(1, relays + 1)],
        }

    def _more_address(self, host: Host) -> str:
        network = self.lab.plan.routed4()
        self.lab.internet.delegate(host.link, network)
        return str(network[0])

    def change(self, node: str, event: str) -> dict[str, Any]:
        """Let something happen to the network of a node."""
        host = self._hosts[node]
        router = host.router
        assert router is not None
        if event == "rebind":
            router.rebind()
        elif event == "new_address":
            router.new_address()
        elif event == "move":
            self._moves += 1
            host.move(self.lab.router(f"move-{self._moves}", router.kind, wire=self._wires[node]))
        elif event == "flap":
            host.flap(down=True)
            time.sleep(FLAP)  # so long the link is to be down
            host.flap(down=False)
        elif event == "block_udp":
            router.block_udp()
        else:
            raise LabError(f"{event!r} is nothing that a lab can do")
        return {}


def _of_prefix(prefix: str, host: Host) -> list[str]:
    """Four addresses of a /24, given to a host."""
    base = prefix.rpartition(".")[0]
    found = [f"{base}.{number}" for number in range(1, NODES_OF_A_PREFIX + 1)]
    for addr in found:
        host.run(["ip", "address", "add", f"{addr}/32", "dev", "lo"])
    return found


def _wire(spec: Mapping[str, Any] | None) -> Wire | None:
    if spec is None:
        return None
    rate = spec["rate_mbit"]
    return Wire(
        delay=spec["delay_ms"] / 1000,
        jitter=spec["jitter_ms"] / 1000,
        loss=spec["loss_pct"] / 100,
        rate=None if rate is None else rate * 1e6,
    )


def main() -> None:
    """`python -m tom_campaign.networks.lab_process SEED`."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # its input ends as well, and the namespaces must go
    try:
        lab = Lab(seed=int(sys.argv[1]))
    except (TomError, OSError) as exc:
        _say({"id": 0, "error": str(exc)})
        return
    with lab:
        _say({"id": 0, "ok": {}})
        mine = CampaignLab(lab)
        for line in sys.stdin:
            ask = json.loads(line)
            number = ask.pop("id")
            try:
                done = mine.build(**ask) if ask.pop("do") == "build" else mine.change(**ask)
                _say({"id": number, "ok": done})
            except Exception as exc:  # whatever it was, the campaign is to know it, and the lab to be closed
                _say({"id": number, "error": f"{type(exc).__name__}: {exc}"})


def _say(message: Mapping[str, Any]) -> None:
    try:
        sys.stdout.write(json.dumps(message) + "\n")
        sys.stdout.flush()
    except OSError:
        pass  # nobody reads any more; the input ends too


if __name__ == "__main__":
    main()
