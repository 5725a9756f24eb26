"""Prints a line of JSON for each change of the network that it is in: run inside a namespace, `netlink` or `poll`."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tom_connect.netreport.interfaces import network_state
from tom_connect.netreport.netwatch import netlink
from tom_connect.netreport.netwatch.core import NetworkChange
from tom_connect.netreport.netwatch.shell import NetworkWatch


def told(change: NetworkChange) -> None:
    print(json.dumps({"major": change.major, "why": change.why, "slept": change.slept}), flush=True)


async def main(how: str) -> None:
    watch = NetworkWatch(
        told, network_state(), wake=netlink.open_netlink if how == "netlink" else lambda: None, poll=0.2, check=0.1
    )
    running = asyncio.create_task(watch.run())
    await watch.listening.wait()
    print(json.dumps({"listening": True}), flush=True)
    await running


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
