"""The relay's UDP services: STUN, and QUIC address discovery where there is a certificate."""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
from collections.abc import Mapping

import attrs

from tom_connect.addr import SocketAddr
from tom_connect.exceptions import InvalidAddrError
from tom_relay.errors import RelayError, RelayServerError
from tom_relay.qad.certificate import ServerCertificate
from tom_relay.qad.server import QadServer
from tom_relay.server.config import RelayServerConfig
from tom_relay.stun.server import StunServer

logger = logging.getLogger("tom_connect.plugin.relay-server")


@attrs.define(eq=False)
class UdpServices:
    """Runs them; those without an address are left out."""

    config: RelayServerConfig
    stun: StunServer | None = None
    qad: QadServer | None = None

    async def start(self) -> None:
        """Bind; raises RelayServerError."""
        config = self.config
        if stun_addrs := await _usable(config.stun_listen):
            self.stun = StunServer(bind=stun_addrs)
            await self.stun.start()
        if (
            config.tls_cert is not None
            and config.tls_key is not None
            and (qad_addrs := await _usable(config.qad_listen))
        ):
            self.qad = QadServer(bind=qad_addrs, certificate=ServerCertificate.load(config.tls_cert, config.tls_key))
            await self.qad.start()

    def refresh_certificate(self) -> None:
        """Take the certificate's files over, which have changed and fit."""
        if self.qad is None or self.config.tls_cert is None or self.config.tls_key is None:
            return
        try:
            self.qad.set_certificate(ServerCertificate.load(self.config.tls_cert, self.config.tls_key))
        except RelayError as exc:
            logger.warning("QUIC address discovery keeps its old certificate: %s", exc)

    async def close(self) -> None:
        """Close what is open."""
        qad, self.qad = self.qad, None
        stun, self.stun = self.stun, None
        if qad is not None:
            await qad.aclose()
        if stun is not None:
            await stun.aclose()

    @property
    def addrs(self) -> dict[str, list[str]]:
        """Where each service listens, by name."""
        services = {"stun": self.stun, "qad": self.qad}
        return {name: [str(addr) for addr in service.addrs] for name, service in services.items() if service}

    @property
    def ports(self) -> dict[str, int]:
        """The port of each service, by name; `stun-other` is STUN's second one."""
        ports = {name: int(addrs[0].rpartition(":")[2]) for name, addrs in self.addrs.items() if addrs}
        if self.stun is not None and self.stun.other_addrs:
            ports["stun-other"] = self.stun.other_addrs[0].port
        return ports

    @property
    def counters(self) -> dict[str, Mapping[str, int]]:
        """What each service counted, by name."""
        services = {"stun": self.stun, "qad": self.qad}
        return {name: dict(service.counters) for name, service in services.items() if service}


async def _usable(texts: tuple[str, ...]) -> tuple[SocketAddr, ...]:
    """The addresses, names resolved, whose IP version this machine has, if there are others too."""
    addrs = [addr for text in texts for addr in await _resolved(text)]
    return tuple(addr for addr in addrs if _has(addr.family)) if len(addrs) > 1 else tuple(addrs)


async def _resolved(text: str) -> list[SocketAddr]:
    try:
        return [SocketAddr.parse(text)]
    except InvalidAddrError:
        host, _, port = text.rpartition(":")
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, int(port), type=socket.SOCK_DGRAM)
    except OSError as exc:
        raise RelayServerError(f"{text}: {exc.strerror or exc}") from None
    except UnicodeError:
        raise RelayServerError(f"{text}: not a name that a host can have") from None
    # Some hosts give UDP one address only, and that by a name; one is enough.
    return [SocketAddr(str(address[0]), int(address[1])) for *_, address in found[:1]]


def _has(family: socket.AddressFamily) -> bool:
    try:
        with socket.socket(family, socket.SOCK_DGRAM):
            return True
    except OSError as exc:
        if exc.errno != errno.EAFNOSUPPORT:
            raise RelayServerError(f"no UDP socket can be made: {exc.strerror or exc}") from None
        return False
