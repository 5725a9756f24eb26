"""What a connection tells of its paths."""

from __future__ import annotations

from tests.unit.endpoint.pairs import Pair


async def test_paths_tell_bytes_source_and_reason(pair: Pair) -> None:
    """Data that went through is counted on the active path, which says who named it and why it is used."""
    stream = await pair.dialed.open_uni()
    stream.write(bytes(200_000))
    stream.finish()
    received = await pair.accepted.accept_uni()
    assert len(await received.read()) == 200_000
    sender = next(path for path in pair.dialed.paths() if path.active)
    receiver = next(path for path in pair.accepted.paths() if path.active)
    assert sender.proven and receiver.proven
    assert sender.bytes_sent >= 200_000 <= receiver.bytes_received
    assert sender.bytes_received > 0 < receiver.bytes_sent
    assert sender.source and sender.why and receiver.why
    stats = pair.dialed.stats()
    assert stats.path_outages == 0
    assert stats.why_relayed is None
