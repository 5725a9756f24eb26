"""What of a node survives a restart, as plain values that any serialiser takes."""

from __future__ import annotations

from typing import Any

import attrs

from .address import Address, Family, family_of, is_usable, pack_ip
from .errors import DhtUsageError

MAX_SAVED_NODES = 500
"""Nodes saved a family: many times what a restart needs."""


@attrs.frozen
class FamilySnapshot:
    """One family's identity and good nodes."""

    node_id: bytes
    external: Address | None = None
    nodes: tuple[tuple[bytes, str, int], ...] = ()
    """(20-byte id, ip, port), best first."""


@attrs.frozen
class Snapshot:
    """State of a `DhtCore` to be restored by its constructor."""

    families: dict[Family, FamilySnapshot] = attrs.field(factory=dict)

    def to_plain(self) -> dict[str, Any]:
        """Dicts, lists, strings and integers only; ids in hex."""
        return {
            family.value: {
                "node_id": part.node_id.hex(),
                "external": list(part.external) if part.external else None,
                "nodes": [[node_id.hex(), ip, port] for node_id, ip, port in part.nodes],
            }
            for family, part in self.families.items()
        }

    @classmethod
    def from_plain(cls, data: object) -> Snapshot:
        """The inverse of `to_plain`; raises `DhtUsageError` for anything else, so that a damaged file is replaced."""
        try:
            return cls({Family(name): _family(Family(name), part) for name, part in data.items()})  # type: ignore[attr-defined]
        except (AttributeError, KeyError, TypeError, ValueError, OSError) as exc:
            raise DhtUsageError(f"saved DHT state is damaged, delete it to start anew: {exc}") from exc


def _address(family: Family, ip: object, port: object) -> Address:
    if not isinstance(ip, str) or not isinstance(port, int) or isinstance(port, bool) or not 0 <= port < 65536:
        raise ValueError("not an address")
    if family_of(ip) is not family:
        raise ValueError("address of the other family")
    pack_ip(ip)
    return ip, port


def _family(family: Family, part: Any) -> FamilySnapshot:
    node_id = bytes.fromhex(part["node_id"])
    if len(node_id) != 20:
        raise ValueError("a node id has 20 bytes")
    external = part["external"]
    nodes = []
    for raw_id, raw_ip, raw_port in part["nodes"][:MAX_SAVED_NODES]:
        other, (ip, port) = bytes.fromhex(raw_id), _address(family, raw_ip, raw_port)
        if len(other) == 20 and is_usable((ip, port)):
            nodes.append((other, ip, port))
    return FamilySnapshot(
        node_id=node_id, external=_address(family, *external) if external else None, nodes=tuple(nodes)
    )
