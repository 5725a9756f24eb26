"""`tom-connect pkarr`: run a Pkarr relay."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import attrs
import click

from tom_connect.cli.options import Invocation, tom_command
from tom_connect.config import OptionSpec
from tom_connect.config.schema import section_options
from tom_connect.exceptions import ConfigError
from tom_pkarr.server.config import SECTION, PkarrServerConfig

F = TypeVar("F", bound=Callable[..., Any])


@click.group("pkarr")
def pkarr() -> None:
    """Host a Pkarr relay: nodes publish their addresses to it, and others find them there."""


def _flag(spec: OptionSpec) -> str:
    return "--" + spec.field.replace("_", "-")


def _parameter(spec: OptionSpec) -> str:
    return f"pkarr_{spec.field}"


def _own_options() -> list[OptionSpec]:
    # `--bootstrap` is one of the options that all commands share.
    return [spec for spec in section_options(SECTION, PkarrServerConfig) if spec.field != "bootstrap"]


def _server_options(function: F) -> F:
    """An option for each field of the configuration, in its order."""
    for spec in reversed(_own_options()):
        shown = spec.help + (f"; one of {', '.join(spec.type.words)}" if spec.type.words else "")
        text = shown[:1].upper() + shown[1:] + ("; repeatable" if spec.many else "") + "."
        function = click.option(
            _flag(spec), _parameter(spec), default=None, multiple=spec.many, type=click.UNPROCESSED, help=text
        )(function)
    return function


def configured(
    base: PkarrServerConfig, given: Mapping[str, Any], *, dev: bool, is_default: Callable[[str], bool]
) -> PkarrServerConfig:
    """`base` (from file and environment) with what the command line gave; raises ConfigError naming the option.

    `dev`: bind to 127.0.0.1 alone and use no DHT, where neither is configured; `is_default`: whether a field is not.
    """
    fields: dict[str, Any] = {}
    if dev:
        local = PkarrServerConfig.dev()
        fields = {name: getattr(local, name) for name in ("listen", "dht") if is_default(name)}
    for spec in _own_options():
        value = given.get(_parameter(spec))
        if value is None or value == ():
            continue
        try:
            fields[spec.field] = spec.from_value(value)
        except ConfigError as exc:
            raise ConfigError(f"{_flag(spec)}: {exc}") from None
    return attrs.evolve(base, **fields)


@tom_command("serve")
@click.option("--dev", is_flag=True, help="For development: 127.0.0.1:6882, no DHT.")
@_server_options
async def serve(run: Invocation, dev: bool, **given: Any) -> None:
    """Run a Pkarr relay until interrupted.

    It keeps signed packets and gives them to whoever asks; with tom-dht-mainline installed it also looks in the
    Mainline DHT for what it misses and publishes there what it takes. Every option can also stand in the table
    [pkarr_server] of the configuration file, or in TOM_CONNECT_PKARR_SERVER_*.
    """
    from tom_pkarr.server.server import PkarrRelay

    base = run.config.plugin_configs.get(SECTION)
    base = base if isinstance(base, PkarrServerConfig) else PkarrServerConfig()

    def is_default(name: str) -> bool:
        return run.loaded.entry(f"{SECTION}.{name}").origin == "default"

    config = configured(base, given, dev=dev, is_default=is_default)
    # The options of the DHT plugin, if there is one, name its first nodes.
    bootstrap = getattr(run.config.plugin_configs.get("dht"), "bootstrap", None)
    async with PkarrRelay(config, bootstrap=bootstrap) as relay:
        addrs = [str(addr) for addr in relay.addrs]
        dht = relay.dht is not None
        run.output.event(
            "serving",
            f"Pkarr relay {relay.url} on {', '.join(addrs)}, {'with' if dht else 'without'} the DHT behind it",
            url=relay.url,
            addrs=addrs,
            dht=dht,
        )
        if relay.dht_missing is not None:
            run.output.note(f"No DHT behind the relay: {relay.dht_missing}; --dht off says that none is wanted")
        if not dev:
            run.output.note(f"Plain HTTP on {', '.join(addrs)}; put a TLS proxy before it")
        await asyncio.Event().wait()


pkarr.add_command(serve)
