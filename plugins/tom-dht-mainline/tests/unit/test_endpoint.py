"""The plugin in real endpoints: nodes that know nothing of each other but a NodeId."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import socket
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import attrs
import pytest

from tom_connect import Endpoint, EndpointConfig, SecretKey
from tom_connect import endpoint as endpoint_module
from tom_connect.exceptions import DialError, TomError
from tom_connect.holepunch import meetings
from tom_connect.holepunch.disco import KIND_SEALED
from tom_connect.signing import SystemClock
from tom_dht_mainline import plugin
from tom_dht_mainline.config import DhtConfig
from tom_dht_mainline.core import Family, PeersNamed
from tom_dht_mainline.core.rendezvous import callee as callee_module
from tom_dht_mainline.core.rendezvous.call import Nonce
from tom_dht_mainline.core.rendezvous.invitation import SALT, Filtering, Invitation, decode_invitation
from tom_dht_mainline.deferred import DeferredRendezvous
from tom_dht_mainline.rendezvous import DhtRendezvous
from tom_dht_mainline.rendezvous import reachable as reachable_module
from tom_dht_mainline.testing import Testnet


def _config(net: Testnet, **options: Any) -> EndpointConfig:
    return EndpointConfig(
        alpns=("test/1",),
        bind=("127.0.0.1:0",),
        allow_local=True,
        persist=False,
        plugins=(),
        extra_plugins=(("dht", plugin),),
        plugin_configs={"dht": DhtConfig(**{"bootstrap": net.bootstrap, "host": "127.0.0.1", "ipv6": False} | options)},
    )


@pytest.mark.parametrize("own_socket", [False, True], ids=["shared socket", "own socket"])
async def test_endpoints_meet_by_node_id_alone(net: Testnet, own_socket: bool) -> None:
    """One publishes, the other dials its NodeId, and bytes pass, whichever socket the DHT uses."""
    config = _config(net, own_socket=own_socket)
    async with Endpoint.bind(config) as alice, Endpoint.bind(config) as bob:
        async with asyncio.timeout(10):
            await alice.watch_published().other_than(())
            dialing = asyncio.create_task(bob.connect(alice.node_id, "test/1"))
            theirs = await (await anext(alice.accept())).accept()
            ours = await dialing
            assert ours.remote_node_id == alice.node_id
            ours.send_datagram(b"through the DHT")
            assert await theirs.read_datagram() == b"through the DHT"


async def test_an_unknown_node_is_an_error_that_names_the_dht(net: Testnet) -> None:
    """A NodeId that nobody published can't be dialed; the error says that the DHT found nothing."""
    async with Endpoint.bind(_config(net)) as bob:
        with pytest.raises(TomError, match="dht"):
            async with asyncio.timeout(10):
                await bob.connect(SecretKey.generate().node_id, "test/1")


def _clock_off_by(hours: int) -> type[SystemClock]:
    class Off(SystemClock):
        def wall(self) -> float:
            return super().wall() + hours * 3600

    return Off


@contextlib.asynccontextmanager
async def _under_way(call: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Leave a call, which is looked after for a while, until the block is left."""
    calling = asyncio.create_task(call, name="calling")
    try:
        yield
    finally:
        calling.cancel()
        await asyncio.gather(calling, return_exceptions=True)


async def _until(true: Callable[[], bool]) -> None:
    """Wait for what nobody tells."""
    async with asyncio.timeout(30):
        while not true():  # noqa: ASYNC110
            await asyncio.sleep(0.02)


async def _rendezvous_of(endpoint: Endpoint) -> DhtRendezvous:
    ((_, way),) = endpoint._rendezvous._ways
    assert isinstance(way, DeferredRendezvous)
    real = await way.loaded()
    assert isinstance(real, DhtRendezvous)
    return real


async def _invited(endpoint: Endpoint) -> Invitation:
    """How an endpoint is to be called, once the DHT knows it."""
    await _until(lambda: str(endpoint.diagnostics()["dht"].get("calls")).startswith("invited"))
    (reachable,) = (await _rendezvous_of(endpoint))._reachable
    return reachable.invitation()


@pytest.mark.parametrize("hours", [-1, 1], ids=["an hour behind", "an hour ahead"])
@pytest.mark.parametrize("whose", ["callee", "caller"])
async def test_a_wrong_clock_on_one_side_is_no_matter(
    net: Testnet, hours: int, whose: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is found, called, and once its clock is set right and it starts again, its newest invitation is read."""
    key = SecretKey.generate()
    config = attrs.evolve(_config(net), dht_only=True)
    mine = attrs.evolve(config, secret_key=key)

    async def meet(caller: Endpoint, callee: Endpoint) -> None:
        invitation = await _invited(callee)
        accepting = asyncio.create_task(anext(aiter(callee.accept())))
        dialing = asyncio.create_task(caller.connect(callee.node_id, "test/1", timeout=30))
        await (await accepting).accept()
        await (await dialing).close()
        item = await net.nodes[-1].get(callee.node_id.raw, SALT)
        assert item is not None and decode_invitation(item.value) == invitation

    monkeypatch.setattr(endpoint_module, "SystemClock", _clock_off_by(hours if whose == "callee" else 0))
    first = await Endpoint.bind(mine)
    monkeypatch.setattr(endpoint_module, "SystemClock", _clock_off_by(hours if whose == "caller" else 0))
    async with Endpoint.bind(config) as caller:
        async with first as callee:
            await meet(caller, callee)
        monkeypatch.setattr(endpoint_module, "SystemClock", _clock_off_by(0))
        async with Endpoint.bind(mine) as callee:
            await meet(caller, callee)


async def test_a_call_to_a_node_that_has_left_ends_with_what_was_tried(net: Testnet) -> None:
    """Its record and invitation still lie there; its address gets pings alone, the error says that it was called."""
    config = attrs.evolve(_config(net), dht_only=True)
    async with Endpoint.bind(config) as caller:
        async with Endpoint.bind(config) as callee:
            await _invited(callee)
            async with asyncio.timeout(30):
                await callee.watch_published().other_than(())
            node_id, left = callee.node_id, callee.local_addrs[0]
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as there:
            there.bind((left.host, left.port))
            there.setblocking(False)
            with pytest.raises(DialError, match=r"it was called where it looks for calls, and did not come"):
                await caller.connect(node_id, "test/1", timeout=6.0)
            kinds = []
            with contextlib.suppress(BlockingIOError):
                while True:
                    kinds.append(there.recv(2048)[0])
        # The two nodes may have met in the DHT before the call.
        pings = [kind for kind in kinds if kind != ord("d")]
        assert 1 <= len(pings) <= meetings.BURST + 6.0 * meetings.RATE + 1
        assert set(pings) == {KIND_SEALED}


async def test_a_flooded_mailbox_is_left_and_who_calls_hears_of_it(
    net: Testnet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The invitation in the DHT soon names another mailbox, and who calls then is found there."""
    # All nodes of the test are at one IP address, and so count as one.
    monkeypatch.setattr(callee_module, "CROWDED_BY", 1)
    config = attrs.evolve(_config(net, rendezvous_poll=0.2), dht_only=True)
    async with Endpoint.bind(config) as caller, Endpoint.bind(config) as callee:
        before = (await _invited(callee)).mailbox
        for node in net.nodes:
            for number in range(callee_module.CROWDED + 10):
                peers = node._live_core()._server.peers
                peers.announce(before, (f"198.18.{number}.1", 7), time.monotonic(), unlimited=True)
        async with asyncio.timeout(30):
            mailbox = before
            while mailbox == before:
                item = await net.nodes[-1].get(callee.node_id.raw, SALT)
                assert item is not None
                mailbox = decode_invitation(item.value).mailbox
        counters, opened = callee._magic.counters, asyncio.Event()
        found = counters["rendezvous: calls found"]
        opened.set()
        way = await _rendezvous_of(caller)
        async with _under_way(way.call(callee.node_id, bytes, opened, lambda _: None)):
            await _until(lambda: counters["rendezvous: calls found"] > found)


async def test_the_key_for_calls_changes_and_the_one_before_still_opens(
    net: Testnet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With each publication there is a fresh key; who has just read the invitation before it is understood too."""
    monkeypatch.setattr(reachable_module, "REPUBLISH", 1.0)
    config = attrs.evolve(_config(net, rendezvous_poll=0.2), dht_only=True)
    async with Endpoint.bind(config) as caller, Endpoint.bind(config) as callee:
        await _invited(callee)
        (reachable,) = (await _rendezvous_of(callee))._reachable
        first = reachable.invitation()
        await _until(lambda: reachable.invitation().key != first.key)
        monkeypatch.setattr(reachable_module, "REPUBLISH", 3600.0)
        remote = caller._magic.remote(callee.node_id)
        sealed = caller._magic.doorstep.sealed_call(remote)
        await (await _rendezvous_of(caller))._caller._leave_sealed(first, "127.0.0.1", sealed)
        await _until(lambda: callee._magic.counters["rendezvous: calls answered"] > 0)
        remote.release()


async def test_who_calls_again_from_one_address_is_heard(net: Testnet) -> None:
    """The address stands in the mailbox already; what is announced besides tells that it calls a second time."""
    config = attrs.evolve(_config(net, rendezvous_poll=0.2), dht_only=True)
    async with Endpoint.bind(config) as caller, Endpoint.bind(config) as callee:
        await _invited(callee)
        way, counters, opened = await _rendezvous_of(caller), callee._magic.counters, asyncio.Event()
        opened.set()
        for _ in range(3):
            found = counters["rendezvous: calls found"]
            async with _under_way(way.call(callee.node_id, bytes, opened, lambda _: None)):
                await _until(lambda found=found: counters["rendezvous: calls found"] > found)


async def test_nobody_is_announced_before_its_nat_is_open(net: Testnet) -> None:
    """A call is left once our pings have gone out: a callee that found it earlier would knock at a closed door."""
    config = attrs.evolve(_config(net, rendezvous_poll=0.1), dht_only=True)
    async with Endpoint.bind(config) as caller, Endpoint.bind(config) as callee:
        await _invited(callee)
        polls = (await _rendezvous_of(callee))._reachable[0]._watch
        assert polls is not None
        opened, invited = asyncio.Event(), asyncio.Event()
        way = await _rendezvous_of(caller)
        async with _under_way(way.call(callee.node_id, bytes, opened, lambda _: invited.set())):
            async with asyncio.timeout(30):
                await invited.wait()
            seen = polls.replies
            # Each node is asked once at least.
            await _until(lambda: polls.replies > seen + 10)
            assert callee._magic.counters["rendezvous: calls found"] == 0
            opened.set()
            await _until(lambda: callee._magic.counters["rendezvous: calls found"] > 0)


async def test_what_a_node_says_of_being_called(net: Testnet, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether a NAT stands before it, and where its ports differ its IP; it is announced in its own mailbox itself."""
    async with Endpoint.bind(attrs.evolve(_config(net), dht_only=True)) as callee:
        invitation = await _invited(callee)
        assert invitation.filtering is Filtering.OPEN and invitation.ip is None and not invitation.ports_differ
        own = callee.local_addrs[0]
        peers = [peer async for peer in net.nodes[0].get_peers(invitation.mailbox)]
        assert peers == [(own.host, own.port)]
        (reachable,) = (await _rendezvous_of(callee))._reachable
        node = reachable._service.node
        monkeypatch.setattr(node, "external_address", lambda _family: ("198.51.100.7", 4433))
        assert reachable.invitation() == attrs.evolve(invitation, filtering=Filtering.FILTERED)
        monkeypatch.setattr(node, "external_address", lambda _family: ("198.51.100.7", 0))
        differing = attrs.evolve(invitation, filtering=Filtering.FILTERED, ports_differ=True, ip="198.51.100.7")
        assert reachable.invitation() == differing


async def test_a_changed_network_is_told_to_the_dht(net: Testnet) -> None:
    """Others see us elsewhere now: what they said before is forgotten, and learned anew."""
    async with Endpoint.bind(attrs.evolve(_config(net), dht_only=True)) as callee:
        await _invited(callee)
        way = await _rendezvous_of(callee)
        node = way._service.node
        assert node.external_address(Family.IPV4) is not None
        way.network_changed()
        assert node.external_address(Family.IPV4) is None
        await _until(lambda: node.external_address(Family.IPV4) is not None)


async def test_sealed_calls_are_fetched_one_after_the_other(net: Testnet, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever announces pairs of ports that look like sealed calls has us look one up in so many seconds, not all."""
    monkeypatch.setattr(reachable_module, "FETCH_EVERY", 0.3)
    async with Endpoint.bind(attrs.evolve(_config(net), dht_only=True)) as callee:
        invitation = await _invited(callee)
        (reachable,) = (await _rendezvous_of(callee))._reachable
        fetched: list[float] = []

        async def fetch(*_args: object) -> None:
            fetched.append(time.monotonic())

        monkeypatch.setattr(reachable, "_fetch", fetch)
        ports = [port for number in range(40) for port in _nonce(invitation.key, 2000 + number)]
        assert reachable._watch is not None
        reachable._look_for_nonces(PeersNamed(reachable._watch, ("127.0.0.1", 1), [("198.18.0.1", p) for p in ports]))
        assert reachable._nonces.qsize() == reachable_module.MAX_NONCES
        await _until(lambda: len(fetched) == 4)
        assert min(after - before for before, after in itertools.pairwise(fetched)) > 0.25


def _nonce(key: bytes, port: int) -> tuple[int, int]:
    nonce = Nonce.of(key, "198.18.0.1", port)
    return nonce.port, nonce.check
