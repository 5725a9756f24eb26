"""The configuration in effect: defaults < file < environment < arguments, with the origin of each value."""

from __future__ import annotations

import difflib
import logging
import os
import pathlib
import re
import tomllib
from collections.abc import Iterable, Mapping
from typing import Any

import attrs

from tom_connect.config.checks import home_expanded
from tom_connect.config.endpoint import EndpointConfig
from tom_connect.config.schema import ENV_PREFIX, OptionSpec, endpoint_options, section_options
from tom_connect.exceptions import ConfigError

logger = logging.getLogger("tom_connect.config")

CONFIG_VARIABLE = "TOM_CONNECT_CONFIG"
# Variables of the command line, read elsewhere.
OTHER_VARIABLES = (CONFIG_VARIABLE, "TOM_CONNECT_LOG_LEVEL")
MAX_FILE_BYTES = 1 << 20
"""A configuration larger than this is some other file."""


@attrs.frozen
class ConfigEntry:
    """One option as it is in effect.

    `origin`: "default", "file PATH, line N", "environment NAME", "argument", or the name of a command-line option;
    `env` and `flag`: where else it can be given (`flag` is None for an option that is not on the command line).
    """

    name: str
    value: Any
    origin: str
    env: str
    flag: str | None


@attrs.frozen
class LoadedConfig:
    """The outcome of `load_config`: the configuration and where each of its values comes from."""

    endpoint: EndpointConfig
    entries: tuple[ConfigEntry, ...]

    def entry(self, name: str) -> ConfigEntry:
        """The entry of an option by its TOML name, such as `dht.bootstrap`; raises KeyError."""
        return next((entry for entry in self.entries if entry.name == name), None) or _missing(name)


def _missing(name: str) -> ConfigEntry:
    raise KeyError(name)


@attrs.frozen
class Argument:
    """A value given by a caller, and what it is called there, such as `--bind`."""

    value: Any
    origin: str = "argument"


def default_config_file() -> pathlib.Path:
    """Where the configuration file is unless another is named: `config.toml` in the platform's directory."""
    import platformdirs  # only needed by those who name no file

    return platformdirs.user_config_path("tom-connect", appauthor=False) / "config.toml"


def load_config(
    *,
    sections: Mapping[str, type[Any]] | None = None,
    unavailable: Iterable[str] = (),
    file: pathlib.Path | None = None,
    environ: Mapping[str, str] | None = None,
    arguments: Mapping[str, Argument] | None = None,
    **fields: Any,
) -> LoadedConfig:
    """The configuration in effect; raises ConfigError that says where a value stands and what is allowed there.

    `sections`: classes that plugins registered (`PluginHost.config_classes`); `unavailable`: plugins not in use,
    whose tables and variables can't be checked and are passed over; `file`: a TOML file, by default
    `$TOM_CONNECT_CONFIG` or `default_config_file()`, which may be missing then; `environ`: by default that of the
    process; `arguments`: by TOML name; `fields`: of EndpointConfig, for what only programs set, such as `alpns`.
    """
    environ = os.environ if environ is None else environ
    options = {spec.name: spec for spec in endpoint_options()}
    classes = dict(sections or {})
    for section, cls in classes.items():
        options |= {spec.name: spec for spec in section_options(section, cls)}
    layers = _Layers(options, frozenset(classes), frozenset(unavailable))
    layers.read_file(file, environ)
    layers.read_environment(environ)
    layers.read_arguments(arguments or {})
    return layers.build(classes, fields)


def plugin_selection(file: pathlib.Path | None, environ: Mapping[str, str]) -> EndpointConfig:
    """What a file says of which plugins to use, read before any plugin is; raises ConfigError.

    The environment's lists need not be read here: `PluginHost.load` heeds them itself.
    """
    layers = _Layers({spec.name: spec for spec in endpoint_options()}, frozenset(), frozenset())
    layers.read_file(file, environ, only=frozenset({"plugins", "disable_plugins"}))
    return layers.build({}, {}).endpoint


class _Layers:
    """Gathers values, later ones over earlier ones."""

    def __init__(
        self, options: Mapping[str, OptionSpec], sections: frozenset[str], unavailable: frozenset[str]
    ) -> None:
        self._options = options
        self._sections = sections
        self._unavailable = unavailable
        self._values: dict[str, tuple[Any, str]] = {}

    # File

    def read_file(
        self, file: pathlib.Path | None, environ: Mapping[str, str], only: frozenset[str] | None = None
    ) -> None:
        if file is None and environ.get(CONFIG_VARIABLE):
            file = home_expanded(environ[CONFIG_VARIABLE])
        path = file or default_config_file()
        document = read_toml(path, must_exist=file is not None)
        if document is None:
            return
        text, tree = document
        for key, value in tree.items():
            if only is not None and key not in only:
                continue
            if isinstance(value, dict) and key not in self._options:
                self._read_table(path, text, key, value)
            else:
                self._read_key(path, text, "", key, value)

    def _read_table(self, path: pathlib.Path, text: str, section: str, table: Mapping[str, Any]) -> None:
        if section in self._sections:
            for key, value in table.items():
                self._read_key(path, text, section, key, value)
            return
        if section not in self._unavailable and (hint := _hint(section, self._sections)):
            raise ConfigError(f"{_place(path, text, section, '')}: unknown table [{section}]{hint}")
        # A plugin that was uninstalled or blocked must not make the file that names it useless.
        logger.warning("%s: table [%s] belongs to no plugin in use and is ignored", path, section)

    def _read_key(self, path: pathlib.Path, text: str, section: str, key: str, value: object) -> None:
        name = f"{section}.{key}" if section else key
        place = _place(path, text, section, key)
        spec = self._options.get(name)
        if spec is None:
            known = [s.field for s in self._options.values() if s.section == section]
            raise ConfigError(f"{place}: unknown option {name!r}{_hint(key, known) or _list(known)}")
        self._set(spec, spec.from_toml, value, f"file {place}")

    # Environment

    def read_environment(self, environ: Mapping[str, str]) -> None:
        specs = {spec.env: spec for spec in self._options.values()}
        for variable in sorted(environ):
            text = environ[variable]
            if not variable.startswith(ENV_PREFIX) or variable in OTHER_VARIABLES or not text.strip():
                continue
            if variable in specs:
                self._set(specs[variable], specs[variable].from_text, text.strip(), f"environment {variable}")
            else:
                self._check_unknown_variable(variable, specs)

    def _check_unknown_variable(self, variable: str, specs: Mapping[str, OptionSpec]) -> None:
        rest = variable.removeprefix(ENV_PREFIX)
        if any(rest.startswith(f"{name.upper().replace('-', '_')}_") for name in self._unavailable):
            return
        # Compared without what all have in common, which would make any two alike.
        hint = _hint(rest, [name.removeprefix(ENV_PREFIX) for name in (*specs, *OTHER_VARIABLES)], ENV_PREFIX)
        section = next((name for name in self._sections if rest.startswith(f"{name.upper()}_")), None)
        if hint or section:
            known = [spec.env for spec in specs.values() if spec.section == section]
            raise ConfigError(f"environment {variable}: unknown variable{hint or _list(known)}")
        logger.warning("environment %s belongs to no option and is ignored", variable)

    # Arguments

    def read_arguments(self, arguments: Mapping[str, Argument]) -> None:
        for name, argument in arguments.items():
            spec = self._options.get(name)
            if spec is None:
                raise ConfigError(f"{argument.origin}: unknown option {name!r}{_hint(name, self._options)}")
            self._set(spec, spec.from_value, argument.value, argument.origin)

    def _set(self, spec: OptionSpec, read: Any, value: object, origin: str) -> None:
        try:
            self._values[spec.name] = (read(value), origin)
        except ConfigError as exc:
            where = origin if origin.startswith("--") else f"{origin.removeprefix('file ')}: {spec.name}"
            raise ConfigError(f"{where}: {exc}") from None

    # Outcome

    def build(self, classes: Mapping[str, type[Any]], fields: Mapping[str, Any]) -> LoadedConfig:
        plugin_configs = {section: self._instance(section, cls, {}) for section, cls in classes.items()}
        own = {"plugin_configs": plugin_configs, **fields}
        endpoint = self._instance("", EndpointConfig, own)
        entries = []
        for spec in self._options.values():
            owner = plugin_configs[spec.section] if spec.section else endpoint
            origin = "argument" if not spec.section and spec.field in fields else self._origin(spec.name)
            flag = spec.flag if spec.on_cli else None
            entries.append(ConfigEntry(spec.name, getattr(owner, spec.field), origin, spec.env, flag))
        return LoadedConfig(endpoint, tuple(entries))

    def _origin(self, name: str) -> str:
        return self._values[name][1] if name in self._values else "default"

    def _instance(self, section: str, cls: type[Any], own: Mapping[str, Any]) -> Any:
        """Make the class; where a validator refuses, find out which of our values it is that it refuses."""
        specs = [spec for spec in self._options.values() if spec.section == section]
        given = {spec.field: self._values[spec.name][0] for spec in specs if spec.name in self._values}
        try:
            return cls(**{**given, **own})
        except (ValueError, TypeError) as exc:
            said = str(exc).partition(": ")[0]  # the field that it is about, perhaps only together with another
            origins = [
                self._origin(spec.name)
                for spec in specs
                if spec.field in given and (spec.field == said or _refused(cls, spec, given))
            ]
            origins = origins or [self._origin(spec.name) for spec in specs if spec.field in given]
            where = ", ".join(origin.removeprefix("file ") for origin in origins[:3])
            text = " ".join(str(exc).split())
            if len(origins) == 1 and origins[0].startswith("--"):
                text = re.sub(r"^[a-z_]+: ", "", text)  # the option's name says which field it is
            elif section and not isinstance(exc, ConfigError):
                text = f"[{section}] {text}"
            raise ConfigError(f"{where}: {text}" if where else text) from None


def _refused(cls: type[Any], spec: OptionSpec, given: Mapping[str, Any]) -> bool:
    try:
        cls(**{spec.field: given[spec.field]})
    except (ValueError, TypeError):
        return True
    return False


def read_toml(path: pathlib.Path, *, must_exist: bool) -> tuple[str, dict[str, Any]] | None:
    """Text and tree of a TOML file, or None if there is none and that is allowed; raises ConfigError."""
    try:
        with path.open("rb") as stream:
            data = stream.read(MAX_FILE_BYTES + 1)
    except FileNotFoundError:
        if must_exist:
            raise ConfigError(f"{path}: there is no such configuration file") from None
        return None
    except (OSError, ValueError) as exc:
        raise ConfigError(f"{path}: can't read the configuration file: {getattr(exc, 'strerror', exc)}") from None
    if len(data) > MAX_FILE_BYTES:
        raise ConfigError(f"{path}: larger than {MAX_FILE_BYTES} bytes, so it is no configuration file")
    try:
        text = data.decode("utf-8-sig")
        return text, tomllib.loads(text)
    except UnicodeDecodeError as exc:
        raise ConfigError(f"{path}: not UTF-8 text (byte {exc.start})") from None
    except (ValueError, RecursionError) as exc:  # also a number of more digits than Python reads
        raise ConfigError(f"{path}: not valid TOML: {' '.join(str(exc).split())}") from None


def _place(path: pathlib.Path, text: str, section: str, key: str) -> str:
    line = _line_of(text, section, key)
    return f"{path}, line {line}" if line else str(path)


def _line_of(text: str, section: str, key: str) -> int | None:
    """Where a key is set or, if it is empty, where its table begins; None where it is written in an unusual way.

    `tomllib` keeps no positions, so the usual ways of writing are looked for.
    """

    def word(name: str) -> str:
        return rf"""(?:{re.escape(name)}|"{re.escape(name)}"|'{re.escape(name)}')"""

    current = ""
    for number, line in enumerate(text.splitlines(), 1):
        header = re.match(r"\s*\[\s*([^\[\]]+?)\s*\]", line)
        if header:
            current = header[1].strip("\"'")
            if current == section and not key:
                return number
        elif key and current == section and re.match(rf"\s*{word(key)}\s*[.=]", line):
            return number
        elif not current and section:
            dotted = rf"\s*{word(section)}\s*(?:\.\s*{word(key)}\s*[.=]|=)" if key else rf"\s*{word(section)}\s*[.=]"
            if re.match(dotted, line):
                return number
    return None


def _hint(name: str, known: Iterable[str], prefix: str = "") -> str:
    """What was perhaps meant; 0.65 still sees two swapped letters in a word of three."""
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.65)
    return f"; did you mean {prefix}{near[0]}?" if near else ""


def _list(known: Iterable[str]) -> str:
    return "; known: " + ", ".join(sorted(known))
