"""Two nodes in a lab and a relay on its internet, which are moved from net to net and connected there run after run."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import attrs

from tests.interop.peers.process import LineProcess, python_module
from tom_connect.testing.natlab import Host, Lab, Nat, Router

RELAY_PORT: Final = 3340
STUN_PORT: Final = 3478
TOM, IROH = "tom-connect", "iroh"
MODULES: Final = {TOM: "benchmarks.nat.tom_process", IROH: "benchmarks.nat.iroh_process"}


@attrs.frozen
class Meeting:
    """How one dial went: seconds until connected, and until traffic took a direct path; None if it never did.

    `addr` is where the direct path leads, `why` the dialer's word for what keeps it on the relay, if it has one.
    """

    connected: float
    direct: float | None
    addr: str | None
    why: str | None


@contextlib.contextmanager
def relay_on(host: Host) -> Iterator[tuple[str, str]]:
    """Run `tom-connect relay` with STUN on a public host; its URLs by IPv4 and by IPv6."""
    addrs = (host.addr, f"[{host.addr6}]")
    where = [option for addr in addrs for option in ("--listen", f"{addr}:{RELAY_PORT}")]
    stun = [option for addr in addrs for option in ("--stun-listen", f"{addr}:{STUN_PORT}")]
    command = [sys.executable, "-m", "tom_connect", "relay", "--dev", "--json", *where, *stun]
    process = host.popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        if '"serving"' not in (line := process.stdout.readline()):
            raise RuntimeError(f"the relay did not start: {line}")
        yield f"http://{addrs[0]}:{RELAY_PORT}", f"http://{addrs[1]}:{RELAY_PORT}"
    finally:
        process.terminate()
        process.wait(30)


@attrs.define(eq=False)
class Couple:
    """Two hosts of a lab, with a node of each kind in both; one dials the other through a relay."""

    lab: Lab
    hosts: tuple[Host, Host]
    relays: tuple[str, str]
    nodes: dict[str, list[LineProcess]]
    _port: int = 20_000

    def settle(self, routers: tuple[Router, Router]) -> None:
        """Move the hosts behind two routers, or both behind one."""
        for host, router in zip(self.hosts, routers, strict=True):
            host.move(router)

    async def meet(self, wait: float, kind: str = TOM, *, until: str | None = None) -> Meeting:
        """Open fresh endpoints on both sides and connect them, with up to `wait` seconds for a direct path.

        `until`: the word for why it is relayed, which is waited for after these.
        """
        self._port += 1
        has_ipv4 = all(host.link.addr is not None for host in self.hosts)
        relay = self.relays[0 if has_ipv4 else 1]
        dialer, listener = self.nodes[kind]
        try:
            _, listening = await asyncio.gather(
                *(
                    node.call("bind", relay=relay, port=self._port, external=self._external(host))
                    for node, host in zip((dialer, listener), self.hosts, strict=True)
                )
            )
            request = {"node_id": listening["node_id"], "relay": relay, "wait": wait, "until": until}
            return Meeting(**await dialer.call("dial", **request, timeout=wait + 120))
        finally:
            await asyncio.gather(dialer.call("unbind"), listener.call("unbind"))

    def _external(self, host: Host) -> str | None:
        # What a node could learn from its relay, for one that can't ask ours: nothing where the port is not kept.
        router = host.router
        if router is None or router.kind in (Nat.NONE, Nat.STRICT) or router.rules.remap is not None:
            return None
        if router.link.addr is None:
            return None
        return f"{router.outermost.wan}:{self._port}"


@contextlib.contextmanager
def couple(kinds: Sequence[str] = (TOM,)) -> Iterator[Couple]:
    """Build a lab with a relay and two hosts on its internet, and start a node of each kind (TOM, IROH) in both."""
    with contextlib.ExitStack() as stack:
        lab = stack.enter_context(Lab())
        hosts = lab.host("a"), lab.host("b")
        with ThreadPoolExecutor() as pool:
            starting = {
                kind: [pool.submit(LineProcess.start, host.command(python_module(MODULES[kind]))) for host in hosts]
                for kind in kinds
            }
            relays = stack.enter_context(relay_on(lab.host("relay")))
            nodes = {kind: [stack.enter_context(each.result()) for each in both] for kind, both in starting.items()}
        yield Couple(lab, hosts, relays, nodes)
