"""Who may use the relay."""

from __future__ import annotations

import abc
import hashlib
import hmac
import pathlib
from collections.abc import Iterable
from typing import TYPE_CHECKING

import attrs

from tom_connect.exceptions import InvalidKeyError
from tom_connect.keys import NodeId
from tom_relay.errors import RelayServerError
from tom_relay.server.config import RelayServerConfig

if TYPE_CHECKING:
    import aiohttp

MAX_LIST_BYTES = 64 << 20
"""A list larger than this is some other file."""
MAX_ANSWER = 64
"""Bytes of an access service's answer that are read."""


class AccessPolicy(abc.ABC):
    """Decides who may use the relay; once for each connection, when its key is proven."""

    @abc.abstractmethod
    async def refusal(self, node_id: NodeId, token: str | None) -> str | None:
        """The reason for which a node is refused, None if it may use the relay. `token`: what it showed."""

    async def aclose(self) -> None:  # noqa: B027 - a default that does nothing
        """Let go of what is held."""


class OpenAccess(AccessPolicy):
    """Everyone may."""

    async def refusal(self, node_id: NodeId, token: str | None) -> str | None:
        """None."""
        return None


class AllowList(AccessPolicy):
    """The listed nodes may."""

    def __init__(self, node_ids: Iterable[NodeId]) -> None:
        self._keys = frozenset(node_id.raw for node_id in node_ids)

    async def refusal(self, node_id: NodeId, token: str | None) -> str | None:
        """A reason unless the node is listed."""
        return None if node_id.raw in self._keys else "this node is not on the relay's list of allowed nodes"


class DenyList(AccessPolicy):
    """All but the listed nodes may."""

    def __init__(self, node_ids: Iterable[NodeId]) -> None:
        self._keys = frozenset(node_id.raw for node_id in node_ids)

    async def refusal(self, node_id: NodeId, token: str | None) -> str | None:
        """A reason if the node is listed."""
        return "this node is on the relay's list of denied nodes" if node_id.raw in self._keys else None


class TokenAccess(AccessPolicy):
    """Who shows one of the tokens may: `Authorization: Bearer TOKEN`, or `?token=TOKEN`."""

    def __init__(self, tokens: Iterable[str]) -> None:
        self._digests = frozenset(map(self._digest, tokens))

    @staticmethod
    def _digest(token: str) -> bytes:
        return hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()

    async def refusal(self, node_id: NodeId, token: str | None) -> str | None:
        """A reason unless the token is one of ours."""
        if token is None:
            return "this relay asks for a token"
        digest = self._digest(token)
        # Every digest is compared, so that time tells nothing of which is near.
        matches = [hmac.compare_digest(digest, known) for known in self._digests]
        return None if any(matches) else "the token is not one that this relay accepts"


class HttpAccess(AccessPolicy):
    """Asks a web service, as iroh's relay does: POST with `X-Iroh-NodeId`; yes is 2xx and the body `true`.

    Whatever else comes, and nothing within `timeout` seconds, is no.
    """

    def __init__(self, url: str, *, bearer: str | None = None, timeout: float = 5.0) -> None:
        self._url = url
        self._bearer = bearer
        self._timeout = timeout
        self._session: aiohttp.ClientSession | None = None

    async def refusal(self, node_id: NodeId, token: str | None) -> str | None:
        """A reason unless the service says true."""
        import aiohttp

        if self._session is None:
            self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=self._timeout))
        headers = {"X-Iroh-NodeId": str(node_id)}
        if self._bearer is not None:
            headers["Authorization"] = f"Bearer {self._bearer}"
        try:
            async with self._session.post(self._url, headers=headers, allow_redirects=False) as response:
                body = await response.content.read(MAX_ANSWER)
                if 200 <= response.status < 300 and body.strip() == b"true":
                    return None
                return "the relay's access service refuses this node"
        except (aiohttp.ClientError, TimeoutError, OSError):
            return "the relay's access service can't be asked now; try again later"

    async def aclose(self) -> None:
        """Close its connections."""
        if self._session is not None:
            await self._session.close()


@attrs.frozen
class FileState:
    """What shows that a file has changed."""

    mtime_ns: int
    size: int
    inode: int

    @classmethod
    def of(cls, path: pathlib.Path) -> FileState | None:
        """The state now; None if there is no such file."""
        try:
            stat = path.stat()
        except OSError:
            return None
        return cls(stat.st_mtime_ns, stat.st_size, stat.st_ino)


def build_access(config: RelayServerConfig) -> AccessPolicy:
    """The policy that a configuration asks for, its files read; raises RelayServerError naming file and line."""
    match config.access:
        case "allow":
            return AllowList(_node_ids(config.allow, config.allow_file))
        case "deny":
            return DenyList(_node_ids(config.deny, config.deny_file))
        case "token":
            tokens = [*config.tokens, *(text for _, text in _lines(config.token_file))]
            return TokenAccess(tokens)
        case "http":
            assert config.access_url is not None
            return HttpAccess(config.access_url, bearer=config.access_bearer, timeout=config.access_timeout)
    return OpenAccess()


def access_files(config: RelayServerConfig) -> tuple[pathlib.Path, ...]:
    """The files on which the policy depends."""
    files = {"allow": config.allow_file, "deny": config.deny_file, "token": config.token_file}
    file = files.get(config.access)
    return () if file is None else (file,)


def _node_ids(texts: Iterable[str], file: pathlib.Path | None) -> list[NodeId]:
    found = [NodeId.parse(text) for text in texts]
    for where, text in _lines(file):
        try:
            found.append(NodeId.parse(text))
        except InvalidKeyError as exc:
            raise RelayServerError(f"{where}: {exc}") from None
    return found


def _lines(file: pathlib.Path | None) -> list[tuple[str, str]]:
    """Place and text of each line that is neither empty nor a comment (`#`)."""
    if file is None:
        return []
    try:
        with file.open("rb") as stream:
            data = stream.read(MAX_LIST_BYTES + 1)
        if len(data) > MAX_LIST_BYTES:
            raise RelayServerError(f"{file}: larger than {MAX_LIST_BYTES >> 20} MiB; is this the right file?")
        text = data.decode("utf-8-sig")
    except OSError as exc:
        raise RelayServerError(f"{file}: {exc.strerror or exc}") from None
    except UnicodeDecodeError:
        raise RelayServerError(f"{file}: not UTF-8 text") from None
    stripped = ((number, line.partition("#")[0].strip()) for number, line in enumerate(text.splitlines(), 1))
    return [(f"{file}, line {number}", line) for number, line in stripped if line]
