"""Two nodes behind routers of their own, a relay, and a live stream, while the network changes under them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Literal

import attrs

from tests.interop.peers.process import REPOSITORY, LineProcess, python_module
from tom_connect.testing.natlab import Host, Lab, Nat, Router, Wire

Side = Literal["dialer", "acceptor"]
OURS = "tests.netns.talker_process"
PORT = 3340
UDP_PORT = 4242
WIRE = Wire(delay=0.010)
"""Ten milliseconds each way between each router and the internet."""
PATIENCE = 30.0
"""Seconds to wait for what must come at all; what is promised is measured, not waited for."""


@attrs.define(eq=False)
class Relay:
    """A relay as a process on a public host."""

    host: Host
    process: subprocess.Popen[str] | None = None

    @property
    def url(self) -> str:
        """Where nodes find it."""
        return f"http://{self.host.addr}:{PORT}/"

    def start(self) -> None:
        """Start it, and wait until it serves."""
        command = [sys.executable, "-m", "tom_connect", "relay", "--dev", "--json"]
        command += ["--listen", f"{self.host.addr}:{PORT}", "--stun-listen", f"{self.host.addr}:3478"]
        self.process = self.host.popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=REPOSITORY
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if json.loads(line or "{}").get("event") != "serving":
            raise RuntimeError(f"the relay said {line!r}")

    def kill(self) -> None:
        """`kill -9`: no goodbye."""
        assert self.process is not None
        self.process.kill()
        self.process.wait(PATIENCE)


@attrs.define(eq=False)
class End:
    """One node with its host and router."""

    host: Host
    router: Router
    process: LineProcess


@attrs.frozen
class Gap:
    """The longest silence in one direction, and how long it lasted after connectivity was back; seconds."""

    longest: float
    after: float


@attrs.define(eq=False)
class World:
    """A lab with both ends and the relay, talking."""

    lab: Lab
    relay: Relay
    ends: dict[Side, End]

    async def until(self, condition: Callable[[], Awaitable[bool]], what: str) -> None:
        """Ask again and again until it holds."""
        try:
            async with asyncio.timeout(PATIENCE):
                while not await condition():  # noqa: ASYNC110 - it is asked in another process
                    await asyncio.sleep(0.05)
        except TimeoutError:
            paths = [await end.process.call("path") for end in self.ends.values()]
            raise AssertionError(f"{what} did not come within {PATIENCE:g} s; the paths are {paths}") from None

    async def on(self, kind: Literal["direct", "relay"]) -> None:
        """Wait until both ends use a path of this kind."""

        async def both() -> bool:
            return all([(await end.process.call("path"))["kind"] == kind for end in self.ends.values()])

        await self.until(both, f"a {kind} path at both ends")

    async def quiet_flow(self) -> None:
        """Wait until records flow both ways without a pause."""

        async def flows() -> bool:
            since = time.monotonic()
            await asyncio.sleep(0.5)
            states = [await end.process.call("state", since=since) for end in self.ends.values()]
            return all(state["gap"][0] < 0.3 for state in states)

        await self.until(flows, "a steady stream")

    async def gaps(self, began: float, back: float, *, settle: float = 1.0) -> dict[Side, Gap]:
        """What each end saw since `began`, where connectivity was back at `back`; waits until both hear again."""
        started = {side: (await end.process.call("state", since=back))["received"] for side, end in self.ends.items()}

        async def heard() -> bool:
            states = [(await end.process.call("state", since=back), started[side]) for side, end in self.ends.items()]
            return all(state["received"] > count + 5 for state, count in states)

        await self.until(heard, "a record")
        # What had been under way may come before the silence, so its end is looked for a little longer.
        await asyncio.sleep(settle)
        await self.until(heard, "a record")
        found: dict[Side, Gap] = {}
        for side, end in self.ends.items():
            length, ended = (await end.process.call("state", since=began))["gap"]
            assert ended is not None, f"{side} hears nothing"
            found[side] = Gap(length, max(0.0, ended - back) if length > 0.1 else 0.0)
        return found

    async def whole(self) -> None:
        """Both stop; every record has come to the other end, in order and once."""
        sent = {side: (await end.process.call("stop"))["sent"] for side, end in self.ends.items()}
        other: dict[Side, Side] = {"dialer": "acceptor", "acceptor": "dialer"}
        for side, end in self.ends.items():
            got = await end.process.call("finished", timeout=PATIENCE)
            assert got == {"received": sent[other[side]], "broken": None}, side

    async def change(self, event: str, side: Side, *, asleep: float) -> tuple[float, float]:
        """Let an event happen at a side; returns when it began, and when connectivity was back."""
        end = self.ends[side]
        began = time.monotonic()
        if event == "nat_rebind":
            await asyncio.to_thread(end.router.rebind)
        elif event == "new_public_ip":
            await asyncio.to_thread(end.router.new_address)
        elif event == "another_router":
            end.router = await asyncio.to_thread(self.lab.router, f"{side}-other", Nat.MODERATE, wire=WIRE)
            began = time.monotonic()
            await asyncio.to_thread(end.host.move, end.router)
        elif event == "flap":
            await asyncio.to_thread(end.host.flap, down=True)
            await asyncio.sleep(2.0)
            await asyncio.to_thread(end.host.flap, down=False)
        elif event == "udp_blocked":
            await asyncio.to_thread(end.router.block_udp)
        elif event == "asleep":
            await self.sleep(end, asleep)
        else:
            raise ValueError(event)
        back = time.monotonic()
        # For who can't learn it in a lab; where the NAT has changed the port, nobody could tell.
        await end.process.call("external", addr=f"{end.router.wan}:{UDP_PORT}")
        return began, back

    @staticmethod
    async def sleep(end: End, seconds: float) -> None:
        """Stop a node's process for so long, as a laptop that sleeps does, whose clock goes on."""
        os.kill(end.process.pid, signal.SIGSTOP)
        try:
            await asyncio.sleep(seconds)
        finally:
            os.kill(end.process.pid, signal.SIGCONT)


EVENTS = ("nat_rebind", "new_public_ip", "another_router", "flap", "udp_blocked", "asleep")
SIDES: tuple[Side, ...] = ("dialer", "acceptor")


@contextlib.asynccontextmanager
async def talking(lab: Lab, *, program: str = OURS, level: str = "WARNING") -> AsyncIterator[World]:
    """Both ends behind moderate NATs, connected directly, with records flowing both ways.

    `program`: the module that is one end; it gets the relay's URL, the UDP port to bind, the address at which that is
    seen, and a log level.
    """
    relay = Relay(await asyncio.to_thread(lab.host, "relay"))
    relay.start()
    with contextlib.ExitStack() as stack:
        places: dict[Side, tuple[Host, Router]] = {}
        for side in SIDES:
            router = await asyncio.to_thread(lab.router, f"{side}-home", Nat.MODERATE, wire=WIRE)
            places[side] = await asyncio.to_thread(lab.host, side, router), router

        async def start(host: Host, router: Router) -> End:
            command = python_module(program, relay.url, str(UDP_PORT), f"{router.wan}:{UDP_PORT}", level)
            process = await asyncio.to_thread(LineProcess.start, [str(part) for part in host.command(command)])
            return End(host, router, stack.enter_context(process))

        started = await asyncio.gather(*(start(*place) for place in places.values()))
        ends: dict[Side, End] = dict(zip(SIDES, started, strict=True))
        world = World(lab, relay, ends)
        accepting = ends["acceptor"].process.request("accept")
        await ends["dialer"].process.call("dial", node_id=ends["acceptor"].process.ready["node_id"], relay=relay.url)
        await asyncio.wait_for(asyncio.wrap_future(accepting), PATIENCE)
        await world.on("direct")
        await world.quiet_flow()
        yield world


async def measured(world: World, event: str, side: Side, *, asleep: float) -> dict[Side, Gap]:
    """Let it happen, and see what both ends made of it."""
    began, back = await world.change(event, side, asleep=asleep)
    return await world.gaps(began, back)


def worst(gaps: dict[Side, Gap]) -> tuple[float, float]:
    """The longest silence of both directions, and the longest one after connectivity was back."""
    return max(gap.longest for gap in gaps.values()), max(gap.after for gap in gaps.values())


__all__ = ["EVENTS", "OURS", "SIDES", "End", "Gap", "Relay", "Side", "World", "measured", "talking", "worst"]
