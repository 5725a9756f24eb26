"""A scenario as values: who is measured, in which networks, and what is done."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal

import attrs

Network = Literal["local", "natlab", "remote"]
NETWORKS: Final[tuple[Network, ...]] = ("local", "natlab", "remote")
NAT_KINDS: Final = ("none", "open", "restricted", "moderate", "strict")
"""What stands between a natlab node and the internet; the words of `tom_connect.testing.natlab.Nat`."""
Choose = Literal["all", "sample", "nat"]
CHOICES: Final[tuple[Choose, ...]] = ("all", "sample", "nat")
Kind = Literal["discovery", "connect", "ping", "burst", "transfer", "failover", "endurance"]
NAT_EVENTS: Final = ("rebind", "new_address", "move", "flap", "block_udp")
EVENTS: Final = (*NAT_EVENTS, "kill_relay", "kill_node")
"""What a failover phase does to the network: the first need one of our own, a natlab."""
MAX_NODES: Final = 200
"""Nodes of a campaign: a natlab has addresses for 254 routers, and each node is a process."""
MAX_STEPS: Final = 100_000
"""Measurements of a campaign."""


@attrs.frozen(kw_only=True)
class WireSpec:
    """How the link of a natlab node's router treats packets, in each direction."""

    delay_ms: float = 0.0
    jitter_ms: float = 0.0
    loss_pct: float = 0.0
    rate_mbit: float | None = None


@attrs.frozen(kw_only=True)
class Group:
    """Nodes that are alike."""

    name: str
    network: Network
    count: int
    nat: str | None = None
    wire: WireSpec | None = None
    config: Mapping[str, Any] = attrs.field(factory=dict)
    """Options of the nodes' endpoints, as in a configuration file."""
    nodes: tuple[str, ...] = ()
    """Node ids or tickets of remote responders."""
    published: bool = True
    """Whether its nodes can publish where they are. If not, it is not waited for, and nobody looks them up."""

    @property
    def node_names(self) -> tuple[str, ...]:
        """`NAME-1` and so on."""
        return tuple(f"{self.name}-{number}" for number in range(1, self.count + 1))


@attrs.frozen(kw_only=True)
class PairChoice:
    """Which ordered pairs of nodes are measured.

    `all`: every one; `sample`: `count` of them by chance; `nat`: `count` of each pair of NAT kinds.
    """

    choose: Choose = "all"
    count: int = 1


@attrs.frozen(kw_only=True)
class Phase:
    """One kind of measurement, done to each of its pairs."""

    name: str
    kind: Kind
    pairs: PairChoice
    judged: bool = True
    """Whether its verdict counts for that of the campaign."""
    parameters: Mapping[str, Any]
    """What its kind takes, complete; see PARAMETERS."""


@attrs.frozen(kw_only=True)
class Scenario:
    """All that a campaign does."""

    name: str
    description: str = ""
    seed: int = 0
    jobs: int = 4
    """Measurements at the same time."""
    find: Literal["id", "ticket"] = "ticket"
    """How nodes are dialed: by their NodeId alone, which needs discovery, or by a ticket."""
    dht_nodes: int = 0
    """Nodes of a private DHT of the campaign's own; 0: none."""
    relays: int = 0
    """Relays of the campaign's own."""
    groups: tuple[Group, ...]
    phases: tuple[Phase, ...]
    digest: str = ""
    """Of the file, by which a campaign that goes on knows that it is the same one."""

    @property
    def nat_kinds(self) -> Mapping[str, str]:
        """What stands before each node, by name: a NAT kind, or the network."""
        return {name: group.nat or group.network for group in self.groups for name in group.node_names}

    @property
    def node_names(self) -> tuple[str, ...]:
        """All nodes, in the scenario's order."""
        return tuple(name for group in self.groups for name in group.node_names)

    @property
    def published_names(self) -> frozenset[str]:
        """Nodes that can be looked up."""
        return frozenset(name for group in self.groups if group.published for name in group.node_names)

    @property
    def networks(self) -> frozenset[str]:
        """The kinds of networks that take part."""
        return frozenset(group.network for group in self.groups)


@attrs.frozen
class Parameter:
    """A parameter of a phase: its default, what it may be, and what it means."""

    default: float | int | str | bool
    low: float
    high: float
    meaning: str
    words: tuple[str, ...] = ()


_TIMEOUT: Final = Parameter(15.0, 0.1, 600.0, "seconds after which a look-up, a dial or an answer counts as lost")
_SIZE: Final = Parameter(64, 16, 1000, "bytes of a message")
_INTERVAL: Final = Parameter(0.1, 0.001, 3600.0, "seconds between two messages")
PARAMETERS: Final[Mapping[Kind, Mapping[str, Parameter]]] = {
    "discovery": {
        "timeout": _TIMEOUT,
        "repeat": Parameter(1, 1, 1000, "look-ups for each pair"),
        "fresh": Parameter(False, 0, 1, "look up with an endpoint that was bound for this look-up alone"),
    },
    "connect": {
        "timeout": _TIMEOUT,
        "repeat": Parameter(1, 1, 1000, "dials for each pair; each closes the connection before"),
        "direct_wait": Parameter(10.0, 0.0, 600.0, "seconds to wait for a direct path where a relay connected"),
    },
    "ping": {
        "timeout": _TIMEOUT,
        "count": Parameter(20, 1, 1_000_000, "datagrams"),
        "interval": _INTERVAL,
        "size": _SIZE,
    },
    "burst": {
        "timeout": _TIMEOUT,
        "count": Parameter(500, 1, 1_000_000, "datagrams"),
        "rate": Parameter(2000, 1, 100_000, "datagrams a second"),
        "size": _SIZE,
    },
    "transfer": {
        "timeout": Parameter(60.0, 0.1, 3600.0, "seconds after which the rest counts as lost"),
        "mib": Parameter(4.0, 0.0625, 4096.0, "MiB to send, in blocks of 64 KiB"),
    },
    "failover": {
        "timeout": _TIMEOUT,
        "event": Parameter("rebind", 0, 0, "what happens", EVENTS),
        "side": Parameter("dialer", 0, 0, "to whom", ("dialer", "target")),
        "before": Parameter(1.0, 0.0, 600.0, "seconds of messages before it happens"),
        "duration": Parameter(20.0, 1.0, 3600.0, "seconds of messages in all"),
        "interval": _INTERVAL,
        "size": _SIZE,
    },
    "endurance": {
        "timeout": _TIMEOUT,
        "duration": Parameter(60.0, 1.0, 7 * 86400.0, "seconds"),
        "every": Parameter(10.0, 0.5, 86400.0, "seconds between two rolling records"),
        "interval": Parameter(0.5, 0.001, 3600.0, "seconds between two messages"),
        "size": _SIZE,
    },
}
"""What each kind of phase takes."""
KINDS: Final[tuple[Kind, ...]] = tuple(PARAMETERS)
