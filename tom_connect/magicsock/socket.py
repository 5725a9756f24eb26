"""The magic socket: UDP sockets, their demultiplexing, and the paths of all remote nodes."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable, Sequence

from tom_connect.abc import DatagramProtocol, PathSelector
from tom_connect.addr import SocketAddr
from tom_connect.holepunch.path import Path
from tom_connect.keys import NodeId, SecretKey
from tom_connect.magicsock.address import NodeAddress, ProvisionalAddress
from tom_connect.magicsock.remote import Remote

QuicReceiver = Callable[[Path, Sequence[bytes], float], None]


class MagicSocket:
    """One UDP socket a family for QUIC, disco and plugins; QUIC sees one constant address for each node.

    Belongs to one event loop, and to its thread. `allow_local`: probe private, loopback and link-local addresses that
    records name. `clock`: seconds, `time.monotonic` by default.
    """

    counters: Counter[str]
    """What was dropped or went wrong, by reason; only ever grows."""

    def __init__(
        self,
        secret_key: SecretKey,
        *,
        allow_local: bool = False,
        clock: Callable[[], float] = time.monotonic,
        loop: asyncio.AbstractEventLoop | None = None,
        logger: logging.Logger | None = None,
    ) -> None:
        raise NotImplementedError

    async def bind(self, addrs: Sequence[SocketAddr]) -> None:
        """Open a UDP socket at each address, at most one a family.

        A family that this machine lacks is left out with a log line, unless none is left. Raises LocalError that says
        what to do, where a port is taken or an address is not ours.
        """
        raise NotImplementedError

    @property
    def local_addrs(self) -> tuple[SocketAddr, ...]:
        """Where the sockets are bound, with real ports; hosts may be wildcards."""
        raise NotImplementedError

    # --- QUIC -------------------------------------------------------------------------------------------------

    def set_quic_receiver(self, receive: QuicReceiver) -> None:
        """Say who takes QUIC datagrams: `receive(path, datagrams, now)`, a drained batch of one source at a time."""
        raise NotImplementedError

    def set_batch_end(self, callback: Callable[[float], None]) -> None:
        """Call `callback(now)` once after each drained turn in which QUIC datagrams were handed over."""
        raise NotImplementedError

    def set_writable(self, callback: Callable[[], None]) -> None:
        """Call `callback()` when what full socket buffers held back has gone out."""
        raise NotImplementedError

    @property
    def congested(self) -> bool:
        """Whether socket buffers are full and datagrams wait; a sender does well to wait for `set_writable`."""
        raise NotImplementedError

    def send_quic(self, dest: NodeAddress | ProvisionalAddress, datagrams: Sequence[bytes], now: float) -> None:
        """Send datagrams on the path or paths that `dest` uses now. Never blocks or raises; drops are counted."""
        raise NotImplementedError

    def provisional(self, path: Path, dcid: bytes) -> ProvisionalAddress:
        """The address for an incoming handshake: the same object for the same path and connection id.

        `drop_provisional` forgets it; the table is bounded, the oldest unbound ones go first.
        """
        raise NotImplementedError

    def drop_provisional(self, address: ProvisionalAddress) -> None:
        """Forget an address whose handshake failed or whose connection is over."""
        raise NotImplementedError

    def bind_provisional(self, address: ProvisionalAddress, node_id: NodeId, path: Path) -> NodeAddress:
        """The handshake proved `node_id` at `path`. Acquires its Remote (`.remote` of what is returned).

        From now on sending to `address` is sending to the NodeAddress, so either may stay in QUIC's hands.
        """
        raise NotImplementedError

    def remote(self, node_id: NodeId) -> Remote:
        """Acquire the Remote of a node, made if need be; `release()` it once."""
        raise NotImplementedError

    # --- paths ------------------------------------------------------------------------------------------------

    def set_own_candidates(self, addrs: Sequence[SocketAddr]) -> None:
        """Say at which addresses we may be reached; sent sealed, in call-me-maybe, to peers with a proven path."""
        raise NotImplementedError

    def set_observed(self, callback: Callable[[SocketAddr, NodeId], None]) -> None:
        """Call `callback(addr, by)` when a peer that we talk to says at which address it sees us."""
        raise NotImplementedError

    def set_path_selector(self, selector: PathSelector | None) -> None:
        """Let a plugin choose among proven paths; None gives the choice back to the built-in rule."""
        raise NotImplementedError

    # --- datagram protocols -----------------------------------------------------------------------------------

    def send(self, data: bytes, addr: SocketAddr) -> bool:
        """Send one datagram now, for plugins (`tom_connect.abc.SharedSocket`); False if it was dropped."""
        raise NotImplementedError

    def add_protocol(self, protocol: DatagramProtocol) -> None:
        """Give a protocol the datagrams that it claims, through its own bounded queue."""
        raise NotImplementedError

    def remove_protocol(self, protocol: DatagramProtocol) -> None:
        """Undo `add_protocol`; what waits in its queue is dropped."""
        raise NotImplementedError

    async def aclose(self) -> None:
        """Close the sockets and stop every timer; what waits to be sent is tried once more. Idempotent."""
        raise NotImplementedError
