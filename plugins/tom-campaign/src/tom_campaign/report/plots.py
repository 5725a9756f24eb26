"""Plots as inline SVG, styled by the page's own colours, each with a title and a description for who can't see it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import attrs
from markupsafe import Markup, escape

from tom_campaign.core.records import PathSpan

WIDTH: Final = 720
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 16, 12, 40
_ROW: Final = 18
LINE_CLASSES: Final = ("line-a", "line-b", "line-c", "line-d")
"""Lines differ by colour and by dashes."""


@attrs.frozen
class Line:
    """A line of a plot: its name, and its points from left to right."""

    name: str
    points: Sequence[tuple[float, float]]


@attrs.frozen
class Strip:
    """What carried the traffic of one step: spans until `end`, seconds."""

    name: str
    spans: Sequence[PathSpan]
    end: float


def nice_ticks(top: float, wanted: int = 5) -> list[float]:
    """Round numbers from 0 to `top` or just above, about `wanted` of them."""
    if not math.isfinite(top) or top <= 0:
        return [0.0, 1.0]
    raw = top / wanted
    magnitude = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * magnitude for factor in (1, 2, 2.5, 5, 10) if factor * magnitude >= raw * 0.999)
    return [round(number * step, 10) for number in range(math.ceil(top / step - 1e-9) + 1)]


def distribution(samples: Sequence[float]) -> list[tuple[float, float]]:
    """The empirical distribution of samples as the corners of its steps: value, and share (0 to 1) up to it."""
    ordered = sorted(samples)
    points: list[tuple[float, float]] = []
    share = 0.0
    for number, value in enumerate(ordered, 1):
        if number < len(ordered) and ordered[number] == value:
            continue
        points.append((value, share))
        share = number / len(ordered)
        points.append((value, share))
    return points


def line_plot(lines: Sequence[Line], *, label: str, x_title: str, y_title: str, y_top: float | None = None) -> Markup:
    """Lines over a common axis from 0; `label` says in words what is to be seen."""
    top = _TOP + (_ROW if len(lines) > 1 else 0)  # the legend stands above, where no line can cross it
    height = 248 + top
    xs = [x for line in lines for x, _ in line.points]
    ys = [y for line in lines for _, y in line.points]
    x_ticks, y_ticks = nice_ticks(max(xs, default=1.0)), nice_ticks(max(ys, default=1.0) if y_top is None else y_top)
    x_scale = (WIDTH - _LEFT - _RIGHT) / x_ticks[-1]
    y_scale = (height - top - _BOTTOM) / y_ticks[-1]

    def at(x: float, y: float) -> str:
        return f"{_LEFT + x * x_scale:.1f},{height - _BOTTOM - y * y_scale:.1f}"

    parts = [_axes(x_ticks, y_ticks, x_scale, y_scale, height, x_title, y_title)]
    for line, style in zip(lines, LINE_CLASSES, strict=False):
        parts.append(
            Markup('<polyline class="{}" points="{}"/>').format(style, " ".join(at(x, y) for x, y in line.points))
        )
    legend = Markup("").join(
        Markup('<g transform="translate({},{})"><line class="{}" x2="26"/><text x="32" y="4">{}</text></g>').format(
            _LEFT + 150 * number, _TOP, style, line.name
        )
        for number, (line, style) in enumerate(zip(lines, LINE_CLASSES, strict=False))
    )
    return _figure(Markup("").join([*parts, legend if len(lines) > 1 else Markup("")]), height, label)


def _axes(
    x_ticks: list[float], y_ticks: list[float], x_scale: float, y_scale: float, height: int, x_title: str, y_title: str
) -> Markup:
    bottom = height - _BOTTOM
    parts = []
    for tick in y_ticks:
        y = bottom - tick * y_scale
        parts.append(
            Markup(
                '<line class="grid" x1="{}" x2="{}" y1="{:.1f}" y2="{:.1f}"/>'
                '<text class="end" x="{}" y="{:.1f}">{}</text>'
            ).format(_LEFT, WIDTH - _RIGHT, y, y, _LEFT - 6, y + 4, f"{tick:g}")
        )
    parts.append(_x_axis(x_ticks, x_scale, bottom, x_title))
    parts.append(
        Markup('<text class="mid" transform="translate(14,{}) rotate(-90)">{}</text>').format(bottom / 2 + 6, y_title)
    )
    return Markup("").join(parts)


def _x_axis(x_ticks: list[float], x_scale: float, bottom: float, title: str, left: float = _LEFT) -> Markup:
    parts = [
        Markup('<line class="axis" x1="{}" x2="{}" y1="{}" y2="{}"/>').format(left, WIDTH - _RIGHT, bottom, bottom)
    ]
    for tick in x_ticks:
        parts.append(
            Markup('<text class="mid" x="{:.1f}" y="{}">{}</text>').format(
                left + tick * x_scale, bottom + 16, f"{tick:g}"
            )
        )
    parts.append(
        Markup('<text class="mid" x="{}" y="{}">{}</text>').format((left + WIDTH - _RIGHT) / 2, bottom + 33, title)
    )
    return Markup("").join(parts)


def strip_plot(strips: Sequence[Strip], *, label: str, x_title: str) -> Markup:
    """One bar for each step, cut where the kind of path changed."""
    left = 250  # a name of 36 wide letters
    height = _TOP + _ROW * len(strips) + _BOTTOM
    ticks = nice_ticks(max((strip.end for strip in strips), default=1.0))
    scale = (WIDTH - left - _RIGHT) / ticks[-1]
    parts = []
    for row, strip in enumerate(strips):
        y = _TOP + row * _ROW
        parts.append(Markup('<text class="end" x="{}" y="{}">{}</text>').format(left - 6, y + 12, _cut(strip.name, 36)))
        for kind, begin, end in cut_spans(strip):
            parts.append(
                Markup('<rect class="path-{}" x="{:.1f}" y="{}" width="{:.1f}" height="{}"/>').format(
                    kind, left + begin * scale, y + 2, max(1.0, (end - begin) * scale), _ROW - 4
                )
            )
    parts.append(_x_axis(ticks, scale, height - _BOTTOM, x_title, left))
    return _figure(Markup("").join(parts), height, label)


def cut_spans(strip: Strip) -> list[tuple[str, float, float]]:
    """Kind, begin and end of each span, none of them beyond the end."""
    found = []
    if strip.spans and strip.spans[0].at_s > 0:
        found.append(("none", 0.0, strip.spans[0].at_s))
    for number, span in enumerate(strip.spans):
        end = strip.spans[number + 1].at_s if number + 1 < len(strip.spans) else strip.end
        kind = span.path_kind if span.path_kind in ("direct", "relay") else "none"
        if end > span.at_s or (end == span.at_s and len(strip.spans) == 1):
            found.append((kind, span.at_s, end))
    return found


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


def _figure(body: Markup, height: float, label: str) -> Markup:
    return Markup('<svg role="img" aria-label="{}" viewBox="0 0 {} {}">{}</svg>').format(
        escape(label), WIDTH, height, body
    )
