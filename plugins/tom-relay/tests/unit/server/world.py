"""A hub on a virtual clock, with nodes that say what the test wants."""

from __future__ import annotations

import random

import attrs

from tom_connect.keys import NodeId, SecretKey
from tom_relay.server.config import RelayServerConfig
from tom_relay.server.hub import RelayClient, RelayHub
from tom_relay.wire import ClientFrame, Dialect, IPAddress, SendDatagrams, ServerFrame, decode_from_server, encode

KEYS = [SecretKey(bytes(30) + number.to_bytes(2, "big")).node_id for number in range(1, 60)]
A, B, C = KEYS[:3]


@attrs.define
class World:
    """A hub, the time, and what each connection was sent."""

    hub: RelayHub
    now: float = 1000.0

    def join(
        self, node_id: NodeId, dialect: Dialect = Dialect.IROH_V2, address: IPAddress | None = None
    ) -> RelayClient:
        client, _ = self.hub.register(node_id, dialect, self.now, address)
        return client

    def say(self, client: RelayClient, frame: ClientFrame) -> float:
        return self.hub.receive(client, encode(frame, client.dialect), self.now)

    def send(self, client: RelayClient, to: NodeId, data: bytes = b"x", **fields: int) -> float:
        return self.say(client, SendDatagrams(to.raw, data, **fields))

    def read(self, client: RelayClient) -> list[ServerFrame]:
        messages = []
        while client.queue:
            messages += self.hub.take(client, 1 << 16)
        return [decode_from_server(message, client.dialect) for message in messages]


def world(**options: object) -> World:
    return World(RelayHub(RelayServerConfig.dev(**options), lambda _client: None, random.Random(1)))
