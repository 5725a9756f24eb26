"""Loopback addresses for many nodes on one machine."""

from __future__ import annotations

import random
import socket

import attrs


def _can_bind(host: str) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((host, 0))
        except OSError:
            return False
    return True


def free_port(host: str) -> int:
    """Return a port that is free now for UDP and TCP on the host."""
    for _ in range(50):
        with (
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp,
            socket.socket(socket.AF_INET, socket.SOCK_STREAM) as tcp,
        ):
            udp.bind((host, 0))
            port: int = udp.getsockname()[1]
            try:
                tcp.bind((host, port))
            except OSError:
                continue
            return port
    raise OSError(f"no free port on {host}")


def scattered(count: int) -> list[tuple[str, int]]:
    """Return addresses in as many different prefixes; raise OSError where loopback is one address only."""
    chooser = random.SystemRandom()
    hosts: list[str] = []
    for second in chooser.sample(range(16, 250), count):
        host = f"127.{second}.{chooser.randrange(1, 250)}.{chooser.randrange(1, 250)}"
        if not _can_bind(host):
            raise OSError("this system has no loopback addresses beside 127.0.0.1")
        hosts.append(host)
    return [(host, 6881) for host in hosts]


@attrs.frozen
class Block:
    """A /24 of 127.0.0.0/8 that nobody else is likely to use now, or 127.0.0.1 where that is all there is."""

    prefix: str | None

    @classmethod
    def pick(cls) -> Block:
        """Pick a block at random; macOS gives loopback one address only, and then nodes differ by port."""
        chooser = random.SystemRandom()
        for _ in range(20):
            prefix = f"127.{chooser.randrange(16, 250)}.{chooser.randrange(1, 250)}"
            if _can_bind(f"{prefix}.1"):
                return cls(prefix)
        return cls(None)

    def endpoint(self, number: int) -> tuple[str, int]:
        """Return an address for the node of that number, 0 to 65,000: the last byte and the port tell nodes apart."""
        if self.prefix is None:
            return ("127.0.0.1", free_port("127.0.0.1"))
        port, last = divmod(number, 250)
        return (f"{self.prefix}.{last + 1}", 6881 + port)
