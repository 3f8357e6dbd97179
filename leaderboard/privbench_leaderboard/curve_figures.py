"""Plot of inversions: rank-1 of the reconstructions against the query budget, as a rule."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from privbench_leaderboard.canvas import new_figure, save_figure
from privbench_leaderboard.frontier import BLUE, GREEN, GREY, ORANGE, PURPLE, RED
from privbench_leaderboard.study_figures import end_labels

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from privbench_leaderboard.studies import Curve, Study

_COLOURS = (BLUE, ORANGE, GREEN, PURPLE, RED)
_MARKERS = ("o", "s", "D", "^", "v", "P")
_COLUMNS = 2


def plot_curves(study: Study, out: Path) -> bool:
    """One panel per attack and setting, one line per variant; dashed: the releases as they are.

    Args:
        out: PNG file.

    Returns:
        Whether there was anything to draw.

    Raises:
        LeaderboardError: the file cannot be written.
    """
    curves = [curve for curve in study.results.curves if curve.points]
    if not curves:
        return False
    titles = list(dict.fromkeys(curve.title for curve in curves))
    styles = _styles(curves)
    rows = -(-len(titles) // _COLUMNS)
    columns = min(len(titles), _COLUMNS)
    figure = new_figure(1.2 + 4.8 * columns, 0.6 + 3.4 * rows)
    panels = figure.subplots(rows, columns, sharey=True, squeeze=False).ravel()
    for axes in panels[len(titles) :]:
        axes.set_axis_off()
    for axes, title in zip(panels, titles, strict=False):
        mine = [curve for curve in curves if curve.title == title]
        for curve in mine:
            _draw(axes, curve, *styles[curve.variant])
        end_labels(
            axes,
            [(c.variant, c.points[-1].rank1.value or 0.0, styles[c.variant][0]) for c in mine],
        )
        _scales(axes, mine, 1 / study.results.people)
        axes.set_title(mine[0].attack, fontsize=10, loc="left", parse_math=False)
        axes.set_xlabel(mine[0].setting.replace("_", " "), parse_math=False)
    for axes in panels[::columns]:
        axes.set_ylabel("rank-1 ↓ better protected")
    save_figure(figure, out)
    return True


def _draw(axes: Axes, curve: Curve, colour: str, marker: str) -> None:
    """A line with its band, and the releases' own rank-1."""
    shown = [p for p in curve.points if p.rank1.value is not None]
    x = [p.place for p in shown]
    y = [p.rank1.value or 0.0 for p in shown]
    low = [v if p.rank1.low is None else p.rank1.low for v, p in zip(y, shown, strict=True)]
    high = [v if p.rank1.high is None else p.rank1.high for v, p in zip(y, shown, strict=True)]
    axes.fill_between(x, low, high, color=colour, alpha=0.15, linewidth=0)
    axes.plot(x, y, marker=marker, color=colour, linewidth=1.6, markersize=4.5)
    before = [(p.place, p.released.value) for p in curve.points if p.released.value is not None]
    axes.plot(*zip(*before, strict=True), color=colour, linewidth=1, linestyle="--", alpha=0.8)


def _scales(axes: Axes, curves: list[Curve], chance: float) -> None:
    places = sorted({p.place for curve in curves for p in curve.points})
    axes.set_xscale("log")
    axes.set_xticks(places, [f"{place:,}" for place in places])
    axes.minorticks_off()
    axes.axhline(chance, color=GREY, linewidth=0.8, linestyle=":")
    axes.set_ylim(-0.02, 1.04)
    axes.spines[["top", "right"]].set_visible(False)


def _styles(curves: list[Curve]) -> dict[str, tuple[str, str]]:
    """One colour and marker per variant; 30 pairs before one comes back."""
    variants = dict.fromkeys(curve.variant for curve in curves)
    return {
        name: (_COLOURS[i % len(_COLOURS)], _MARKERS[i % len(_MARKERS)])
        for i, name in enumerate(variants)
    }
