"""Defaults < file < environment < arguments, and what is said of wrong values."""

from __future__ import annotations

import enum
import string
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tom_connect.addr import SocketAddr
from tom_connect.config import Argument, LoadedConfig, default_config_file, load_config, option, plugin_selection
from tom_connect.config.schema import OptionSpec, endpoint_options, section_options
from tom_connect.exceptions import ConfigError


class Mode(enum.Enum):
    FAST = "fast"
    SLOW = "slow"


@attrs.frozen(kw_only=True)
class Dht:
    bootstrap: tuple[str, ...] = attrs.field(default=("router:1",), metadata=option("first nodes"))
    quorum: int = attrs.field(default=6, validator=attrs.validators.in_(range(1, 21)))
    ratio: float = 0.5
    server: bool = False
    mode: Mode = Mode.FAST
    level: Literal["low", "high"] = "low"
    peer: SocketAddr | None = None
    cache: Path | None = None
    ports: tuple[int, ...] = ()
    modes: tuple[Mode, ...] = ()
    label: str | None = None
    limit: int | None = 3
    secret: bytes = attrs.field(default=b"", metadata=option("not for people", program_only=True))

    def __attrs_post_init__(self) -> None:
        if self.quorum > 10 and self.ratio > 0.9:
            raise ValueError("quorum and ratio can't both be large")


SECTIONS: dict[str, type[Any]] = {"dht": Dht}


def load(
    tmp_path: Path | None = None, text: str | None = None, environ: dict[str, str] | None = None, **more: Any
) -> LoadedConfig:
    """Load with the section above from a file of this text and an environment of nothing else."""
    file = None
    if tmp_path is not None and text is not None:
        file = tmp_path / "c.toml"
        file.write_text(text, encoding="utf-8")
    environ = {"TOM_CONNECT_CONFIG": str((tmp_path or Path()) / "c.toml")} | (environ or {}) if file else environ or {}
    return load_config(sections=SECTIONS, environ=environ, **{"file": file} | more)


@pytest.fixture(autouse=True)
def _no_file_of_the_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("XDG_CONFIG_HOME", "APPDATA", "HOME"):
        monkeypatch.setenv(name, str(tmp_path / "home"))


def test_defaults() -> None:
    """Without sources everything has its default, and says so."""
    loaded = load()
    assert loaded.endpoint.plugin_configs["dht"] == Dht()
    assert {entry.origin for entry in loaded.entries} == {"default"}
    assert {"bind", "dht.bootstrap"} <= {entry.name for entry in loaded.entries}
    assert not {"alpns", "secret_key", "dht.secret"} & {entry.name for entry in loaded.entries}


def test_precedence(tmp_path: Path) -> None:
    """Each source overrides the one before it, option by option, and the origin of each value is told."""
    loaded = load(
        tmp_path,
        "allow_local = true\nidle_timeout = 100\n[dht]\nquorum = 7\nratio = 1\nserver = true\n",
        {"TOM_CONNECT_IDLE_TIMEOUT": "110", "TOM_CONNECT_DHT_QUORUM": "8"},
        arguments={"dht.quorum": Argument("9", "--dht-quorum")},
        alpns=("x",),
    )
    assert (loaded.endpoint.allow_local, loaded.endpoint.idle_timeout, loaded.endpoint.alpns) == (True, 110.0, ("x",))
    dht = loaded.endpoint.plugin_configs["dht"]
    assert (dht.quorum, dht.ratio, dht.server, dht.mode) == (9, 1.0, True, Mode.FAST)
    file = tmp_path / "c.toml"
    origins = {entry.name: entry.origin for entry in loaded.entries}
    assert origins["allow_local"] == f"file {file}, line 1"
    assert origins["dht.server"] == f"file {file}, line 6"
    assert origins["idle_timeout"] == "environment TOM_CONNECT_IDLE_TIMEOUT"
    assert origins["dht.quorum"] == "--dht-quorum"
    assert origins["dht.mode"] == "default"
    assert loaded.entry("dht.quorum").value == 9
    with pytest.raises(KeyError):
        loaded.entry("nope")


@pytest.mark.parametrize(
    ("key", "toml", "text", "value"),
    [
        ("bootstrap", '["a:1", "b:2"]', "a:1, b:2,", ("a:1", "b:2")),
        ("bootstrap", "[]", ",", ()),
        ("quorum", "3", "3", 3),
        ("ratio", "0.25", "0.25", 0.25),
        ("ratio", "2", "2", 2.0),
        ("server", "true", "yes", True),
        ("server", "false", "Off", False),
        ("mode", '"slow"', "slow", Mode.SLOW),
        ("level", '"high"', "high", "high"),
        ("peer", '"[2001:db8::1]:4"', "[2001:db8::1]:4", SocketAddr("2001:db8::1", 4)),
        ("peer", '"none"', "none", None),
        ("cache", '"/x/y"', "/x/y", Path("/x/y")),
        ("ports", "[1, 2]", "1,2", (1, 2)),
        ("modes", '["slow", "fast"]', "slow,fast", (Mode.SLOW, Mode.FAST)),
        ("label", '"none"', "none", "none"),
        ("limit", '"none"', "None", None),
    ],
)
def test_types(tmp_path: Path, key: str, toml: str, text: str, value: object) -> None:
    """Every type reads the same from TOML, from the environment and from an argument."""
    from_file = load(tmp_path, f"[dht]\n{key} = {toml}\n").endpoint.plugin_configs["dht"]
    from_env = load(environ={f"TOM_CONNECT_DHT_{key.upper()}": text}).endpoint.plugin_configs["dht"]
    from_argument = load(arguments={f"dht.{key}": Argument(value)}).endpoint.plugin_configs["dht"]
    assert getattr(from_file, key) == getattr(from_env, key) == getattr(from_argument, key) == value


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("bind = 5", "line 1: bind: 5 is not allowed; expected a list, each text"),
        ('bind = ["x"]', "line 1: bind: not a socket address: 'x'"),
        ('\n\nallow_local = "maybe"', "line 3: allow_local: 'maybe' is not allowed; expected true or false"),
        ("allow_local = 1", "line 1: allow_local: 1 is not allowed; expected true or false"),
        ("allow_locale = true", "line 1: unknown option 'allow_locale'; did you mean allow_local?"),
        ("zzz = true", "line 1: unknown option 'zzz'; known: addr_allow, addr_deny, allow_local, bind,"),
        ("alpns = ['x']", "line 1: unknown option 'alpns'"),
        ("idle_timeout = -1", "line 1: idle_timeout: -1.0 is not allowed; expected a number of seconds above 0"),
        ("idle_timeout = nan", "line 1: idle_timeout: nan is not allowed"),
        ("idle_timeout = 2024-01-01", "line 1: idle_timeout: datetime.date(2024, 1, 1) is not allowed"),
        ("idle_timeout = 5\nkeep_alive = 6", "line 2: keep_alive: 6.0 is not allowed; expected less than idle_timeout"),
        ("keep_alive = 80", "line 1: keep_alive: 80.0 is not allowed; expected less than idle_timeout"),
        ('\nconnect_timeout = "5"', "line 2: connect_timeout: '5' is not allowed; expected a number, without quotes"),
        ('persist = "yes"', "line 1: persist: 'yes' is not allowed; expected true or false, without quotes"),
        ('[dht]\nports = ["1"]', "line 2: dht.ports: '1' is not allowed; expected a list, each a whole number"),
        ("[dht]\nquorun = 3", "line 2: unknown option 'dht.quorun'; did you mean quorum?"),
        ("[dht]\nquorum = '3.5'", "line 2: dht.quorum: '3.5' is not allowed; expected a whole number"),
        ("[dht]\nquorum = true", "line 2: dht.quorum: True is not allowed"),
        ("[dht]\nquorum = 99", "line 2: [dht] "),
        ("[dht]\nquorum = 11\nratio = 0.95", "line 2, "),
        ("[dht]\nmode = 'medium'", "line 2: dht.mode: 'medium' is not allowed; expected one of fast, slow"),
        ("[dht]\nlevel = 1", "line 2: dht.level: 1 is not allowed; expected one of low, high"),
        ("[dht]\npeer = '1.2.3.4'", "line 2: dht.peer: '1.2.3.4' is not allowed; expected a socket addr, or none"),
        ("[dht]\nports = [1, 'x']", "line 2: dht.ports: 'x' is not allowed; expected a list, each a whole number"),
        ("[dht]\ncache = ''", "line 2: dht.cache: '' is not allowed; expected a path"),
        ("[dht]\nsecret = 'x'", "line 2: unknown option 'dht.secret'"),
        ("[dth]\nquorum = 3", "line 1: unknown table [dth]; did you mean dht?"),
        ("dht.quorum = 'x'", "line 1: dht.quorum: 'x' is not allowed"),
        ('"dht" . "quorum" = "x"', "dht.quorum: 'x' is not allowed"),
        ("dht = { quorum = 'x' }", "line 1: dht.quorum: 'x' is not allowed"),
        ("[dht.quorum]\nx = 1", "dht.quorum: {'x': 1} is not allowed"),
        ("[[dht]]\nquorum = 3", "unknown option 'dht'"),
        ("[bind]\nx = 1", "bind: {'x': 1} is not allowed"),
        ("a = ", "not valid TOML: Invalid value (at end of document)"),
        ("a = 1\na = 2", "not valid TOML"),
        ("x = " + "[" * 5000, "not valid TOML"),
        ("max_incoming = " + "9" * 5000, "not valid TOML"),
        ("bind = 0x" + "f" * 5000, "line 1: bind: a value too large to be shown is not allowed"),
        ("allow_local = '" + "x" * 5000 + "'", "x… is not allowed; expected true or false"),
    ],
)
def test_wrong_file(tmp_path: Path, text: str, words: str) -> None:
    """A mistake in a file gives file, line where it can be known, the wrong value and what is allowed; in one line."""
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, text)
    assert str(caught.value).startswith(str(tmp_path / "c.toml"))
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 800


@pytest.mark.parametrize(
    ("variable", "text", "words"),
    [
        ("TOM_CONNECT_BIND", "x", "bind: not a socket address: 'x'"),
        ("TOM_CONNECT_BIND", ",", "bind: () is not allowed"),
        ("TOM_CONNECT_BNID", "x", "unknown variable; did you mean TOM_CONNECT_BIND?"),
        ("TOM_CONNECT_ALLOW_LOCAL", "2", "allow_local: '2' is not allowed; expected true or false"),
        ("TOM_CONNECT_MAX_INCOMING", "many", "max_incoming: 'many' is not allowed; expected a whole number"),
        ("TOM_CONNECT_MAX_INCOMING", "9" * 5000, "expected a whole number"),
        ("TOM_CONNECT_KEEP_ALIVE", "1e999", "keep_alive: '1e999' is not allowed; expected a number, or none"),
        ("TOM_CONNECT_DHT_QUORUN", "3", "unknown variable; did you mean TOM_CONNECT_DHT_QUORUM?"),
        ("TOM_CONNECT_DHT_ZZZZZZZZZZZ", "3", "unknown variable; known: TOM_CONNECT_DHT_BOOTSTRAP"),
        ("TOM_CONNECT_DHT_QUORUM", "0", "[dht] "),
        ("TOM_CONNECT_DHT_MODE", "", None),
        ("TOM_CONNECT_SOMETHING_ELSE", "3", None),
        ("TOM_CONNECT_LOG_LEVEL", "debug", None),
        ("TOM_CONNECTION", "3", None),
    ],
)
def test_environment(variable: str, text: str, words: str | None) -> None:
    """A wrong variable is named with its value; an empty one counts as unset; one of nobody's is passed over."""
    if words is None:
        load(environ={variable: text})
        return
    with pytest.raises(ConfigError) as caught:
        load(environ={variable: text})
    assert str(caught.value).startswith(f"environment {variable}: ")
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("name", "argument", "message"),
    [
        ("bind", Argument(("x",), "--bind"), "--bind: not a socket address: 'x' (expected IP:PORT or [IPV6]:PORT)"),
        ("dht.quorum", Argument("x", "--dht-quorum"), "--dht-quorum: 'x' is not allowed; expected a whole number"),
        ("dht.perr", Argument("x"), "argument: unknown option 'dht.perr'; did you mean dht.peer?"),
    ],
)
def test_wrong_arguments(name: str, argument: Argument, message: str) -> None:
    """A wrong argument is called by the name that its caller knows."""
    with pytest.raises(ConfigError) as caught:
        load(arguments={name: argument})
    assert str(caught.value) == message


def test_wrong_field() -> None:
    """A field that a program sets is called by its name."""
    with pytest.raises(ConfigError, match=r"^alpns: "):
        load(alpns="x")


def test_plugin_not_in_use(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Uninstalling or blocking a plugin makes neither its table nor its variables an error."""
    text = "[pkarr]\nrelay = 'x'\n[dhtt]\nanything = 1\n"
    environ = {"TOM_CONNECT_PKARR_RELAY": "x", "TOM_CONNECT_DHTT_SERVER": "1"}
    loaded = load(tmp_path, text, environ, unavailable=["dhtt"])
    assert loaded.endpoint.plugin_configs == {"dht": Dht()}
    assert "table [pkarr] belongs to no plugin in use" in caplog.text


def test_missing_files(tmp_path: Path) -> None:
    """Only a file that somebody named must be there."""
    load(environ={})
    with pytest.raises(ConfigError, match="there is no such configuration file"):
        load_config(file=tmp_path / "none.toml", environ={})
    with pytest.raises(ConfigError, match="there is no such configuration file"):
        load_config(environ={"TOM_CONNECT_CONFIG": str(tmp_path / "none.toml")})


def test_default_file_is_read() -> None:
    """The file in the platform's configuration directory is read without being named."""
    file = default_config_file()
    file.parent.mkdir(parents=True)
    file.write_text("max_incoming = 5\n")
    assert load_config(environ={}).endpoint.max_incoming == 5


@given(st.binary(max_size=60) | st.text(max_size=60).map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_any_file_is_read_or_refused(data: bytes) -> None:
    """No content of a file raises anything but ConfigError, in one line."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "c.toml"
        file.write_bytes(data)
        said = refusal(lambda path: load_config(sections=SECTIONS, file=path, environ={}), file)
    assert said is None or (said.isprintable() and "\n" not in said)


@pytest.mark.parametrize("data", [b"\xff\xfe", b"\x80", b"a = '\x00'", b"#" * (1 << 20) + b"#"])
def test_files_that_are_no_toml(tmp_path: Path, data: bytes) -> None:
    """Binary and oversized files are refused in one line."""
    file = tmp_path / "c.toml"
    file.write_bytes(data)
    with pytest.raises(ConfigError, match="^" + str(file).replace("\\", r"\\")):
        load_config(file=file, environ={})


def test_directory_as_file(tmp_path: Path) -> None:
    """A directory is no configuration file."""
    with pytest.raises(ConfigError, match="can't read"):
        load_config(file=tmp_path, environ={})


def test_byte_order_mark(tmp_path: Path) -> None:
    """A file saved by an editor that begins with a byte order mark is read."""
    file = tmp_path / "c.toml"
    file.write_bytes(b"\xef\xbb\xbfmax_incoming = 7\n")
    assert load_config(file=file, environ={}).endpoint.max_incoming == 7


def test_selection_is_read_alone(tmp_path: Path) -> None:
    """Which plugins to use is known before plugins are, so the rest of the file need not make sense yet."""
    file = tmp_path / "c.toml"
    file.write_text('disable_plugins = ["a"]\nnonsense = 1\n[whatever]\nx = 1\n')
    assert plugin_selection(file, {}).disable_plugins == ("a",)


def test_names_are_derived() -> None:
    """TOML table, environment name and command-line option follow from section and field."""
    spec = next(spec for spec in section_options("my_dht", Dht) if spec.field == "bootstrap")
    assert (spec.name, spec.env, spec.flag) == (
        "my_dht.bootstrap",
        "TOM_CONNECT_MY_DHT_BOOTSTRAP",
        "--my-dht-bootstrap",
    )
    assert (spec.help, spec.many) == ("first nodes", True)


SPECS = [*endpoint_options(), *section_options("dht", Dht)]
TOML_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.dates(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(string.ascii_letters), inner, max_size=3),
    max_leaves=6,
)


def refusal(read: Callable[[Any], object], value: object) -> str | None:
    """What the ConfigError says, if there is one; any other error fails the test."""
    try:
        read(value)
    except ConfigError as exc:
        return str(exc)
    return None


def test_the_home_of_nobody_is_refused() -> None:
    """A path under `~user` where there is no such user is a ConfigError, as an option and as the file of options."""
    spec = next(spec for spec in endpoint_options() if spec.field == "data_dir")
    assert f"'~nobody9/x' is not allowed; expected {spec.expected}" in (refusal(spec.from_text, "~nobody9/x") or "")
    with pytest.raises(ConfigError, match="there is no such configuration file"):
        load_config(environ={"TOM_CONNECT_CONFIG": "~nobody9/c.toml"})


@given(st.sampled_from(SPECS), TOML_VALUES)
def test_any_value_is_read_or_refused(spec: OptionSpec, value: object) -> None:
    """No value makes an option raise anything but ConfigError, which says what is allowed."""
    said = refusal(spec.from_value, value)
    assert said is None or said.endswith(f"is not allowed; expected {spec.expected}")


@given(st.sampled_from(SPECS), st.text())
def test_any_text_is_read_or_refused(spec: OptionSpec, text: str) -> None:
    """No text in the environment makes an option raise anything but ConfigError, which says what is allowed."""
    said = refusal(spec.from_text, text)
    assert said is None or said.endswith(f"is not allowed; expected {spec.expected}")
