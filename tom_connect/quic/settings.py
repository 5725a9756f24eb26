"""The transport settings of one connection: windows, time-outs and datagram sizes."""

from __future__ import annotations

import attrs

from tom_connect.exceptions import ConfigError

MIB = 1 << 20
BASE_MTU = 1200  # the size of UDP payload that every QUIC path must carry (RFC 9000 section 14)


def _check(settings: TransportSettings) -> None:
    if not 1.0 <= settings.idle_timeout <= 86_400:
        raise ConfigError(f"idle_timeout must be 1 to 86400 seconds, not {settings.idle_timeout}")
    if settings.keep_alive is not None and not 1.0 <= settings.keep_alive < settings.idle_timeout:
        raise ConfigError("keep_alive must be at least 1 second and shorter than idle_timeout, or None")
    for name in ("max_data", "max_stream_data"):
        low, high = getattr(settings, name), getattr(settings, f"{name}_limit")
        if not 16_384 <= low <= high <= 1 << 30:
            raise ConfigError(f"{name} and {name}_limit must be 16 KiB to 1 GiB, the limit not the smaller")
    for name in ("max_streams_bidi", "max_streams_uni"):
        if not 0 <= getattr(settings, name) <= 65_536:
            raise ConfigError(f"{name} must be 0 to 65536")
    if not BASE_MTU <= settings.max_mtu <= 9000:
        raise ConfigError(f"max_mtu must be {BASE_MTU} to 9000 bytes")
    if not 1 <= settings.datagram_queue <= 65_536:
        raise ConfigError("datagram_queue must be 1 to 65536")
    if settings.congestion not in ("reno", "cubic"):
        raise ConfigError("congestion must be 'reno' or 'cubic'")


@attrs.frozen
class TransportSettings:
    """How one QUIC connection behaves; sizes in bytes, times in seconds.

    Raises ConfigError for values that can't work.
    """

    idle_timeout: float = 75.0
    """Silence after which the connection is lost. Above 60 s, so that a laptop's short sleep or a change of
    network does not end it; the smaller one of both sides counts (RFC 9000 section 10.1)."""
    keep_alive: float | None = None
    """Send a PING after this much silence; None sends none."""
    max_data: int = 2 * MIB
    """Unread bytes that the peer may send on all streams together at first."""
    max_data_limit: int = 16 * MIB
    """What `max_data` grows to while the application reads as fast as data arrives."""
    max_stream_data: int = MIB
    """Unread bytes that the peer may send on one stream at first."""
    max_stream_data_limit: int = 8 * MIB
    """What `max_stream_data` grows to while the application reads as fast as data arrives."""
    max_streams_bidi: int = 128
    """Bidirectional streams that the peer may have open, or closed but not yet accepted by the application."""
    max_streams_uni: int = 128
    """Unidirectional streams, counted in the same way."""
    max_datagram_frame_size: int = 65_535
    """Largest DATAGRAM frame that we take (RFC 9221 section 3); 0 takes none."""
    datagram_queue: int = 256
    """Datagrams that wait to be sent; when the queue is full the oldest one is dropped."""
    max_mtu: int = 1452
    """Largest UDP payload that the path MTU search tries: 1500 less IPv6 and UDP headers. 1200 tries none."""
    congestion: str = "reno"
    """`reno` or `cubic`."""
    initial_rtt: float = 0.1
    """RTT that is assumed before the first sample; RFC 9002 says 0.333, which makes the first loss slow."""
    early_data_alpns: frozenset[str] = frozenset()
    """ALPNs whose 0-RTT data a server accepts and whose tickets allow it. Each ticket works once, so that a recorded
    first flight can't be played again to the same process; an application that runs in several must be able to take
    the same early data twice (RFC 8446 section 8)."""

    def __attrs_post_init__(self) -> None:
        _check(self)
