"""The page says what the records say, loads nothing, and lets nobody's names become markup."""

from __future__ import annotations

import html.parser
import json
import pathlib

import attrs
import pytest

from tom_campaign.core.errors import RecordFileError
from tom_campaign.core.pairs import Pair
from tom_campaign.core.reading import read_scenario
from tom_campaign.core.records import CampaignStarted, EnduranceRolling, NodeInfo, PathSpan, Record, encoded
from tom_campaign.core.schedule import Step
from tom_campaign.core.statistics import kept_samples, rtt_statistics
from tom_campaign.core.summing import Measured, campaign_summary, figures, of_step, phase_result
from tom_campaign.recordfile import read_records
from tom_campaign.report.page import report_page

EVIL = "<script>alert(1)</script>\"'&{{ 7*7 }}"
TEXT = """
name = "shown"
find = "id"
[dht]
[[group]]
name = "open"
network = "natlab"
nat = "open"
count = 2
[[group]]
name = "strict"
network = "natlab"
nat = "strict"
[[phase]]
kind = "discovery"
[[phase]]
kind = "connect"
[[phase]]
kind = "endurance"
duration = 30
"""
# HTML elements that have no end.
VOID = {"meta", "line", "rect", "polyline"}


class Page(html.parser.HTMLParser):
    """Elements and attributes of a page; fails for one that is not well formed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attributes)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open.pop() == tag, f"</{tag}> closes something else"

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.text += data


def records(*, evil: str = "") -> list[Record]:
    scenario = read_scenario(TEXT.encode(), "x.toml")
    nats = scenario.nat_kinds
    found: list[Record] = [
        CampaignStarted(
            campaign="shown",
            description=f"what is shown {evil}",
            digest=scenario.digest,
            at=1_700_000_000.0,
            seed=1,
            version="0.1.0",
            python="3.11",
            system=f"Linux {evil}",
            find="id",
            dht_nodes=30,
            relays=0,
            nodes={
                name + evil: NodeInfo(node_id="ab" * 32, nat=nat, version="1", plugins=("dht 1",), published=8)
                for name, nat in nats.items()
            },
            phases=("discovery", "connect", "endurance"),
            steps=18,
            resumed=False,
        )
    ]
    results = []
    pairs = [Pair(one, other) for one in nats for other in nats if one != other]
    for number, pair in enumerate(pairs):
        lost = pair.target.startswith("strict")
        times = (20.0 + 3 * number,)
        for phase in scenario.phases[:2]:
            if phase.kind == "connect" and lost:
                measured = Measured(sent=1, received=0, error=f"no answer {evil}")
            else:
                measured = Measured(
                    sent=1,
                    received=1,
                    rtt=rtt_statistics(times),
                    samples_ms=kept_samples(times),
                    path_kind="direct",
                    discovery_source=f"dht{evil}",
                    direct_s=0.1 + number / 10 if phase.kind == "connect" else None,
                    paths=(
                        PathSpan(at_s=0.05, path_kind="relay"),
                        PathSpan(at_s=0.1 + number / 10, path_kind="direct"),
                    ),
                )
            results.append(
                phase_result(Step(phase, pair), measured, campaign="shown", nats=nats, at=1.0, elapsed_s=0.5 + number)
            )
        step = Step(scenario.phases[2], pair)
        for window in (1, 2, 3):
            names = of_step(step, campaign="shown", nats=nats, at=1.0, path_kind="direct")
            found.append(
                EnduranceRolling(
                    **names,
                    **figures(20, 19, rtt_statistics([5.0 * window, 7.0 * window]), 0),
                    elapsed_s=10.0 * window,
                    window_s=10.0,
                    total_sent=20 * window,
                    total_received=19 * window,
                )
            )
    planned = {"discovery": 6, "connect": 6, "endurance": 6}
    summary = campaign_summary(
        scenario, planned, results, at=2.0, elapsed_s=9.0, interrupted=True, dead_nodes=[evil or "x"]
    )
    return [*found, *results, summary]


def page_of(folder: pathlib.Path, written: list[Record]) -> str:
    path = folder / "shown.jsonl"
    path.write_text("".join(map(encoded, written)))
    return report_page(read_records(path))


def test_the_page_has_plots_and_tables_with_the_same_figures(tmp_path: pathlib.Path) -> None:
    """Verdicts, heat maps, distributions, paths and windows are there, each plot with words and a table."""
    text = page_of(tmp_path, records())
    page = Page(text)
    plots = [attributes for tag, attributes in page.elements if tag == "svg"]
    assert len(plots) == 4 and all(plot["role"] == "img" and plot["aria-label"] for plot in plots)
    captions = [tag for tag, _ in page.elements if tag == "caption"]
    tables = [tag for tag, _ in page.elements if tag == "table"]
    assert len(captions) == len(tables) >= 7
    for words in ("Success by NAT pair", "Time to a direct path", "Path over time", "Endurance", "Steps with losses"):
        assert words in page.text
    for words in ("interrupted", "100.0%", "2 of 2", "0 of 2", "no answer", "Nodes that died: x"):
        assert words in page.text
    (language,) = (attributes["lang"] for tag, attributes in page.elements if tag == "html")
    assert language == "en" and "prefers-color-scheme: dark" in text
    assert all(attributes.get("scope") for tag, attributes in page.elements if tag == "th")


def test_the_page_loads_nothing(tmp_path: pathlib.Path) -> None:
    """No script, link, image or address from elsewhere; a policy in the page forbids them too."""
    page = Page(page_of(tmp_path, records()))
    assert not {tag for tag, _ in page.elements} & {"script", "link", "img", "iframe", "object", "image", "use"}
    assert not [a for _, attributes in page.elements for a in attributes if a in ("src", "href") or a.startswith("on")]
    policies = [a["content"] for tag, a in page.elements if tag == "meta" and "http-equiv" in a]
    assert policies == ["default-src 'none'; style-src 'unsafe-inline'"]


def test_names_and_reasons_are_no_markup(tmp_path: pathlib.Path) -> None:
    """What nodes say of themselves and of errors is shown as it is: neither element nor template comes of it."""
    written = records(evil=EVIL)
    plain, evil = Page(page_of(tmp_path, records())), Page(page_of(tmp_path, written))
    assert [tag for tag, _ in evil.elements] == [tag for tag, _ in plain.elements]
    assert "<script>alert(1)</script>" in evil.text and "{{ 7*7 }}" in evil.text


def test_a_campaign_that_still_runs_has_a_page(tmp_path: pathlib.Path) -> None:
    """Without a summary, and without results, the page says so."""
    assert "There is no summary" in Page(page_of(tmp_path, records()[:-1])).text
    assert "There is no summary" in Page(page_of(tmp_path, records()[:1])).text


def test_records_without_a_start_have_no_page(tmp_path: pathlib.Path) -> None:
    """A file with nothing of a campaign is refused with a reason."""
    with pytest.raises(RecordFileError, match="no campaign that has started"):
        page_of(tmp_path, [])


def test_the_heat_map_is_the_records(tmp_path: pathlib.Path) -> None:
    """A result that is changed in the file changes its cell."""
    path = tmp_path / "shown.jsonl"
    written = [json.loads(encoded(attrs.evolve(record))) for record in records()]
    for record in written:
        if record["record"] == "phase_result" and record["phase"] == "discovery" and record["target_nat"] == "strict":
            record |= {"received": 0, "lost": 1, "loss_pct": 100.0, "verdict": "FAIL"}
    path.write_text("".join(json.dumps(record) + "\n" for record in written))
    before = Page(page_of(tmp_path, records()))
    path.write_text("".join(json.dumps(record) + "\n" for record in written))
    after = Page(report_page(read_records(path)))

    def count(page: Page) -> int:
        return sum(tag == "td" and a.get("class") == "s0" for tag, a in page.elements)

    assert (count(before), count(after)) == (1, 2)
