"""The default gateways of this machine: from the kernel's tables on Linux, from the system's own commands elsewhere.

Which of these there is, is found out when it is asked; nothing is assumed at import.
"""

from __future__ import annotations

import asyncio
import ipaddress
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

import attrs

MAX_GATEWAYS: Final = 4
"""Gateways of one family that are asked: a machine with a cable, a radio and a VPN has three."""
MAX_LINES: Final = 4096  # of a routing table that is read; a router's may have a million
COMMAND_TIMEOUT: Final = 3.0

_ROUTE_UP, _ROUTE_GATEWAY = 0x1, 0x2
_UP_AND_GATEWAY: Final = _ROUTE_UP | _ROUTE_GATEWAY
_NETSTAT: Final = ("netstat", "-rn")


@attrs.frozen(order=True)
class Gateway:
    """A default gateway: the metric of its route, the lower the better, and its address.

    `host`: text of the IP address, a link-local one with its interface as scope id (`fe80::1%eth0`).
    """

    metric: int
    host: str

    @property
    def version(self) -> int:
        """4 or 6."""
        return 6 if ":" in self.host else 4


async def default_gateways() -> list[Gateway]:
    """The gateways of the default routes, IPv4 first and the best first, at most 4 a family; empty where none is known.

    Never raises.
    """
    try:
        if (tables := _proc_net()) is not None:
            found = [*parse_linux_ipv4(_lines(tables / "route")), *parse_linux_ipv6(_lines(tables / "ipv6_route"))]
        else:
            found = await asyncio.to_thread(_printed)
    except (OSError, ValueError):
        found = []
    chosen: list[Gateway] = []
    for version in (4, 6):
        of_family = sorted(gateway for gateway in found if gateway.version == version)
        hosts: dict[str, Gateway] = {}
        for gateway in of_family:
            hosts.setdefault(gateway.host, gateway)
        chosen += list(hosts.values())[:MAX_GATEWAYS]
    return chosen


def _printed() -> list[Gateway]:
    try:
        if sys.platform == "win32":
            return parse_windows(_output("route", "print"))
        return parse_netstat(_output(*_NETSTAT))
    except (OSError, ValueError, subprocess.SubprocessError):
        return []


def _proc_net() -> Path | None:
    """Where Linux shows the routing tables, None elsewhere."""
    # Of this thread: /proc/net is of the main thread, which may be in another network namespace.
    for folder in (Path("/proc/thread-self/net"), Path("/proc/net")):
        if (folder / "route").exists():
            return folder
    return None


def _lines(path: Path) -> list[str]:
    try:
        with path.open(encoding="ascii", errors="replace") as file:
            return [line for line, _ in zip(file, range(MAX_LINES), strict=False)]
    except FileNotFoundError:  # a kernel without IPv6
        return []


def _output(*command: str) -> Sequence[str]:
    done = subprocess.run(  # noqa: S603 - a fixed command
        command, capture_output=True, text=True, errors="replace", timeout=COMMAND_TIMEOUT, check=False
    )
    return done.stdout.splitlines()[:MAX_LINES]


def parse_linux_ipv4(lines: Iterable[str]) -> list[Gateway]:
    """The gateways in /proc/net/route: addresses are numbers in hex, in the machine's byte order."""
    found = []
    for line in lines:
        fields = line.split()
        # Iface Destination Gateway Flags RefCnt Use Metric Mask MTU Window IRTT
        if len(fields) < 8 or fields[1] != "00000000" or fields[7] != "00000000":
            continue
        if int(fields[3], 16) & _UP_AND_GATEWAY == _UP_AND_GATEWAY:
            address = ipaddress.IPv4Address(int(fields[2], 16).to_bytes(4, sys.byteorder))
            found.append(Gateway(int(fields[6]), str(address)))
    return found


def parse_linux_ipv6(lines: Iterable[str]) -> list[Gateway]:
    """The gateways in /proc/net/ipv6_route."""
    found = []
    for line in lines:
        fields = line.split()
        # destination, its length, source, its length, next hop, metric, reference count, use, flags, interface
        if len(fields) < 10 or fields[0].strip("0") or fields[1] != "00":
            continue
        if int(fields[8], 16) & _UP_AND_GATEWAY == _UP_AND_GATEWAY:
            address = ipaddress.IPv6Address(bytes.fromhex(fields[4]))
            scope = f"%{fields[9]}" if address.is_link_local else ""
            found.append(Gateway(int(fields[5], 16), f"{address}{scope}"))
    return found


def parse_netstat(lines: Iterable[str]) -> list[Gateway]:
    """The gateways in what `netstat -rn` of macOS and the BSDs prints: rows `default GATEWAY FLAGS ...`."""
    found = []
    for number, line in enumerate(lines):
        fields = line.split()
        if len(fields) < 3 or fields[0] not in ("default", "0.0.0.0/0", "::/0") or "G" not in fields[2]:
            continue
        if (address := _address(fields[1])) is not None:
            found.append(Gateway(number, address))
    return found


def parse_windows(lines: Iterable[str]) -> list[Gateway]:
    """The gateways in what `route print` of Windows prints; its headings are translated, its rows are not."""
    found = []
    for line in lines:
        fields = line.split()
        if len(fields) == 5 and fields[:2] == ["0.0.0.0", "0.0.0.0"] and fields[4].isdigit():  # noqa: S104
            address, metric = _address(fields[2]), int(fields[4])
            scope = ""
        elif len(fields) == 4 and fields[2] == "::/0" and fields[0].isdigit() and fields[1].isdigit():
            address, metric = _address(fields[3]), int(fields[1])
            scope = f"%{fields[0]}"
        else:
            continue
        if address is not None:
            local = ipaddress.ip_address(address).is_link_local and ":" in address
            found.append(Gateway(metric, address + scope if local else address))
    return found


def _address(text: str) -> str | None:
    """The text of a usable address, None for `link#4`, `On-link` and the like."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    return None if address.is_unspecified or address.is_loopback else str(address)
