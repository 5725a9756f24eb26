"""The options of a volunteer, section `relay_for_others`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs

from tom_connect.config import is_flag, option, whole_number_between
from tom_relay.limits import MAX_MESSAGE

if TYPE_CHECKING:
    from tom_relay.server.config import RelayServerConfig

SECTION = "relay_for_others"


def _whole(default: int, low: int, high: int, text: str) -> Any:
    return attrs.field(default=default, validator=whole_number_between(low, high), metadata=option(text))


@attrs.frozen(kw_only=True)
class RelayForOthersConfig:
    """How far a node is a relay for others; raises ConfigError that names the option."""

    enabled: bool = attrs.field(
        default=False,
        validator=is_flag,
        metadata=option("pass on encrypted datagrams of other nodes, if strangers reach us"),
    )
    announce: bool = attrs.field(
        default=True,
        validator=is_flag,
        metadata=option("let nodes that have no relay find us through the DHT; else only who is told uses us"),
    )
    clients: int = _whole(32, 1, 10_000, "nodes connected to us at once")
    client_rate: int = _whole(512 << 10, 1024, 1 << 40, "bytes a second that each of them may send")
    rate: int = _whole(2 << 20, 1024, 1 << 40, "bytes a second that all of them may send")
    daily: int = _whole(20 << 30, 1 << 20, 1 << 50, "bytes that we pass on in a day (UTC); then we stop until the next")

    def hub_config(self) -> RelayServerConfig:
        """The limits as the relay's core takes them."""
        from tom_relay.server.config import RelayServerConfig  # needed where a node serves, not where it might

        return RelayServerConfig(
            max_clients=self.clients,
            client_rate=self.client_rate,
            client_burst=max(MAX_MESSAGE, self.client_rate),
            total_rate=self.rate,
            total_burst=max(2 * MAX_MESSAGE, self.rate),
            queue_bytes=1 << 20,
            total_queue_bytes=32 << 20,
        )
