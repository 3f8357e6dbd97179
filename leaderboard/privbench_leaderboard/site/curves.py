"""CMC and ROC curves of an anonymizer under several attacks, as pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from privbench_leaderboard.records import Curve
from privbench_leaderboard.site.svg import Frame, axes, element, frame, path, picture, powers

WIDTH, HEIGHT = 400.0, 320.0
STYLES = 8
"""Colours and dashes before one comes back."""

LEAST_RATE = 1e-4
"""False match rates below are not drawn."""


@dataclass(frozen=True, slots=True)
class Series:
    """One attack: its name, its two curves, and which style it has everywhere on the page."""

    name: str
    style: int
    cmc: Curve | None
    roc: Curve | None


def cmc_picture(series: Sequence[Series], people: int | None, name: str) -> str:
    """Share of images whose person is among the first x; "" where nobody has the curve."""
    known = [(s, s.cmc) for s in series if s.cmc and len(s.cmc.x) > 1]
    if not known:
        return ""
    last = max(curve.x[-1] for _, curve in known)
    box = frame(WIDTH, HEIGHT, (1.0, last), log=True)
    ticks = [t for t in (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000) if t <= last]
    ranks = known[0][1].x
    chance = _trace(box, ranks, [k / people for k in ranks]) if people else ""
    said = f" Chance is rank over {people} people." if people else ""
    return picture(
        WIDTH, HEIGHT, name, "Cumulative match characteristic (CMC)",
        "Share of released images whose person is among the attacker's first candidates; lower "
        f"protects better. {_ends(known)}{said}",
        axes(box, "Rank, log scale", "Person among the first ↓", ticks),
        _chance(chance, box), *(_line(box, s, c) for s, c in known),
    )  # fmt: skip


def roc_picture(series: Sequence[Series], name: str) -> str:
    """True match rate by false match rate; "" where nobody has the curve."""
    known = [(s, s.roc) for s in series if s.roc and any(x > 0 for x in s.roc.x)]
    if not known:
        return ""
    least = min(x for _, curve in known for x in curve.x if x > 0)
    low = max(10.0 ** -_digits(least), LEAST_RATE)
    box = frame(WIDTH, HEIGHT, (low, 1.0), log=True)
    rates = [low * (1 / low) ** (i / 60) for i in range(61)]
    return picture(
        WIDTH, HEIGHT, name, "Receiver operating characteristic (ROC)",
        "True match rate at each false match rate; lower protects better. Chance: both are equal.",
        axes(box, "False match rate, log scale", "True match rate ↓", powers(low, 1)),
        _chance(_trace(box, rates, rates), box),
        *(_line(box, s, c, low) for s, c in known),
    )  # fmt: skip


def swatch(style: int) -> str:
    """A piece of the line of a series, for a legend."""
    line = element("line", class_=f"curve c{style % STYLES}", x1=0, x2=32, y1=6, y2=6)
    return element("svg", line, class_="chart swatch", viewBox="0 0 32 12", aria_hidden="true")


def _line(box: Frame, series: Series, curve: Curve, least: float = 1.0) -> str:
    rows = list(zip(curve.x, curve.value, curve.low, curve.high, strict=True))
    shown = [row for row in rows if row[0] >= least] or rows[-1:]
    look = f"c{series.style % STYLES}"
    x, value, low, high = zip(*shown, strict=True)
    around = _trace(box, (*x, *reversed(x)), (*high, *reversed(low)), closed=True)
    return element(
        "g",
        element("title", text=series.name),
        element("path", class_=f"band {look}", d=around),
        element("path", class_=f"curve {look}", d=_trace(box, x, value)),
    )


def _trace(box: Frame, x: Sequence[float], y: Sequence[float], closed: bool = False) -> str:
    return path(zip(box.x.places(x), box.y.places(y), strict=True), closed)


def _chance(line: str, box: Frame) -> str:
    if not line:
        return ""
    return element("path", class_="chance", d=line) + element(
        "text", text="chance", class_="tick", x=box.x.stop - 4, y=box.y.start - 6,
        text_anchor="end",
    )  # fmt: skip


def _ends(known: Sequence[tuple[Series, Curve]]) -> str:
    return " ".join(f"{s.name}: {c.value[0]:.3f} at rank {c.x[0]:g}." for s, c in known)


def _digits(value: float) -> int:
    digits = 0
    while 10.0**-digits > value * (1 + 1e-9) and digits < 9:
        digits += 1
    return digits
