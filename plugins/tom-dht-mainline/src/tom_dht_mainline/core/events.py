"""What a `DhtCore` tells its shell."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    from .address import Address, Family
    from .items import Item
    from .operations import AnnounceOperation, GetOperation, MailboxOperation, Operation, PeersOperation, PutOperation


@attrs.frozen(eq=False)
class ValueFound:
    """A valid item: the first one at once, later ones only with a higher `seq`."""

    operation: GetOperation
    item: Item


@attrs.frozen(eq=False)
class PeersFound:
    """Peers not reported before for this operation; unauthenticated, so cap what is sent to them."""

    operation: PeersOperation
    peers: tuple[Address, ...]


@attrs.frozen(eq=False)
class PeersNamed:
    """A node's answer to a poll: all that it names, also what it named before; unauthenticated."""

    operation: MailboxOperation
    node: Address
    peers: tuple[Address, ...]


@attrs.frozen(eq=False)
class Stored:
    """A put or announce reached its quorum of acknowledgements; repairs go on until `Finished`."""

    operation: PutOperation | AnnounceOperation
    acknowledged: int


@attrs.frozen(eq=False)
class Finished:
    """The operation sends nothing more; its attributes hold the outcome. Always an operation's last event."""

    operation: Operation


@attrs.frozen
class ExternalAddressChanged:
    """Nodes from separate searches agree on the address they see us at; port 0 if they see differing ports."""

    family: Family
    address: Address


@attrs.frozen
class NodeIdChanged:
    """The node id was made anew for the voted external address (BEP 42)."""

    family: Family
    node_id: bytes


@attrs.frozen
class ModeChanged:
    """The node began (`serving=True`) or ceased to answer queries."""

    serving: bool


Event = ValueFound | PeersFound | PeersNamed | Stored | Finished | ExternalAddressChanged | NodeIdChanged | ModeChanged
