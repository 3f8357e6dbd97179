"""Plots of a study about membership: AUC of rows, over guidance and epochs, power of set tests."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING

from privbench_leaderboard.canvas import new_figure, save_figure
from privbench_leaderboard.frontier import BLUE, GREEN, GREY, ORANGE, PURPLE, RED
from privbench_leaderboard.membership_study import CHANCE, MembershipStudy, SetEntry, figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from privbench_leaderboard.studies import Shown

_COLOURS = (BLUE, ORANGE, GREEN, PURPLE, RED)
_MARKERS = ("o", "s", "D", "^", "v", "P", "X")
_APART = 1.04
"""Ratio of places of two attacks at the same number of epochs."""

Style = tuple[str, str, str]
"""Colour, marker and line."""

_CONTROL: Style = (GREY, "x", ":")


def plot_rows(study: MembershipStudy, out: Path) -> bool:
    """AUC of the first attack on the table's rows, guidance apart, with the paper's figures.

    Args:
        out: PNG file.

    Returns:
        Whether there was anything to draw.

    Raises:
        LeaderboardError: the file cannot be written.
    """
    attack = study.attacks[0]
    rows = [row for row in study.table() if row.group != "guidance" and row.auc(attack)]
    if not rows:
        return False
    drawing = new_figure(5.2, 1.0 + 0.4 * len(rows))
    axes = drawing.subplots()
    for control, label in ((False, attack), (True, "control, which the paper lacks")):
        mine = [(i, auc) for i, row in enumerate(rows)
                if (row.group == "control") == control and (auc := row.auc(attack))]  # fmt: skip
        if not mine:
            continue
        y, values = [i for i, _ in mine], [auc.value or 0.0 for _, auc in mine]
        axes.hlines(y, [auc.low or 0.0 for _, auc in mine], [auc.high or 1.0 for _, auc in mine],
                    color=BLUE, linewidth=1.4)  # fmt: skip
        axes.plot(values, y, "o", color=BLUE, markerfacecolor="white" if control else BLUE,
                  markersize=5.5, label=label)  # fmt: skip
    printed = [(value, i) for i, row in enumerate(rows)
               if (value := figure(row.reported.get(attack, ""))) is not None]  # fmt: skip
    if printed:
        axes.plot(*zip(*printed, strict=True), "D", color=ORANGE, markerfacecolor="white",
                  markersize=5.5, label="reported by the paper", zorder=1)  # fmt: skip
    for i, row in enumerate(rows):
        title = axes.annotate(
            f"{row.id}  {row.what}",
            (0, i - 0.3),
            xycoords=("axes fraction", "data"),
            fontsize=8.3,
            va="center",
            parse_math=False,
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.5},
        )
        title.set_in_layout(False)  # a long one must not squeeze the plot
    axes.axvline(CHANCE, color=GREY, linewidth=0.9, linestyle=":")
    axes.set_yticks([])
    axes.set_ylim(len(rows) - 0.5, -0.6)
    axes.set_xlim(min(0.4, *(auc.low or 0.0 for row in rows if (auc := row.auc(attack)))), 1.02)
    axes.set_xlabel("ROC AUC ← better protected (dotted: chance)")
    axes.spines[["top", "right", "left"]].set_visible(False)
    _legend(axes, 2)
    save_figure(drawing, out)
    return True


def plot_guidance(study: MembershipStudy, out: Path) -> bool:
    """AUC of the first attack over guidance, with the paper's figures beside it.

    Arguments, result and error as `plot_rows`.
    """
    attack = study.attacks[0]
    lines = study.guidance(attack)
    if not lines:
        return False
    printed = study.reported_guidance(attack)
    drawing = new_figure(5.2, 3.8)
    axes = drawing.subplots()
    styles: tuple[Style, ...] = ((BLUE, "o", "-"), (GREEN, "s", "-"), (PURPLE, "^", "-"))
    for (others, points), style in zip(lines.items(), cycle(styles), strict=False):
        _line(axes, points, f"{attack} against {others}", style)
    if printed:
        axes.plot(*zip(*printed, strict=True), "D--", color=ORANGE, markerfacecolor="white",
                  linewidth=1, markersize=5.5, label="reported by the paper")  # fmt: skip
    axes.set_xticks(sorted({x for points in lines.values() for x, _ in points}))
    _finish(axes, "guidance scale of the release", "ROC AUC ↓ better protected")
    _chance(axes, CHANCE, "chance")
    _legend(axes, 1)
    save_figure(drawing, out)
    return True


def plot_epochs(study: MembershipStudy, out: Path) -> bool:
    """AUC of membership alone over epochs; arguments, result and error as `plot_rows`."""
    lines = study.epochs()
    if not lines:
        return False
    drawing = new_figure(5.2, 3.8)
    axes = drawing.subplots()
    for i, (attack, style) in enumerate(_styles(lines).items()):
        beside = _APART ** (i - (len(lines) - 1) / 2)  # or bars would hide each other
        _line(axes, [(x * beside, auc) for x, auc in lines[attack]], attack, style)
    places = sorted({x for points in lines.values() for x, _ in points})
    axes.set_xscale("log")
    axes.set_xticks(places, [f"{x:g}" for x in places])
    axes.minorticks_off()
    _finish(axes, "epochs of fine-tuning", "ROC AUC ↓ better protected")
    _chance(axes, CHANCE, "chance")
    _legend(axes, 3)
    save_figure(drawing, out)
    return True


def plot_power(study: MembershipStudy, out: Path) -> bool:
    """Power of the set tests over people, without strangers among them; a panel for each model.

    Arguments, result and error as `plot_rows`.
    """
    names = {row.id: row.what for row in study.of("peer")}
    panels = {name: curves for name in names if len(curves := _curves(study, name)) > 1}
    if not panels:
        return False
    shown = [entry for curves in panels.values() for entry, _ in curves]
    styles = _styles(e.attack for e in shown if not study.control(e.row, e.attack))
    drawing = new_figure(5.2, 0.9 + 2.9 * len(panels))
    drawn = drawing.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
    for axes, (name, curves) in zip(drawn, panels.items(), strict=True):
        for entry, points in curves:
            control = entry.attack not in styles
            colour, marker, line = _CONTROL if control else styles[entry.attack]
            axes.plot(*zip(*points, strict=True), marker=marker, linewidth=1.5, markersize=4.5,
                      color=colour, linestyle=line,
                      label=f"{entry.attack} (control)" if control else entry.attack)  # fmt: skip
        axes.set_title(names[name], fontsize=10, loc="left", parse_math=False)
        _finish(axes, "", "share of draws detected")
        axes.set_ylim(-0.03, 1.03)
        _chance(axes, study.results.alpha, "level of the test")
    places = sorted({n for curves in panels.values() for _, points in curves for n, _ in points})
    drawn[-1].set_xscale("log")
    drawn[-1].set_xticks(places, [f"{n:,}" for n in places])
    drawn[-1].minorticks_off()
    drawn[-1].set_xlabel("people on each side of the test")
    _legend(drawn[-1], 2, list(drawn), below=True)
    save_figure(drawing, out)
    return True


def _curves(study: MembershipStudy, row: str) -> list[tuple[SetEntry, list[tuple[int, float]]]]:
    """Attacks on a row with their powers by people, of sets without strangers."""
    found = [(e, e.curve(0.0)) for e in study.tests() if e.row == row and e.trained]
    return [(e, sorted(curve.points.items())) for e, curve in found if curve and curve.points]


def _line(axes: Axes, points: Sequence[tuple[float, Shown]], label: str, style: Style) -> None:
    """Values with their intervals as bars."""
    colour, marker, line = style
    x, y = [x for x, _ in points], [found.value or 0.0 for _, found in points]
    low = [v if found.low is None else found.low for v, (_, found) in zip(y, points, strict=True)]
    high = [
        v if found.high is None else found.high for v, (_, found) in zip(y, points, strict=True)
    ]
    axes.vlines(x, low, high, color=colour, linewidth=1.2, alpha=0.6)
    axes.plot(x, y, marker=marker, color=colour, linestyle=line, linewidth=1.6, markersize=5,
              label=label)  # fmt: skip


def _chance(axes: Axes, y: float, text: str) -> None:
    axes.axhline(y, color=GREY, linewidth=0.9, linestyle=":")
    axes.annotate(
        text, (1, y), xycoords=("axes fraction", "data"), xytext=(-2, 2),
        textcoords="offset points", fontsize=8, color=GREY, ha="right",
    )  # fmt: skip


def _finish(axes: Axes, x: str, y: str) -> None:
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.margins(x=0.06, y=0.08)
    axes.spines[["top", "right"]].set_visible(False)


def _legend(axes: Axes, columns: int, of: Sequence[Axes] = (), below: bool = False) -> None:
    """Every label once, of all panels."""
    drawn = (zip(*panel.get_legend_handles_labels(), strict=True) for panel in of or [axes])
    lines = {label: line for panel in drawn for line, label in panel}
    legend = axes.legend(
        lines.values(),
        lines.keys(),
        frameon=False,
        fontsize=8.5,
        ncols=columns,
        loc="upper center" if below else "lower center",
        bbox_to_anchor=(0.5, -0.2) if below else (0.5, 1.0),
    )
    for text in legend.get_texts():
        text.set_parse_math(False)


def _styles(attacks: Iterable[str]) -> dict[str, Style]:
    """Colour, marker and line of each attack; 35 before one comes back."""
    return {
        name: (_COLOURS[i % 5], _MARKERS[i % 7], ("-", "--", "-.")[i // 5 % 3])
        for i, name in enumerate(dict.fromkeys(attacks))
    }
