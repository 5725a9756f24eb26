"""The page on wire formats says of relays what the code has: dialects, frames and limits."""

from __future__ import annotations

from tests.docs.reference import REFERENCE
from tom_connect.netreport.stun import MAX_MESSAGE as MAX_STUN
from tom_relay.qad.server import DEFAULT_PORT as QAD_PORT
from tom_relay.qad.server import RETRY_SHARE, QadLimits
from tom_relay.server import RelayServerConfig, gate, hub
from tom_relay.stun.server import DEFAULT_PORT as STUN_PORT
from tom_relay.stun.server import StunLimits
from tom_relay.wire import MAX_MESSAGE, MAX_PAYLOAD, SUBPROTOCOLS, Dialect, FrameType
from tom_relay.wire.frames import FROM_CLIENT, FROM_SERVER

PAGE = (REFERENCE / "wire-formats.md").read_text(encoding="utf-8")


def tables(heading: str) -> list[list[list[str]]]:
    """The tables of a section, without their heads: rows of cells."""
    section = PAGE.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    assert section, f"no section {heading}"
    found: list[list[list[str]]] = []
    inside = False
    for line in section.splitlines():
        if line.startswith("|"):
            if not inside:
                found.append([])
            found[-1].append([cell.strip() for cell in line.strip("|").split("|")])
        inside = line.startswith("|")
    return [table[2:] for table in found]


def test_dialects_are_those_of_the_code() -> None:
    """Names in their order, the context that is signed, and the frames that not all have."""
    rows, _frames, _limits = tables("Relay")
    assert [row[0].strip("`") for row in rows] == list(SUBPROTOCOLS)
    for name, _who, context, frames in rows:
        dialect = Dialect(name.strip("`"))
        assert context == f"`{dialect.challenge_context}`"
        own = {
            "Status": dialect.has_status,
            "Health": dialect.has_health,
            "PeerPresent": dialect.has_peer_present,
            "AskAddress": dialect.has_peer_address,
            "PeerAddress": dialect.has_peer_address,
        }
        assert set(frames.split(", ")) == {frame for frame, has in own.items() if has}


def test_frames_are_those_of_the_code() -> None:
    """Every type has its row, and says who sends it."""
    _dialects, rows, _limits = tables("Relay")
    assert {int(row[0]) for row in rows} == set(FrameType)
    for number, name, sender, _payload in rows:
        kind = int(number)
        assert (
            sender
            == {
                (True, False): "client",
                (False, True): "relay",
                (True, True): "both",
            }[kind in FROM_CLIENT, kind in FROM_SERVER]
        ), name
        words = name.replace(", one", "").replace(", a batch", "").removesuffix("Datagrams")
        assert words.upper() in FrameType(kind).name.replace("_", ""), name


def limits(heading: str) -> dict[str, str]:
    """What the last table of a section says, by its words."""
    return {row[0]: row[1] for row in tables(heading)[-1]}


def number(value: float) -> str:
    return f"{value:,g}" if value != int(value) else f"{int(value):,}"


def test_limits_of_a_relay_are_those_of_the_code() -> None:
    """Each limit is the default or constant that holds."""
    config = RelayServerConfig()
    assert limits("Relay") == {
        what: number(value)
        for what, value in {
            "payload of a frame, bytes": MAX_PAYLOAD,
            "WebSocket message, bytes": MAX_MESSAGE,
            "frames that wait for one client": config.queue_packets,
            "bytes that wait for one client": config.queue_bytes,
            "bytes that wait for all clients": config.total_queue_bytes,
            "seconds to prove a key": config.handshake_timeout,
            "seconds without progress of a client that is sent to": config.write_timeout,
            "bytes that count as progress": gate.PROGRESS,
            "seconds between pings, less up to a fifth": config.ping_interval,
            "seconds to answer a ping": config.ping_timeout,
            "nodes that are remembered to have been sent to": hub.SENT_TO_LIMIT,
            "questions for addresses at once": hub.ADDRESS_BURST,
            "seconds for each further one": hub.ADDRESS_INTERVAL,
        }.items()
    }


def test_limits_of_address_services_are_those_of_the_code() -> None:
    """QUIC address discovery and STUN: ports and bounds."""
    qad, stun = QadLimits(), StunLimits()
    assert f"UDP {QAD_PORT}" in PAGE and f"UDP {STUN_PORT}" in PAGE
    assert RETRY_SHARE == 4
    assert limits("QUIC address discovery") == {
        "connections": number(qad.connections),
        "connections of one IPv4 address or IPv6 /64": number(qad.connections_per_source),
        "share of either from which on an address is proven by a Retry first": "a quarter",
        "seconds for a handshake": number(qad.handshake_timeout),
        "seconds of silence": number(qad.idle_timeout),
        "seconds in all": number(qad.lifetime),
        "new connections a second": number(qad.rate),
        "new connections a second of one source": number(qad.rate_per_source),
        "datagrams a second of one connection": number(qad.packets),
    }
    assert limits("STUN") == {
        "message, bytes": number(MAX_STUN),
        "answers a second": number(stun.rate),
        "answers a second to one IPv4 address or IPv6 /64": number(stun.rate_per_source),
    }
