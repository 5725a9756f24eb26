"""`tom-connect send`: give a file or folder to a node."""

from __future__ import annotations

import pathlib
from typing import TYPE_CHECKING

import click

from tom_connect.cli.options import Invocation, tom_command

if TYPE_CHECKING:
    from tom_connect.cli.progress import TransferProgress
    from tom_connect.transfer import Source, TransferResult


@tom_command("send")
@click.argument("path", type=click.Path(path_type=pathlib.Path))
@click.argument("node")
async def command(run: Invocation, path: pathlib.Path, node: str) -> None:
    """Send the file or folder PATH to NODE, which runs `receive`.

    NODE is the node id that `receive` shows, or a ticket. Every file is verified by SHA-256 on arrival. A transfer that
    broke off resumes when it is sent again. Symbolic links and devices in a folder are left out. To have a name that
    the receiver can know (its option --from), give a --secret-key-file.
    """
    from tom_connect.cli.node import Clock, Dialer
    from tom_connect.cli.progress import ProgressDisplay
    from tom_connect.endpoint import Endpoint
    from tom_connect.tickets import parse_target
    from tom_connect.transfer import ALPN, scan, send
    from tom_connect.transfer.threads import in_thread

    target = parse_target(node)
    source = await in_thread(scan, path)
    for skipped in source.skipped:
        run.output.event("skipped", f"Left out, since it is no file or folder: {skipped}", path=skipped)
    async with Endpoint.bind(run.endpoint_config(identity="fresh")) as endpoint:
        dialer = Dialer(run, endpoint, Clock())
        connection = await dialer.dial(target, ALPN)
        with ProgressDisplay(run) as display:
            async with dialer.following(connection):
                _say_offer(run, source)
                progress = display.start()
                result = await send(connection, source, on_progress=progress)
                progress.end()
        _say_sent(run, result, progress)


def _say_offer(run: Invocation, source: Source) -> None:
    from tom_connect.cli.wording import what

    manifest = source.manifest
    run.output.event(
        "offered",
        f"Offering {what(manifest)}; the other side may have to agree",
        name=manifest.name,
        files=manifest.file_count,
        size=manifest.total_size,
    )


def _say_sent(run: Invocation, result: TransferResult, progress: TransferProgress) -> None:
    from tom_connect.cli.wording import moved, what

    manifest = result.manifest
    run.output.event(
        "sent",
        f"Sent {what(manifest)}, {moved(result, progress)}; verified by the other side",
        name=manifest.name,
        files=manifest.file_count,
        size=manifest.total_size,
        moved=result.moved,
        had=result.had,
        seconds=round(progress.seconds, 3),
        bytes_per_second=round(progress.rate(result.moved)),
        sha256=result.sha256,
    )
