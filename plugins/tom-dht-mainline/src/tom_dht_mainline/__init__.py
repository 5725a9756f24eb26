"""A Mainline DHT node (BEP 5, 32, 42, 43, 44) and the tom-connect plugin that finds and publishes nodes through it."""

from __future__ import annotations

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
