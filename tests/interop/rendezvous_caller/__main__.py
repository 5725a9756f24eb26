"""The caller's command line: `python -m tests.interop.rendezvous_caller NODEID --bootstrap HOST:PORT`."""

import argparse
import asyncio
import sys

from tests.interop.rendezvous_parts.disco import Addr

from .caller import Caller, Options

_CALLS = {"as-needed": None, "announced": False, "sealed": True}


def _addr(text: str) -> Addr:
    host, _, port = text.rpartition(":")
    return host, int(port)


def _options() -> tuple[Options, float]:
    parser = argparse.ArgumentParser(description="Call a node through the DHT, and end with its first pong.")
    parser.add_argument("node_id", help="64 hex digits")
    parser.add_argument("--bootstrap", type=_addr, action="append", required=True, metavar="HOST:PORT")
    parser.add_argument("--bind", type=_addr, default=("0.0.0.0", 0), metavar="HOST:PORT")
    parser.add_argument("--seed", type=bytes.fromhex, help="the caller's key: 64 hex digits")
    parser.add_argument("--call", choices=list(_CALLS), default="as-needed", help="sealed: that and nothing else")
    parser.add_argument("--blind", action="store_true", help="forget the record: find the callee by its knock alone")
    parser.add_argument("--patience", type=float, default=90.0, metavar="SECONDS")
    args = parser.parse_args()
    options = Options(
        bytes.fromhex(args.node_id),
        args.bootstrap,
        args.bind,
        announce=args.call != "sealed",
        sealed=_CALLS[args.call],
        blind=args.blind,
    )
    if args.seed is not None:
        options.seed = args.seed
    return options, args.patience


async def _main() -> int:
    options, patience = _options()
    try:
        addr, seconds = await Caller(options, lambda line: print(line, file=sys.stderr, flush=True)).run(patience)
    except TimeoutError:
        print(f"no pong within {patience:.0f} s")
        return 1
    except LookupError as error:
        print(error)
        return 1
    print(f"pong from {addr[0]}:{addr[1]} after {seconds:.2f}")
    return 0


sys.exit(asyncio.run(_main()))
