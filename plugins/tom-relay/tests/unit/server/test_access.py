"""Who may use a relay, and how that changes while it runs."""

from __future__ import annotations

import contextlib
import pathlib
from collections.abc import AsyncIterator
from typing import Any

import attrs
import pytest
from aiohttp import web

from tom_connect.exceptions import ConfigError
from tom_connect.keys import SecretKey
from tom_relay.errors import RelayDeniedError, RelayServerError
from tom_relay.server import AllowList, DenyList, OpenAccess, RelayServerConfig
from tom_relay.server.access import build_access

FRIEND, STRANGER = (SecretKey(bytes(31) + bytes((number,))) for number in (1, 2))


async def test_an_allow_list_lets_in_the_listed(run: Any, clients: Any) -> None:
    """The listed node is let in, another hears why not."""
    async with run(access="allow", allow=(str(FRIEND.node_id),)) as relay:
        await clients.open(relay.url, FRIEND)
        with pytest.raises(RelayDeniedError, match="not on the relay's list of allowed nodes"):
            await clients.open(relay.url, STRANGER)


async def test_a_deny_list_keeps_out_the_listed(run: Any, clients: Any) -> None:
    """The listed node hears why not, another is let in."""
    async with run(access="deny", deny=(str(STRANGER.node_id),)) as relay:
        await clients.open(relay.url, FRIEND)
        with pytest.raises(RelayDeniedError, match="denied"):
            await clients.open(relay.url, STRANGER)


async def test_a_token_opens(run: Any, clients: Any) -> None:
    """A token counts as a bearer header, as iroh sends it, and in the query; a wrong one or none is refused."""
    async with run(access="token", tokens=("one", "two")) as relay:
        await clients.open(relay.url, headers={"Authorization": "Bearer two"})
        await clients.open(relay.url, path="/relay?token=one")
        for options, words in (({}, "asks for a token"), ({"headers": {"Authorization": "Bearer no"}}, "not one")):
            with pytest.raises(RelayDeniedError, match=words):
                await clients.open(relay.url, **options)


@attrs.define
class Service:
    """A web service that says who may."""

    url: str
    status: int = 200
    body: str = "true"
    asked: list[tuple[str, str, str]] = attrs.Factory(list)


@contextlib.asynccontextmanager
async def service() -> AsyncIterator[Service]:
    """Run such a service."""
    state = Service("")

    async def answer(request: web.BaseRequest) -> web.Response:
        headers = request.headers
        state.asked.append((request.method, headers.get("X-Iroh-NodeId", ""), headers.get("Authorization", "")))
        return web.Response(status=state.status, text=state.body)

    runner = web.ServerRunner(web.Server(answer))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    state.url = f"http://127.0.0.1:{runner.addresses[0][1]}/access"
    yield state
    await runner.cleanup()


async def test_a_service_decides(run: Any, clients: Any) -> None:
    """The service is asked as iroh's relay asks; only 2xx with `true` is yes, and nothing is no."""
    async with service() as asked:
        async with run(access="http", access_url=asked.url, access_bearer="key", access_timeout=30.0) as relay:
            await clients.open(relay.url, FRIEND)
            assert asked.asked == [("POST", str(FRIEND.node_id), "Bearer key")]
            for status, body in ((200, "false"), (200, "truely"), (403, "true"), (302, "true"), (500, "")):
                asked.status, asked.body = status, body
                with pytest.raises(RelayDeniedError, match="refuses this node"):
                    await clients.open(relay.url, FRIEND)
            asked.url = ""
    async with run(access="http", access_url="http://127.0.0.1:9/", access_timeout=1.0) as relay:
        with pytest.raises(RelayDeniedError, match="can't be asked now"):
            await clients.open(relay.url, FRIEND)


async def test_a_changed_policy_lets_go_who_may_not_any_more(run: Any, clients: Any) -> None:
    """Without a restart: who is not allowed any more is closed with the reason, the others stay."""
    async with run() as relay:
        friend, stranger = await clients.open(relay.url, FRIEND), await clients.open(relay.url, STRANGER)
        await relay.set_access(AllowList([FRIEND.node_id]))
        code, reason = await stranger.closed()
        assert code == 1008
        assert "list" in reason
        await friend.send(FRIEND.node_id, b"to myself")
        assert (await friend.read()).data == b"to myself"  # type: ignore[union-attr]
        await relay.set_access(OpenAccess())
        await clients.open(relay.url, STRANGER)
        await relay.set_access(DenyList([STRANGER.node_id]))
        with pytest.raises(RelayDeniedError):
            await clients.open(relay.url, STRANGER)


async def test_a_changed_file_counts_at_once(run: Any, clients: Any, tmp_path: pathlib.Path) -> None:
    """A list file is read again when it changes; one with a mistake leaves the old list."""
    listed = tmp_path / "allowed"
    listed.write_text(f"# friends\n{FRIEND.node_id}  # the first\n\n")
    async with run(access="allow", allow_file=listed) as relay:
        await clients.open(relay.url, FRIEND)
        listed.write_text("nonsense")
        await relay.reload()
        await clients.open(relay.url, FRIEND)
        listed.write_text(f"{FRIEND.node_id}\n{STRANGER.node_id}\n")
        await relay.reload()
        await clients.open(relay.url, STRANGER)


def test_mistakes_in_files_are_placed(tmp_path: pathlib.Path) -> None:
    """A list that can't be read is an error that names file and line."""
    listed = tmp_path / "list"
    config = RelayServerConfig.dev(access="deny", deny_file=listed)
    with pytest.raises(RelayServerError, match="list: No such file"):
        build_access(config)
    listed.write_text(f"{FRIEND.node_id}\nxyz\n")
    with pytest.raises(RelayServerError, match="list, line 2: not a valid node id"):
        build_access(config)
    listed.write_bytes(b"\xff\xfe\xfd")
    with pytest.raises(RelayServerError, match="not UTF-8"):
        build_access(config)


@pytest.mark.parametrize(
    "fields",
    [
        {"access": "allow"},
        {"access": "deny"},
        {"access": "token"},
        {"access": "http"},
        {"access": "sometimes"},
        {"allow": ("xyz",)},
        {"listen": ()},
        {"listen": ("nowhere",)},
        {"stun_listen": ("nowhere",)},
        {"qad_listen": ("nowhere:99999",)},
        {"tls_cert": pathlib.Path("x")},
        {"max_clients": 0},
        {"client_burst": 10},
        {"write_timeout": 0},
        {"url": "ftp://x"},
        {"operator_token": ""},
    ],
)
def test_mistakes_in_the_configuration_are_named(fields: dict[str, Any]) -> None:
    """What can't be is refused with the option's name."""
    with pytest.raises(ConfigError, match="|".join(fields)):
        RelayServerConfig(**fields)
