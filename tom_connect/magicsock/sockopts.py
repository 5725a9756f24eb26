"""Socket options that only some systems have; each one is tried, and what fails is not used."""

from __future__ import annotations

import socket
import sys
from collections.abc import Callable
from typing import Final

# The `socket` module names none of these on Python 3.11; the numbers are those of linux/udp.h.
SOL_UDP: Final = 17
UDP_SEGMENT: Final = 103
UDP_GRO: Final = 104

# As a plain text, so that type checkers follow every branch.
_PLATFORM: str = sys.platform
_SMALLEST_BUFFER = 256 << 10


def try_option(sock: socket.socket, level: int, option: int, value: int) -> bool:
    """Set an option; False where this system does not have it."""
    if option in (UDP_SEGMENT, UDP_GRO) and level == SOL_UDP and not _PLATFORM.startswith("linux"):
        return False
    try:
        sock.setsockopt(level, option, value)
    except OSError:
        return False
    return True


def ttl_switch(sock: socket.socket) -> Callable[[int | None], bool] | None:
    """A function that sets the TTL of what is sent next, None for the usual one; None where that can't be done.

    For IPv4 alone: only there do NATs stand between nodes that have to be opened without waking the other side's.
    """
    if sock.family != socket.AF_INET:
        return None
    try:
        usual = sock.getsockopt(socket.IPPROTO_IP, socket.IP_TTL)
    except OSError:
        return None
    if not try_option(sock, socket.IPPROTO_IP, socket.IP_TTL, usual):
        return None

    def switch(ttl: int | None) -> bool:
        return try_option(sock, socket.IPPROTO_IP, socket.IP_TTL, usual if ttl is None else ttl)

    return switch


def enlarge_buffers(sock: socket.socket, size: int) -> None:
    """Ask for kernel buffers of `size` bytes, or as near to it as the system gives."""
    for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
        wanted = size
        # Linux clamps silently; macOS and the BSDs refuse what is above their limit.
        while wanted >= _SMALLEST_BUFFER and not try_option(sock, socket.SOL_SOCKET, option, wanted):
            wanted //= 2


def _fragmentation_options(sock: socket.socket) -> tuple[int, int, int, int] | None:
    """Level, option, and its values for "never fragment" and "fragment where needed"."""
    ipv6 = sock.family == socket.AF_INET6
    level = socket.IPPROTO_IPV6 if ipv6 else socket.IPPROTO_IP
    if _PLATFORM.startswith("linux"):
        # IP_MTU_DISCOVER or IPV6_MTU_DISCOVER: PROBE (3) sets DF and ignores the kernel's own idea of the path's MTU,
        # which an attacker's ICMP can lower; DONT (0) leaves DF out.
        return level, 23 if ipv6 else 10, 3, 0
    if _PLATFORM == "darwin":
        return level, 62 if ipv6 else 28, 1, 0
    if _PLATFORM == "win32":
        return level, 14, 1, 0
    return None


def fragmentation_switch(sock: socket.socket) -> Callable[[bool], bool] | None:
    """A function that sets or clears don't-fragment for what is sent next; None where that can't be done."""
    options = _fragmentation_options(sock)
    if options is None:
        return None
    level, option, never, allowed = options
    if not try_option(sock, level, option, allowed):
        return None

    def switch(dont_fragment: bool) -> bool:
        return try_option(sock, level, option, never if dont_fragment else allowed)

    return switch
