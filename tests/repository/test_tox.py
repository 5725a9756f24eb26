"""tox.ini, pyproject.toml and CONTRIBUTING name what there is: each environment, and each plugin of this repository."""

from __future__ import annotations

import configparser
import re
import tomllib
from itertools import product
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
PLUGINS = sorted(path.parent.name for path in ROOT.glob("plugins/*/pyproject.toml"))
MODULES = [name.replace("-", "_") for name in PLUGINS]
PYPROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def tox() -> configparser.ConfigParser:
    parser = configparser.ConfigParser(interpolation=None)
    parser.read(ROOT / "tox.ini", encoding="utf-8")
    return parser


def environments(text: str) -> set[str]:
    """Names with their braces expanded: `a{1,2}` is `a1` and `a2`."""
    found: set[str] = set()
    for line in re.findall(r"[^\s,{]+(?:{[^}]*}[^\s,{]*)*", text):
        parts = [part.split(",") for part in re.split(r"[{}]", line)]
        found.update("".join(chosen) for chosen in product(*parts))
    return found


def named_by_the_table(text: str) -> set[str]:
    """What the first column of CONTRIBUTING's table names, `a1` to `a3` being three."""
    found: set[str] = set()
    for cell in re.findall(r"^\| (`[^|]*) \|.*\| *[0-9][^|]*\|$", text, re.MULTILINE):
        names = re.findall(r"`([^`]+)`", cell)
        if " to " in cell:
            first, last = names
            stem, low = re.fullmatch(r"(.*?)(\d+)", first).groups()  # type: ignore[union-attr]
            names = [f"{stem}{number}" for number in range(int(low), int(last.removeprefix(stem)) + 1)]
        found.update(names)
    return found


def test_the_table_of_times_names_every_environment(tox: configparser.ConfigParser) -> None:
    """CONTRIBUTING's table has each environment that tox runs, with its seconds, and no other."""
    table = named_by_the_table((ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"))
    assert table == environments(tox["tox"]["env_list"])


def test_ci_runs_every_environment_once(tox: configparser.ConfigParser) -> None:
    """Each environment has one of the two labels that .ci/run runs, one after the other."""
    lines = re.findall(r"^([\w-]+) = (.+)$", tox["tox"]["labels"], re.MULTILINE)
    labels = {name: environments(text) for name, text in lines}
    assert not labels["one-core"] & labels["all-cores"]
    assert set.union(*labels.values()) == environments(tox["tox"]["env_list"])
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert re.findall(r"\brun.* -m (\S+)", script) == list(labels)


def test_each_environment_says_what_it_is(tox: configparser.ConfigParser) -> None:
    """`tox list` has a description for each section; with a colon after its first word tox would see a condition."""
    described = {name: tox[name].get("description", "") for name in tox if name.startswith("testenv")}
    assert [name for name, text in described.items() if not text or re.match(r"[\w,{}-]+:", text)] == []


def test_each_environment_runs_something(tox: configparser.ConfigParser) -> None:
    """No section is without commands: those that say none have those of all."""
    assert tox["testenv"]["commands"].strip()
    silent = [name for name in tox if "commands" in tox[name] and not tox[name]["commands"].strip()]
    assert silent == []


def test_the_newest_python_is_one_that_is_tested(tox: configparser.ConfigParser) -> None:
    """The Pythons of which the newest runs everything are those that have an environment."""
    tested = {f"py{version.replace('.', '')}" for version in tox["shared"]["pythons"].split(",")}
    assert tested == {name for name in environments(tox["tox"]["env_list"]) if name.startswith("py")}


def test_tox_installs_every_plugin(tox: configparser.ConfigParser) -> None:
    """The list of plugins is that of the folder, and `lowest` resolves the dependencies of each."""
    assert sorted(tox["shared"]["plugins"].split()) == PLUGINS
    lowest = re.findall(r"-r plugins/(\S+)/pyproject\.toml", tox["testenv:lowest"]["commands_pre"])
    assert sorted(lowest) == PLUGINS


def test_every_network_lab_is_run(tox: configparser.ConfigParser) -> None:
    """`netns` runs the folder netns of the tests and of each plugin that has one."""
    folders = {str(path.relative_to(ROOT)) for path in (ROOT / "tests/netns", *ROOT.glob("plugins/*/tests/netns"))}
    run = {word for word in tox["testenv:netns"]["commands"].split() if word.endswith("netns")}
    assert run == folders


def test_the_tools_know_every_plugin() -> None:
    """Sources, extras, mypy, ruff and import-linter know each plugin of the folder."""
    tools = PYPROJECT["tool"]
    assert set(tools["uv"]["sources"]) == {"tom-connect", *PLUGINS}
    extras = PYPROJECT["project"]["optional-dependencies"]
    brought = {name.split(">=")[0] for extra, names in extras.items() if extra != "all" for name in names}
    assert brought == set(PLUGINS)
    assert extras["all"] == [f"tom-connect[{','.join(sorted(set(extras) - {'all'}))}]"]
    folders = {f"plugins/{name}/src" for name in PLUGINS}
    assert folders <= set(tools["mypy"]["files"])
    assert folders <= {path.removeprefix("$MYPY_CONFIG_FILE_DIR/") for path in tools["mypy"]["mypy_path"].split(":")}
    assert set(MODULES) <= set(tools["ruff"]["lint"]["isort"]["known-first-party"])
    linter = tools["importlinter"]
    assert set(linter["root_packages"]) == {"tom_connect", *MODULES}
    contracts = {contract["id"]: contract for contract in linter["contracts"]}
    assert set(contracts["core"]["forbidden_modules"]) == set(MODULES)
    assert set(contracts["public"]["source_modules"]) == set(MODULES)
