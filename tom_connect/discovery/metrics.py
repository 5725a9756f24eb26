"""Which source found how many nodes, in the text format of Prometheus."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from tom_connect.discovery.health import SourceCounts

_FAMILIES: Final = {
    "asked": "Look-ups in which the source was asked",
    "found": "Look-ups in which it found the node",
    "first": "Look-ups in which it was the first to find the node",
    "nothing": "Look-ups in which it knew nothing of the node",
    "failed": "Look-ups in which it failed",
}


def metrics_text(counts: Mapping[str, SourceCounts]) -> str:
    """Counters `tom_connect_discovery_*_total` by source, for a scrape or a textfile collector; ends with a newline.

    Format: Prometheus text exposition 0.0.4. Empty families are left out, so that without look-ups it is empty.
    """
    lines = []
    for field, text in _FAMILIES.items() if counts else ():
        name = f"tom_connect_discovery_{field}_total"
        lines += [f"# HELP {name} {text}", f"# TYPE {name} counter"]
        lines += [
            f'{name}{{source="{_escaped(source)}"}} {getattr(counts[source], field)}' for source in sorted(counts)
        ]
    return "".join(f"{line}\n" for line in lines)


def _escaped(label: str) -> str:
    return label.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
