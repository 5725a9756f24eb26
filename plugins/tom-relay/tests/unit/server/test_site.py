"""What the server answers over HTTP."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
from typing import Any

import pytest

from tom_relay.server import RelayServer


async def test_the_paths_answer(relay: RelayServer, clients: Any) -> None:
    """Page, ping, health, metrics and relays are served; what else is asked for gets a reason."""
    get = clients.session.get
    async with get(relay.url + "/") as response:
        assert response.status == 200
        assert response.content_type == "text/html"
        assert "relay of tom-connect" in await response.text()
    async with get(relay.url + "/ping") as response:
        assert (response.status, response.headers["Cache-Control"]) == (200, "no-store")
    async with get(relay.url + "/healthz") as response:
        assert (await response.json())["status"] == "ok"
    async with get(relay.url + "/nothing") as response:
        assert response.status == 404
    async with clients.session.post(relay.url + "/ping", data=b"x") as response:
        assert (response.status, response.headers["Allow"]) == (405, "GET, HEAD")


@pytest.mark.parametrize(
    ("challenge", "echoed"), [("abc.-_9", "response abc.-_9"), ("x" * 64, None), ("<script>", None), ("", None)]
)
async def test_captive_portals_are_told_apart(
    relay: RelayServer, clients: Any, challenge: str, echoed: str | None
) -> None:
    """/generate_204 has no body and echoes a challenge that is well formed, in the header that iroh looks at."""
    async with clients.session.get(relay.url + "/generate_204", headers={"X-Iroh-Challenge": challenge}) as response:
        assert response.status == 204
        assert response.headers.get("X-Iroh-Response") == echoed
        assert await response.read() == b""


async def test_metrics_are_those_of_this_server_alone(relay: RelayServer, run: Any, clients: Any) -> None:
    """Metrics are in Prometheus' text format, count what happens here, and know nothing of another server."""
    async with run() as other:
        a, b = await clients.open(relay.url), await clients.open(relay.url)
        await a.send(b.node_id, bytes(1000))
        await b.read()
        async with clients.session.get(relay.url + "/metrics") as response:
            assert response.content_type == "text/plain"
            lines = (await response.text()).splitlines()
        assert "tom_relay_clients 2.0" in lines
        assert "tom_relay_relayed_bytes_total 1000.0" in lines
        assert 'tom_relay_authenticated_total{dialect="iroh-relay-v2"} 2.0' in lines
        assert not any(str(a.node_id) in line for line in lines)
        assert other.hub.counters.relayed.packets == 0


async def test_relays_are_named(run: Any, clients: Any) -> None:
    """/relays names this relay with score and role, then those of the operator."""
    async with run(url="https://relay.example", relays=("https://two.example", "https://relay.example")) as relay:
        address = f"http://{relay.addrs[0]}"
        async with clients.session.get(address + "/relays") as response:
            relays = (await response.json())["relays"]
    assert [entry["url"] for entry in relays] == ["https://relay.example", "https://two.example"]
    assert relays[0]["role"] == "peer"
    assert relays[0]["score"] == 0.0
    assert relays[0]["accepting"] is True


async def test_statistics_are_for_the_operator(relay: RelayServer, run: Any, clients: Any) -> None:
    """/stats is shown to this machine, but not to whom a proxy on it passes on; with a token, to who has it."""
    get = clients.session.get
    client = await clients.open(relay.url)
    async with get(relay.url + "/stats") as response:
        stats = await response.json()
    assert stats["connected"] == [str(client.node_id)]
    assert [entry["node_id"] for entry in stats["nodes"]] == [str(client.node_id)]
    async with get(relay.url + "/stats", headers={"X-Forwarded-For": "198.51.100.1"}) as response:
        assert response.status == 403
    async with run(operator_token="secret") as guarded:
        for headers, status in (({}, 403), ({"Authorization": "Bearer secret"}, 200), ({"Authorization": "x"}, 403)):
            async with get(guarded.url + "/stats", headers=headers) as response:
                assert response.status == status


@pytest.mark.interop  # where CI is set it must not be skipped
@pytest.mark.skipif(shutil.which("curl") is None, reason="needs the command curl")
async def test_curl_gets_all_of_it(relay: RelayServer) -> None:
    """curl reads each path, keeps its connection for the next one, and is refused by /relay in words."""
    paths = ("/", "/ping", "/generate_204", "/healthz", "/metrics", "/relays", "/stats", "/relay", "/none")
    words = "%{http_code} %{num_connects}\n"
    outputs = [part for path in paths for part in ("-o", "/dev/null", relay.url + path)]
    command = ["curl", "-sS", "--noproxy", "*", "-w", words, *outputs]
    done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, timeout=20)
    lines = [line.split() for line in done.stdout.splitlines()]
    assert [code for code, _ in lines] == ["200", "200", "204", "200", "200", "200", "200", "426", "404"]
    assert sum(int(count) for _, count in lines) == 1


async def test_heads_have_no_body(relay: RelayServer, clients: Any) -> None:
    """HEAD is answered like GET, without the body."""
    async with clients.session.head(relay.url + "/relays") as response:
        assert response.status == 200
        assert await response.read() == b""
