"""What is said to a UPnP gateway over HTTP: its description, and calls of its WAN connection service.

UPnP Device Architecture 2.0 sections 2 and 3, WANIPConnection:1 and :2.
"""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Final

import attrs

from tom_portmap.errors import RefusedError, WireError
from tom_portmap.wire.location import Location
from tom_portmap.wire.markup import Element, read_xml

IP_CONNECTION_2: Final = "urn:schemas-upnp-org:service:WANIPConnection:2"
SERVICES: Final = (
    IP_CONNECTION_2,
    "urn:schemas-upnp-org:service:WANIPConnection:1",
    "urn:schemas-upnp-org:service:WANPPPConnection:1",
)
"""Service types that map ports, the best one first."""
MAX_SERVICES: Final = 8

NO_SUCH_ENTRY: Final = 714
CONFLICT: Final = 718
SAME_PORT_ONLY: Final = 724
PERMANENT_ONLY: Final = 725

_NAMESPACE: Final = "http://schemas.xmlsoap.org/soap/envelope/"
_FAULTS: Final = {
    401: "it does not know the action",
    402: "it takes our request for malformed",
    501: "it failed",
    606: "it does not allow mappings",
    NO_SUCH_ENTRY: "it has no such mapping",
    CONFLICT: "another machine has the port",
    SAME_PORT_ONLY: "it maps only a port to the same port",
    PERMANENT_ONLY: "it keeps mappings only without an end",
    728: "it has no room for mappings",
}


@attrs.frozen
class Service:
    """A service that maps ports: its type, and where it is called."""

    kind: str
    control: Location


def read_services(description: bytes, location: Location) -> tuple[Service, ...]:
    """The services of a device description that map ports, the best ones first, at most 8.

    `location`: where the description came from. Raises WireError for a description that can't be read; a service
    whose URL leads away from the gateway is left out.
    """
    root = read_xml(description)
    base = location
    if url := root.text_of("URLBase"):
        try:
            base = Location.parse(url, location.host)
        except WireError:
            # Deprecated, and often wrong in real gateways: where the description came from is the better guess.
            base = location
    found: list[Service] = []
    for element in root.all("service"):
        kind = element.text_of("serviceType")
        if kind not in SERVICES:
            continue
        try:
            found.append(Service(kind, base.join(element.text_of("controlURL"))))
        except WireError:
            continue
    found.sort(key=lambda service: SERVICES.index(service.kind))
    return tuple(found[:MAX_SERVICES])


def call_body(kind: str, action: str, arguments: Mapping[str, object]) -> bytes:
    """The envelope of a call (UDA section 3.2.1)."""
    inner = "".join(f"<{name}>{escape(str(value))}</{name}>" for name, value in arguments.items())
    return (
        '<?xml version="1.0"?>\r\n'
        f'<s:Envelope xmlns:s="{_NAMESPACE}" s:encodingStyle="http://schemas.xmlsoap.org/soap/encoding/">'
        f'<s:Body><u:{action} xmlns:u="{escape(kind)}">{inner}</u:{action}></s:Body></s:Envelope>\r\n'
    ).encode()


def read_reply(body: bytes, action: str) -> dict[str, str]:
    """The values that a call returned, by name; raises RefusedError for a fault, WireError for anything else."""
    envelope = read_xml(body)
    inside = envelope.child("Body")
    if envelope.name != "Envelope" or inside is None:
        raise WireError("malformed", "no SOAP envelope")
    if (fault := inside.child("Fault")) is not None:
        raise _fault(fault.all("errorCode"), fault.all("errorDescription"))
    answer = inside.child(f"{action}Response")
    if answer is None:
        raise WireError("malformed", f"no answer to {action}")
    return {element.name: element.text for element in answer.children}


def _fault(codes: list[Element], descriptions: list[Element]) -> RefusedError:
    text = codes[0].text if codes else ""
    code = int(text) if text.isascii() and text.isdigit() and len(text) <= 4 else None
    words = _FAULTS.get(code or 0)
    if words is None:
        said = descriptions[0].text[:80] if descriptions else ""
        words = f"error {code}" if code is not None else "an error without a number"
        words += f": {said}" if said.isprintable() and said else ""
    return RefusedError(words, code)
