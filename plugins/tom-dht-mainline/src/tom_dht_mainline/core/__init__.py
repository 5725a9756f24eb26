"""Sans-IO core of a Mainline DHT node (BEP 5, 32, 42, 43, 44).

    core = DhtCore(DhtConfig(), rng=random.SystemRandom(), now=loop.time(), snapshot=saved)
    core.bootstrap([("203.0.113.5", 6881)], now)
    operation = core.get_mutable(public_key, now)

After every call that takes `now` the shell
1. sends each `(data, (ip, port))` of `core.datagrams_to_send()`,
2. handles `core.events()`: `ValueFound`, `PeersFound`, `Stored` and `Finished` carry the `operation` they belong to
   (the object that the call returned), `ExternalAddressChanged`, `NodeIdChanged` and `ModeChanged` concern the node,
3. sets its one timer to `core.next_timer()` and calls `core.handle_timer(now)` then.

`receive(data, (ip, port), now)` takes datagrams and never raises. Addresses are `(ip, port)` for both families.
`core.snapshot(now).to_plain()` is what to save; `Snapshot.from_plain` reads it back.
"""

from __future__ import annotations

from .address import Address, Family
from .config import DhtConfig, Mode
from .counters import Counters
from .dht import DhtCore
from .errors import BencodeError, DhtError, DhtUsageError, ItemError, KrpcError
from .events import (
    Event,
    ExternalAddressChanged,
    Finished,
    ModeChanged,
    NodeIdChanged,
    PeersFound,
    PeersNamed,
    Stored,
    ValueFound,
)
from .items import MAX_VALUE, ImmutableItem, Item, MutableItem, immutable_target, mutable_target
from .operations import (
    AnnounceOperation,
    Contact,
    FindNodeOperation,
    GetOperation,
    MailboxOperation,
    Operation,
    PeersOperation,
    PingOperation,
    PutOperation,
    PutOutcome,
    Wanted,
)
from .snapshot import FamilySnapshot, Snapshot

__all__ = [
    "MAX_VALUE",
    "Address",
    "AnnounceOperation",
    "BencodeError",
    "Contact",
    "Counters",
    "DhtConfig",
    "DhtCore",
    "DhtError",
    "DhtUsageError",
    "Event",
    "ExternalAddressChanged",
    "Family",
    "FamilySnapshot",
    "FindNodeOperation",
    "Finished",
    "GetOperation",
    "ImmutableItem",
    "Item",
    "ItemError",
    "KrpcError",
    "MailboxOperation",
    "Mode",
    "ModeChanged",
    "MutableItem",
    "NodeIdChanged",
    "Operation",
    "PeersFound",
    "PeersNamed",
    "PeersOperation",
    "PingOperation",
    "PutOperation",
    "PutOutcome",
    "Snapshot",
    "Stored",
    "ValueFound",
    "Wanted",
    "immutable_target",
    "mutable_target",
]
