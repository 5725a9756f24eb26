"""The child that reads a mailbox all the time, and puts rubbish wherever a sealed call may lie."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any, Final

import attrs

from benchmarks.dht.krpc import Address
from benchmarks.serverless.attack.flood_process import Source
from tests.interop.peers.lines import serve
from tom_dht_mainline.core import MutableItem, mutable_target
from tom_dht_mainline.core.items import MAX_SEQ
from tom_dht_mainline.core.krpc import parse_peers
from tom_dht_mainline.core.rendezvous.call import Nonce, nonces
from tom_dht_mainline.core.rendezvous.callee import Callee
from tom_dht_mainline.core.rendezvous.invitation import SALT, decode_invitation

READ_EVERY: Final = 0.1
"""Seconds after which all nodes of the mailbox are asked again; a DHT node serves 5 packets a second from an IP."""
INVITED_EVERY: Final = 10
"""Turns after which all nodes are asked for the invitation again."""
WIDTH: Final = 16
"""Nodes nearest to a place that get rubbish."""
ASK: Final = 5
"""Times that a node is asked for its token."""
MAX_NAMED: Final = 100


@attrs.define(eq=False)
class _Place:
    """Where one call may lie, which of the attacker's addresses locks it, and the nodes that have no rubbish yet."""

    item: MutableItem
    source: Source
    left: list[Address]
    turns: int = 0


@attrs.define(eq=False)
class Locks:
    """What is watched, and which places have been locked."""

    sources: list[Source] = attrs.field(factory=list)
    put: int = 0
    _places: dict[Nonce, _Place] = attrs.field(factory=dict)
    _near: list[Address] = attrs.field(factory=list)
    _nodes: list[tuple[int, Address]] = attrs.field(factory=list)
    _mailbox: bytes = b""
    _callee: bytes = b""
    _key: bytes | None = None
    _task: asyncio.Task[None] | None = None

    async def lock(
        self, hosts: list[str], near: list[list[Any]], nodes: list[list[Any]], callee: str
    ) -> dict[str, Any]:
        """Watch the mailbox of a callee (its key in hex) at the nodes `near` it; `nodes`: id in hex, host, port."""
        await self.stop()
        loop = asyncio.get_running_loop()
        self._callee = bytes.fromhex(callee)
        self._mailbox = mutable_target(self._callee)
        self._near = [(host, port) for host, port in near]
        self._nodes = [(int(node_id, 16), (host, port)) for node_id, host, port in nodes]
        for host in hosts:
            source = Source.open(host)
            self.sources.append(source)
            loop.add_reader(source.sock, source.read, self._heard)
        self._task = asyncio.create_task(self._watch(), name="watching a mailbox")
        return {}

    async def _watch(self) -> None:
        turn = 0
        while True:
            source = self.sources[turn % len(self.sources)]
            for node in self._near:
                source.query(node, b"get_peers", {b"info_hash": self._mailbox})
            for _, node in self._nodes if turn % INVITED_EVERY == 0 else ():
                source.query(node, b"get", {b"target": mutable_target(self._callee, SALT), b"seq": 0})
            for place in self._places.values():
                self._fill(place, ask=True)
            turn += 1
            await asyncio.sleep(READ_EVERY)

    def _heard(self, reply: dict[bytes, Any]) -> None:
        if reply.get(b"k") == self._callee:
            invitation = decode_invitation(reply[b"v"])
            self._mailbox, self._key = invitation.mailbox, invitation.key
        elif self._key is not None and b"values" in reply:
            for host, ports in Callee.ports(parse_peers(reply[b"values"], MAX_NAMED)).items():
                for nonce in nonces(self._key, host, ports):
                    if nonce not in self._places:
                        self._places[nonce] = place = self._place(nonce, self._key)
                        self._fill(place, ask=True)
        for place in self._places.values():
            self._fill(place)

    def _place(self, nonce: Nonce, key: bytes) -> _Place:
        item = MutableItem.sign(nonce.signing_key(key), b"rubbish", MAX_SEQ)
        nearest = sorted(self._nodes, key=lambda node: node[0] ^ int.from_bytes(item.target))
        source = self.sources[len(self._places) % len(self.sources)]
        return _Place(item, source, [address for _, address in nearest[:WIDTH]])

    def _fill(self, place: _Place, *, ask: bool = False) -> None:
        """Put rubbish on every node that has given a token, and ask the others for theirs, some times."""
        item, tokens = place.item, place.source.tokens
        for address in list(place.left):
            if (token := tokens.get((address, item.target))) is not None:
                place.left.remove(address)
                self.put += 1
                arguments = {b"k": item.public_key, b"seq": item.seq, b"sig": item.signature, b"v": item.value}
                place.source.query(address, b"put", {**arguments, b"token": token})
        if ask and place.turns < ASK:
            place.turns += 1
            place.source.ask_tokens(place.left, item.target)

    async def locked(self) -> dict[str, Any]:
        """Say of how many calls the place is known, and how many times rubbish was put there."""
        return {"places": len(self._places), "put": self.put}

    async def stop(self) -> dict[str, Any]:
        """Leave the mailbox alone."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None
        for source in self.sources:
            asyncio.get_running_loop().remove_reader(source.sock)
            source.sock.close()
        self.sources.clear()
        self._places.clear()
        return {}


async def main() -> None:
    """Answer until standard input ends."""
    locks = Locks()
    try:
        await serve({name: getattr(locks, name) for name in ("lock", "locked", "stop")})
    finally:
        with contextlib.suppress(OSError):
            await locks.stop()


if __name__ == "__main__":
    asyncio.run(main())
