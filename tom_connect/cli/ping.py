"""`tom-connect ping`: how far a node is."""

from __future__ import annotations

import asyncio
import struct
from typing import TYPE_CHECKING

import attrs
import click

from tom_connect.cli.options import FiniteFloat, Invocation, tom_command

if TYPE_CHECKING:
    from tom_connect.streams import BiStream

LOST_AFTER = 10.0
"""Seconds after which an answer counts as lost: longer than any sane round trip and a change of path together."""
_SEQ = struct.Struct(">Q")


@attrs.define
class Tally:
    """What was sent and what came back."""

    sent: int = 0
    rtts: list[float] = attrs.Factory(list)

    def say(self, run: Invocation, path: str | None) -> None:
        """Print the `summary`."""
        lost = 1 - len(self.rtts) / self.sent if self.sent else 0.0
        low, mean, high = (
            (min(self.rtts), sum(self.rtts) / len(self.rtts), max(self.rtts)) if self.rtts else (None,) * 3
        )
        text = f"{self.sent} sent, {len(self.rtts)} answered"
        if low is not None and mean is not None and high is not None:
            text += f"; round trip {low:.2f} / {mean:.2f} / {high:.2f} ms (shortest / mean / longest)"
        run.output.event(
            "summary",
            text,
            sent=self.sent,
            received=len(self.rtts),
            loss=round(lost, 4),
            rtt_min_ms=_rounded(low),
            rtt_mean_ms=_rounded(mean),
            rtt_max_ms=_rounded(high),
            path=path,
        )


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)


@tom_command("ping")
@click.argument("node")
@click.option("--count", type=click.IntRange(min=0), default=4, show_default=True, help="How many; 0: until Ctrl-C.")
@click.option(
    "--interval", type=FiniteFloat(min=0.0), default=1.0, show_default=True, help="Seconds between two of them."
)
async def command(run: Invocation, node: str, count: int, interval: float) -> None:
    """Measure the round trip to NODE, which runs `listen` or `receive`.

    NODE is a node id or a ticket. Shows how the node was found, which path leads to it, and each change of path.
    """
    from tom_connect.cli.node import PING_ALPN, Clock, Dialer, active_path
    from tom_connect.endpoint import Endpoint
    from tom_connect.tickets import parse_target

    target = parse_target(node)
    async with Endpoint.bind(run.endpoint_config(identity="fresh")) as endpoint:
        dialer = Dialer(run, endpoint, Clock())
        connection = await dialer.dial(target, PING_ALPN)
        tally = Tally()
        kind: str | None = None
        try:
            async with dialer.following(connection):
                stream = await connection.open_bi()
                loop = asyncio.get_running_loop()
                while not count or tally.sent < count:
                    if tally.sent:
                        await asyncio.sleep(interval)
                    tally.sent += 1
                    began = loop.time()
                    try:
                        async with asyncio.timeout(LOST_AFTER):
                            await round_trip(stream, tally.sent)
                    except TimeoutError:
                        text = f"No answer to ping {tally.sent} in {LOST_AFTER:g} s"
                        run.output.event("lost", text, seq=tally.sent)
                        continue
                    rtt = (loop.time() - began) * 1000
                    tally.rtts.append(rtt)
                    active = active_path(connection)
                    kind = active.kind if active is not None else None
                    run.output.event(
                        "pong",
                        f"Answer {tally.sent} after {rtt:.2f} ms" + (f" ({kind} path {active.addr})" if active else ""),
                        seq=tally.sent,
                        rtt_ms=round(rtt, 3),
                        path=kind,
                    )
                stream.finish()
        finally:
            tally.say(run, kind)


async def round_trip(stream: BiStream, seq: int) -> None:
    """Send a number and wait until it comes back; earlier ones that come late are passed over."""
    from tom_connect.exceptions import ProtocolError

    stream.write(_SEQ.pack(seq))
    while True:
        try:
            (answer,) = _SEQ.unpack(await stream.readexactly(_SEQ.size))
        except asyncio.IncompleteReadError:
            raise ProtocolError("the node stopped answering pings") from None
        if answer == seq:
            return
        if answer > seq:
            raise ProtocolError("the node answered a ping that was not sent")
