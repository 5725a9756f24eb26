"""Asks one gateway for one mapping by UPnP: Internet Gateway Device versions 1 and 2."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import random
import socket
from collections import Counter
from collections.abc import AsyncGenerator, Mapping
from typing import Final

from tom_connect.abc import Clock
from tom_connect.addr import SocketAddr
from tom_portmap.core.asking import bounded
from tom_portmap.core.eligible import IP, is_public
from tom_portmap.core.search import Search
from tom_portmap.core.values import Candidate, Grant, Probed
from tom_portmap.errors import PortmapError, RefusedError, SilentError, WireError
from tom_portmap.http import fetch
from tom_portmap.wire import soap
from tom_portmap.wire.location import Location

MAX_DESCRIPTION: Final = 128 * 1024
MAX_REPLY: Final = 16 * 1024
RELEASE_TIMEOUT: Final = 0.6
"""Seconds to give a mapping back at the close of an endpoint, which may take one."""
OTHER_PORTS: Final = 3
"""External ports that are tried where ours is taken."""
_HIGH_PORTS: Final = (20_000, 60_000)  # away from services, and from what a NAT hands out itself
_NO_LEASES: Final = frozenset((402, 501, soap.PERMANENT_ONLY))  # what gateways say that know no end of a mapping
_NOT_THERE: Final = frozenset((401, 602))  # no such action, or not in this device
DESCRIPTION: Final = "tom-connect"


class IgdAsking:
    """One gateway, and the service of it that maps ports once that was found."""

    def __init__(
        self, candidate: Candidate, port: int, *, clock: Clock, rng: random.Random, malformed: Counter[str]
    ) -> None:
        self._gateway = candidate.gateway
        self._local = candidate.local
        self._port = port
        self._clock = clock
        self._rng = rng
        self._malformed = malformed
        self._service: soap.Service | None = None

    async def probe(self, held: Grant | None) -> Probed:
        """The gateway's external address, and whether the mapping `held` is gone; raises PortmapError."""
        external = await self._external_address()
        return Probed(external, gone=held is not None and await self._is_gone(held))

    async def map(self, external: IP, suggested: SocketAddr | None, lifetime: int) -> Grant:
        """Ask for a mapping, or prolong the one at `suggested`; raises PortmapError.

        `external`: the gateway's address, as it told a probe. Where our port is taken, others are tried.
        """
        service = self._service
        if service is None:
            raise SilentError("its UPnP service is not known any more")
        wanted = self._port if suggested is None else suggested.port
        ports = [wanted, *(self._rng.randrange(*_HIGH_PORTS) for _ in range(OTHER_PORTS))]
        if service.kind == soap.IP_CONNECTION_2 and suggested is None:
            with contextlib.suppress(_NotThereError):
                return await self._add_any(service, external, ports[0], lifetime)
        for port in ports:
            try:
                lease = await self._add(service, port, lifetime)
            except RefusedError as exc:
                if exc.code != soap.CONFLICT:
                    raise
            else:
                return Grant(SocketAddr(str(external), port), lease)
        raise RefusedError("other machines have every port that we tried", soap.CONFLICT)

    async def release(self, grant: Grant) -> None:
        """Give a mapping back; raises PortmapError."""
        if self._service is not None and grant.external.port:
            arguments = self._entry(grant.external.port)
            await self._call(self._service, "DeletePortMapping", arguments, timeout=RELEASE_TIMEOUT)

    # Mappings

    def _entry(self, external_port: int) -> dict[str, object]:
        return {"NewRemoteHost": "", "NewExternalPort": external_port, "NewProtocol": "UDP"}

    def _whole_entry(self, external_port: int, lease: int) -> dict[str, object]:
        return {
            **self._entry(external_port),
            "NewInternalPort": self._port,
            "NewInternalClient": self._local,
            "NewEnabled": 1,
            "NewPortMappingDescription": DESCRIPTION,
            "NewLeaseDuration": lease,
        }

    async def _add(self, service: soap.Service, port: int, lifetime: int) -> float | None:
        """Map a port; returns for how long, None: without an end."""
        try:
            await self._call(service, "AddPortMapping", self._whole_entry(port, lifetime))
        except RefusedError as exc:
            if exc.code not in _NO_LEASES:
                raise
            await self._call(service, "AddPortMapping", self._whole_entry(port, 0))
            return None
        return bounded(lifetime)

    async def _add_any(self, service: soap.Service, external: IP, port: int, lifetime: int) -> Grant:
        """Map the port, or another where it is taken (WANIPConnection:2)."""
        try:
            answer = await self._call(service, "AddAnyPortMapping", self._whole_entry(port, lifetime))
        except RefusedError as exc:
            if exc.code in _NOT_THERE:
                raise _NotThereError from None
            raise
        reserved = _port(answer.get("NewReservedPort", ""))
        return Grant(SocketAddr(str(external), reserved), bounded(lifetime))

    async def _is_gone(self, held: Grant) -> bool:
        service = self._service
        assert service is not None
        try:
            answer = await self._call(service, "GetSpecificPortMappingEntry", self._entry(held.external.port))
        except RefusedError as exc:
            # Other refusals say nothing of the mapping: many gateways lack the action.
            return exc.code == soap.NO_SUCH_ENTRY
        return answer.get("NewInternalClient", self._local) != self._local

    # The service

    async def _external_address(self) -> IP | None:
        if self._service is not None:
            try:
                return await self._address_by(self._service)
            except (SilentError, WireError):
                # After a restart it may be found at another port.
                self._service = None
        return await self._find()

    async def _find(self) -> IP | None:
        """Search the gateway, and take the first service with a public address, else the first with any."""
        problem: PortmapError = SilentError("no answer")
        second: tuple[soap.Service, IP] | None = None
        async with contextlib.aclosing(self._locations()) as locations:
            async for location in locations:
                try:
                    services = await self._describe(location)
                except (SilentError, WireError) as exc:
                    problem = exc
                    continue
                if not services:
                    problem = RefusedError("it has no service that maps ports")
                for service in services:
                    try:
                        address = await self._address_by(service)
                    except PortmapError as exc:
                        problem = exc
                        continue
                    if is_public(address):
                        self._service = service
                        return address
                    second = second or (service, address)
                if second is not None:
                    break
        if second is None:
            raise problem
        self._service = second[0]
        return second[1]

    async def _address_by(self, service: soap.Service) -> IP:
        text = (await self._call(service, "GetExternalIPAddress", {})).get("NewExternalIPAddress", "")
        try:
            return ipaddress.IPv4Address(text)
        except ValueError:
            # What a gateway says whose connection is down.
            raise RefusedError("it has no external address") from None

    async def _describe(self, location: Location) -> tuple[soap.Service, ...]:
        try:
            status, body = await fetch(location, local=self._local, limit=MAX_DESCRIPTION)
            if status != 200:
                raise WireError("malformed", f"its description came with HTTP status {status}")
            return soap.read_services(body, location)
        except WireError as exc:
            raise self._counted(exc) from None

    async def _call(
        self, service: soap.Service, action: str, arguments: Mapping[str, object], *, timeout: float = 5.0
    ) -> dict[str, str]:
        headers = {"Content-Type": 'text/xml; charset="utf-8"', "SOAPAction": f'"{service.kind}#{action}"'}
        try:
            status, body = await fetch(
                service.control,
                local=self._local,
                limit=MAX_REPLY,
                body=soap.call_body(service.kind, action, arguments),
                headers=headers,
                timeout=timeout,
            )
            if status not in (200, 500):  # 500 brings a fault (UDA section 3.2.2)
                raise WireError("malformed", f"{action} came back with HTTP status {status}")
            return soap.read_reply(body, action)
        except WireError as exc:
            raise self._counted(exc) from None

    def _counted(self, error: WireError) -> WireError:
        self._malformed[error.kind] += 1
        return error

    async def _locations(self) -> AsyncGenerator[Location, None]:
        """The places of the gateway's descriptions, as they are found."""
        search = Search(self._gateway, malformed=self._malformed)
        changed = asyncio.Event()
        transport = await _open(self._local, search, changed)
        given = 0
        try:
            datagrams = search.start(self._clock.monotonic())
            while True:
                for data, addr in datagrams:
                    transport.sendto(data, addr)
                while given < len(search.locations):
                    given += 1
                    yield search.locations[given - 1]
                if search.done:
                    return
                timer = search.get_timer()
                assert timer is not None
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(max(0.0, timer - self._clock.monotonic())):
                        await changed.wait()
                changed.clear()
                datagrams = search.handle_timer(self._clock.monotonic())
        finally:
            transport.abort()


class _NotThereError(Exception):
    pass


def _port(text: str) -> int:
    if text.isascii() and text.isdigit() and len(text) <= 5 and 0 < int(text) <= 65535:
        return int(text)
    raise WireError("malformed", "no port in the answer to AddAnyPortMapping")


async def _open(local: str, search: Search, changed: asyncio.Event) -> asyncio.DatagramTransport:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    try:
        sock.setblocking(False)
        sock.bind((local, 0))
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(local))
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, 2)  # UDA section 1.3.2
        transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
            lambda: _Searching(search, changed), sock=sock
        )
    except OSError as exc:
        sock.close()
        raise SilentError(f"can't be searched from {local}: {exc.strerror or exc}") from None
    except BaseException:
        sock.close()
        raise
    return transport


class _Searching(asyncio.DatagramProtocol):
    def __init__(self, search: Search, changed: asyncio.Event) -> None:
        self._search = search
        self._changed = changed

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        before = len(self._search.locations)
        self._search.receive(data, SocketAddr(addr[0], addr[1]))
        if len(self._search.locations) > before:
            self._changed.set()
