"""Records survive their way into a file and back, and what is none is refused with a reason."""

from __future__ import annotations

import json
import pathlib
import re

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tom_campaign.core.errors import RecordFileError
from tom_campaign.core.pairs import Pair
from tom_campaign.core.reading import read_scenario
from tom_campaign.core.records import (
    RECORDS,
    CampaignStarted,
    EnduranceRolling,
    NodeInfo,
    PathSpan,
    PhaseResult,
    decoded,
    encoded,
)
from tom_campaign.core.schedule import Step
from tom_campaign.core.statistics import kept_samples, rtt_statistics
from tom_campaign.core.summing import Measured, campaign_summary, figures, of_step, phase_result
from tom_campaign.recordfile import RecordWriter, read_records, resumed

TEXT = """
name = "x"
[[group]]
name = "a"
network = "local"
count = 3
[[phase]]
kind = "connect"
[[phase]]
kind = "ping"
judged = false
"""
SCENARIO = read_scenario(TEXT.encode(), "x.toml")
NATS = SCENARIO.nat_kinds


def started() -> CampaignStarted:
    return CampaignStarted(
        campaign="x",
        description="",
        digest=SCENARIO.digest,
        at=1.5,
        seed=0,
        version="0.1.0",
        python="3.11",
        system="Linux",
        find="ticket",
        dht_nodes=0,
        relays=0,
        nodes={
            "a-1": NodeInfo(node_id="00" * 32, nat="local", version="0.1.0", plugins=("dht 0.1.0",), published=None)
        },
        phases=("connect", "ping"),
        steps=12,
        resumed=False,
    )


def result(phase: int = 0, sent: int = 1, received: int = 1, pair: Pair | None = None, **fields: object) -> PhaseResult:
    rtts = [float(n) for n in range(1, received + 1)]
    measured = Measured(
        sent=sent,
        received=received,
        rtt=rtt_statistics(rtts),
        samples_ms=kept_samples(rtts),
        path_kind="direct",
        **fields,  # type: ignore[arg-type]
    )
    step = Step(SCENARIO.phases[phase], pair or Pair("a-1", "a-2"))
    return phase_result(step, measured, campaign="x", nats=NATS, at=2.0, elapsed_s=0.25)


def test_records_come_back_as_they_were() -> None:
    """Each kind of record is the same after it was written and read."""
    summary = campaign_summary(SCENARIO, {"connect": 6, "ping": 6}, [result()], at=3.0, elapsed_s=1.0, interrupted=True)
    spans = (PathSpan(at_s=0.0, path_kind="relay"), PathSpan(at_s=0.4, path_kind="direct"))
    for record in (
        started(),
        window(2.0, 1.0),
        result(),
        result(1, 100, 98, paths=spans, direct_s=0.4, error="é\n"),
        summary,
    ):
        line = encoded(record)
        assert line.endswith("\n") and line.count("\n") == 1 and line.startswith('{"record":"')
        assert decoded(line) == record


@given(st.text(max_size=40), st.floats(allow_nan=False, allow_infinity=False), st.integers(0, 10**9))
def test_any_values_come_back(text: str, number: float, count: int) -> None:
    """Whatever stands in a text or number of a record, it is the same afterwards."""
    record = attrs.evolve(result(), error=text, at=number, sent=count)
    assert decoded(encoded(record)) == record


def test_every_prefix_of_a_record_is_refused() -> None:
    """A line that was cut off anywhere is no record."""
    line = encoded(result()).rstrip("\n")
    for end in range(len(line)):
        with pytest.raises(RecordFileError):
            decoded(line[:end])


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"record": "phase_results"}, "no record of a campaign"),
        ({"record": ["phase_result"]}, "no record of a campaign"),
        ({"sent": "1"}, r"phase_result.sent: '1' is not allowed"),
        ({"sent": True}, r"phase_result.sent"),
        ({"verdict": "MAYBE"}, r"phase_result.verdict"),
        ({"samples_ms": [1, "2"]}, r"phase_result.samples_ms"),
        ({"paths": [{"at_s": 1}]}, r"'path_kind' is missing"),
        ({"extra": 1}, r"unknown field 'extra'"),
    ],
)
def test_wrong_fields_are_told(change: dict[str, object], reason: str) -> None:
    """A field too many, of a wrong type or value is named."""
    with pytest.raises(RecordFileError, match=reason):
        decoded(json.dumps(json.loads(encoded(result())) | change))


def test_figures_of_a_result_add_up() -> None:
    """Lost is what was sent and not received; the verdict follows from it."""
    found = result(1, 200, 198)
    assert (found.lost, found.loss_pct, found.verdict) == (2, 1.0, "WARN")
    assert (found.rtt_min_ms, found.rtt_p50_ms, found.rtt_max_ms) == (1, 99, 198)
    assert (found.dialer_nat, found.target_nat, found.step) == ("local", "local", "ping/a-1>a-2/1")


def test_the_summary_judges_by_the_judged_phases() -> None:
    """A phase that is not judged fails without consequence; missing steps and judged losses have one."""
    good, bad = result(), result(1, 10, 1)
    planned = {"connect": 1, "ping": 1}

    def summary(*results: PhaseResult) -> object:
        return campaign_summary(SCENARIO, planned, results, at=0, elapsed_s=0, interrupted=False).verdict

    assert summary(good, bad) == "PASS"
    assert summary(good) == "FAIL"
    assert summary(result(0, 1, 0), bad) == "FAIL"
    found = campaign_summary(SCENARIO, planned, [good, bad], at=0, elapsed_s=0, interrupted=False, dead_nodes=["a-2"])
    connect, ping = found.phases
    assert (connect.verdict, ping.verdict, ping.judged) == ("PASS", "FAIL", False)
    assert (found.sent, found.received, found.dead_nodes) == (1, 1, ("a-2",))
    assert found.path_kinds == {"direct": 2}


def test_a_file_goes_on_where_it_broke_off(tmp_path: pathlib.Path) -> None:
    """A last line that was cut off is dropped, what is whole is kept, and new records follow."""
    path = tmp_path / "x.jsonl"
    writer = RecordWriter(path)
    writer.write(started())
    writer.write(result())
    writer.close()
    path.write_text(path.read_text() + encoded(result(1))[:50])
    before = resumed(path, SCENARIO)
    assert [found.step for found in before.results] == ["connect/a-1>a-2/1"]
    writer = RecordWriter(path, keep=before.whole)
    writer.write(result(1))
    writer.close()
    assert [found.step for found in read_records(path).results] == ["connect/a-1>a-2/1", "ping/a-1>a-2/1"]


def test_a_file_is_not_overwritten(tmp_path: pathlib.Path) -> None:
    """A second campaign into the same file is refused, and told how to go on."""
    path = tmp_path / "x.jsonl"
    RecordWriter(path).close()
    with pytest.raises(RecordFileError, match=f"go on with --resume {path}"):
        RecordWriter(path)


def window(at: float, elapsed_s: float) -> EnduranceRolling:
    names = of_step(Step(SCENARIO.phases[1], Pair("a-1", "a-2")), campaign="x", nats=NATS, at=at, path_kind="direct")
    return EnduranceRolling(
        **names,
        **figures(1, 1, rtt_statistics([1.0]), 0),
        elapsed_s=elapsed_s,
        window_s=1.0,
        total_sent=1,
        total_received=1,
    )


def test_windows_of_a_step_that_was_done_anew_count_once(tmp_path: pathlib.Path) -> None:
    """What an interrupted step told is left out once the campaign has gone on; what a finished one told is not."""
    path = tmp_path / "x.jsonl"
    first = [started(), window(2.0, 1.0), window(3.0, 2.0)]
    again = [attrs.evolve(started(), at=50.0, resumed=True), window(51.0, 1.0)]
    path.write_text("".join(map(encoded, [*first, *again])))
    assert [found.at for found in read_records(path).rolling] == [51.0]
    path.write_text("".join(map(encoded, [*first, result(1), *again[:1]])))
    assert [found.at for found in read_records(path).rolling] == [2.0, 3.0]
    path.write_text("".join(map(encoded, first)))
    assert [found.at for found in read_records(path).rolling] == [2.0, 3.0]


def test_the_time_of_all_runs_is_added_up(tmp_path: pathlib.Path) -> None:
    """A summary says how long all runs before it took; one that was killed took until its last record."""
    path = tmp_path / "x.jsonl"
    summary = campaign_summary(SCENARIO, {"connect": 6, "ping": 6}, [], at=9.0, elapsed_s=7.0, interrupted=True)
    written = [started(), window(2.0, 1.0), summary, attrs.evolve(started(), at=50.0), window(53.0, 1.0)]
    for end, seconds in ((1, 0.0), (2, 0.5), (3, 7.0), (4, 7.0), (5, 10.0)):
        path.write_text("".join(map(encoded, written[:end])))
        assert read_records(path).elapsed_s == seconds
    killed = [started(), window(2.0, 1.0), attrs.evolve(started(), at=50.0), window(53.0, 1.0)]
    path.write_text("".join(map(encoded, killed)))
    assert read_records(path).elapsed_s == 3.5


def test_a_campaign_that_was_killed_before_it_began_goes_on(tmp_path: pathlib.Path) -> None:
    """An empty file is what a campaign leaves that was killed while its nodes were started; other text is kept."""
    path = tmp_path / "x.jsonl"
    path.touch()
    assert resumed(path, SCENARIO).results == ()
    path.write_text("mine")
    with pytest.raises(RecordFileError, match="does not say of which scenario"):
        resumed(path, SCENARIO)


def test_records_of_another_scenario_are_refused(tmp_path: pathlib.Path) -> None:
    """A scenario that was changed does not go on in the old one's file."""
    path = tmp_path / "x.jsonl"
    path.write_text(encoded(started()))
    with pytest.raises(RecordFileError, match="another scenario, or it was changed"):
        resumed(path, read_scenario((TEXT + "\n").encode(), "x.toml"))
    path.write_text(encoded(result()))
    with pytest.raises(RecordFileError, match="does not say of which scenario"):
        resumed(path, SCENARIO)
    path.write_text(encoded(started()) + "{}\n")
    with pytest.raises(RecordFileError, match=r"x\.jsonl, line 2: record: 'None'"):
        resumed(path, SCENARIO)


def documented(page: str) -> dict[str, dict[str, str]]:
    """Class names of the page, with field names and types from their tables."""
    found: dict[str, dict[str, str]] = {}
    for section in re.split(r"^### `", page, flags=re.MULTILINE)[1:]:
        name, _, text = section.partition("`")
        found[name] = dict(re.findall(r"^\| `(\w+)` \| `([^`]+)` \|", text, flags=re.MULTILINE))
    return found


def test_the_reference_documents_every_field() -> None:
    """docs/reference/campaign.md has each kind of record, and each of its fields with the type that a file has."""
    root = next(parent for parent in pathlib.Path(__file__).parents if (parent / "docs" / "reference").is_dir())
    tables = documented((root / "docs" / "reference" / "campaign.md").read_text(encoding="utf-8"))
    kinds = {dict: "dict", tuple: "tuple", str: "str", int: "int", float: "float", bool: "bool"}
    summary = campaign_summary(SCENARIO, {"connect": 6, "ping": 6}, [result()], at=3.0, elapsed_s=1.0, interrupted=True)
    for record in (started(), result(), summary):
        table = tables[type(record).__name__]
        fields = attrs.asdict(record, recurse=False)
        assert list(table) == list(fields)
        for name, value in fields.items():
            if value is not None and name not in ("record", "verdict"):
                assert table[name].replace("\\|", "|").startswith(kinds[type(value)]), name
    for cls in RECORDS.values():
        assert list(tables[cls.__name__]) == [field.name for field in attrs.fields(cls)]
