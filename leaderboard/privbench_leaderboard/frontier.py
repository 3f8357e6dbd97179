"""Rank-1 against a utility: intervals, Pareto front, labels beside the points."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.text import Annotation
    from matplotlib.transforms import Bbox

BLUE, ORANGE, RED, GREEN, PURPLE, GREY = (
    "#0072B2", "#B37700", "#D55E00", "#009E73", "#AA4488", "#666666",
)  # fmt: skip
"""Okabe and Ito's colours, which colour-blind readers can tell apart; some darkened for text."""


class Interval(Protocol):
    """A number with bounds."""

    @property
    def value(self) -> float | None:
        """Point estimate."""

    @property
    def low(self) -> float | None:
        """Lower end."""

    @property
    def high(self) -> float | None:
        """Upper end."""


@dataclass(frozen=True, slots=True)
class Dot:
    """One point.

    Attributes:
        label: text beside it; "" for none.
        x: utility.
        y: rank-1.
        colour: of marker and text.
        marker: of matplotlib.
        candidate: may be on the Pareto front; others are hollow.
        small: a minor point.
    """

    label: str
    x: Interval
    y: Interval
    colour: str
    marker: str = "o"
    candidate: bool = True
    small: bool = False


def pareto(points: Sequence[tuple[float, float]], better: Literal["higher", "lower"]) -> list[int]:
    """Points that no other beats: indices, in order of x.

    Args:
        points: (utility, rank-1) pairs; a lower rank-1 protects better.
        better: which utilities are better.

    >>> pareto([(0.2, 0.1), (0.5, 0.4), (0.4, 0.5), (0.2, 0.3)], "higher")
    [0, 1]
    """
    sign = 1 if better == "higher" else -1
    signed = [(sign * x, y) for x, y in points]
    front = [
        i
        for i, (x, y) in enumerate(signed)
        if not any(u >= x and v <= y and (u, v) != (x, y) for u, v in signed)
    ]
    return sorted(front, key=lambda i: points[i])


def draw(axes: Axes, dots: Sequence[Dot], better: Literal["higher", "lower"] = "higher") -> None:
    """Points with intervals of rank-1, and the front of those that may be on it.

    Dots without a value are left out. The front is a staircase: between two of its points, the
    more useful one has to be taken. Labels come last (`label_dots`).
    """
    shown = [d for d in dots if d.x.value is not None and d.y.value is not None]
    for d in shown:
        axes.errorbar(
            _at(d)[0],
            _at(d)[1],
            yerr=_error(d.y),
            fmt=d.marker,
            color=d.colour,
            markerfacecolor=d.colour if d.candidate else "white",
            markersize=4 if d.small else 6.5,
            elinewidth=0.5 if d.small else 0.9,
            alpha=0.75 if d.small else 1,
            zorder=3,
        )
    candidates = [d for d in shown if d.candidate]
    front = [_at(candidates[i]) for i in pareto([_at(d) for d in candidates], better)]
    if len(front) > 1:
        axes.plot(
            [x for x, _ in front], [y for _, y in front], color="#f0c75e", linewidth=6,
            alpha=0.55, zorder=1, label="Pareto front", solid_joinstyle="round",
            drawstyle="steps-pre" if better == "higher" else "steps-post",
        )  # fmt: skip


def label_dots(axes: Axes, dots: Sequence[Dot], size: float = 7.5) -> None:
    """Write each label where it covers neither a point nor an earlier label, as far as it can be.

    Call it when axes limits are final.
    """
    from matplotlib.patheffects import withStroke
    from matplotlib.transforms import Bbox as Box

    figure = axes.figure
    figure.canvas.draw()  # the layout must be known
    shown = [d for d in dots if d.x.value is not None and d.y.value is not None]
    centres = [axes.transData.transform(_at(d)) for d in shown]
    taken: list[Bbox] = [Box.from_bounds(x - 7, y - 7, 14, 14) for x, y in centres]
    frame = axes.get_window_extent()
    for d in shown:
        if not d.label:
            continue
        text = axes.annotate(
            d.label,
            _at(d),
            xytext=(0, 0),
            textcoords="offset points",
            fontsize=size,
            color=d.colour,
            parse_math=False,  # a name is text, not TeX
            zorder=4,
            path_effects=[withStroke(linewidth=2, foreground="white")],
        )
        text.set_in_layout(False)
        best: tuple[float, int] | None = None
        for i in range(len(_PLACES)):
            _place(text, i)
            box = text.get_window_extent()
            cost = sum(_shared(box, other) for other in taken)
            cost += box.width * box.height - _shared(box, frame)
            if best is None or cost < best[0] - 1:
                best = (cost, i)
            if cost < 1:
                break
        if best is not None:
            _place(text, best[1])
        taken.append(text.get_window_extent())


_PLACES = tuple(
    (dx * far, dy * far)
    for far in (1.0, 1.8, 2.8, 4.0)
    for dx, dy in ((6, 5), (-6, 5), (6, -5), (-6, -5), (7, 0), (-7, 0), (0, 8), (0, -8))
)


def _place(text: Annotation, place: int) -> None:
    dx, dy = _PLACES[place]
    text.set_position((dx, dy))
    text.set_horizontalalignment("center" if not dx else "left" if dx > 0 else "right")
    text.set_verticalalignment("center" if not dy else "bottom" if dy > 0 else "top")


def _shared(one: Bbox, other: Bbox) -> float:
    """Area in which two boxes overlap."""
    width = min(one.x1, other.x1) - max(one.x0, other.x0)
    height = min(one.y1, other.y1) - max(one.y0, other.y0)
    return float(max(width, 0.0) * max(height, 0.0))


def _at(dot: Dot) -> tuple[float, float]:
    return dot.x.value or 0.0, dot.y.value or 0.0


def _error(number: Interval) -> list[list[float]] | None:
    if number.value is None or number.low is None or number.high is None:
        return None
    return [[max(number.value - number.low, 0)], [max(number.high - number.value, 0)]]
