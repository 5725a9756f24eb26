"""How a command is written, and the options that all commands share.

    # tom_connect/cli/ping.py
    import click
    from tom_connect.cli.options import Invocation, tom_command

    @tom_command("ping")
    @click.argument("target")
    @click.option("--count", default=4, help="How many pings to send.")
    async def command(run: Invocation, target: str, count: int) -> None:
        '''Measure the round trip to a node.'''
        from tom_connect.endpoint import Endpoint            # slow modules are imported when they are needed

        async with await Endpoint.bind(run.endpoint_config(identity="fresh")) as endpoint:
            ...
            run.output.event("pong", f"pong {seq}: {rtt:.1f} ms", seq=seq, rtt_ms=rtt)

`run.output` prints; `run.endpoint_config()` is what file, environment and options say. To fail, raise a TomError
(exit code 1), InvalidInputError (2) or click.UsageError (2); Ctrl-C cancels the coroutine. A command that is not in the
table of `tom_connect.cli.main` is added by a plugin's hook `tom_cli_commands`, with the same decorator.
"""

from __future__ import annotations

import inspect
import math
import os
import pathlib
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, Literal

import attrs
import click

from tom_connect.cli.output import Output
from tom_connect.cli.run import logging_to_stderr, run_async
from tom_connect.config import Argument, EndpointConfig, LoadedConfig, OptionSpec, load_config, plugin_selection
from tom_connect.config.checks import home_expanded
from tom_connect.config.schema import endpoint_options, section_options
from tom_connect.exceptions import ConfigError
from tom_connect.plugins import PluginCatalog, PluginHost

LOG_LEVELS = ("debug", "info", "warning", "error")
_META = "tom_connect.cli"
DataOnStdout = bool | Literal["unless-json"]


@attrs.define
class Surroundings:
    """What commands are run in; the `obj` of every click context. Tests give their own."""

    environ: Mapping[str, str] = attrs.Factory(lambda: os.environ)
    catalog: PluginCatalog | None = None
    data_on_stdout: bool = attrs.field(default=False, init=False)
    """Whether the command that was found prints data on standard output, so that errors must not stand there."""
    _hosts: dict[pathlib.Path | None, PluginHost] = attrs.Factory(dict)

    def host(self, config_file: pathlib.Path | None = None) -> PluginHost:
        """The plugins, loaded for their options and commands as the configuration file selects them."""
        if config_file not in self._hosts:
            try:
                selection = plugin_selection(config_file, self.environ)
            except ConfigError:  # told when the whole file is read; help must work without it
                selection = EndpointConfig()
            self._hosts[config_file] = PluginHost.load(selection, catalog=self.catalog, environ=self.environ)
        return self._hosts[config_file]


@attrs.define
class _Parsed:
    """What the shared options of one command line said."""

    arguments: dict[str, Argument] = attrs.Factory(dict)
    bootstrap: tuple[str, ...] = ()
    config_file: pathlib.Path | None = None
    log_level: str = "warning"
    json: bool = False


@attrs.frozen
class Invocation:
    """One run of a command: where it prints, and what was asked for beside its own arguments."""

    output: Output
    loaded: LoadedConfig
    host: PluginHost
    """The plugins as the command line knows them; an endpoint loads its own."""

    @property
    def config(self) -> EndpointConfig:
        """The configuration in effect, without what the command itself sets."""
        return self.loaded.endpoint

    def endpoint_config(self, *, identity: Literal["kept", "fresh"] = "kept", **fields: Any) -> EndpointConfig:
        """The configuration for an endpoint, with `fields` (such as `alpns`) set and the secret key read.

        `identity`: the key is that of `--secret-key-file` if given; else "kept" reads or makes the user's key file,
        and "fresh" makes a new key, for commands that dial and need no name. Raises KeyFileError.
        """
        from tom_connect.keys import SecretKey

        if identity == "fresh" and self.config.secret_key_file is None:
            key = SecretKey.generate()
        else:
            from tom_connect.keyfile import load_or_create_secret_key

            key = load_or_create_secret_key(self.config.secret_key_file)
        return attrs.evolve(self.config, **{"secret_key": key, "secret_key_file": None, **fields})


def tom_command(
    name: str, *, data_on_stdout: DataOnStdout = False, **attributes: Any
) -> Callable[[Callable[..., Coroutine[Any, Any, None]]], click.Command]:
    """Make a click command of `async def f(run: Invocation, ...)`, with the shared options and those of plugins.

    `data_on_stdout`: standard output carries data, so events go to standard error; "unless-json": with --json it
    carries events, and the command puts its data into them. `attributes`: of click.Command.
    """

    def decorate(function: Callable[..., Coroutine[Any, Any, None]]) -> click.Command:
        def callback(**own: Any) -> None:
            _invoke(click.get_current_context(), function, own)

        callback.__doc__ = inspect.getdoc(function)
        callback.__click_params__ = getattr(function, "__click_params__", [])  # type: ignore[attr-defined]
        command = click.command(name, cls=TomCommand, **attributes)(callback)
        command.data_on_stdout = data_on_stdout
        return command

    return decorate


def _invoke(ctx: click.Context, function: Callable[..., Any], own: Mapping[str, Any]) -> None:
    parsed = _parsed(ctx)
    surroundings = ctx.ensure_object(Surroundings)
    output = Output(json=parsed.json, data_on_stdout=surroundings.data_on_stdout)
    with logging_to_stderr(parsed.log_level):
        host = surroundings.host(parsed.config_file)
        loaded = load_config(
            sections=host.config_classes,
            unavailable=host.unavailable,
            file=parsed.config_file,
            environ=surroundings.environ,
            arguments=parsed.arguments | _bootstrap_arguments(parsed, host),
        )
        run_async(lambda: function(Invocation(output, loaded, host), **own))


def _bootstrap_arguments(parsed: _Parsed, host: PluginHost) -> dict[str, Argument]:
    """`--bootstrap` says the option `bootstrap` of every plugin that has one."""
    if not parsed.bootstrap:
        return {}
    names = [
        spec.name
        for section, cls in host.config_classes.items()
        for spec in section_options(section, cls)
        if spec.field == "bootstrap"
    ]
    if not names:
        raise ConfigError("--bootstrap: no plugin in use takes it; 'tom-connect plugins' shows what is installed")
    return {name: Argument((*_earlier(parsed.arguments.get(name)), *parsed.bootstrap), "--bootstrap") for name in names}


def _earlier(argument: Argument | None) -> tuple[str, ...]:
    return tuple(argument.value) if argument is not None else ()


def _parsed(ctx: click.Context) -> _Parsed:
    found = ctx.meta.setdefault(_META, _Parsed())
    assert isinstance(found, _Parsed)
    return found


class TomCommand(click.Command):
    """A command with the shared options, and those that plugins registered."""

    data_on_stdout: DataOnStdout = False

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Learn which configuration file selects plugins before their options are read."""
        own = args[: args.index("--")] if "--" in args else args
        carries_events = self.data_on_stdout == "unless-json" and "--json" in own
        ctx.ensure_object(Surroundings).data_on_stdout = bool(self.data_on_stdout) and not carries_events
        _parsed(ctx).config_file = _config_file_in(args)
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as exc:
            raise self._explained(ctx, exc) from None

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        """The command's own options, then the shared ones, then those of plugins."""
        return [*super().get_params(ctx), *shared_options(), *self._plugin_options(ctx)]

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Show each kind of options under its own heading."""
        sections: dict[str, list[tuple[str, str]]] = {"Options": []}
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx)
            if record is not None:
                sections.setdefault(getattr(param, "heading", "Options"), []).append(record)
        for heading, records in sections.items():
            if records:
                with formatter.section(heading):
                    formatter.write_dl(records)

    def _plugin_options(self, ctx: click.Context) -> list[click.Parameter]:
        host = ctx.ensure_object(Surroundings).host(_parsed(ctx).config_file)
        return [
            _config_option(spec, f"Options of plugin section [{section}]")
            for section, cls in host.config_classes.items()
            for spec in section_options(section, cls)
            if spec.on_cli
        ]

    def _explained(self, ctx: click.Context, exc: click.NoSuchOption) -> click.NoSuchOption:
        """Say so if the option is one of a plugin that can't be used."""
        name = exc.option_name.lstrip("-")
        for info in ctx.ensure_object(Surroundings).host(_parsed(ctx).config_file).infos:
            if info.state != "loaded" and name.startswith(info.name.lower().replace("_", "-") + "-"):
                message = f"No such option: {exc.option_name} (plugin {info.name} is {info.state}: {info.reason})"
                return click.NoSuchOption(exc.option_name, message=message, ctx=exc.ctx)
        return exc


class FiniteFloat(click.FloatRange):
    """A number in a range; `nan`, which is in every range, and `inf` are none."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Read it; raises click.BadParameter."""
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value!r} is not a finite number", param, ctx)
        return number


class _HeadedOption(click.Option):
    """An option that help shows under a heading of its own."""

    heading = "Shared options"


def _config_option(spec: OptionSpec, heading: str) -> click.Option:
    def remember(ctx: click.Context, _param: click.Parameter, value: Any) -> None:
        if value is not None and value != ():
            _parsed(ctx).arguments[spec.name] = Argument(value, spec.flag)

    shown = spec.help + (f"; one of {', '.join(spec.type.words)}" if spec.type.words else "")
    text = (shown[:1].upper() + shown[1:] + ("; repeatable" if spec.many else "") + ".") if shown else ""
    is_flag = spec.type.is_flag and not spec.many and not spec.optional
    option = _HeadedOption(
        [f"{spec.flag}/--no-{spec.flag[2:]}" if is_flag else spec.flag, _parameter_name(spec)],
        # Flags are three-valued: what is not given leaves the decision to environment and file.
        default=None,
        is_flag=is_flag or None,
        type=None if is_flag else click.UNPROCESSED,
        metavar=None if is_flag else _metavar(spec),
        multiple=spec.many,
        expose_value=False,
        callback=remember,
        help=text,
    )
    option.heading = heading
    return option


def _parameter_name(spec: OptionSpec) -> str:
    return "config_" + spec.name.replace(".", "__")


def _metavar(spec: OptionSpec) -> str:
    if spec.type.words:
        return "|".join(spec.type.words)
    return {"a whole number": "N", "a number": "N", "a path": "PATH"}.get(spec.type.expected, "TEXT")


def shared_options() -> list[click.Parameter]:
    """The options of every command, without those of plugins."""
    options: list[click.Parameter] = [
        _config_option(spec, "Shared options") for spec in endpoint_options() if spec.on_cli
    ]
    return [
        *options,
        _simple("--bootstrap", "First node of the DHT, HOST:PORT; repeatable.", multiple=True, metavar="TEXT"),
        _simple("--config", "Configuration file.", envvar="TOM_CONNECT_CONFIG", metavar="PATH", name="config_file"),
        _simple(
            "--log-level",
            "What is logged on standard error.",
            envvar="TOM_CONNECT_LOG_LEVEL",
            type=click.Choice(LOG_LEVELS, case_sensitive=False),
            default="warning",
        ),
        _simple("--json", "Print one JSON object a line.", is_flag=True, default=False),
    ]


def _simple(flag: str, help: str, *, name: str | None = None, **attributes: Any) -> click.Option:  # noqa: A002
    attribute = name or flag.lstrip("-").replace("-", "_")

    def remember(ctx: click.Context, _param: click.Parameter, value: Any) -> None:
        if attribute == "config_file":
            value = home_expanded(value) if value else None
        setattr(_parsed(ctx), attribute, value)

    return _HeadedOption([flag, f"shared_{attribute}"], help=help, expose_value=False, callback=remember, **attributes)


def _config_file_in(args: Sequence[str]) -> pathlib.Path | None:
    found = None
    for position, arg in enumerate(args):
        if arg == "--":
            break
        if arg.startswith("--config="):
            found = arg.partition("=")[2]
        elif arg == "--config" and position + 1 < len(args):
            found = args[position + 1]
    return home_expanded(found) if found else None
