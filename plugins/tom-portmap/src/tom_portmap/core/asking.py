"""The exchanges of PCP and NAT-PMP: what is asked, and which datagram is the answer."""

from __future__ import annotations

import ipaddress
from collections import Counter
from collections.abc import Mapping

from tom_connect.addr import SocketAddr
from tom_portmap.core.eligible import IP
from tom_portmap.core.exchange import RELEASE, Exchange
from tom_portmap.core.values import Candidate, Grant, Probed
from tom_portmap.errors import RefusedError, WireError
from tom_portmap.wire import natpmp, pcp

MIN_LIFETIME = 4
"""Seconds that a mapping is taken to last at least: a gateway that grants less must not make us ask without a pause."""
MAX_LIFETIME = 86_400
"""Seconds that it is taken to last at most (RFC 6887 section 15 suggests a day)."""

_ANY = {4: ipaddress.ip_address("0.0.0.0"), 6: ipaddress.ip_address("::")}  # noqa: S104 - any external address will do


def bounded(lifetime: int) -> float:
    """A lifetime that a gateway granted, in seconds, held to sensible bounds."""
    return float(min(max(lifetime, MIN_LIFETIME), MAX_LIFETIME))


class PcpAsking:
    """Asks one gateway by PCP for one mapping: the nonce, 12 random bytes, stays the same for all its requests.

    The nonce is what keeps others from changing the mapping, and what a restored mapping is known by (RFC 6887
    section 11.2).
    """

    def __init__(self, candidate: Candidate, port: int, nonce: bytes, malformed: Counter[str]) -> None:
        self._server = SocketAddr(candidate.gateway, pcp.PORT)
        self._client = ipaddress.ip_address(candidate.local)
        self._port = port
        self._nonce = nonce
        self._malformed = malformed

    def probe(self) -> Exchange[Probed]:
        """Ask whether it speaks PCP, and since when (ANNOUNCE, section 14.1)."""
        request = pcp.Request(pcp.ANNOUNCE, self._client).encode()

        def read(data: bytes) -> Probed | None:
            response = _read_pcp(data)
            if response.opcode != pcp.ANNOUNCE:
                return None
            if response.result:
                raise _refusal(pcp.RESULTS, response.result)
            return Probed(epoch=response.epoch)

        return Exchange(self._server, request, read, malformed=self._malformed)

    def map(self, suggested: SocketAddr | None, lifetime: int) -> Exchange[Grant]:
        """Ask for a mapping or prolong it (section 11.2). `suggested`: the external address that we had or want."""

        def read(data: bytes) -> Grant | None:
            response = self._answer(data)
            if response is None:
                return None
            mapping = response.mapping
            if mapping is None or not mapping.external_port or not response.lifetime:
                raise WireError("malformed", "a mapping without a port or a lifetime")
            external = SocketAddr(str(mapping.external_ip), mapping.external_port)
            return Grant(external, bounded(response.lifetime), response.epoch)

        return Exchange(self._server, self._request(suggested, lifetime), read, malformed=self._malformed)

    def release(self) -> Exchange[bool]:
        """Give the mapping back (section 15.1)."""

        def read(data: bytes) -> bool | None:
            return self._answer(data) is not None or None

        return Exchange(self._server, self._request(None, 0), read, malformed=self._malformed, waits=RELEASE)

    def _request(self, suggested: SocketAddr | None, lifetime: int) -> bytes:
        ip = _ANY[self._client.version] if suggested is None else suggested.ip
        port = self._port if suggested is None else suggested.port
        mapping = pcp.Mapping(self._nonce, self._port, port, ip)
        return pcp.Request(pcp.MAP, self._client, lifetime, mapping).encode()

    def _answer(self, data: bytes) -> pcp.Response | None:
        """The answer to our MAP, None for another's; raises RefusedError."""
        response = _read_pcp(data)
        if response.opcode != pcp.MAP:
            return None
        mapping = response.mapping
        # Anybody can forge the gateway's address; the nonce only who sees our packets (section 11.4).
        if mapping is None or (mapping.nonce, mapping.internal_port, mapping.protocol) != (
            self._nonce,
            self._port,
            pcp.UDP,
        ):
            self._malformed["nonce"] += 1
            return None
        if response.result:
            raise _refusal(pcp.RESULTS, response.result)
        return response


class NatPmpAsking:
    """Asks one gateway by NAT-PMP for one mapping (RFC 6886)."""

    def __init__(self, candidate: Candidate, port: int, malformed: Counter[str]) -> None:
        self._server = SocketAddr(candidate.gateway, natpmp.PORT)
        self._port = port
        self._malformed = malformed

    def probe(self) -> Exchange[Probed]:
        """Ask for the external address (section 3.2)."""

        def read(data: bytes) -> Probed | None:
            response = _read_natpmp(data)
            if response.opcode != natpmp.EXTERNAL_ADDRESS:
                return None
            if response.result:
                raise _refusal(natpmp.RESULTS, response.result)
            return Probed(response.address, response.epoch)

        return Exchange(self._server, natpmp.encode_address_request(), read, malformed=self._malformed)

    def map(self, external: IP, suggested: SocketAddr | None, lifetime: int) -> Exchange[Grant]:
        """Ask for a mapping or prolong it (section 3.3). `external`: the gateway's address, as it told a probe."""

        def read(data: bytes) -> Grant | None:
            response = self._answer(data)
            if response is None or (mapped := response.mapped) is None:
                return None
            if not mapped.external_port or not mapped.lifetime:
                raise WireError("malformed", "a mapping without a port or a lifetime")
            return Grant(SocketAddr(str(external), mapped.external_port), bounded(mapped.lifetime), response.epoch)

        port = self._port if suggested is None else suggested.port
        request = natpmp.MapRequest(self._port, port, lifetime).encode()
        return Exchange(self._server, request, read, malformed=self._malformed)

    def release(self) -> Exchange[bool]:
        """Give the mapping back (section 3.4)."""

        def read(data: bytes) -> bool | None:
            return self._answer(data) is not None or None

        request = natpmp.MapRequest(self._port, 0, 0).encode()
        return Exchange(self._server, request, read, malformed=self._malformed, waits=RELEASE)

    def _answer(self, data: bytes) -> natpmp.Response | None:
        """The answer to a request for a mapping of our port, None for another; raises RefusedError."""
        response = _read_natpmp(data)
        if response.opcode != natpmp.MAP_UDP:
            return None
        if response.result:
            raise _refusal(natpmp.RESULTS, response.result)
        if response.mapped is None or response.mapped.internal_port != self._port:
            return None
        return response


def _read_pcp(data: bytes) -> pcp.Response:
    try:
        return pcp.Response.decode(data)
    except WireError as exc:
        if exc.kind == "version":
            raise _refusal(pcp.RESULTS, pcp.UNSUPPORTED_VERSION) from None
        raise


def _read_natpmp(data: bytes) -> natpmp.Response:
    try:
        return natpmp.Response.decode(data)
    except WireError as exc:
        if exc.kind == "version":
            raise _refusal(natpmp.RESULTS, 1) from None
        raise


def _refusal(words: Mapping[int, str], code: int) -> RefusedError:
    return RefusedError(words.get(code, f"error {code}"), code)
