"""The report of a campaign in a real browser: it loads nothing, is drawn, and can be read, in light and dark."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.interop.peers import PeerMissing
from tests.interop.peers.chromium import Browser, chromium

pytestmark = pytest.mark.timeout(300)
TIMEOUT = 200.0
SCENARIO = """
name = "shown"
jobs = 4
[dht]
nodes = 12
[[group]]
name = "node"
network = "local"
count = 3
[[phase]]
kind = "discovery"
[[phase]]
kind = "connect"
[[phase]]
kind = "ping"
count = 20
interval = 0.02
[[phase]]
kind = "endurance"
duration = 3
every = 0.5
interval = 0.05
"""
# The contrast of a text with what is behind it (WCAG 2.2, relative luminance), by the page's own computed colours.
CONTRASTS = """
(() => {
  const rgb = text => text.match(/[\\d.]+/g).map(Number)
  const light = c => c.slice(0, 3).map(v => v / 255)
    .map(v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0)
  const behind = element => {
    for (let at = element; at; at = at.parentElement) {
      const colour = rgb(getComputedStyle(at).backgroundColor)
      if (colour.length < 4 || colour[3] > 0) return colour
    }
    return [255, 255, 255]
  }
  const found = []
  const texts = 'h1, h2, p, th, td, caption, figcaption, summary, .badge, svg text'
  for (const element of document.querySelectorAll(texts)) {
    const style = getComputedStyle(element)
    const a = light(rgb(element.closest('svg') ? style.fill : style.color)), b = light(behind(element))
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05)
    found.push([ratio, element.tagName + ' ' + element.textContent.slice(0, 30)])
  }
  return found.sort((x, y) => x[0] - y[0])
})()
"""


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of a campaign that was really run."""
    folder = tmp_path_factory.mktemp("campaign")
    (folder / "shown.toml").write_text(SCENARIO)
    (folder / "none.toml").touch()
    command = [sys.executable, "-m", "tom_connect", "campaign", "run", "shown.toml", "--report", "shown.html"]
    environ = {**os.environ, "HOME": str(folder), "TOM_CONNECT_CONFIG": str(folder / "none.toml")}
    done = subprocess.run(
        command, cwd=folder, env=environ, capture_output=True, text=True, timeout=TIMEOUT, check=False
    )
    assert done.returncode == 0, done.stderr
    return folder / "shown.html"


@pytest.fixture
async def browser(report: Path, tmp_path: Path) -> AsyncIterator[Browser]:
    try:
        async with asyncio.timeout(TIMEOUT), chromium(tmp_path / "profile") as found:
            await found.open(report.as_uri())
            yield found
    except PeerMissing as exc:
        pytest.skip(str(exc))


async def test_the_page_stands_alone(browser: Browser, report: Path) -> None:
    """Nothing but the file itself is loaded, and the browser has nothing to complain of."""
    assert await browser.value("document.title") == "shown: PASS"
    assert browser.requests == [report.as_uri()] and browser.complaints == []
    assert await browser.value("document.compatMode") == "CSS1Compat"
    assert await browser.value("performance.getEntriesByType('resource').length") == 0


async def test_plots_are_drawn(browser: Browser) -> None:
    """Every plot has a size and lines or bars inside its frame; the distributions rise from left to right."""
    boxes = await browser.value(
        "[...document.querySelectorAll('svg')].map(svg => { const s = svg.getBoundingClientRect();"
        " return [...svg.querySelectorAll('polyline, rect')].map(e => e.getBoundingClientRect())"
        " .map(b => [b.width, b.height, b.left >= s.left - 1 && b.right <= s.right + 1 &&"
        " b.top >= s.top - 1 && b.bottom <= s.bottom + 1]) })"
    )
    assert len(boxes) == 4 and all(boxes)
    assert all(inside and width > 0 for plot in boxes for width, _, inside in plot)
    for plot in ("plot-found", "plot-direct"):
        points = await browser.value(
            f"[...document.querySelector('#{plot} polyline').points].map(point => [point.x, point.y])"
        )
        assert len(points) >= 6 and points == sorted(points, key=lambda point: (point[0], -point[1]))
        assert points[0][1] > points[-1][1]
    shades = await browser.value(
        "[...document.querySelectorAll('.heat td')].map(e => getComputedStyle(e).backgroundColor)"
    )
    assert shades and all(shade.startswith("rgb(") for shade in shades)


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
async def test_it_can_be_read_in_both_schemes(browser: Browser, dark: bool, tmp_path: Path) -> None:
    """Texts contrast with what is behind them by 4.5 to 1 (WCAG 2.2, 1.4.3), and the page is really dark or light."""
    await browser.look(dark=dark)
    paper = await browser.value("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)")
    assert max(paper) < 64 if dark else min(paper) > 224
    contrasts = await browser.value(CONTRASTS)
    assert len(contrasts) > 100
    assert contrasts[0][0] >= 4.5, contrasts[:5]
    picture = await browser.screenshot()
    assert picture.startswith(b"\x89PNG") and len(picture) > 50_000
    kept = os.environ.get("TOM_CAMPAIGN_SCREENSHOTS")
    if kept:
        (Path(kept) / f"report-{'dark' if dark else 'light'}.png").write_bytes(picture)


async def test_it_fits_into_a_narrow_window(browser: Browser) -> None:
    """On a telephone the page is no wider than the window; wide tables and legible plots scroll by themselves."""
    await browser.look(dark=False, width=390)
    assert await browser.value("document.documentElement.scrollWidth") <= 390
    assert await browser.value("[...document.querySelectorAll('.scroll')].some(e => e.scrollWidth > e.clientWidth)")
    sizes = await browser.value(
        "[...document.querySelectorAll('svg text')].map(e => Math.hypot(e.getScreenCTM().a, e.getScreenCTM().b)"
        " * parseFloat(getComputedStyle(e).fontSize))"
    )
    assert len(sizes) > 20 and min(sizes) >= 10
    assert await browser.value("Math.max(...[...document.querySelectorAll('caption')].map(e => e.clientWidth))") <= 390


async def test_it_speaks_to_those_who_cannot_see(browser: Browser) -> None:
    """In the browser's accessibility tree plots are images with words, tables and sections have names."""
    nodes = (await browser.ask("Accessibility.getFullAXTree"))["nodes"]

    def names(*roles: str) -> list[str]:
        return [
            node.get("name", {}).get("value", "")
            for node in nodes
            if not node["ignored"] and node.get("role", {}).get("value") in roles
        ]

    pictures = names("image", "img")
    assert len(pictures) == 4 and all("table" in name for name in pictures)
    assert any("half within" in name for name in pictures)
    tables = names("table")
    assert len(tables) >= 7 and all(tables)
    assert {"Verdict by phase", "Success by NAT pair", "Path over time"} <= set(names("heading"))
    assert len(names("columnheader")) > 20 and len(names("rowheader")) > 10
