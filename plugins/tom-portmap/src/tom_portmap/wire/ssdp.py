"""The search for UPnP gateways: HTTP headers in UDP (UPnP Device Architecture 2.0, section 1.3)."""

from __future__ import annotations

import re
from typing import Final

import attrs

from tom_portmap.errors import WireError

MULTICAST: Final = "239.255.255.250"
PORT: Final = 1900
TARGETS: Final = (
    "urn:schemas-upnp-org:device:InternetGatewayDevice:2",
    "urn:schemas-upnp-org:device:InternetGatewayDevice:1",
)
MAX_REPLY: Final = 2048
"""Bytes of a reply that is read; real ones have about 400."""
MAX_WAIT: Final = 1
"""Seconds over which devices may spread their replies to a multicast (MX)."""

_STATUS = re.compile(r"HTTP/1\.[01] 200(?: .*)?")


def search_request(target: str, host: str) -> bytes:
    """A search for devices of a type, sent to `host`: the multicast group, or one device (section 1.3.2)."""
    lines = ["M-SEARCH * HTTP/1.1", f"HOST: {host}:{PORT}", 'MAN: "ssdp:discover"', f"MX: {MAX_WAIT}", f"ST: {target}"]
    return "\r\n".join([*lines, "", ""]).encode()


@attrs.frozen
class SearchReply:
    """A device's answer: its type and the URL of its description, as it says."""

    target: str
    location: str

    @classmethod
    def decode(cls, data: bytes) -> SearchReply:
        """Read a datagram; raises WireError, of kind "not a response" for the searches and notices of others."""
        if len(data) > MAX_REPLY:
            raise WireError("too large", f"an SSDP reply of {len(data)} bytes")
        text = data.decode("latin-1")
        first, *rest = text.split("\r\n")
        if first.startswith(("M-SEARCH ", "NOTIFY ")):
            raise WireError("not a response", "an SSDP request")
        if not _STATUS.fullmatch(first):
            raise WireError("malformed", f"an SSDP reply that begins with {first[:40]!r}")
        headers: dict[str, str] = {}
        for line in rest:
            name, colon, value = line.partition(":")
            if colon:
                headers.setdefault(name.strip().lower(), value.strip())
        if not headers.get("location"):
            raise WireError("malformed", "an SSDP reply without LOCATION")
        return cls(headers.get("st", ""), headers["location"])
