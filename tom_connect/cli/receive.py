"""`tom-connect receive`: take files and folders."""

from __future__ import annotations

import asyncio
import pathlib
import tempfile
from typing import TYPE_CHECKING, Any

import attrs
import click

from tom_connect.cli.options import Invocation, tom_command

if TYPE_CHECKING:
    from tom_connect.cli.node import Clock
    from tom_connect.cli.progress import ProgressDisplay, TransferProgress
    from tom_connect.cli.stdio import Stdin
    from tom_connect.incoming import Incoming
    from tom_connect.keys import NodeId
    from tom_connect.transfer import Manifest, TransferResult

MAX_SENDERS = 8
"""Nodes that may offer something at the same time; more are refused."""
OFFER_LIMIT = 30.0
"""Seconds that a node which has connected may take to offer something: it does so at once."""

SILENCE = 5.0
"""Seconds without a byte after which a transfer gives way to another: its sender may have been killed, and tries again.
Without another it goes on for as long as the connection lives, which outlasts a loss of the network."""


@tom_command("receive")
@click.option(
    "--into",
    type=click.Path(path_type=pathlib.Path, file_okay=False),
    default=pathlib.Path(),
    help="Folder in which files are put; made if it is missing. Default: the current one.",
)
@click.option("--overwrite", is_flag=True, help="Replace files that have the name of a received one.")
@click.option("--from", "senders", multiple=True, metavar="NODE_ID", help="Take files of this node; repeatable.")
@click.option("--yes", "-y", is_flag=True, help="Take whatever is offered without asking.")
@click.option("--keep-open", "-k", is_flag=True, help="Wait for the next transfer when one has ended.")
async def command(
    run: Invocation, into: pathlib.Path, overwrite: bool, senders: tuple[str, ...], yes: bool, keep_open: bool
) -> None:
    """Wait for a file or folder that a node sends.

    Shows our node id; the other side runs `send PATH NODE_ID`. On a terminal you are asked before anything is taken,
    unless you gave --yes or said --from whom; without a terminal, or with --json, one of the two is needed. The command
    ends when one transfer has ended, unless --keep-open.

    Every file is verified by SHA-256. No file is overwritten: a new one whose name is taken becomes `NAME (1)`, unless
    you gave --overwrite; one with the same content is not received again. A transfer that broke off leaves
    NAME.tom-part, and resumes when it is sent again.
    """
    from tom_connect.cli.node import PING_ALPN, Clock, only_from, serve, told
    from tom_connect.cli.progress import ProgressDisplay
    from tom_connect.cli.stdio import Stdin
    from tom_connect.endpoint import Endpoint
    from tom_connect.keys import NodeId
    from tom_connect.transfer import ALPN

    allowed = frozenset(map(NodeId.parse, senders))
    stdin = Stdin()
    asks = not (yes or allowed or run.output.json) and stdin.is_terminal
    if not (yes or allowed or asks):
        raise click.UsageError(
            "there is nobody to ask, and strangers could send: say --from NODE_ID, or --yes for anyone"
        )
    _check_place(into)
    async with Endpoint.bind(run.endpoint_config(alpns=(ALPN, PING_ALPN))) as endpoint:
        clock = Clock()
        async with told(run, endpoint, clock, doing="Receiving", command="send PATH"):
            with ProgressDisplay(run) as display:
                receiving = _Receiving(
                    run, clock, display, stdin if asks else None, into, overwrite=overwrite, keep_open=keep_open
                )
                serving = asyncio.create_task(serve(endpoint, only_from(allowed, receiving.handle)), name="serving")
                try:
                    await asyncio.wait((serving, receiving.ended), return_when=asyncio.FIRST_COMPLETED)
                    if serving.done():
                        serving.result()
                    receiving.ended.result()
                finally:
                    serving.cancel()
                    await asyncio.gather(serving, return_exceptions=True)


def _check_place(into: pathlib.Path) -> None:
    """Refuse a folder in which nothing can be stored, before anybody sends; makes nothing that stays."""
    there = next((place for place in (into, *into.absolute().parents) if place.exists()), into)
    try:
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as exc:
        raise click.BadParameter(f"can't write in {there}: {exc.strerror or exc}", param_hint="--into") from None


@attrs.define(eq=False)
class _Taking:
    """One transfer that was agreed to. `heard`: when something came last; `news` is set when something comes."""

    manifest: Manifest
    progress: TransferProgress
    sender: NodeId
    task: asyncio.Task[Any] | None
    heard: float | None = None
    news: asyncio.Event = attrs.Factory(asyncio.Event)

    def hear(self) -> None:
        """Something came."""
        self.heard = asyncio.get_running_loop().time()
        self.news.set()

    async def is_silent(self) -> bool:
        """Whether nothing comes for SILENCE seconds, counted from the last that came; waits until it is known."""
        if self.heard is None:  # what we have of the files is still being read: the sender has nothing to say
            return False
        self.news.clear()
        try:
            async with asyncio.timeout_at(self.heard + SILENCE):
                await self.news.wait()
        except TimeoutError:
            return True
        return False


class _Receiving:
    """Takes one transfer after the other, or several at once with `keep_open`; else `ended` has the outcome of one."""

    def __init__(
        self,
        run: Invocation,
        clock: Clock,
        display: ProgressDisplay,
        stdin: Stdin | None,
        into: pathlib.Path,
        *,
        overwrite: bool,
        keep_open: bool,
    ) -> None:
        self._run = run
        self._clock = clock
        self._display = display
        self._stdin = stdin
        self._into = into
        self._overwrite = overwrite
        self._keep_open = keep_open
        self._senders = 0
        self._asking = asyncio.Lock()
        self._taking: list[_Taking] = []
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def handle(self, incoming: Incoming) -> None:
        """Receive over one connection."""
        from tom_connect.exceptions import TomError

        if self._senders >= MAX_SENDERS or self.ended.done():
            incoming.refuse("busy with another transfer")
            return
        self._senders += 1
        taking: list[_Taking] = []
        try:
            if not self._keep_open and not await self._make_way(self._taking):
                incoming.refuse("busy with another transfer")
                return
            await self._receive(incoming, taking)
        except TomError as exc:
            if taking and not self._keep_open:
                self.ended.set_exception(exc)
                return
            # Whoever fails before we agreed to anything must not end the command: it may be a stranger.
            self._run.output.event(
                "failed",
                f"Nothing received from {incoming.remote_node_id.short()}…: {exc}",
                node_id=incoming.remote_node_id,
                error=type(exc).__name__,
                message=str(exc),
                at=self._clock.at,
            )
        else:
            if not self._keep_open:
                self.ended.set_result(None)
        finally:
            self._senders -= 1
            for one in taking:
                one.progress.end()
                self._taking.remove(one)

    async def _make_way(self, others: list[_Taking]) -> bool:
        """End those transfers that are silent; whether none is left."""
        for other in list(others):
            if not await other.is_silent():
                return False
            if other.task is not None and other in self._taking:
                self._run.output.event(
                    "failed",
                    f"Gave up the transfer from {other.sender.short()}…, silent for {SILENCE:g} s, for a new one",
                    node_id=other.sender,
                    error="TransferInterruptedError",
                    message=f"silent for {SILENCE:g} s while another began; what arrived is kept",
                    at=self._clock.at,
                )
                other.task.cancel()
                await asyncio.wait((other.task,))
        return True

    async def _receive(self, incoming: Incoming, taking: list[_Taking]) -> None:
        from tom_connect.transfer import Progress, receive

        async def decide(manifest: Manifest) -> bool:
            if not await self._is_wanted(incoming.remote_node_id, manifest):
                return False
            progress = self._display.start(node_id=incoming.remote_node_id, name=manifest.name)
            progress.begin()
            taking.append(_Taking(manifest, progress, incoming.remote_node_id, asyncio.current_task()))
            self._taking += taking
            return True

        def tell(progress: Progress) -> None:
            taking[0].hear()
            taking[0].progress(progress)

        connection = await incoming.accept()
        async with connection:
            result = await receive(
                connection,
                self._into,
                overwrite=self._overwrite,
                decide=decide,
                on_progress=tell,
                offer_timeout=OFFER_LIMIT,
            )
        taking[0].progress.end()
        self._say_received(incoming.remote_node_id, result, taking[0].progress)

    async def _is_wanted(self, sender: NodeId, manifest: Manifest) -> bool:
        from tom_connect.cli.wording import what

        self._run.output.event(
            "offer",
            f"{sender.short()}… offers {what(manifest)}",
            node_id=sender,
            name=manifest.name,
            files=manifest.file_count,
            size=manifest.total_size,
            at=self._clock.at,
        )
        async with self._asking:
            same = [taking for taking in self._taking if not self._keep_open or taking.manifest.name == manifest.name]
            if not await self._make_way(same) and not self._keep_open:
                return False
            if self.ended.done():
                return False
            if self._stdin is None:
                return True
            self._run.output.note(f"Take {what(manifest)} from {sender}? [y/N]")
            answer = await self._stdin.read()
            return answer.strip().lower() in (b"y", b"yes")

    def _say_received(self, sender: NodeId, result: TransferResult, progress: TransferProgress) -> None:
        from tom_connect.cli.wording import moved, what

        manifest = result.manifest
        self._run.output.event(
            "received",
            f"Received {what(manifest)} as {result.place}, {moved(result, progress)}; every SHA-256 verified",
            node_id=sender,
            name=manifest.name,
            place=result.place,
            files=manifest.file_count,
            size=manifest.total_size,
            moved=result.moved,
            had=result.had,
            seconds=round(progress.seconds, 3),
            bytes_per_second=round(progress.rate(result.moved)),
            sha256=result.sha256,
            at=self._clock.at,
        )
