"""A lab of network namespaces with real NATs, held by a process of its own."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Sequence
from typing import Any, Final

import attrs

from tom_campaign.core.errors import ControlError
from tom_campaign.core.scenario import Scenario
from tom_campaign.networks.children import ended, own_process

BUILD_TIMEOUT: Final = 300.0
"""Seconds to build: 200 nodes take some twenty on a machine that is not busy."""
CLOSE_TIMEOUT: Final = 60.0
"""Seconds to remove all of it."""


def lab_problem() -> str | None:
    """What this machine lacks for a lab, in words; None if nothing."""
    try:
        from tom_connect.testing.natlab import missing
    except ImportError as exc:
        return f"Linux ({exc})"
    return ", ".join(missing()) or None


@attrs.define(eq=False)
class LabClient:
    """Asks the process of the lab."""

    process: asyncio.subprocess.Process
    namespaces: dict[str, str] = attrs.Factory(dict)
    dht_addresses: list[str] = attrs.Factory(list)
    relay_addresses: list[str] = attrs.Factory(list)
    _last: int = 0
    _lock: asyncio.Lock = attrs.Factory(asyncio.Lock)

    async def answer(self, number: int, timeout: float) -> dict[str, Any]:
        """The answer of a request; raises ControlError."""
        try:
            async with asyncio.timeout(timeout):
                # One whose asker was cancelled may still come.
                while (message := await self._next()).get("id") != number:
                    pass
        except TimeoutError:
            raise ControlError(f"the lab did not answer within {timeout:g} s") from None
        if "ok" not in message:
            raise ControlError(f"the lab: {message.get('error')}")
        found: dict[str, Any] = message["ok"]
        return found

    async def _next(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = await self.process.stdout.readline()
        if not line:
            assert self.process.stderr is not None
            words = (await self.process.stderr.read()).decode(errors="replace").strip().splitlines()
            raise ControlError(f"the process of the lab has ended: {words[-1] if words else 'it said nothing'}")
        message: dict[str, Any] = json.loads(line)
        return message

    async def ask(self, do: str, timeout: float, **arguments: Any) -> dict[str, Any]:
        """Have something done; raises ControlError."""
        async with self._lock:
            assert self.process.stdin is not None
            self._last += 1
            self.process.stdin.write(json.dumps({"id": self._last, "do": do, **arguments}).encode() + b"\n")
            return await self.answer(self._last, timeout)

    async def change(self, node: str, event: str) -> None:
        """Let something happen to the network of a node; raises ControlError."""
        await self.ask("change", 60.0, node=node, event=event)


@contextlib.asynccontextmanager
async def lab_of(scenario: Scenario) -> AsyncIterator[LabClient]:
    """The lab of a scenario, built; removed with the block, or when this process ends. Raises ControlError."""
    if (problem := lab_problem()) is not None:
        raise ControlError(f"natlab nodes need {problem} on this machine")
    command, options = own_process("tom_campaign.networks.lab_process")
    process = await asyncio.create_subprocess_exec(*command, str(scenario.seed), **options)
    try:
        client = LabClient(process)
        await client.answer(0, BUILD_TIMEOUT)
        built = await client.ask(
            "build", BUILD_TIMEOUT, nodes=_nodes(scenario), dht=scenario.dht_nodes, relays=scenario.relays
        )
        client.namespaces = built["namespaces"]
        client.dht_addresses = built["dht_addresses"]
        client.relay_addresses = built["relay_addresses"]
        yield client
    finally:
        await ended(process, CLOSE_TIMEOUT)


def _nodes(scenario: Scenario) -> Sequence[dict[str, Any]]:
    return [
        {"name": name, "nat": group.nat, "wire": attrs.asdict(group.wire) if group.wire is not None else None}
        for group in scenario.groups
        if group.network == "natlab"
        for name in group.node_names
    ]
