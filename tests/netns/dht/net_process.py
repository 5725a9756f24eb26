"""The child that is a whole DHT: sessions of libtorrent, and nodes without BEP 44, each on an address of its own.

libtorrent keeps its protections: one node of a prefix in a bucket and in a look-up, ids by BEP 42, no addresses that
the internet does not use, silence for who sends more than 5 packets a second. Changed is what a lab of fifty nodes has
to bear in the place of millions: `dht_upload_rate_limit` (8,000 B/s), since each node answers a share of all queries
that is many thousand times the real one.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import attrs

from benchmarks.dht.krpc import Address, Contact
from tests.interop.peers.libtorrent_process import Node as Session
from tests.interop.peers.lines import serve
from tests.netns.dht.elders import Elder, acquaintances, belongs

SETTINGS: Final[Mapping[str, Any]] = {"dht_upload_rate_limit": 10_000_000, "alert_mask": 0}
#: Nodes outside its own neighbourhood that a node is told of at the start.
FAR: Final = 16
#: Nodes that each session has in its table before the DHT counts as ready.
ENOUGH: Final = 12
READY_TIMEOUT: Final = 30.0
#: Seconds that all nodes get to know strangers.
MEET_WITHIN: Final = 10.0


@attrs.define(eq=False)
class Net:
    """The nodes by address."""

    chooser: random.Random
    sessions: dict[Address, Session] = attrs.field(factory=dict)
    elders: dict[Address, Elder] = attrs.field(factory=dict)
    contacts: dict[Address, Contact] = attrs.field(factory=dict)
    _tasks: dict[Address, asyncio.Task[None]] = attrs.field(factory=dict)

    async def open(self, modern: list[Address], old: list[Address]) -> list[Contact]:
        """Open nodes, with (`modern`) and without BEP 44 (`old`), and learn their ids."""
        with ThreadPoolExecutor(8) as pool:
            loop = asyncio.get_running_loop()
            opening = [loop.run_in_executor(pool, self._session, address) for address in modern]
            for address in old:
                elder = self.elders[address] = await Elder.open(address, self.chooser)
                self._tasks[address] = asyncio.create_task(elder.look_after_table(self.chooser))
                self.contacts[address] = elder.contact
            for session in await asyncio.gather(*opening):
                self.sessions[session.address] = session
        asker = next(iter(self.elders.values()))
        everybody = [*self.sessions, *self.elders]
        for address in modern:
            # By what these say libtorrent learns its address, and takes its id for good.
            for other in self.chooser.sample(everybody, min(FAR, len(everybody))):
                self.sessions[address].add(other)
        ids = await asyncio.gather(*(self._id(asker, address) for address in modern))
        for address, node_id in zip(modern, ids, strict=True):
            self.contacts[address] = Contact(node_id, address)
        return [self.contacts[address] for address in (*modern, *old)]

    @staticmethod
    def _session(address: Address) -> Session:
        session = Session.open(address, SETTINGS)
        session.wait_running()
        return session

    @staticmethod
    async def _id(asker: Elder, address: Address) -> bytes:
        deadline = time.monotonic() + READY_TIMEOUT
        while time.monotonic() < deadline:
            node_id = await asker.ping_address(address, 1.0)
            if node_id is not None and belongs(node_id, address[0]):
                return node_id
            await asyncio.sleep(0.05)
        raise TimeoutError(f"libtorrent's node on {address} has no id of its address")

    def introduce(self, newcomers: list[Contact]) -> None:
        """Tell nodes of those whom they would have met by now."""
        everybody = list(self.contacts.values())
        for contact in newcomers:
            known = acquaintances(contact, everybody, FAR, self.chooser)
            session = self.sessions.get(contact.address)
            if session is not None:
                for other in known:
                    session.add(other.address)
            else:
                self.elders[contact.address].table = known

    async def settle(self) -> None:
        """Wait until each session knows enough others. Raises TimeoutError."""
        wanted = min(ENOUGH, len(self.contacts) - 1)
        deadline = time.monotonic() + READY_TIMEOUT
        for session in list(self.sessions.values()):
            while await asyncio.to_thread(self._size, session) < wanted:
                if time.monotonic() > deadline:
                    raise TimeoutError(f"libtorrent's node on {session.address} knows fewer than {wanted} others")
                await asyncio.sleep(0.05)

    @staticmethod
    def _size(session: Session) -> int:
        return session.counters()["dht_nodes"]

    async def kill(self, address: Address) -> None:
        """End a node without a word to the others."""
        del self.contacts[address]
        if address in self.sessions:
            await asyncio.to_thread(self._forget, address)
            return
        elder = self.elders.pop(address)
        self._tasks.pop(address).cancel()
        elder.close()

    def _forget(self, address: Address) -> None:
        # In a thread: a session's destructor waits until it has stopped.
        del self.sessions[address]

    async def close(self) -> None:
        """End all nodes."""
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)
        self.sessions.clear()

    # Requests

    async def silence(self, nodes: list[list[Any]]) -> dict[str, Any]:
        """Have nodes without BEP 44 die: they stay in the tables of others."""
        for host, port in nodes:
            self.elders[host, port].silent = True
            self.contacts.pop((host, port), None)
        return {}

    async def replace(self, gone: list[list[Any]], modern: list[list[Any]], old: list[list[Any]]) -> dict[str, Any]:
        """End nodes, and open new ones that join as newcomers do: through what a few others tell them."""
        for host, port in gone:
            await self.kill((host, port))
        self.introduce(await self.open([(h, p) for h, p in modern], [(h, p) for h, p in old]))
        await self.settle()
        return {}

    async def known(self) -> dict[str, Any]:
        """Say which nodes there are, with their ids."""
        return {"nodes": [[contact.node_id.hex(), *contact.address] for contact in self.contacts.values()]}

    async def meet(self, strangers: list[list[Any]]) -> dict[str, Any]:
        """Tell all nodes of some that others run, as if these had been there for long; returns once all know them."""
        newcomers = [Contact(bytes.fromhex(node_id), (host, port)) for node_id, host, port in strangers]
        for elder in self.elders.values():
            known = {contact.address for contact in elder.table}
            elder.table += [contact for contact in newcomers if contact.address not in known]
        before = {address: await asyncio.to_thread(self._size, each) for address, each in self.sessions.items()}
        for session in self.sessions.values():
            for contact in newcomers:
                session.add(contact.address)
        deadline = time.monotonic() + MEET_WITHIN
        for address, session in self.sessions.items():
            # One that has no room for all of them keeps those that are next to it.
            while await asyncio.to_thread(self._size, session) < before[address] + len(newcomers) // 2:
                if time.monotonic() > deadline:
                    return {}
                await asyncio.sleep(0.05)
        return {}

    async def counters(self) -> dict[str, Any]:
        """Say what all sessions together have counted, under libtorrent's names, and how many nodes there are."""
        total: dict[str, int] = {}
        for session in list(self.sessions.values()):
            for name, value in (await asyncio.to_thread(session.counters)).items():
                total[name] = total.get(name, 0) + value
        return {"sessions": len(self.sessions), "elders": len(self.elders), "total": total}

    async def peers(self, infohash: str) -> dict[str, Any]:
        """Say how many nodes without BEP 44 hold peers for an infohash."""
        return {"nodes": sum(bytes.fromhex(infohash) in elder.peers for elder in self.elders.values())}


async def main(options: dict[str, Any]) -> None:
    """Start the DHT that the options describe and answer until stdin ends."""
    net = Net(random.Random(options["seed"]))
    modern = [(host, port) for host, port in options["modern"]]
    old = [(host, port) for host, port in options["old"]]
    net.introduce(await net.open(modern, old))
    await net.settle()
    handlers = {name: getattr(net, name) for name in ("silence", "replace", "known", "meet", "counters", "peers")}
    await serve(handlers)
    await net.close()


if __name__ == "__main__":
    asyncio.run(main(json.loads(sys.argv[1])))
