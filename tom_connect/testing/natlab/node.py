"""What every machine of a lab can do: run programs, open sockets."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import attrs

from tom_connect.testing.natlab.links import Link, Upstream
from tom_connect.testing.natlab.namespaces import LabError, ip, within
from tom_connect.testing.natlab.wire import Wire

if TYPE_CHECKING:
    from tom_connect.testing.natlab.lab import Lab
    from tom_connect.testing.natlab.router import Router

Argument = str | os.PathLike[str]


@attrs.define(eq=False)
class Node:
    """A machine of a lab, with a network namespace of its own."""

    lab: Lab
    """The lab that it is in."""
    name: str
    """Its name in the lab."""
    namespace: str
    """Its network namespace, as `ip netns` lists it."""
    _upstream: Upstream
    link: Link
    """Its link to the internet, or to the router above it."""

    def run(
        self, command: Sequence[Argument], *, timeout: float = 30.0, check: bool = True, **options: Any
    ) -> subprocess.CompletedProcess[str]:
        """Run a program to its end and return what it printed, as text.

        `options` are those of `subprocess.run`. Raises subprocess.TimeoutExpired after `timeout` seconds, and
        CalledProcessError for an exit status other than 0 unless `check` is off.
        """
        options = {"capture_output": True, "text": True, "stdin": subprocess.DEVNULL} | options
        if "input" in options:
            del options["stdin"]
        return subprocess.run(self.command(command), timeout=timeout, check=check, **options)

    def popen(self, command: Sequence[Argument], **options: Any) -> subprocess.Popen[Any]:
        """Start a program, with the options of `subprocess.Popen`; it is ended with the lab, if not before."""
        process = subprocess.Popen(self.command(command), **options)
        self.lab.own(process)
        return process

    async def process(self, command: Sequence[Argument], **options: Any) -> asyncio.subprocess.Process:
        """Start a program, with the options of `asyncio.create_subprocess_exec`; it is killed with the lab."""
        return await asyncio.create_subprocess_exec(*self.command(command), **options)

    def command(self, command: Sequence[Argument]) -> list[str]:
        """The command that runs another one here, for whatever starts programs by itself."""
        return ["ip", "netns", "exec", self.namespace, *(os.fspath(part) for part in command)]

    def socket(
        self,
        family: int = socket.AF_INET,
        type: int = socket.SOCK_DGRAM,  # noqa: A002 - as in socket.socket
        proto: int = 0,
    ) -> socket.socket:
        """A socket of this machine, for use in this process; the caller closes it."""
        return within(self.namespace, lambda: socket.socket(family, type, proto))

    def public_networks(self) -> tuple[str, ...]:
        """The addresses by which others on the node's outer side know it, and what is behind it."""
        return tuple(addr for addr in (self.link.addr, self.link.addr6) if addr is not None)

    def set_wire(self, wire: Wire) -> None:
        """Change how the node's link treats packets; raises LabError if it was made without a wire."""
        if not self.link.wired:
            raise LabError(f"{self.name} hangs on a plain link; give it a wire when you make it")
        self.lab.wires.change(self.link.number, wire)


@attrs.define(eq=False)
class Host(Node):
    """An end system: on the internet with addresses of its own, or behind a router."""

    router: Router | None = None
    """The router that it is behind; None on the internet."""
    wire: Wire | None = None
    """How its link treated packets when it was made, and does wherever it moves."""

    @property
    def addr(self) -> str:
        """Its IPv4 address; raises LabError if it has none."""
        if self.link.addr is None:
            raise LabError(f"{self.name} has no IPv4 address")
        return self.link.addr

    @property
    def addr6(self) -> str:
        """Its IPv6 address; raises LabError if it has none."""
        if self.link.addr6 is None:
            raise LabError(f"{self.name} has no IPv6 address")
        return self.link.addr6

    def add_addresses(self, addrs: Sequence[str]) -> None:
        """Give it further IPv4 addresses, any at all, routed to it alone: one machine stands for many hosts.

        Those that it has already it keeps. They are lost when it moves or its interface goes down. Raises LabError for
        a host behind a router.
        """
        if self.router is not None:
            raise LabError(f"{self.name} is behind a router: only a host on the internet can have further addresses")
        self.lab.internet.add_addresses(self.link, addrs)

    def move(self, router: Router | None) -> None:
        """Unplug it and plug it in elsewhere: behind a router, or on the internet (None). Its addresses change."""
        self.lab.cabling.disconnect(self.link)
        self.router = router
        self._upstream = router.lan if router is not None else self.lab.internet
        self.link = self._upstream.attach(self.namespace, self.link.device, self.wire)

    def flap(self, *, down: bool) -> None:
        """Take its interface down as when Wi-Fi is lost, addresses and routes included, or up again."""
        if down:
            device = self.link.device
            ip([f"address flush dev {device}", f"link set {device} down"], self.namespace)
        else:
            self._upstream.restore(self.link)
