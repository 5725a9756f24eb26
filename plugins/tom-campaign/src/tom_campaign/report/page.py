"""The page of a report."""

from __future__ import annotations

import datetime

import jinja2
from markupsafe import Markup

from tom_campaign.core.errors import RecordFileError
from tom_campaign.core.statistics import MAX_SAMPLES
from tom_campaign.recordfile import Recorded
from tom_campaign.report.plots import Line, distribution, line_plot, strip_plot
from tom_campaign.report.views import (
    COUNTED,
    Moment,
    PathTimes,
    Times,
    heat_maps,
    lossy,
    moments,
    path_times,
    times_to_direct,
    times_to_find,
)


def report_page(recorded: Recorded) -> str:
    """HTML of what a file of records tells; raises RecordFileError if nothing was ever started."""
    if not recorded.started:
        raise RecordFileError("the file tells of no campaign that has started, so there is nothing to report")
    paths, more_paths = path_times(recorded.results)
    failed, more_failed = lossy(recorded.results)
    direct, found, windows = (
        times_to_direct(recorded.results),
        times_to_find(recorded.results),
        moments(recorded.rolling),
    )
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("tom_campaign", "report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["figure"] = _figure
    environment.filters["moment"] = _moment
    return environment.get_template("page.html.j2").render(
        first=recorded.started[0],
        started=recorded.started[-1],
        summary=recorded.summary,
        counted=COUNTED,
        heat_maps=heat_maps(recorded.results),
        direct=direct,
        direct_plot=_distribution_plot(direct, "Time from dial to direct path") if _any(direct) else None,
        found=found,
        found_plot=_distribution_plot(found, "Time of look-ups") if _any(found) else None,
        paths=paths,
        more_paths=more_paths,
        path_plot=_path_plot(paths) if paths else None,
        windows=windows,
        window_plots=[_window_plot(windows, phase) for phase in dict.fromkeys(w.phase for w in windows)],
        failed=failed,
        more_failed=more_failed,
        max_samples=MAX_SAMPLES,
    )


def _any(times: list[Times]) -> bool:
    return bool(times) and bool(times[0].samples)


def _figure(value: float | None, digits: int = 1) -> str:
    """A number for people."""
    return "–" if value is None else f"{value:,.{digits}f}"


def _moment(at: float) -> str:
    """Seconds since 1970 for people."""
    return datetime.datetime.fromtimestamp(at, datetime.UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def _distribution_plot(times: list[Times], what: str) -> Markup:
    lines = [Line(each.name, [(x, 100 * y) for x, y in distribution(each.samples)]) for each in times[:1]]
    figures = times[0].statistics
    label = (
        f"{what}: half within {_figure(figures.p50_ms)} ms, 95% within {_figure(figures.p95_ms)} ms, "
        f"all of {len(times[0].samples)} within {_figure(figures.max_ms)} ms; the figures are in the table"
    )
    return line_plot(lines, label=label, x_title="milliseconds", y_title="percent", y_top=100.0)


def _path_plot(paths: list[PathTimes]) -> Markup:
    label = f"Kinds of path that carried the traffic of {len(paths)} steps, over time; the seconds are in the table"
    return strip_plot([times.strip for times in paths], label=label, x_title="seconds since the step began")


def _window_plot(windows: list[Moment], phase: str) -> tuple[str, Markup]:
    mine = [window for window in windows if window.phase == phase]
    lines = [
        Line("median", [(w.elapsed_s, w.p50_ms) for w in mine if w.p50_ms is not None]),
        Line("95th percentile", [(w.elapsed_s, w.p95_ms) for w in mine if w.p95_ms is not None]),
    ]
    label = f"Round trips of {phase} over time, in {len(mine)} windows; the figures are in the table"
    return phase, line_plot(lines, label=label, x_title="seconds", y_title="milliseconds")
