"""Scenarios are read, and each mistake is told with file, line and reason."""

from __future__ import annotations

import pathlib
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tom_campaign.core.errors import ScenarioError
from tom_campaign.core.positions import line_numbers, line_of
from tom_campaign.core.reading import read_scenario
from tom_campaign.core.scenario import KINDS, PARAMETERS, Scenario
from tom_campaign.networks.population import relays_for_others
from tom_campaign.scenariofile import scenario_text, shipped_scenarios

GOOD = """\
name = "tiny"
seed = 3

[dht]
nodes = 12

[[group]]
name = "home"
network = "natlab"
nat = "moderate"
count = 2
wire = { delay_ms = 10, loss_pct = 1.5 }

[[group]]
name = "office"
network = "natlab"
nat = "strict"
config = { dht_only = true, dht = { quorum = 4 } }

[pairs]
choose = "nat"

[[phase]]
kind = "discovery"

[[phase]]
name = "slow"
kind = "endurance"
duration = 20
every = 2.5
pairs = { choose = "sample", count = 5 }
"""


def read(text: str) -> Scenario:
    return read_scenario(text.encode(), "x.toml")


def test_all_of_a_scenario_is_read() -> None:
    """Groups, pairs and phases have what the file says, and defaults for the rest."""
    scenario = read(GOOD)
    assert scenario.name == "tiny" and scenario.find == "id" and scenario.dht_nodes == 12 and scenario.relays == 0
    assert scenario.node_names == ("home-1", "home-2", "office-1")
    assert scenario.nat_kinds == {"home-1": "moderate", "home-2": "moderate", "office-1": "strict"}
    home, office = scenario.groups
    assert home.wire is not None and (home.wire.delay_ms, home.wire.loss_pct) == (10, 1.5)
    assert office.count == 1 and office.config == {"dht_only": True, "dht": {"quorum": 4}}
    discovery, slow = scenario.phases
    assert discovery.name == "discovery" and discovery.pairs.choose == "nat" and discovery.parameters["timeout"] == 15
    assert slow.pairs.count == 5 and slow.parameters["every"] == 2.5 and slow.parameters["size"] == 64


def test_the_digest_is_of_the_whole_file() -> None:
    """A scenario that was changed in any way is another one."""
    assert read(GOOD).digest == read(GOOD).digest != read(GOOD + "\n").digest


def test_scenarios_of_the_documentation_are_valid() -> None:
    """Each TOML block of the page on campaigns is a scenario without a mistake."""
    root = next(parent for parent in pathlib.Path(__file__).parents if (parent / "docs" / "how-to").is_dir())
    page = (root / "docs" / "how-to" / "measure-a-network.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```toml\n(.*?)^```", page, flags=re.DOTALL | re.MULTILINE)
    assert [read(block).name for block in blocks] == ["tiny", "home-to-hotel"]


@pytest.mark.parametrize("name", shipped_scenarios())
def test_shipped_scenarios_are_valid(name: str) -> None:
    """Each scenario that comes with the package is read without a complaint, and has its file's name."""
    assert read_scenario(*scenario_text(name)).name == name


def test_v7_is_what_it_says() -> None:
    """v7-dht publishes 40 nodes, looks each up by all others, has all NAT pairs, and judges all that it does."""
    scenario = read_scenario(*scenario_text("v7-dht"))
    assert len(scenario.published_names) == len(scenario.node_names) == 40
    assert scenario.relays == 0 and all(group.config["dht_only"] is True for group in scenario.groups)
    assert set(scenario.nat_kinds.values()) == {"none", "open", "moderate", "strict"}
    assert [phase.kind for phase in scenario.phases] == ["discovery", "connect", "ping"]
    assert [phase.pairs.choose for phase in scenario.phases] == ["all", "nat", "nat"]
    assert all(phase.judged for phase in scenario.phases)
    assert [group.count for group in scenario.groups if relays_for_others(group)] == [2]


MISTAKES = [
    ("count = 2", "count = 0", "x.toml, line 11: group.count: 0 is not allowed; expected a whole number from 1 to 200"),
    ("count = 2", 'count = "2"', "line 11: group.count: '2' is not allowed"),
    ("count = 2", "count = true", "line 11: group.count: true is not allowed"),
    ("count = 2", "cuont = 2", "line 11: group.cuont: unknown key; did you mean count?"),
    ('nat = "strict"', 'nat = "evil"', "line 17: group.nat: 'evil' is not allowed; expected one of none, open"),
    ("loss_pct = 1.5", "loss_pct = 150", "line 12: group.wire.loss_pct: 150 is not allowed"),
    ("loss_pct = 1.5", "los_pct = 1", "line 12: group.wire.los_pct: unknown key; did you mean loss_pct?"),
    ('name = "office"', 'name = "home"', "line 15: group.name: 'home' is the name of an earlier group"),
    ('name = "office"', 'name = "Office!"', "line 15: group.name: 'Office!' is not allowed"),
    ('name = "office"', 'name = "campaign-x"', "line 15: group.name: names that begin with campaign-"),
    ('network = "natlab"\nnat = "strict"', 'network = "local"', "local and natlab nodes can't reach each other"),
    ('choose = "nat"', 'choose = "nats"', "line 21: pairs.choose: 'nats' is not allowed; expected one of all"),
    ('kind = "discovery"', 'kind = "discover"', "line 24: phase.kind: 'discover' is not allowed"),
    ('kind = "discovery"', "", "line 23: phase: kind is missing; expected one of discovery, connect"),
    ("every = 2.5", "every = 25", "line 30: phase.every: no rolling record would come"),
    ("every = 2.5", "every = nan", "line 30: phase.every: nan is not allowed"),
    ("every = 2.5", "rate = 5", "line 30: phase.rate: unknown key"),
    ("count = 5 }", "count = -5 }", "line 31: phase.pairs.count: -5 is not allowed"),
    ('name = "slow"', 'name = "discovery"', "line 27: phase.name: a phase is called 'discovery' already"),
    ("seed = 3", "seed = 3\nsede = 4", "line 3: sede: unknown key; did you mean seed?"),
    (
        "seed = 3",
        "seed = ",
        "line 2: not valid TOML: there is no value that TOML knows; texts stand in",
    ),
    ("seed = 3", "seed = -1", "line 2: seed: -1 is not allowed; expected a whole number from 0 to 9,223,372,036,854,"),
    ("seed = 3", "seed = 2026-01-31", "line 2: seed: 2026-01-31 is not allowed"),
    ('name = "tiny"', "", 'x.toml, line 1: name is missing; say name = "..."'),
    ("[dht]\nnodes = 12", 'find = "id"', "line 6: group: with find = 'id' something must find its nodes; add [dht]"),
    ("seed = 3", "seed = 3\nseed = 3", "line 3: not valid TOML: this key stands there already"),
    ('name = "tiny"', 'name = "tiny', "line 1: not valid TOML: a text ends on the line on which it begins"),
    (
        '[[phase]]\nname = "slow"',
        '[phase]\nname = "slow"',
        "there is a [phase] already; each one of several is begun by",
    ),
    ("[dht]\nnodes = 12", "", "nodes that are dialed by ticket are not looked up; add [dht]"),
    ("nodes = 12", "nodes = 1000", "line 5: dht.nodes: 1000 is not allowed"),
    ("[pairs]", "[pears]", "line 20: pears: unknown key; did you mean pairs?"),
]


@pytest.mark.parametrize(("good", "bad", "expected"), MISTAKES, ids=[expected[:60] for _, _, expected in MISTAKES])
def test_mistakes_are_told_with_their_line(good: str, bad: str, expected: str) -> None:
    """One mistake in a good scenario is refused, in words that name file, line, key and what is expected."""
    assert GOOD.count(good) >= 1
    with pytest.raises(ScenarioError) as raised:
        read(GOOD.replace(good, bad, 1))
    assert str(raised.value).startswith("x.toml") and expected in str(raised.value)


TOGETHER = [
    ('network = "local"\nnat = "open"', [], "only a group with network = 'natlab' has it"),
    ('network = "remote"', [], "nodes: expected a list of node ids or tickets"),
    ('network = "remote"\nnodes = ["a", "a"]', [], "a node is named twice"),
    ('network = "remote"\nnodes = ["a", "b"]\ncount = 2', [], "list the responders in nodes"),
    ('network = "local"\ncount = 1', [], "one node has nobody to talk to"),
    ('network = "local"\ncount = 2', ['kind = "failover"'], "rebind needs natlab nodes"),
    ('network = "local"\ncount = 2', ['kind = "failover"\nevent = "kill_relay"'], "no relay to kill"),
    (
        'network = "local"\ncount = 2',
        ['kind = "ping"\npairs = { choose = "nat" }'],
        "line 8: phase.pairs: choose =",
    ),
    (
        'network = "natlab"\ncount = 2',
        ['kind = "failover"\nbefore = 30\nduration = 20'],
        "line 8: phase.before: it must happen before the end",
    ),
]


@pytest.mark.parametrize(("group", "phases", "expected"), TOGETHER)
def test_what_does_not_fit_together_is_told(group: str, phases: list[str], expected: str) -> None:
    """Values that are allowed alone, but not with others, are refused with the reason."""
    text = f'name = "x"\n[[group]]\nname = "g"\n{group}\n'
    text += "".join(f"[[phase]]\n{phase}\n" for phase in phases or ['kind = "ping"'])
    with pytest.raises(ScenarioError) as raised:
        read(text)
    assert expected in str(raised.value) and re.match(r"x\.toml, line \d+: ", str(raised.value))


def test_bytes_that_are_no_text_are_told() -> None:
    """A file that is not UTF-8, or far too large, is refused and not read."""
    with pytest.raises(ScenarioError, match="line 2: not UTF-8"):
        read_scenario(b'name = "x"\n# \xff', "x.toml")
    with pytest.raises(ScenarioError, match="larger than"):
        read_scenario(b"#" * (1 << 21), "x.toml")


@given(st.binary(max_size=300))
def test_no_bytes_break_the_reader(data: bytes) -> None:
    """Whatever stands in the file, it is a scenario or a ScenarioError."""
    try:
        read_scenario(data, "x.toml")
    except ScenarioError as exc:
        told = str(exc)
    else:
        return
    assert told.startswith("x.toml")


@given(st.integers(0, len(GOOD)), st.text(max_size=4))
def test_no_slip_of_a_key_breaks_the_reader(position: int, slip: str) -> None:
    """A good scenario with a few characters too many anywhere is read or refused, and never breaks the reader."""
    try:
        read(GOOD[:position] + slip + GOOD[position:])
    except ScenarioError as exc:
        told = str(exc)
    else:
        return
    assert told.startswith("x.toml")


def test_every_kind_has_parameters_with_allowed_defaults() -> None:
    """No default of a phase would itself be refused."""
    for kind in KINDS:
        for name, spec in PARAMETERS[kind].items():
            if isinstance(spec.default, str):
                assert spec.default in spec.words, name
            else:
                assert spec.low <= spec.default <= spec.high, name


def test_lines_are_found_in_the_usual_ways_of_writing() -> None:
    """Arrays of tables, dotted keys, inline tables, texts and arrays of several lines do not lead astray."""
    text = 'a.b = 1\ntext = """\nx = 5\n"""\nlist = [\n  # y = 1\n  1,\n]\n[[t]]\nk = 1\n'
    text += "[t.sub]\nz = { inner = 2 }  # [no]\n[[t]]\nk = 2\n"
    lines = line_numbers(text)
    assert lines["a", "b"] == 1 and lines[("list",)] == 5
    assert ("x",) not in lines and ("y",) not in lines
    assert lines["t", 0, "k"] == 10 and lines["t", 1, "k"] == 14
    assert lines["t", 0, "sub", "z"] == 12 and lines["t", 0, "sub", "z", "inner"] == 12
    assert line_of(lines, ("t", 1, "missing")) == 13
