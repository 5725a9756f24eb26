"""miniupnpd on a router of a network lab: a gateway that we did not write."""

from __future__ import annotations

import asyncio
import ipaddress
import shutil
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path

from tom_connect.testing.natlab import Router

PROGRAM = "/usr/sbin/miniupnpd"
PATIENCE = 30.0
"""Seconds in which anything that has to happen does, on a loaded machine too."""

# The chains that it fills; it knows them by these names. What it maps, the lab's own rules let in (`ct status dnat`).
_CHAINS = """
table inet filter {
  chain forward { type filter hook forward priority 10; policy accept; jump miniupnpd; }
  chain prerouting { type nat hook prerouting priority dstnat; policy accept; jump prerouting_miniupnpd; }
  chain postrouting { type nat hook postrouting priority srcnat - 10; policy accept; jump postrouting_miniupnpd; }
  chain miniupnpd { }
  chain prerouting_miniupnpd { }
  chain postrouting_miniupnpd { }
}
"""


def missing() -> str | None:
    """What this machine lacks."""
    return None if shutil.which(PROGRAM) else "miniupnpd"


class Gateway:
    """Runs miniupnpd on a router. `public`: an address of the router's that it takes for public."""

    def __init__(self, router: Router, folder: Path, **options: str) -> None:
        self.router = router
        # It takes the ranges for benchmarks and documentation, of which the lab's addresses are, for private ones.
        self.public = "11.0.0.1"
        network = ipaddress.IPv4Network(f"{self.public}/32")
        router.delegate(network)
        router.run(["ip", "address", "add", f"{self.public}/32", "dev", "lo"])
        router.run(["nft", "-f", "-"], input=_CHAINS)
        lan = router.lan.network
        assert lan is not None
        settings: Mapping[str, str] = {
            "ext_ifname": "wan",
            "ext_ip": self.public,
            "listening_ip": "lan",
            "enable_natpmp": "yes",
            "enable_upnp": "yes",
            "secure_mode": "yes",
            "system_uptime": "no",
            "http_port": "0",
            "min_lifetime": "4",
            "max_lifetime": "86400",
            "upnp_table_name": "filter",
            "upnp_nat_table_name": "filter",
            "upnp_forward_chain": "miniupnpd",
            "upnp_nat_chain": "prerouting_miniupnpd",
            "upnp_nat_postrouting_chain": "postrouting_miniupnpd",
            "uuid": "00000000-0000-0000-0000-000000000001",
            **options,
        }
        self._config = folder / f"{router.name}.conf"
        lines = [f"{name}={value}" for name, value in settings.items()]
        self._config.write_text("\n".join([*lines, f"allow 1024-65535 {lan} 1024-65535", ""]))
        self._pid_file = folder / f"{router.name}.pid"
        self.log = folder / f"{router.name}.log"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it."""
        with self.log.open("ab") as log:
            command = [PROGRAM, "-d", "-f", self._config, "-P", self._pid_file]
            self._process = self.router.popen(command, stdout=log, stderr=log)

    def stop(self) -> None:
        """End it, and forget every mapping, as a router does that loses its power."""
        assert self._process is not None
        self._process.terminate()
        self._process.wait(PATIENCE)
        for chain in ("miniupnpd", "prerouting_miniupnpd", "postrouting_miniupnpd"):
            self.router.run(["nft", "flush", "chain", "inet", "filter", chain])

    def mapped(self) -> list[str]:
        """Its rules for mappings, as nft shows them."""
        shown = self.router.run(["nft", "list", "chain", "inet", "filter", "prerouting_miniupnpd"]).stdout
        return [line.strip() for line in shown.splitlines() if "dnat" in line]

    def pinholes(self) -> list[str]:
        """Its rules for pinholes of IPv6, as nft shows them."""
        shown = self.router.run(["nft", "list", "chain", "inet", "filter", "miniupnpd"]).stdout
        return [line.strip() for line in shown.splitlines() if "ip6" in line or "ipv6" in line]


async def until(condition: Callable[[], object], what: str) -> None:
    """Wait until it holds."""
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110 - what another program did can't be waited for by an event
            await asyncio.sleep(0.02)
    assert condition(), what
