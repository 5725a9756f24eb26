"""The name servers that a user may name, and how each is reached."""

from __future__ import annotations

import ipaddress
import re
from typing import Literal
from urllib.parse import urlsplit

import attrs

from tom_connect.exceptions import ConfigError

Protocol = Literal["udp", "tcp", "tls", "https"]
_PORTS: dict[Protocol, int] = {"udp": 53, "tcp": 53, "tls": 853, "https": 443}
_HOST_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9.-]{0,252})")
_EXPECTED = "IP, IP:PORT, tcp://IP[:PORT], tls://IP[:PORT]#NAME or https://HOST/dns-query"


@attrs.frozen
class NameServer:
    """One name server. `host`: its IP address, of `https` a name too; `name`: whom its certificate must name.

    `url`: of `https`, where queries are posted (RFC 8484).
    """

    protocol: Protocol
    host: str
    port: int
    name: str | None = None
    url: str | None = None

    @classmethod
    def parse(cls, text: str) -> NameServer:
        """Read `1.1.1.1`, `1.1.1.1:53`, `[::1]:53`, `udp://`, `tcp://`, `tls://1.1.1.1#one.one.one.one`, `https://`.

        UDP falls back to TCP for long answers. Raises ConfigError.
        """
        text = text.strip()
        scheme, sep, rest = text.partition("://")
        if not sep:
            scheme, rest = "udp", text
        if scheme == "https":
            parts = urlsplit(text)
            try:
                port = parts.port or 443
            except ValueError:
                raise cls._error(text) from None
            if not parts.hostname or parts.username or parts.fragment or parts.query:
                raise cls._error(text)
            return cls("https", parts.hostname, port, url=text if parts.path else text + "/dns-query")
        for protocol in ("udp", "tcp", "tls"):
            if scheme == protocol:
                return cls._at(protocol, rest, text)
        raise cls._error(text)

    @classmethod
    def _at(cls, protocol: Literal["udp", "tcp", "tls"], rest: str, text: str) -> NameServer:
        place, sep, name = rest.partition("#")
        if sep and (protocol != "tls" or not _HOST_NAME.fullmatch(name)):
            raise cls._error(text)
        host, port = place, str(_PORTS[protocol])
        if place.startswith("["):
            host, _, tail = place[1:].partition("]")
            if tail and not tail.startswith(":"):
                raise cls._error(text)
            port = tail[1:] or port
        elif place.count(":") == 1:
            host, _, port = place.partition(":")
        try:
            ip = ipaddress.ip_address(host)
        except ValueError:
            raise cls._error(text) from None
        if not port.isascii() or not port.isdigit() or not 0 < int(port) <= 65_535:
            raise cls._error(text)
        return cls(protocol, str(ip), int(port), name or None)

    @staticmethod
    def _error(text: str) -> ConfigError:
        return ConfigError(f"{text[:80]!r} is no name server; expected {_EXPECTED}")

    def __str__(self) -> str:
        if self.url is not None:
            return self.url
        place = f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"
        return place if self.protocol == "udp" else f"{self.protocol}://{place}"
