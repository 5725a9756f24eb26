"""URLs that a gateway names, held to the gateway's own address."""

from __future__ import annotations

import ipaddress
import re
from typing import Final
from urllib.parse import urljoin, urlsplit

import attrs

from tom_portmap.errors import WireError

MAX_URL: Final = 512
_TARGET = re.compile(r"/[!-~]*")


@attrs.frozen
class Location:
    """Where to send an HTTP request: the gateway's IPv4 address, its port, and path with query."""

    host: str
    port: int
    target: str

    @classmethod
    def parse(cls, url: str, gateway: str) -> Location:
        """Read an http URL; raises WireError, of kind "foreign" where it leads to another host than `gateway`.

        The host must be the address itself: what a name resolves to may change between two look-ups.
        """
        if len(url) > MAX_URL:
            raise WireError("too large", f"a URL of {len(url)} characters")
        try:
            parts = urlsplit(url)
            port = parts.port
            host = str(ipaddress.IPv4Address(parts.hostname or ""))
        except ValueError:
            raise WireError("foreign", f"{url[:80]!r} has no IPv4 address of a gateway for a host") from None
        target = parts._replace(scheme="", netloc="", fragment="").geturl() or "/"
        if not target.startswith("/"):
            target = f"/{target}"
        if parts.scheme != "http" or parts.username is not None or port == 0 or not _TARGET.fullmatch(target):
            raise WireError("malformed", f"{url[:80]!r} is not a plain http URL")
        if host != gateway:
            raise WireError("foreign", f"{url[:80]!r} leads away from the gateway {gateway}")
        return cls(host, port or 80, target)

    def join(self, reference: str) -> Location:
        """Read a URL or path relative to this one; raises WireError as `parse` does."""
        if len(reference) > MAX_URL:
            raise WireError("too large", f"a URL of {len(reference)} characters")
        try:
            url = urljoin(str(self), reference)
        except ValueError:
            raise WireError("malformed", f"{reference[:80]!r} is not a URL") from None
        return self.parse(url, self.host)

    def __str__(self) -> str:
        return f"http://{self.host}:{self.port}{self.target}"
