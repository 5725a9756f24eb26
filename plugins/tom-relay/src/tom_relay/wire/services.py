"""How a relay tells which UDP services it has: a header of its answer to the WebSocket request.

`X-Tom-Relay-Udp: stun=3478, qad=7842, stun-other=3479`, the last being the port from which STUN requests for another
port (RFC 5780) are answered; it is empty where there is none. A relay without the header says nothing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

HEADER: Final = "X-Tom-Relay-Udp"
MAX_VALUE: Final = 200
"""Characters that are looked at."""
_ITEM = re.compile(r"\s*(stun|qad|stun-other)=([0-9]{1,5})\s*")


def encode_services(ports: Mapping[str, int]) -> str:
    """The header's value. `ports`: by the names `stun`, `qad` and `stun-other`."""
    return ", ".join(f"{name}={port}" for name, port in ports.items())


def decode_services(value: str | None) -> dict[str, int] | None:
    """The ports by service, None where the relay says nothing; what can't be understood is left out."""
    if value is None:
        return None
    found = (_ITEM.fullmatch(item) for item in value[:MAX_VALUE].split(","))
    return {match[1]: int(match[2]) for match in found if match is not None and 0 < int(match[2]) < 65536}
