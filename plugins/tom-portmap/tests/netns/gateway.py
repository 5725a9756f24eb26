"""miniupnpd on a router of a network lab: a gateway that we did not write."""

from __future__ import annotations

import asyncio
import ipaddress
import shutil
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from tom_connect.testing.natlab import Router

PROGRAM = "/usr/sbin/miniupnpd"
PATIENCE = 60.0
"""Seconds in which anything that has to happen does, on a loaded machine too."""

# The chains that it fills. Its filter is asked before the lab's own, which lets nothing in that it did not accept.
_CHAINS = """
add chain inet natlab miniupnpd
insert rule inet natlab forward jump miniupnpd
table inet miniupnpd {
  chain prerouting { type nat hook prerouting priority dstnat; policy accept; jump prerouting_miniupnpd; }
  chain postrouting { type nat hook postrouting priority srcnat - 10; policy accept; jump postrouting_miniupnpd; }
  chain prerouting_miniupnpd { }
  chain postrouting_miniupnpd { }
}
"""


def missing() -> str | None:
    """What this machine lacks."""
    if shutil.which(PROGRAM) is None:
        return "miniupnpd (Debian: miniupnpd-nftables)"
    told = subprocess.run([PROGRAM, "--version"], capture_output=True, text=True, timeout=PATIENCE, check=False)
    return None if "nftables" in told.stdout + told.stderr else "a miniupnpd that uses nftables (miniupnpd-nftables)"


class Gateway:
    """Runs miniupnpd on a router. `public`: an address of the router's, None: it has but that of its outer device.

    It takes the lab's addresses, which are for benchmarks and documentation, for private ones.
    """

    def __init__(self, router: Router, folder: Path, *, public: str | None = "11.0.0.1", **options: str) -> None:
        self.router = router
        self.public = public
        if public is not None:
            options["ext_ip"] = public
            router.delegate(ipaddress.IPv4Network(f"{public}/32"))
            router.run(["ip", "address", "add", f"{public}/32", "dev", "lo"])
        router.run(["nft", "-f", "-"], input=_CHAINS)
        lan = router.lan.network
        assert lan is not None
        settings: Mapping[str, str] = {
            "ext_ifname": "wan",
            "listening_ip": "lan",
            "enable_natpmp": "yes",
            "enable_upnp": "yes",
            "secure_mode": "yes",
            "system_uptime": "no",
            "http_port": "0",
            "min_lifetime": "4",
            "max_lifetime": "86400",
            "upnp_table_name": "natlab",
            "upnp_nat_table_name": "miniupnpd",
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
        self._started = 0.0

    def start(self) -> None:
        """Start it."""
        self._started = time.monotonic()
        with self.log.open("ab") as log:
            command = [PROGRAM, "-d", "-f", self._config, "-P", self._pid_file]
            self._process = self.router.popen(command, stdout=log, stderr=log)

    def age(self) -> float:
        """Seconds since it was started."""
        return time.monotonic() - self._started

    def stop(self) -> None:
        """End it, and forget every mapping, as a router does that loses its power."""
        assert self._process is not None
        self._process.terminate()
        self._process.wait(PATIENCE)
        for chain in ("natlab miniupnpd", "miniupnpd prerouting_miniupnpd", "miniupnpd postrouting_miniupnpd"):
            self.router.run(["nft", "flush", "chain", "inet", *chain.split()])

    def mapped(self) -> list[str]:
        """Its rules for mappings, as nft shows them."""
        shown = self.router.run(["nft", "list", "chain", "inet", "miniupnpd", "prerouting_miniupnpd"]).stdout
        return [line.strip() for line in shown.splitlines() if "dnat" in line]

    def pinholes(self) -> list[str]:
        """Its rules for pinholes of IPv6, told from IPv4 mappings by where nft shows an address."""
        shown = self.router.run(["nft", "list", "chain", "inet", "natlab", "miniupnpd"]).stdout
        return [line.strip() for line in shown.splitlines() if "@nh,192,128 " in line or "ip6 daddr" in line]


async def until(condition: Callable[[], object], what: str) -> None:
    """Wait until it holds."""
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110 - what another program did can't be waited for by an event
            await asyncio.sleep(0.02)
    assert condition(), what
