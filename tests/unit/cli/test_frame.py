"""The frame of the command line: options, output, errors and exit codes."""

from __future__ import annotations

import io
import json
import pathlib
import re
from typing import Any

import attrs
import pytest

from tests.unit.cli.plugin_for_tests import surroundings
from tom_connect.addr import NodeAddr, SocketAddr
from tom_connect.cli.main import COMMANDS, run
from tom_connect.cli.output import Output, one_line
from tom_connect.keys import SecretKey
from tom_connect.plugins import SERVED_API, InstalledPlugin, PluginState

Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def _home(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of the user's is read or written."""
    for name in ("XDG_CONFIG_HOME", "XDG_DATA_HOME", "APPDATA", "LOCALAPPDATA", "HOME"):
        monkeypatch.setenv(name, str(tmp_path / "home"))
    for name in ("TOM_CONNECT_CONFIG", "TOM_CONNECT_LOG_LEVEL"):
        monkeypatch.delenv(name, raising=False)


def broken() -> object:
    raise ImportError("no module named 'gone'")


BROKEN = InstalledPlugin("broken", "tom-broken", "3.2", broken)


def events(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_help(capsys: Capture) -> None:
    """Help lists the core's commands and those of plugins, and the exit codes."""
    assert run(["--help"], surroundings()) == 0
    out = capsys.readouterr().out
    assert all(re.search(rf"^  {name} ", out, re.MULTILINE) for name in (*COMMANDS, "act", "hang", "plain"))
    assert "Exit codes: 0 done, 1 failed, 2 wrong usage or input, 130 interrupted." in out


def test_command_help(capsys: Capture) -> None:
    """Help of a command shows its own options, the shared ones, and those derived from a plugin's class."""
    assert run(["act", "--help"], surroundings()) == 0
    out = capsys.readouterr().out
    own, shared = out.index("\nOptions:"), out.index("\nShared options:")
    plugins = out.index("\nOptions of plugin section [test]:")
    assert own < out.index("--fail") < shared < out.index("--allow-local / --no-allow-local") < plugins
    assert plugins < out.index("--test-size N") < out.index("How much.")
    assert "--test-hidden" not in out
    for name in ("--secret-key-file", "--bind", "--bootstrap", "--config", "--log-level", "--json"):
        assert shared < out.index(name) < plugins


def test_human_output(capsys: Capture) -> None:
    """For people: the event's text on standard output; notes and log lines, one each, on standard error."""
    assert run(["act", "hello"], surroundings()) == 0
    captured = capsys.readouterr()
    assert captured.out == "word: hello\n"
    assert captured.err == "a note\ntom-connect: warning: careful; now\n"


def test_json_output(capsys: Capture) -> None:
    """For machines: the event as an object on standard output, and no notes."""
    assert run(["act", "hello", "--json", "--log-level", "error"], surroundings()) == 0
    captured = capsys.readouterr()
    assert events(captured.out) == [
        {"event": "said", "word": "hello", "size": 3, "bootstrap": [], "bind": ["0.0.0.0:0", "[::]:0"]}
    ]
    assert captured.err == ""


def test_options_reach_the_configuration(capsys: Capture, tmp_path: pathlib.Path) -> None:
    """File, environment and options are layered; a repeated option collects; --bootstrap is every plugin's."""
    file = tmp_path / "c.toml"
    file.write_text('bind = ["127.0.0.1:1"]\n[test]\nsize = 4\nbootstrap = ["file:1"]\n')
    line = ["act", "x", "--json", "--config", str(file), "--bind", "127.0.0.1:0", "--bind", "[::1]:0"]
    line += ["--bootstrap", "a:1", "--bootstrap", "b:2", "--test-bootstrap", "c:3"]
    assert run(line, surroundings(environ={"TOM_CONNECT_TEST_SIZE": "5"})) == 0
    (said,) = events(capsys.readouterr().out)
    assert said["bind"] == ["127.0.0.1:0", "[::1]:0"]
    assert said["size"] == 5
    assert said["bootstrap"] == ["c:3", "a:1", "b:2"]


@pytest.mark.parametrize(
    ("arguments", "size", "fast"),
    [([], "4", "False"), (["--test-size", "6"], "6", "False"), (["--test-fast"], "4", "True")],
)
def test_config_command(capsys: Capture, tmp_path: pathlib.Path, arguments: list[str], size: str, fast: str) -> None:
    """`config` shows each value in effect; a flag that is not given leaves the file's word."""
    file = tmp_path / "c.toml"
    file.write_text("[test]\nsize = 4\nfast = false\n")
    assert run(["config", "--json", "--config", str(file), *arguments], surroundings()) == 0
    shown = {event["name"]: event for event in events(capsys.readouterr().out)}
    assert (str(shown["test.size"]["value"]), str(shown["test.fast"]["value"])) == (size, fast)
    assert shown["test.hidden"]["option"] is None
    assert shown["test.hidden"]["variable"] == "TOM_CONNECT_TEST_HIDDEN"
    assert shown["test.size"]["origin"] == ("--test-size" if "--test-size" in arguments else f"file {file}, line 2")


USAGE_ERRORS = [
    ([], {}, "No command given; see tom-connect --help"),
    (["lisen"], {}, "No such command 'lisen'; did you mean listen? See tom-connect --help"),
    (["--nope"], {}, "No such option"),
    (["doctor", "--wait", "long"], {}, "'--wait': 'long' is not a number; see tom-connect doctor --help"),
    (["ping", "--count", "all", "x"], {}, "'--count': 'all' is not a whole number; see tom-connect ping --help"),
    (["act"], {}, "Missing argument 'WORD'"),
    (["act", "a", "b"], {}, "Got unexpected extra argument"),
    (["act", "x", "--test-sise", "3"], {}, "No such option"),
    (["act", "x", "--test-size"], {}, "requires an argument"),
    (["act", "x", "--test-size", "three"], {}, "--test-size: 'three' is not allowed; expected a whole number"),
    (["act", "x", "--bind", "localhost:1"], {}, "--bind: not a socket address: 'localhost:1'"),
    (["act", "x", "--bind", "1.2.3.4:70000"], {}, "--bind: not a socket address: '1.2.3.4:70000'"),
    (["act", "x", "--idle-timeout", "-5"], {}, "--idle-timeout: -5.0 is not allowed"),
    (["act", "x", "--keep-alive", "never"], {}, "--keep-alive: 'never' is not allowed; expected a number, or none"),
    (["act", "x", "--config", "/does/not/exist"], {}, "there is no such configuration file"),
    (["act", "x", "--config"], {}, "requires an argument"),
    (["act", "x", "--log-level", "loud"], {}, "Invalid value for '--log-level'"),
    (["act", "x"], {"TOM_CONNECT_TEST_SIZE": "x"}, "environment TOM_CONNECT_TEST_SIZE: test.size: 'x' is not allowed"),
    (["act", "x"], {"TOM_CONNECT_TEST_SIZ": "1"}, "did you mean TOM_CONNECT_TEST_SIZE?"),
    (["act", "x"], {"TOM_CONNECT_ALLOW_LOCAL": "perhaps"}, "expected true or false"),
    (["act", "x"], {"TOM_CONNECT_CONFIG": "/does/not/exist"}, "there is no such configuration file"),
    (["act", "x", "--fail", "usage"], {}, "that can't be"),
    (["act", "x", "--fail", "keyfile"], {}, "others can read it"),
    (["id", "--secret-key-file", "/"], {}, "/"),
    (["id", "--broken-thing", "3"], {}, "(plugin broken is failed: can't be imported: ImportError"),
]


@pytest.mark.parametrize(("args", "environ", "words"), USAGE_ERRORS)
def test_wrong_usage(capsys: Capture, args: list[str], environ: dict[str, str], words: str) -> None:
    """Whatever is malformed gives exit code 2 and one clear line on standard error, and no traceback."""
    assert run([*args], surroundings(BROKEN, environ=environ)) == 2
    lines = capsys.readouterr().err.splitlines()
    errors = [line for line in lines if line.startswith("tom-connect: error: ")]
    assert len(errors) == 1
    assert words in errors[0]
    assert not any("Traceback" in line for line in lines)


@pytest.mark.parametrize(("args", "environ", "words"), [case for case in USAGE_ERRORS if case[0]])
def test_wrong_usage_for_machines(capsys: Capture, args: list[str], environ: dict[str, str], words: str) -> None:
    """With --json the same is an error event, the last line of standard output."""
    assert run([args[0], "--json", *args[1:]], surroundings(BROKEN, environ=environ)) == 2
    error = events(capsys.readouterr().out)[-1]
    assert (error["event"], error["exit_code"]) == ("error", 2)
    assert words in error["message"]


@pytest.mark.parametrize("text", ["bind = 3", "[test]\nsize = 'x'", "nope = 1", "x = = 2", "[tset]\nx = 1"])
def test_wrong_configuration_file(capsys: Capture, tmp_path: pathlib.Path, text: str) -> None:
    """A wrong configuration file gives exit code 2 and one line that names it, also where it is not asked for."""
    file = tmp_path / "c.toml"
    file.write_text(text)
    for args, environ in ((["--config", str(file)], {}), ([], {"TOM_CONNECT_CONFIG": str(file)})):
        assert run(["act", "x", *args], surroundings(environ=environ)) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith(f"tom-connect: error: {file}")
    assert run(["act", "--help", "--config", str(file)], surroundings()) == 0


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("dial", "can't reach the node: dht: nothing found; 192.0.2.1:5: no answer"),
        ("os", "x.txt: No such file or directory"),
        ("group", "first"),
        ("bug", "internal error: ZeroDivisionError: division; by zero (this is a bug; --log-level debug shows where)"),
    ],
)
def test_failures(capsys: Capture, kind: str, message: str) -> None:
    """A command that fails gives exit code 1 and one line; of errors in a group, ours is told."""
    assert run(["act", "x", "--fail", kind], surroundings()) == 1
    assert capsys.readouterr().err.splitlines()[-1] == f"tom-connect: error: {message}"
    assert run(["act", "x", "--fail", kind, "--json"], surroundings()) == 1
    error = events(capsys.readouterr().out)[-1]
    assert (error["event"], error["exit_code"]) == ("error", 1)
    assert one_line(error["message"]) == message


def test_traceback_only_when_debugging(capsys: Capture) -> None:
    """Only --log-level debug shows where an error came from."""
    for args, wanted in (
        (["act", "x", "--fail", "bug"], False),
        (["act", "x", "--log-level=debug", "--fail", "bug"], True),
    ):
        assert run(args, surroundings()) == 1
        assert ("Traceback" in capsys.readouterr().err) is wanted


def test_plain_command_of_a_plugin(capsys: Capture) -> None:
    """A plugin's click command that knows nothing of the frame fails in one line too."""
    assert run(["plain"], surroundings()) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "internal error: RuntimeError: plain trouble" in line


def test_plugins_for_people(capsys: Capture) -> None:
    """`plugins` shows name, package, version, API, hooks, state and reason, without cutting anything in a pipe, and
    beside the table the API that the core serves."""
    assert run(["plugins"], surroundings(BROKEN)) == 0
    shown = capsys.readouterr()
    out = shown.out.splitlines()
    assert f"This core serves plugin API {SERVED_API}." in shown.err.splitlines()
    assert out[0].split() == ["name", "package", "version", "api", "hooks", "state", "reason"]
    assert re.fullmatch(
        r"broken +tom-broken +3\.2 +failed +can't be imported: ImportError: no module named 'gone' *", out[1]
    )
    assert re.fullmatch(r"test +tom-test +0\.1 +1\.0 +tom_cli_commands, tom_register_config +loaded *", out[2])


def test_plugins_that_are_wanted_and_missing(capsys: Capture) -> None:
    """`plugins` has a row for what TOM_CONNECT_PLUGINS names and nobody has."""
    assert run(["plugins", "--json"], surroundings(environ={"TOM_CONNECT_PLUGINS": "test, tset"})) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(row["name"], row["state"]) for row in rows] == [("test", "loaded"), ("tset", "missing")]
    assert rows[1]["package"] is None
    assert rows[1]["reason"] == "named by TOM_CONNECT_PLUGINS, but not installed; did you mean test?"


def test_plugins_for_machines(capsys: Capture) -> None:
    """`plugins --json` prints one object a plugin, and one that is blocked says by what."""
    assert run(["plugins", "--json"], surroundings(BROKEN, environ={"TOM_CONNECT_DISABLE_PLUGINS": "broken"})) == 0
    broken, loaded = events(capsys.readouterr().out)
    assert broken == {
        "event": "plugin",
        "name": "broken",
        "package": "tom-broken",
        "version": "3.2",
        "api": "",
        "hooks": [],
        "state": "blocked",
        "reason": "blocked by TOM_CONNECT_DISABLE_PLUGINS",
    }
    assert (loaded["hooks"], loaded["state"]) == (["tom_cli_commands", "tom_register_config"], "loaded")


def test_file_blocks_a_plugin(capsys: Capture, tmp_path: pathlib.Path) -> None:
    """A plugin that the file blocks has no options, and its table and the rest of the file are still good."""
    file = tmp_path / "c.toml"
    file.write_text('disable_plugins = ["test"]\n[test]\nsize = 3\n')
    assert run(["plugins", "--json", "--config", str(file), "--log-level", "error"], surroundings()) == 0
    (row,) = events(capsys.readouterr().out)
    assert (row["state"], row["reason"]) == ("blocked", "blocked by the option disable_plugins")
    assert run(["plugins", "--config", str(file), "--test-size", "3"], surroundings()) == 2
    assert "(plugin test is blocked: blocked by the option disable_plugins)" in capsys.readouterr().err


def test_no_plugin(capsys: Capture) -> None:
    """Without plugins the command line works; --bootstrap, which nobody takes then, says so."""
    alone = attrs.evolve(surroundings(environ={"TOM_CONNECT_PLUGINS": "nothing"}))
    assert run(["id"], alone) == 0
    capsys.readouterr()
    assert run(["id", "--bootstrap", "a:1"], alone) == 2
    assert "--bootstrap: no plugin in use takes it" in capsys.readouterr().err


def test_id(capsys: Capture, tmp_path: pathlib.Path) -> None:
    """`id` makes a key once, and shows the same NodeId ever after, for people and machines."""
    key = tmp_path / "deep" / "key"
    assert run(["id", "--secret-key-file", str(key)], surroundings()) == 0
    shown = capsys.readouterr().out.strip()
    assert re.fullmatch("[0-9a-f]{64}", shown)
    assert run(["id", "--json"], surroundings(environ={"TOM_CONNECT_SECRET_KEY_FILE": str(key)})) == 0
    assert events(capsys.readouterr().out) == [{"event": "id", "node_id": shown}]


def test_version(capsys: Capture) -> None:
    """--version says the version, or that there is none."""
    assert run(["--version"], surroundings()) == 0
    assert re.match(r"tom-connect (\d|\()", capsys.readouterr().out)


def test_json_values() -> None:
    """Values of the project become JSON that needs no further reading."""
    node_id = SecretKey(bytes(31) + b"\1").node_id
    stream = io.StringIO()
    output = Output(json=True, stdout=stream)
    output.event(
        "all",
        node_id=node_id,
        addr=NodeAddr(node_id, ["https://relay.example"], ["192.0.2.1:5"]),
        direct=[SocketAddr("2001:db8::1", 7)],
        state=PluginState.LOADED,
        path=pathlib.PurePosixPath("/x"),
        data=b"\x01\xff",
        rate=float("inf"),
        nothing=None,
        words={"b"},
        text="\u00e9\u2028\n",
    )
    text = stream.getvalue()
    assert text.count("\n") == 1
    assert text.isascii()
    assert json.loads(text) == {
        "event": "all",
        "node_id": str(node_id),
        "addr": {
            "node_id": str(node_id),
            "relay_urls": ["https://relay.example/"],
            "direct_addrs": ["192.0.2.1:5"],
            "user_data": None,
        },
        "direct": ["[2001:db8::1]:7"],
        "state": "loaded",
        "path": "/x",
        "data": "01ff",
        "rate": None,
        "nothing": None,
        "words": ["b"],
        "text": "\u00e9\u2028\n",
    }


def test_data_on_stdout() -> None:
    """Where standard output carries data, events of both kinds go to standard error."""
    for as_json in (False, True):
        out, err = io.StringIO(), io.StringIO()
        Output(json=as_json, data_on_stdout=True, stdout=out, stderr=err).event("ready", "ready")
        assert (out.getvalue(), "ready" in err.getvalue()) == ("", True)


def test_errors_keep_off_data(capsys: Capture) -> None:
    """A command whose standard output carries data reports its errors as objects on standard error."""
    for args in (["hang", "--json", "--bind", "x"], ["hang", "--json", "--nope"]):
        assert run(args, surroundings()) == 2
        captured = capsys.readouterr()
        assert captured.out == ""
        assert events(captured.err)[-1]["event"] == "error"
