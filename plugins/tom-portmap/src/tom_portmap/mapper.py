"""The loop that keeps the endpoint's port open: finds gateways, and does what the keepers of the mappings want."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
from collections import Counter
from collections.abc import Sequence

from tom_connect.abc import PluginContext
from tom_connect.addr import SocketAddr, is_local
from tom_connect.netreport.interfaces import interface_addresses
from tom_connect.watch import Watch
from tom_portmap.asker import Asker
from tom_portmap.config import PortmapConfig
from tom_portmap.core.eligible import can_be_mapped, is_private
from tom_portmap.core.keeper import Action, Keeper, Map, Probe, Release, State
from tom_portmap.core.values import Candidate
from tom_portmap.errors import PortmapError, RefusedError
from tom_portmap.gateways import Gateway, default_gateways
from tom_portmap.listener import Announcements
from tom_portmap.udp import facing
from tom_portmap.wire import pcp

CLOSE_TIMEOUT = 0.7
"""Seconds to give everything back: an endpoint has to be gone within one."""
MAX_PINHOLES = 4
"""IPv6 addresses of ours that a firewall is opened for; privacy extensions (RFC 8981) make several."""


class Slot:
    """One of our addresses and its mapping."""

    def __init__(self, local: SocketAddr, mapper: Mapper) -> None:
        self.local = local
        self.keeper = Keeper(mapper.config.lifetime, mapper.rng)
        self.askers: dict[Candidate, Asker] = {}
        self._nonce = os.urandom(pcp.NONCE_SIZE)
        self._mapper = mapper

    def asker(self, candidate: Candidate) -> Asker:
        """Who asks a gateway for us, made when it is first needed."""
        found = self.askers.get(candidate)
        if found is None:
            mapper = self._mapper
            found = self.askers[candidate] = Asker(
                candidate, self.local.port, self._nonce, clock=mapper.clock, rng=mapper.rng, malformed=mapper.malformed
            )
        return found


class Mapper:
    """The mappings of one endpoint. `watch` is told what is mapped; `ctx.config` is a PortmapConfig."""

    def __init__(self, ctx: PluginContext, watch: Watch[tuple[SocketAddr, ...]]) -> None:
        self.config: PortmapConfig = ctx.config
        self.clock = ctx.clock
        self.rng: random.Random = random.SystemRandom()
        self.malformed: Counter[str] = Counter()
        """What came in and was ignored, by kind."""
        self._ctx = ctx
        self._watch = watch
        self._slots: dict[SocketAddr, Slot] = {}
        self._wake = asyncio.Event()
        self._changed = True
        self._bound: tuple[SocketAddr, ...] = ()
        self._note: str | None = None

    def network_changed(self) -> None:
        """Ask again, whatever gateways there are now."""
        self._changed = True
        self._wake.set()

    async def aclose(self) -> None:
        """Give every mapping back, within CLOSE_TIMEOUT; `run` has ended."""
        releases = [(slot, action) for slot in self._slots.values() for action in slot.keeper.close()]
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_TIMEOUT):
                await asyncio.gather(*(self._do(slot, action) for slot, action in releases))

    def router_addresses(self) -> list[str]:
        """Where our gateways are outside, mapped to us or not."""
        keepers = [slot.keeper for local, slot in self._slots.items() if ":" not in local.host]
        mapped = [keeper.mapping.host for keeper in keepers if keeper.mapping is not None]
        return [*mapped, *(keeper.outside for keeper in keepers if keeper.outside is not None)]

    def diagnostics(self) -> dict[str, object]:
        """How each mapping does now."""
        told: dict[str, object] = {}
        for local, slot in self._slots.items():
            told["mapping" if ":" not in local.host else f"pinhole for {local.host}"] = self._describe(slot)
        if self._note is not None:
            told["note"] = self._note
        if self.malformed:
            told["ignored answers"] = dict(self.malformed)
        return told

    def _describe(self, slot: Slot) -> dict[str, object]:
        keeper = slot.keeper
        gateway = keeper.gateway
        if gateway is None or keeper.mapping is None:
            state = "asking" if keeper.state is State.RACING else "none"
            return {"state": state, "problem": keeper.problem} if keeper.problem else {"state": state}
        left = "without an end" if keeper.expires is None else f"{keeper.expires - self.clock.monotonic():.0f} s"
        return {
            "state": "held",
            "gateway": gateway.gateway,
            "protocol": gateway.protocol,
            "external": str(keeper.mapping),
            "internal": str(SocketAddr(gateway.local, slot.local.port)),
            "time left": left,
        }

    # The loop

    async def run(self) -> None:
        """Ask and keep asking until cancelled."""
        async with asyncio.TaskGroup() as group, Announcements(self._announced, self.malformed) as announcements:
            while True:
                self._wake.clear()
                if self._changed or self._bound != tuple(self._ctx.socket.local_addrs):
                    self._changed = False
                    await self._look_around(group, announcements)
                elif any(self._is_due(slot) for slot in self._slots.values() if slot.keeper.state is State.IDLE):
                    await self._look_again()
                now = self.clock.monotonic()
                for slot in self._slots.values():
                    slot.keeper.handle_timer(now)
                    for action in slot.keeper.actions():
                        group.create_task(self._do(slot, action), name="asking a gateway")
                self._tell()
                await self._next()

    async def _next(self) -> None:
        timers = [at for slot in self._slots.values() if (at := slot.keeper.get_timer()) is not None]
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, min(timers) - self.clock.monotonic()) if timers else None):
                await self._wake.wait()

    def _is_due(self, slot: Slot) -> bool:
        timer = slot.keeper.get_timer()
        return timer is not None and timer <= self.clock.monotonic()

    async def _look_around(self, group: asyncio.TaskGroup, announcements: Announcements) -> None:
        """Find out which of our addresses can be mapped where, and ask for it."""
        self._bound = tuple(self._ctx.socket.local_addrs)
        gateways = await default_gateways()
        wanted = self._wanted(gateways)
        for local in self._slots.keys() - wanted.keys():
            slot = self._slots.pop(local)
            for action in slot.keeper.close():
                group.create_task(self._do(slot, action), name="giving a mapping back")
        now = self.clock.monotonic()
        for local, candidates in wanted.items():
            slot = self._slots.get(local) or Slot(local, self)
            self._slots[local] = slot
            slot.askers = {c: a for c, a in slot.askers.items() if c in candidates or c == slot.keeper.gateway}
            slot.keeper.network_changed(candidates, now)
        announcements.listen({c.local for candidates in wanted.values() for c in candidates if ":" not in c.local})

    async def _look_again(self) -> None:
        """Before gateways are asked again, find out which there are now."""
        wanted = self._wanted(await default_gateways())
        for local, slot in self._slots.items():
            slot.keeper.set_candidates(wanted.get(local, ()))

    def _wanted(self, gateways: Sequence[Gateway]) -> dict[SocketAddr, Sequence[Candidate]]:
        """The ways to ask, by the address of ours that is to be mapped: for IPv4 the one that we are bound to."""
        wanted: dict[SocketAddr, Sequence[Candidate]] = {}
        self._note = None
        for bound in filter(can_be_mapped, self._ctx.socket.local_addrs):
            of_family = [gateway for gateway in gateways if (gateway.version == 6) == (":" in bound.host)]
            if ":" not in bound.host:
                candidates = self._ipv4_candidates(bound, of_family)
                if candidates is not None:
                    wanted[bound] = candidates
            elif "pcp" in self.config.protocols:
                for host in _global_ipv6(bound):
                    local = SocketAddr(host, bound.port)
                    wanted[local] = tuple(Candidate("pcp", gateway.host, host) for gateway in of_family)
        return wanted

    def _ipv4_candidates(self, bound: SocketAddr, gateways: Sequence[Gateway]) -> tuple[Candidate, ...] | None:
        """Each gateway by each protocol; None where we need no mapping, since no NAT is before us."""
        locals_ = {g.host: facing(g.host) if bound.ip.is_unspecified else bound.host for g in gateways}
        faces = {gateway: local for gateway, local in locals_.items() if local is not None and is_private(local)}
        if gateways and not faces:
            self._note = "no IPv4 mapping is needed: this machine has a public address"
            return None
        return tuple(
            Candidate(protocol, gateway, local)
            for gateway, local in faces.items()
            for protocol in self.config.protocols
        )

    def _announced(self, gateway: str) -> None:
        now = self.clock.monotonic()
        for slot in self._slots.values():
            if slot.keeper.announced(gateway, now):
                self._wake.set()

    async def _do(self, slot: Slot, action: Action) -> None:
        """Ask, and tell the keeper what came of it; whatever goes wrong is an answer too."""
        keeper, asker, number = slot.keeper, slot.asker(action.candidate), action.number
        try:
            match action:
                case Probe():
                    probed = await asker.probe(action.held)
                    keeper.probed(number, probed, self.clock.monotonic())
                case Map():
                    granted = await asker.map(action.probed.external, action.suggested, action.lifetime)
                    keeper.granted(number, granted, self.clock.monotonic())
                case Release():
                    await asker.release(action.grant)
        except (PortmapError, OSError) as exc:
            silent = not isinstance(exc, RefusedError)
            keeper.failed(number, str(exc), self.clock.monotonic(), silent=silent)
        except Exception as exc:  # whatever a gateway may send, the others are asked and the mappings are kept
            self._ctx.logger.exception("asking %s failed", action.candidate)
            keeper.failed(number, type(exc).__name__, self.clock.monotonic(), silent=False)
        self._wake.set()

    def _tell(self) -> None:
        mapped = tuple(slot.keeper.mapping for slot in self._slots.values() if slot.keeper.mapping is not None)
        if mapped != self._watch.value:
            self._ctx.logger.info("mapped at gateways: %s", ", ".join(map(str, mapped)) or "nothing")
            self._watch.set(mapped)


def _global_ipv6(bound: SocketAddr) -> list[str]:
    hosts = [addr.host for addr in interface_addresses() if addr.is_ipv6] if bound.ip.is_unspecified else [bound.host]
    return [host for host in hosts if not is_local(SocketAddr(host, 0))][:MAX_PINHOLES]
