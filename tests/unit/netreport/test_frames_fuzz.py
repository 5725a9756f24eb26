"""What an authenticated stranger may put into its packets."""

from __future__ import annotations

import random
from typing import Any

import pytest

from tests.unit.netreport.quicpair import Pair
from tom_connect.netreport.observed import OBSERVED_IPV4, OBSERVED_IPV6

FRAMES = [*range(0x20), 0x30, 0x31, OBSERVED_IPV4, OBSERVED_IPV6, 0x9F81A8, 0x3FFF]


def send_once(connection: Any, frame_type: int, data: bytes) -> None:
    """Put a frame of these bytes into the connection's next packet."""
    original = connection._write_connection_limits

    def write(builder: Any, space: Any) -> None:
        connection._write_connection_limits = original
        original(builder, space)
        builder.start_frame(frame_type, capacity=8 + len(data)).push_bytes(data)

    connection._write_connection_limits = write


@pytest.mark.parametrize("frame_type", FRAMES, ids=hex)
def test_frames_of_any_kind_and_content_are_survived(frame_type: int) -> None:
    """A frame of random bytes, of each type, on either side: it is taken or ends the connection, and nothing raises."""
    rng = random.Random(frame_type)
    for round_ in range(6):
        pair = Pair(watch=True)
        pair.client.start(0.0)
        assert pair.run(lambda pair=pair: bool(pair.client._reports))  # type: ignore[misc]
        server: Any = pair.server
        client = pair.client._quic
        sender, receiver = (client, server) if round_ % 2 else (server, client)
        for _ in range(10):
            if receiver.terminating or sender.terminating:
                break
            send_once(sender, frame_type, rng.randbytes(rng.randrange(40)))
            pair.run(lambda: False, 0.1)
        if frame_type in (0x1F, 0x9F81A8, 0x3FFF):
            assert receiver.termination.error_code == 0x07  # FRAME_ENCODING_ERROR: nobody knows it
        assert server.faults == client.faults == 0
        assert len(pair.client._reports) <= 16
        assert len(server._streams) == len(client._streams) == 0
