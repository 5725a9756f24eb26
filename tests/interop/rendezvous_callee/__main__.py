"""The callee's command line: `python -m tests.interop.rendezvous_callee --bootstrap HOST:PORT`."""

import argparse
import asyncio
import contextlib
import sys

from tests.interop.rendezvous_parts.disco import Addr

from .callee import Callee, Options


def _addr(text: str) -> Addr:
    host, _, port = text.rpartition(":")
    return host, int(port)


def _options() -> tuple[Options, float]:
    parser = argparse.ArgumentParser(description="Be reachable through the DHT until a caller's QUIC comes.")
    parser.add_argument("--bootstrap", type=_addr, action="append", required=True, metavar="HOST:PORT")
    parser.add_argument("--bind", type=_addr, default=("0.0.0.0", 0), metavar="HOST:PORT")
    parser.add_argument("--seed", type=bytes.fromhex, help="the callee's key: 64 hex digits")
    parser.add_argument(
        "--contact", type=bytes.fromhex, metavar="NODEID", help="a caller that may look in the pair's places"
    )
    parser.add_argument("--contacts-only", action="store_true", help="leave nothing for anybody else")
    parser.add_argument("--patience", type=float, default=90.0, metavar="SECONDS")
    args = parser.parse_args()
    options = Options(args.bootstrap, args.bind, contact=args.contact, contacts_only=args.contacts_only)
    if args.seed is not None:
        options.seed = args.seed
    return options, args.patience


async def _tell_when_invited(callee: Callee) -> None:
    await callee.invited.wait()
    print(f"invited {callee.node_id.hex()}", flush=True)


async def _main() -> int:
    options, patience = _options()
    callee = Callee(options, lambda line: print(line, file=sys.stderr, flush=True))
    telling = asyncio.create_task(_tell_when_invited(callee))
    try:
        async with asyncio.timeout(patience):
            met = await callee.run()
    except TimeoutError:
        print(f"no caller within {patience:.0f} s")
        return 1
    except LookupError as error:
        print(error)
        return 1
    finally:
        telling.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await telling
    print(f"met {met.node_id.hex()} at {met.addr[0]}:{met.addr[1]} after {met.after:.2f}")
    return 0


sys.exit(asyncio.run(_main()))
