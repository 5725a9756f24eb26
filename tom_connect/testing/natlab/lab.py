"""A lab: an internet of network namespaces on one machine."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import subprocess
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Final, Self

from tom_connect.testing.natlab.addresses import AddressPlan
from tom_connect.testing.natlab.cut import Cut
from tom_connect.testing.natlab.links import DEVICE_HOST, DEVICE_WAN, Cabling, Internet, Lan, Link
from tom_connect.testing.natlab.namespaces import (
    NO_NAME_SERVER,
    LabError,
    end_processes,
    ip,
    missing,
    namespace_prefix,
    remove,
    remove_leftovers,
    set_kernel_options,
    write_etc,
)
from tom_connect.testing.natlab.nat import Firewall6, Nat, NatRules
from tom_connect.testing.natlab.node import Host
from tom_connect.testing.natlab.router import Router
from tom_connect.testing.natlab.wire import Wire, WireProcess

_NODE_NAME: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,31}")
_INTERNET: Final = "internet"
#: Seconds that programs get to leave after SIGTERM, all of them together.
_TERM_TIMEOUT: Final = 5.0
# Before the first device exists: duplicate address detection would keep IPv6 addresses unusable for up to 2 s.
_HOST_OPTIONS: Final = {
    "net/ipv6/conf/all/disable_ipv6": "0",
    "net/ipv6/conf/default/disable_ipv6": "0",
    "net/ipv6/conf/all/accept_dad": "0",
    "net/ipv6/conf/default/accept_dad": "0",
    "net/ipv6/conf/default/accept_ra": "0",
    "net/ipv6/conf/default/router_solicitations": "0",
    "net/ipv4/conf/all/rp_filter": "0",
    "net/ipv4/conf/default/rp_filter": "0",
}
_ROUTER_OPTIONS: Final = _HOST_OPTIONS | {
    "net/ipv4/ip_forward": "1",
    "net/ipv6/conf/all/forwarding": "1",
    "net/ipv4/conf/all/send_redirects": "0",
    "net/ipv4/conf/default/send_redirects": "0",
    # Frames between hosts of one LAN must not meet the NAT: it would break hairpinning.
    "net/bridge/bridge-nf-call-iptables": "0",
    "net/bridge/bridge-nf-call-ip6tables": "0",
}


class Lab:
    """An internet in network namespaces: routers, hosts behind them, and public hosts.

    Everything is made at once when it is asked for, and removed when the lab is closed (it is a context manager).
    Labs have nothing in common, so any number may exist at the same time; what a crashed process has left is removed
    when the next lab is made. Not thread-safe. `hops`: routers that a packet passes between two public addresses, at
    least 1. `seed` decides which packets wires lose. Raises LabError where the machine lacks something; see
    `missing()`.
    """

    def __init__(self, *, hops: int = 4, seed: int = 0) -> None:
        if lacking := missing():
            raise LabError(f"a network lab needs {', '.join(lacking)}")
        remove_leftovers()
        self._prefix = namespace_prefix(os.getpid(), secrets.token_hex(3))
        self._namespaces: list[str] = []
        self._etc: dict[str, str] = {}
        self._processes: list[subprocess.Popen[bytes] | subprocess.Popen[str]] = []
        self.nodes: dict[str, Host | Router] = {}  # by name
        self.plan = AddressPlan()
        self.wires = WireProcess(seed)
        self.cabling = Cabling(self._lay_wire, lambda link: self.wires.take_up(link.number))
        try:
            self.internet = Internet(self._namespace(_INTERNET, _ROUTER_OPTIONS), self.plan, self.cabling, hops)
        except BaseException:
            self.close()
            raise

    # Building

    def host(
        self,
        name: str,
        router: Router | None = None,
        *,
        wire: Wire | None = None,
        ipv4: bool = True,
        ipv6: bool = True,
    ) -> Host:
        """A host behind a router, or without one on the internet with public addresses of its own.

        It gets addresses of the families that its net has and that are not switched off here. Raises LabError.
        """
        namespace = self._namespace(name, _HOST_OPTIONS)
        upstream = router.lan if router is not None else self.internet
        link = upstream.attach(namespace, DEVICE_HOST, wire, ipv4=ipv4, ipv6=ipv6)
        host = Host(self, name, namespace, upstream, link, router, wire)
        self.nodes[name] = host
        return host

    def router(
        self,
        name: str,
        kind: Nat = Nat.MODERATE,
        *,
        remap: bool = False,
        hairpin: bool = False,
        behind: Router | None = None,
        ipv4: bool = True,
        ipv6: Firewall6 | None = None,
        block_udp: bool = False,
        reject: bool = False,
        wire: Wire | None = None,
    ) -> Router:
        """A router with a LAN.

        `remap`: mapped ports differ from the host's own, one for all destinations. `hairpin`: hosts of the LAN reach
        each other at mapped addresses. `behind`: the carrier's router that it hangs on, for a second NAT. `ipv4`,
        `ipv6`: the families that it has. `block_udp`: no UDP passes. `reject`: it answers unsolicited packets with
        ICMP, as routers without a firewall do, instead of dropping them. Raises LabError.
        """
        if kind is Nat.NONE and behind is not None and ipv4:
            raise LabError("a router without NAT can't hang behind another: it would need a public network")
        namespace = self._namespace(name, _ROUTER_OPTIONS)
        upstream = behind.customers() if behind is not None else self.internet
        link = upstream.attach(namespace, DEVICE_WAN, wire, ipv4=ipv4, ipv6=ipv6 is not None)
        rules = NatRules(kind, 0 if remap else None, hairpin, ipv6, reject)
        router = Router(self, name, namespace, upstream, link, rules, behind=behind)
        network = None
        if link.addr is not None:
            network = self.plan.routed4() if kind is Nat.NONE else self.plan.private4()
        network6 = self.plan.routed6() if link.addr6 is not None else None
        router.lan = Lan(namespace, "lan", self.cabling, network, network6, router.delegate)
        if network is not None and kind is Nat.NONE:
            router.delegate(network)
        if network6 is not None:
            router.delegate(network6)
        router.apply()
        if block_udp:
            router.block_udp()
        self.nodes[name] = router
        return router

    def cut(self, node: Host | Router, other: Host | Router | None = None) -> Cut:
        """Have packets vanish on a node's link: all, or those between it and the public addresses of another one.

        Nothing tells the node: its device stays up. Returns what mends it, a context manager too.
        """
        return Cut(node.link, self.cabling.number(), other.public_networks() if other is not None else None)

    def set_names(self, addrs: Mapping[str, str]) -> None:
        """Have programs that start from now on, on any machine, resolve names to these addresses, and no other names.

        They see a hosts file of their own, and a name server that nobody is.
        """
        hosts = "".join(f"{addr} {name}\n" for name, addr in {"localhost": "127.0.0.1", **addrs}.items())
        self._etc = {"hosts": hosts, "resolv.conf": NO_NAME_SERVER}
        for namespace in self._namespaces:
            write_etc(namespace, self._etc)

    def own(self, process: subprocess.Popen[bytes] | subprocess.Popen[str]) -> None:
        """End a process with the lab."""
        self._processes.append(process)

    def _namespace(self, name: str, options: dict[str, str]) -> str:
        if not _NODE_NAME.fullmatch(name) or name in self.nodes or self._prefix + name in self._namespaces:
            raise LabError(f"the name {name!r} is taken, or not of 1 to 32 lower-case letters, digits and hyphens")
        namespace = self._prefix + name
        self._namespaces.append(namespace)
        ip([f"netns add {namespace}"])
        set_kernel_options(namespace, options)
        if self._etc:
            write_etc(namespace, self._etc)
        return namespace

    def _lay_wire(self, link: Link, wire: Wire) -> None:
        ends = [(link.namespace, link.device, link.mac), (link.far_namespace, link.far_device, link.far_mac)]
        self.wires.lay(link.number, ends, wire)

    # The end

    def close(self) -> None:
        """End every program that runs in the lab and remove its namespaces; further calls do nothing."""
        running = [process for process in self._processes if process.poll() is None]
        for process in running:
            process.terminate()
        deadline = time.monotonic() + _TERM_TIMEOUT
        for process in running:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(max(0.0, deadline - time.monotonic()))
        end_processes(self._namespaces)
        for process in self._processes:
            process.wait()
            for stream in (process.stdin, process.stdout, process.stderr):
                if stream is not None:
                    stream.close()
        self._processes.clear()
        self.wires.close()
        remove(self._namespaces)
        self._namespaces.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
