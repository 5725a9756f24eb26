"""Relays that nodes run for others, found through a DHT of libtorrent's nodes, with nothing else on the internet."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.interop.conftest import running
from tests.interop.peers.process import LineProcess, python_module
from tests.netns.dht import DhtNet
from tom_connect.testing.natlab import Host, Lab, Nat, Wire

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

#: With the same at the DHT and the volunteers, 50 ms from home to home and from home to the DHT and back; 2% are lost.
UPLINK = Wire(delay=0.0125, loss=0.005)
#: Seconds within which two nodes behind strict NATs are to be connected.
CONNECTED_WITHIN = 15.0
#: The same where all home relays of the callee, and perhaps those of the caller, have just fallen silent.
SILENT_WITHIN = 30.0


@pytest.fixture
def dht(natlab: Lab) -> Iterator[DhtNet]:
    """A DHT of 50 nodes, and 5 dead ones."""
    yield from running(lambda: DhtNet.start(natlab, wire=UPLINK))


@contextlib.asynccontextmanager
async def node_on(host: Host, dht: DhtNet, **options: Any) -> AsyncIterator[tuple[LineProcess, str]]:
    """A process on a machine that runs one endpoint with `dht_only`, and the endpoint's key."""
    with contextlib.closing(LineProcess.start(host.command(python_module("tests.netns.volunteer_process")))) as child:
        yield child, (await child.call("start", bootstrap=dht.names, **options))["node_id"]


@contextlib.asynccontextmanager
async def volunteers(lab: Lab, dht: DhtNet, *lies: str) -> AsyncIterator[dict[str, LineProcess]]:
    """Volunteers with public addresses, each in an own network, that have announced themselves; by their URLs."""
    async with contextlib.AsyncExitStack() as stack:
        made = {}
        for number, lie in enumerate(lies):
            host = lab.host(f"volunteer{number}", lab.router(f"office{number}", Nat.NONE, wire=UPLINK))
            child, _key = await stack.enter_async_context(node_on(host, dht, volunteer=True, lies=lie))
            made[(await child.call("announced"))["url"]] = child
        yield made


def home(lab: Lab, name: str, nat: Nat = Nat.STRICT) -> Host:
    """A machine behind a router of its own."""
    return lab.host(name, lab.router(f"{name}s-router", nat, wire=UPLINK))


async def test_a_volunteer_is_killed(natlab: Lab, dht: DhtNet) -> None:
    """A live connection goes on through the other volunteer within seconds, and a third takes the place of the dead."""
    async with volunteers(natlab, dht, "", "", "") as those, node_on(home(natlab, "one"), dht) as (one, key):
        told = await one.call("relayed")
        async with node_on(home(natlab, "two"), dht) as (two, _):
            await two.call("meet", node_id=key, wait=30.0)
            await two.call("talk", seconds=2.0)
            os.kill(those[told["home"]].pid, signal.SIGKILL)
            talked = await two.call("talk", seconds=10.0)
            after = await one.call("relayed", other_than=told["home"], wait=20.0)
            print(f"longest wait {talked['longest']:.2f} s; the next home after {after['found']:.1f} s more")
            assert talked["longest"] < 6.0 and talked["kinds"] == ["relay"], talked
            assert told["home"] not in after["urls"], after


@pytest.mark.parametrize("lies", ["always", "later"])
async def test_volunteers_that_lie(natlab: Lab, dht: DhtNet, lies: str) -> None:
    """Volunteers that pass nothing on, at once or once they are trusted, cost seconds: the honest one is found."""
    async with volunteers(natlab, dht, lies, lies, "") as those, node_on(home(natlab, "one"), dht) as (one, key):
        honest = list(those)[-1]
        told = await one.call("relayed")
        async with node_on(home(natlab, "two"), dht) as (two, _):
            await two.call("published")
            met = await two.call("meet", node_id=key, wait=30.0)
            assert met["seconds"] < CONNECTED_WITHIN, met
            found_out = time.monotonic()
            async with asyncio.timeout(30):
                while (after := await one.call("relays"))["urls"] != [honest]:
                    await two.call("talk", seconds=0.5)
            found_out = time.monotonic() - found_out
            talked = await two.call("talk", seconds=2.0)
        print(
            f"home after {told['found']:.1f} s, {after['tried']} tried, met in {met['seconds']:.2f} s, "
            f"liars out {found_out:.1f} s after that, longest wait then {talked['longest']:.2f} s"
        )


async def test_both_home_volunteers_fall_silent(natlab: Lab, dht: DhtNet) -> None:
    """Where both pass nothing on any more and nothing has shown it yet, the first dial does, and it succeeds."""
    async with (
        volunteers(natlab, dht, "", "") as those,
        node_on(home(natlab, "one"), dht, trusting=True) as (one, key),
    ):
        await one.call("tested")
        told = await one.call("relayed")
        assert set(told["urls"]) == set(those), told
        async with (
            node_on(home(natlab, "third", Nat.NONE), dht, volunteer=True) as (third, _),
            node_on(home(natlab, "two"), dht) as (two, _),
        ):
            honest = (await third.call("announced"))["url"]
            await two.call("published")
            for liar in those.values():
                await liar.call("lie")
            met = await two.call("meet", node_id=key, wait=60.0)
            print(f"met in {met['seconds']:.2f} s")
            assert met["seconds"] < SILENT_WITHIN and met["kinds"] == ["relay"], met
            async with asyncio.timeout(60):
                while (await one.call("relays"))["urls"] != [honest]:
                    await two.call("talk", seconds=0.5)


async def test_callers_show_who_passes_on_our_own_tests_alone(natlab: Lab, dht: DhtNet) -> None:
    """Volunteers that pass on what comes from our own IP address pass each test; three callers cost one its place."""
    async with volunteers(natlab, dht, "", "") as those, node_on(home(natlab, "one"), dht, hasty=True) as (one, key):
        async with asyncio.timeout(60):
            while set((await one.call("relays"))["urls"]) != set(those):  # noqa: ASYNC110 - it tells nobody
                await asyncio.sleep(0.2)
        for liar in those.values():
            await liar.call("lie", about=key)
        await one.call("published")
        async with node_on(home(natlab, "third", Nat.NONE), dht, volunteer=True) as (third, _):
            honest = (await third.call("announced"))["url"]
            for name in ("two", "four", "five"):
                assert set((await one.call("relays"))["urls"]) == set(those)
                async with node_on(home(natlab, name), dht, avoiding=list(those)) as (caller, _):
                    assert (await caller.call("relayed"))["home"] == honest
                    met = await caller.call("meet", node_id=key, wait=60.0)
                    began = time.monotonic()
                    # What became of its call is known a little later.
                    await caller.call("talk", seconds=4.0)
                print(f"{name} met in {met['seconds']:.2f} s")
            async with asyncio.timeout(30):
                while len(urls := set((await one.call("relays"))["urls"])) != 2 or honest not in urls:  # noqa: ASYNC110
                    await asyncio.sleep(0.1)
            print(f"the honest one is in a liar's place {time.monotonic() - began:.1f} s after the third call")


async def test_doctor_says_whether_a_volunteer_relays_for_us(natlab: Lab, dht: DhtNet, tmp_path: Path) -> None:
    """Behind a strict NAT others need a volunteer's relay: a stranger finds it, or doctor says why there is none."""
    host = home(natlab, "one")
    command = [sys.executable, "-m", "tom_connect", "doctor", "--json", "--dht-only", "--no-persist", "--wait", "30"]
    command += [f"--bootstrap={name}" for name in dht.names]
    environ = os.environ | {"HOME": str(tmp_path), "TOM_CONNECT_PLUGINS": "dht,relay"}

    async def doctor() -> tuple[dict[str, Any], str]:
        said = json.loads((await asyncio.to_thread(host.run, command, env=environ, timeout=120)).stdout)
        assert said["nat"]["ipv4"] == "endpoint-dependent", said
        return said["serverless"], " ".join(f"{each['text']} {each['advice'] or ''}" for each in said["findings"])

    found, words = await doctor()
    assert found["relays"] == [] and "none is in use: the DHT knows of none" in words, words
    async with volunteers(natlab, dht, "", "") as those:
        found, words = await doctor()
        assert found["relays"] and set(found["relays"]) <= set(those), found
        assert "reach us through a volunteer's relay" in words and "No relay is configured" not in words, words


async def test_a_volunteer_behind_a_nat_says_why_it_is_none(natlab: Lab, dht: DhtNet) -> None:
    """Who is not reached by strangers announces nothing, and says what stands in the way."""
    async with node_on(home(natlab, "one", Nat.MODERATE), dht, volunteer=True) as (one, _):
        await one.call("published")
        told = await one.call("why_not")
        assert told["announced"] == 0 and "NAT" in told["why_not"], told
