"""Contacts in the plugin as an endpoint uses it: found, called, and shown to nobody else."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from tom_connect import Endpoint, EndpointConfig
from tom_connect.abc import Callee, FoundAddr, PluginContext
from tom_connect.addr import NodeAddr
from tom_connect.exceptions import DiscoveryError, NetworkError
from tom_connect.keys import NodeId, SecretKey
from tom_connect.plugins import PluginState
from tom_connect.record import SignedRecord, sign_record
from tom_connect.signing import NodeSigner
from tom_connect.testing.plugincontext import plugin_context
from tom_dht_mainline import DhtNode, plugin
from tom_dht_mainline.address_records import DhtDiscovery, DhtPublisher
from tom_dht_mainline.config import DhtConfig
from tom_dht_mainline.contacts import PRICE, Contacts, fitting
from tom_dht_mainline.core import MutableItem, mutable_target
from tom_dht_mainline.core.rendezvous.contacts import PURPOSE, ROOM, Kind, day_of, place
from tom_dht_mainline.core.rendezvous.invitation import SALT
from tom_dht_mainline.errors import DhtPutError
from tom_dht_mainline.rendezvous import DhtRendezvous
from tom_dht_mainline.rendezvous.for_contacts import ReachableForContacts
from tom_dht_mainline.rendezvous.reachable import Reachable
from tom_dht_mainline.service import DhtService
from tom_dht_mainline.testing import Testnet

MakeClient = Callable[..., DhtNode]
ALICE, BOB, CAROL = (SecretKey(bytes([number]) * 32) for number in (1, 2, 3))
WAIT = 30.0


def options(net: Testnet, *contacts: SecretKey, only: bool = True) -> DhtConfig:
    """Of a node with these contacts."""
    return DhtConfig(
        bootstrap=net.bootstrap,
        ipv6=False,
        own_socket=True,
        host="127.0.0.1",
        contacts=tuple(str(key.node_id) for key in contacts),
        contacts_only=only and bool(contacts),
    )


@asynccontextmanager
async def running(config: DhtConfig, key: SecretKey) -> AsyncIterator[DhtService]:
    """The DHT of one endpoint."""
    service = DhtService(plugin_context(config, key=key, name="dht"))
    await service.acquire("test")
    try:
        yield service
    finally:
        await service.release("test")


def record_of(key: SecretKey, *direct: str) -> SignedRecord:
    addr = NodeAddr(key.node_id, direct_addrs=direct or ("192.0.2.1:4000",))
    return sign_record(key, addr, time.time_ns() // 1000)


async def resolved(service: DhtService, node_id: NodeId) -> list[FoundAddr]:
    return [found async for found in DhtDiscovery(service).resolve(node_id)]


async def test_who_names_only_itself_and_tells_contacts_alone_is_told_so(
    net: Testnet, caplog: pytest.LogCaptureFixture
) -> None:
    """The DHT of such a node is not begun: it would publish for ever, for nobody. Of one with another contact it is."""
    for contacts, started in ((ALICE,), False), ((ALICE, BOB), True):
        config = EndpointConfig(
            bind=("127.0.0.1:0",),
            allow_local=True,
            secret_key=ALICE,
            persist=False,
            plugins=(),
            extra_plugins=(("dht", plugin),),
            plugin_configs={"dht": options(net, *contacts)},
            watch_network=False,
        )
        async with Endpoint.bind(config) as endpoint:
            (info,) = [
                each for each in endpoint.plugins if each.name == "dht" and each.state is not PluginState.DUPLICATE
            ]
            assert (info.state is PluginState.LOADED) is started, info
            assert ("dht" in endpoint.discovery_counts()) is started
            assert ("dht" in endpoint.diagnostics()) is started
        assert sum("its one contact is itself" in line for line in caplog.messages) == (0 if started else 1)
        caplog.clear()


async def test_only_a_contact_finds_the_record(net: Testnet, client: MakeClient) -> None:
    """Whom the node names finds it by its id; for all others there is nothing, in clear or under its key."""
    record = record_of(ALICE)
    async with running(options(net, BOB, CAROL), ALICE) as alice, running(options(net, ALICE), BOB) as bob:
        report = await DhtPublisher(alice).publish(record)
        assert report.nodes >= 6 and report.enough
        (found,) = await resolved(bob, ALICE.node_id)
        assert found == FoundAddr(record.addr, "dht", record.timestamp_us) and found.record == record
        async with running(options(net), CAROL) as stranger:
            assert await resolved(stranger, ALICE.node_id) == []
        async with client() as anyone:
            assert await anyone.get(ALICE.node_id.raw) is None
            here = place(NodeSigner(BOB).shared_secret(ALICE.node_id, PURPOSE), Kind.RECORD, ALICE.node_id.raw, _day())
            item = await anyone.get(here.public_key)
            assert item is not None and record.dns_packet not in item.encoded


def _day() -> int:
    return day_of(time.time())


async def test_a_node_that_also_publishes_is_found_by_all(net: Testnet) -> None:
    """Contacts alone are told nothing else: who is no contact finds the same record."""
    record = record_of(ALICE)
    async with running(options(net, BOB, only=False), ALICE) as alice:
        await DhtPublisher(alice).publish(record)
        for key, contacts in ((BOB, (ALICE,)), (CAROL, ())):
            for only in (True, False):
                async with running(options(net, *contacts, only=only), key) as other:
                    found = await resolved(other, ALICE.node_id)
                    assert [each.timestamp_us for each in found] == [record.timestamp_us]


async def test_a_contact_that_does_not_name_us_is_told_as_that(net: Testnet) -> None:
    """Where nothing lies at the place of the pair the error says what to look at."""
    async with running(options(net, ALICE), BOB) as bob:
        with pytest.raises(DiscoveryError, match="does it name our node id among its contacts"):
            await resolved(bob, ALICE.node_id)


async def test_a_contact_can_lock_its_own_place_alone(net: Testnet, client: MakeClient) -> None:
    """One that puts the highest sequence number is not told any more; another one is, and publishing is not enough."""
    here = place(NodeSigner(BOB).shared_secret(ALICE.node_id, PURPOSE), Kind.RECORD, ALICE.node_id.raw, _day())
    async with client() as bobs, running(options(net, BOB, CAROL), ALICE) as alice:
        await bobs.put(MutableItem.sign(here.signing_key, b"locked", 2**63 - 1), wait_for="all")
        report = await DhtPublisher(alice).publish(record_of(ALICE))
        assert (report.nodes, report.enough) == (0, False)
        async with running(options(net, ALICE), CAROL) as carol:
            assert len(await resolved(carol, ALICE.node_id)) == 1
        async with running(options(net, ALICE), BOB) as bob:
            with pytest.raises(DiscoveryError, match="not what a contact leaves"):
                await resolved(bob, ALICE.node_id)


async def test_a_clock_that_was_ahead_is_caught_up_with(net: Testnet, client: MakeClient) -> None:
    """What lies at a place with a higher number, of a node whose clock was set back since, is replaced."""
    here = place(NodeSigner(BOB).shared_secret(ALICE.node_id, PURPOSE), Kind.RECORD, ALICE.node_id.raw, _day())
    record = record_of(ALICE)
    async with client() as before, running(options(net, BOB), ALICE) as alice:
        await before.put(here.item(b"old", time.time_ns() // 1000 + 10**10, bytes(12)), wait_for="all")
        assert (await DhtPublisher(alice).publish(record)).nodes >= 6
        async with running(options(net, ALICE), BOB) as bob:
            assert [found.record for found in await resolved(bob, ALICE.node_id)] == [record]


async def test_nothing_left_for_anybody_is_an_error(net: Testnet) -> None:
    """Where no node takes anything, publishing fails, and the core tries again."""
    config = DhtConfig(
        bootstrap=("none",),
        ipv6=False,
        own_socket=True,
        host="127.0.0.1",
        contacts=(str(BOB.node_id),),
        contacts_only=True,
    )
    async with running(config, ALICE) as alice:
        alice.node.ready = _at_once  # type: ignore[method-assign]
        with pytest.raises(DhtPutError, match="any contact"):
            await DhtPublisher(alice).publish(record_of(ALICE))


async def _at_once() -> None:
    """Nobody to wait for."""


def test_a_record_that_is_too_long_is_shortened() -> None:
    """What counts least goes first, as in every record, until it can be sealed; a shorter one stays as it is."""
    many = record_of(ALICE, *(f"192.0.2.{number}:40000" for number in range(60)))
    assert len(many.relay_payload()) > ROOM
    shorter = fitting(many, NodeSigner(ALICE).sign_record)
    assert len(shorter.relay_payload()) <= ROOM
    kept = shorter.addr.direct_addrs
    assert 10 < len(kept) < 60 and kept == many.addr.direct_addrs[: len(kept)]
    assert fitting(shorter, NodeSigner(ALICE).sign_record) is shorter


@pytest.mark.parametrize("count", range(9))
def test_contacts_cost_polls(count: int) -> None:
    """The more contacts and mailboxes, the longer is each mailbox left alone; without any nothing changes."""
    config = DhtConfig(contacts=tuple(str(SecretKey.generate().node_id) for _ in range(count)))
    ctx = plugin_context(config, key=ALICE)
    slower = Contacts(ctx, config, DhtService(ctx).node).slower
    assert slower == (2 * (1 + count / PRICE) if count else 1)


def test_one_that_names_itself_has_no_contact(net: Testnet) -> None:
    """A configuration that all nodes share names each of them: to oneself nothing is told."""
    ctx = plugin_context(options(net, ALICE, BOB), key=ALICE)
    assert DhtService(ctx).contacts.ids == (BOB.node_id,)


def shared(lend: Any, net: Testnet, key: SecretKey, *contacts: SecretKey, only: bool = True) -> PluginContext:
    """Of a node on the tests' socket, whose address others attest."""
    config = DhtConfig(
        bootstrap=net.bootstrap,
        ipv6=False,
        rendezvous_poll=0.2,
        contacts=tuple(str(each.node_id) for each in contacts),
        contacts_only=only,
    )
    ctx: PluginContext = lend(config, key=key)
    return ctx


def endpoint_config(net: Testnet, key: SecretKey, *contacts: SecretKey) -> EndpointConfig:
    """Of an endpoint whose DHT tells its contacts alone."""
    dht = DhtConfig(
        bootstrap=net.bootstrap,
        host="127.0.0.1",
        ipv6=False,
        rendezvous_poll=0.2,
        contacts=tuple(str(each.node_id) for each in contacts),
        contacts_only=True,
    )
    return EndpointConfig(
        alpns=("test/1",),
        bind=("127.0.0.1:0",),
        allow_local=True,
        persist=False,
        secret_key=key,
        plugins=(),
        extra_plugins=(("dht", plugin),),
        plugin_configs={"dht": dht},
    )


async def test_endpoints_meet_and_call_where_nobody_looks(
    net: Testnet, client: MakeClient, eventually: Callable[..., Any]
) -> None:
    """Contacts meet by node id; a call comes through; nothing lies or is announced under the id of either."""
    async with (
        Endpoint.bind(endpoint_config(net, ALICE, BOB)) as alice,
        Endpoint.bind(endpoint_config(net, BOB, ALICE)) as bob,
        client() as anyone,
    ):
        async with asyncio.timeout(WAIT):
            await alice.watch_published().other_than(())
            dialing = asyncio.create_task(bob.connect(alice.node_id, "test/1", timeout=WAIT))
            await (await anext(alice.accept())).accept()
            assert (await dialing).remote_node_id == alice.node_id
        for key in (ALICE, BOB):
            assert await anyone.get(key.node_id.raw) is None
            assert await anyone.get(key.node_id.raw, SALT) is None
            assert [peer async for peer in anyone.get_peers(mutable_target(key.node_id.raw))] == []
        told = dict(alice.diagnostics()["dht"])
        assert (told["contacts"], told["published to"]) == (1, "contacts alone")


async def test_a_call_for_a_contact_is_found_by_it(net: Testnet, lend: Any, eventually: Callable[..., Any]) -> None:
    """It is announced in the mailbox that the contact has named to us, and in no other; a stranger finds no mailbox."""
    opened = asyncio.Event()
    opened.set()
    learned: list[Callee] = []
    callee = DhtRendezvous(DhtService.of(shared(lend, net, ALICE, BOB)))
    caller = DhtRendezvous(DhtService(plugin_context(options(net, ALICE), key=BOB, name="dht")))
    stranger = DhtRendezvous(DhtService(plugin_context(options(net), key=CAROL, name="dht")))
    datagrams = plugin.tom_datagram_protocol(callee._service.ctx)
    assert datagrams is not None
    lend.socket.protocols.append(datagrams)
    await datagrams.start()
    for each in (callee, caller):
        await each.start()
    await stranger._service.acquire(stranger)
    try:
        async with asyncio.timeout(WAIT):
            await eventually(lambda: callee._service.calls.startswith("invited"), WAIT)
            calling = asyncio.create_task(caller.call(ALICE.node_id, lambda: b"sealed", opened, learned.append))
            call = await anext(callee.calls())
            calling.cancel()
            await asyncio.gather(calling, return_exceptions=True)
        (address,) = call.addrs
        assert address == caller._service.node.local_addrs[0]
        assert learned and learned[0].ports_differ is False
        target = mutable_target(ALICE.node_id.raw)
        assert [peer async for peer in stranger._service.node.get_peers(target)] == []
        with pytest.raises(NetworkError, match=r"dht\.contacts"):
            # It names us no more: nothing is announced where others look.
            await caller_of(caller, CAROL).call(CAROL.node_id, lambda: b"sealed", opened, learned.append)
    finally:
        for each in (callee, caller):
            await each.aclose()
        await stranger._service.release(stranger)
        await datagrams.aclose()
        lend.socket.protocols.remove(datagrams)


async def test_a_change_of_network_draws_another_mailbox_for_contacts(net: Testnet) -> None:
    """Who is near the old one is not to see that two addresses are one node's; the public one is known anyway."""
    async with running(options(net, BOB, only=False), ALICE) as alice:
        calls: asyncio.Queue[Any] = asyncio.Queue()
        for reachable, moves in ((ReachableForContacts(alice, calls), True), (Reachable(alice, calls), False)):
            before = reachable.invitation().mailbox
            reachable.network_changed()
            after = reachable.invitation().mailbox
            assert (before != after) is moves
            assert (after == mutable_target(ALICE.node_id.raw)) is not moves


def caller_of(caller: DhtRendezvous, contact: SecretKey) -> DhtRendezvous:
    """The same node with one more contact."""
    caller._service.contacts.ids += (contact.node_id,)
    return caller
