"""A Mainline DHT node (BEP 5, 32, 42, 43, 44) and the tom-connect plugin that finds and publishes nodes through it.

The names are imported when they are first used: the plugin is loaded with every endpoint.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .bootstrap import DEFAULT_BOOTSTRAP, BootstrapNode
    from .core import DhtConfig as CoreConfig
    from .core import (
        DhtError,
        DhtUsageError,
        Family,
        ImmutableItem,
        ItemError,
        Mode,
        MutableItem,
        immutable_target,
        mutable_target,
    )
    from .errors import (
        BindError,
        CasMismatchError,
        DhtClosedError,
        DhtPutError,
        DhtUnreachableError,
        SupersededError,
    )
    from .node import DhtNode
    from .results import NodeStats, PingResult, PutResult
    from .store import StateStore
    from .transport import DatagramTransport, SharedTransport, UdpTransport
    from .values import ValueStream

_HOMES = {
    "bootstrap": ("DEFAULT_BOOTSTRAP", "BootstrapNode"),
    "core": (
        "DhtError",
        "DhtUsageError",
        "Family",
        "ImmutableItem",
        "ItemError",
        "Mode",
        "MutableItem",
        "immutable_target",
        "mutable_target",
    ),
    "errors": (
        "BindError",
        "CasMismatchError",
        "DhtClosedError",
        "DhtPutError",
        "DhtUnreachableError",
        "SupersededError",
    ),
    "node": ("DhtNode",),
    "results": ("NodeStats", "PingResult", "PutResult"),
    "store": ("StateStore",),
    "transport": ("DatagramTransport", "SharedTransport", "UdpTransport"),
    "values": ("ValueStream",),
}
_HOME_OF = {name: (module, name) for module, names in _HOMES.items() for name in names} | {
    "CoreConfig": ("core", "DhtConfig")
}

__all__ = [
    "DEFAULT_BOOTSTRAP",
    "BindError",
    "BootstrapNode",
    "CasMismatchError",
    "CoreConfig",
    "DatagramTransport",
    "DhtClosedError",
    "DhtError",
    "DhtNode",
    "DhtPutError",
    "DhtUnreachableError",
    "DhtUsageError",
    "Family",
    "ImmutableItem",
    "ItemError",
    "Mode",
    "MutableItem",
    "NodeStats",
    "PingResult",
    "PutResult",
    "SharedTransport",
    "StateStore",
    "SupersededError",
    "UdpTransport",
    "ValueStream",
    "immutable_target",
    "mutable_target",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, original = _HOME_OF[name]
    value = getattr(importlib.import_module(f"{__name__}.{module}"), original)
    globals()[name] = value
    return value
