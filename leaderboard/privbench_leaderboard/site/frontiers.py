"""Privacy against utility and against cost, as pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import ceil, floor
from typing import Literal

from privbench_leaderboard.frontier import pareto
from privbench_leaderboard.records import Number
from privbench_leaderboard.site.labels import names
from privbench_leaderboard.site.svg import (
    Frame,
    axes,
    element,
    frame,
    path,
    picture,
    powers,
)
from privbench_leaderboard.tables import Row, SummaryTable
from privbench_leaderboard.text import plain

WIDTH, HEIGHT = 400.0, 360.0
MOST_LABELS = 24
"""Of more points than these only the best protected are named."""

UTILITIES = (
    ("detection", "faces found in releases"),
    ("attributes/mean", "attributes kept"),
    ("ssim", "SSIM to the source"),
)
"""Utilities that a table is drawn against, where two of its rows have them."""

MARKS = ("circle", "square", "diamond", "triangle", "cross")


@dataclass(frozen=True, slots=True)
class Point:
    """One row: x, rank-1 with its interval, and whether it may be on the front."""

    label: str
    x: float
    y: Number
    candidate: bool
    series: int = 0

    @property
    def at(self) -> tuple[float, float]:
        """Values on both axes."""
        return self.x, self.y.value or 0.0


@dataclass(frozen=True, slots=True)
class Panel:
    """One picture, its heading, and the names of its series where there are several."""

    title: str
    svg: str
    series: tuple[str, ...] = ()


def panels(table: SummaryTable, name: str) -> tuple[Panel, ...]:
    """All pictures of one table, of its strongest attacker only.

    What a weaker attacker leaves is no protection. Controls and diagnostics are hollow and never
    on the front. Costs are compared within one device and dtype: each has a mark and a front of
    its own.

    Args:
        name: unique on the page, for ids.
    """
    shown = [row for row in table.rows if row.rank1 is not None and row.rank1.value is not None]
    rows = [row for row in shown if row.threat_model == shown[0].threat_model]
    drawn = []
    for i, (key, title) in enumerate(UTILITIES):
        points = [
            Point(_label(row), utility.value, row.rank1, not row.control)
            for row in rows
            if row.rank1 and (utility := row.utility.get(key)) and utility.value is not None
        ]
        if len(points) > 1:
            box = frame(WIDTH, HEIGHT, _around([p.x for p in points]))
            fronts = _told(_fronts(points, "higher"))
            about = f"Further right is more useful, further down is better protected. {fronts}"
            drawn.append(
                _panel(f"{name}-{i}", f"Rank-1 and {title}", about, box, points,
                       f"{title[0].upper()}{title[1:]} → more useful",
                       _ticks(box.x.low, box.x.high), "higher", _chances(rows))
            )  # fmt: skip
    if cost := _cost(rows, name):
        drawn.append(cost)
    return tuple(drawn)


def sheet(found: Sequence[Panel], style: str) -> str:
    """All pictures in one file of its own, two a row, and the key of their marks."""
    rows = -(-len(found) // 2)
    key = [name for panel in found for name in panel.series]
    width, height = WIDTH * min(len(found), 2), HEIGHT * rows + 16 * len(key) + 8
    placed = [
        panel.svg.replace(
            "<svg ",
            f'<svg x="{WIDTH * (i % 2):g}" y="{HEIGHT * (i // 2):g}" width="{WIDTH:g}" '
            f'height="{HEIGHT:g}" ',
            1,
        )
        for i, panel in enumerate(found)
    ]
    for i, name in enumerate(key):
        x, y, mark = width - WIDTH + 40, HEIGHT * rows + 16 * i + 4, i % len(MARKS)
        placed.append(
            _shape(MARKS[mark], x, y, f"s{mark}")
            + element("text", text=name, class_="tick", x=x + 12, y=y + 4)
        )
    return picture(
        width, height, "sheet", "Privacy against utility and cost",
        "One panel per utility and one for time; the numbers are in the tables.",
        f"<style>{style}</style>", element("rect", class_="paper", width=width, height=height),
        *placed,
    ) + "\n"  # fmt: skip


def _cost(rows: Sequence[Row], name: str) -> Panel | None:
    devices: dict[str, int] = {}
    points = []
    for row in rows:
        if row.rank1 and row.stage and (cost := row.stage.summary.median_ms_per_image):
            series = devices.setdefault(device_of(row), len(devices))
            points.append(Point(_label(row), cost, row.rank1, not row.control, series))
    if len(points) < 2 or min(p.x for p in points) <= 0:
        return None
    ends = powers(min(p.x for p in points) / 10, max(p.x for p in points) * 10)
    box = frame(WIDTH, HEIGHT, (_floor(points, ends), _ceiling(points, ends)), log=True)
    about = (
        "Further left is faster, further down is better protected; compare points of one mark "
        "only: each mark is a device and dtype. " + _told(_fronts(points, "lower"))
    )
    panel = _panel(f"{name}-cost", "Rank-1 and time per image", about, box, points,
                   "ms per image, median → slower", powers(box.x.low, box.x.high), "lower",
                   _chances(rows))  # fmt: skip
    return Panel(panel.title, panel.svg, tuple(devices))


def _floor(points: Sequence[Point], ends: Sequence[float]) -> float:
    return max(e for e in ends if e <= min(p.x for p in points))


def _ceiling(points: Sequence[Point], ends: Sequence[float]) -> float:
    return min(e for e in ends if e >= max(p.x for p in points))


def device_of(row: Row) -> str:
    """Where a row was timed, and in which dtype: what has to agree to compare times."""
    return ", ".join(device_facts(row.stage.device if row.stage else {}, row.dtype))


def device_facts(device: Mapping[str, str], dtype: str) -> tuple[str, ...]:
    """Name, threads and dtype, without what is unknown."""
    threads = device.get("threads")
    counted = f"{threads} thread{'' if threads == '1' else 's'}" if threads else ""
    return tuple(plain(f) for f in (device.get("name", ""), counted, dtype) if f)


def _panel(
    name: str,
    title: str,
    about: str,
    box: Frame,
    points: Sequence[Point],
    x_name: str,
    ticks: Sequence[float],
    better: Literal["higher", "lower"],
    chances: Sequence[float],
) -> Panel:
    fronts = [
        element("path", class_="front", d=_stairs(box, front, better))
        for front in _fronts(points, better)
        if len(front) > 1
    ]
    marks = [_mark(box, p) for p in sorted(points, key=lambda p: p.candidate)]
    return Panel(
        title,
        picture(
            WIDTH, HEIGHT, name, title, about,
            axes(box, x_name, "Worst-case rank-1 ↓ better protected", ticks),
            *(_chance(box, c) for c in chances), *fronts, *marks,
            names(box, [p.at for p in points], _named(points)),
        ),
    )  # fmt: skip


def _stairs(box: Frame, front: Sequence[Point], better: Literal["higher", "lower"]) -> str:
    """A staircase: between two points of the front the next one has to be taken."""
    at = [(box.x(p.x), box.y(p.at[1])) for p in front]
    steps = [at[0]]
    for (x0, y0), (x1, y1) in pairwise(at):
        steps += [(x0, y1) if better == "higher" else (x1, y0), (x1, y1)]
    return path(steps)


def _mark(box: Frame, point: Point) -> str:
    x, y = box.x(point.x), box.y(point.at[1])
    style = point.series % len(MARKS)
    look = f"s{style}" + ("" if point.candidate else " hollow")
    parts = []
    if point.y.low is not None and point.y.high is not None:
        parts.append(
            element("line", class_=f"whisker s{style}", x1=x, x2=x,
                    y1=box.y(point.y.low), y2=box.y(point.y.high))
        )  # fmt: skip
    parts.append(_shape(MARKS[style], x, y, look))
    shown = f"{point.label}: rank-1 {point.at[1]:.3f}, x {point.x:.3g}"
    return element("g", element("title", text=shown), *parts)


def _shape(kind: str, x: float, y: float, look: str) -> str:
    if kind == "circle":
        return element("circle", class_=f"dot {look}", cx=x, cy=y, r=4)
    corners = ((x + a, y + b) for a, b in _CORNERS[kind])
    return element("path", class_=f"dot {look}", d=path(corners, closed=True))


_CORNERS: Mapping[str, Sequence[tuple[float, float]]] = {
    "square": [(-4, -4), (4, -4), (4, 4), (-4, 4)],
    "diamond": [(0, -5.4), (5.4, 0), (0, 5.4), (-5.4, 0)],
    "triangle": [(0, -5), (5, 4), (-5, 4)],
    "cross": [(-5, -2), (-2, -2), (-2, -5), (2, -5), (2, -2), (5, -2), (5, 2), (2, 2), (2, 5),
              (-2, 5), (-2, 2), (-5, 2)],
}  # fmt: skip


def swatch(series: int) -> str:
    """The mark of a series, for a legend."""
    style = series % len(MARKS)
    return element("svg", _shape(MARKS[style], 8, 8, f"s{style}"),
                   class_="chart swatch", viewBox="0 0 16 16", aria_hidden="true")  # fmt: skip


def _chance(box: Frame, chance: float) -> str:
    at = box.y(chance)
    return element("line", class_="chance", x1=box.x.start, x2=box.x.stop, y1=at, y2=at) + element(
        "text", text="chance", class_="tick", x=box.x.stop, y=at - 4, text_anchor="end"
    )


def _named(points: Sequence[Point]) -> list[tuple[str, tuple[float, float]]]:
    """Names and what they belong to, lowest first: the best protected find the best places."""
    ordered = sorted(points, key=lambda p: (p.at[1], p.x, p.label))
    return [(p.label, p.at) for p in ordered[:MOST_LABELS]]


def _fronts(points: Sequence[Point], better: Literal["higher", "lower"]) -> list[tuple[Point, ...]]:
    """What no other beats both ways, of each series that has rows that may."""
    found = []
    for series in sorted({p.series for p in points}):
        mine = [p for p in points if p.candidate and p.series == series]
        found.append(tuple(mine[i] for i in pareto([p.at for p in mine], better)))
    return [front for front in found if front]


def _told(fronts: Sequence[Sequence[Point]]) -> str:
    said = "; ".join(", ".join(p.label for p in front) for front in fronts)
    return f"On the front: {said}." if said else "No point may be on the front."


def _label(row: Row) -> str:
    name = plain(row.anonymizer, 28)
    return f"{name} ({row.control})" if row.control else name


def _chances(rows: Sequence[Row]) -> list[float]:
    return sorted({row.rank1.chance for row in rows if row.rank1 and row.rank1.chance})


def _around(values: Sequence[float]) -> tuple[float, float]:
    """Whole tenths around values."""
    low, high = floor(10 * min(values)) / 10, ceil(10 * max(values)) / 10
    return low, max(high, low + 0.1)


def _ticks(low: float, high: float) -> list[float]:
    """At most seven round places."""
    step = next((s for s in _STEPS if (high - low) / s <= 6), high - low)
    return [round(i * step, 6) for i in range(ceil(low / step), floor(high / step + 1e-9) + 1)]


_STEPS = tuple(unit * 10.0**power for power in range(-1, 6) for unit in (1, 2, 5))
