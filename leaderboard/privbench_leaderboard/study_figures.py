"""Plots of a study: rank-1 against a setting, and rank-1 against utility."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from privbench_leaderboard import frontier
from privbench_leaderboard.canvas import new_figure, save_figure
from privbench_leaderboard.frontier import BLUE, GREEN, GREY, ORANGE, PURPLE, RED, Dot

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from privbench_leaderboard.studies import Attacked, Study, Sweep, Trial, Variant

_LINES = (RED, GREEN, PURPLE, BLUE, ORANGE)
_STYLE = {
    "condition": (BLUE, "o"),
    "baseline": (ORANGE, "s"),
    "control": (GREY, "D"),
    "diagnostic": (GREY, "^"),
}


def plot_sweeps(study: Study, out: Path) -> bool:
    """Rank-1 against each swept setting, one panel per setting, one line per variant.

    Args:
        out: PNG file.

    Returns:
        Whether there was anything to draw.

    Raises:
        LeaderboardError: the file cannot be written.
    """
    rows = {v.label: t for v, _, t in study.rows("condition", "sweep", "baseline")}
    sweeps = [s for s in study.results.sweeps if len(_points(s, rows)) > 1]
    if not sweeps:
        return False
    settings = list(dict.fromkeys(s.setting for s in sweeps))
    colours = _colours(study)
    widths = [max(len(s.points) for s in sweeps if s.setting == name) + 2 for name in settings]
    figure = new_figure(4.2 + 2.4 * len(settings), 4)
    panels = figure.subplots(1, len(settings), sharey=True, squeeze=False, width_ratios=widths)
    for axes, setting in zip(panels[0], settings, strict=True):
        mine = [s for s in sweeps if s.setting == setting]
        for sweep in mine:
            points = _points(sweep, rows)
            x = [p[0] for p in points]
            y = [t.value or 0.0 for _, t in points]
            low = [v if t.low is None else t.low for v, (_, t) in zip(y, points, strict=True)]
            high = [v if t.high is None else t.high for v, (_, t) in zip(y, points, strict=True)]
            colour = colours[sweep.variant]
            axes.fill_between(x, low, high, color=colour, alpha=0.18, linewidth=0)
            axes.plot(x, y, "o-", color=colour, linewidth=1.6, markersize=4.5)
        ends = [(s.variant, _points(s, rows)[-1][1], colours[s.variant]) for s in mine]
        end_labels(axes, [(name, t.value or 0.0, colour) for name, t, colour in ends])
        _limits(axes, study)
        axes.set_xlabel(setting.replace("_", " "), parse_math=False)
        axes.margins(x=0.04)
    panels[0][0].set_ylabel(f"rank-1, {study.results.primary_trial} ↓ better protected")
    save_figure(figure, out)
    return True


def plot_frontier(study: Study, out: Path) -> tuple[str, ...]:
    """Rank-1 under the hardest attack against each utility of the study, one panel per utility.

    Args:
        out: PNG file.

    Returns:
        The utilities that are drawn; with none, no file is written.

    Raises:
        LeaderboardError: the file cannot be written.
    """
    rows = study.rows("condition", "sweep", "baseline", "control", "diagnostic")
    utilities = [
        name for name in study.definition.frontier if sum(_known(a, name) for _, a, _ in rows) > 1
    ]
    if not utilities:
        return ()
    colours = _colours(study)
    first = {s.variant: s.setting for s in reversed(study.results.sweeps)}
    swept = {
        p.variant: (
            colours[s.variant],
            # A number alone is a value of the variant's first sweep.
            "" if s.setting == first[s.variant] else f"{s.setting.partition('_')[0]} ",
            p.value,
        )
        for s in study.results.sweeps
        for p in s.points
    }
    figure = new_figure(8, 4.6 * len(utilities))
    panels = figure.subplots(len(utilities), 1, squeeze=False)[:, 0]
    pending = []
    for axes, name in zip(panels, utilities, strict=True):
        dots, better, title = [], "higher", name
        for variant, attacked, trial in rows:
            utility = attacked.useful(name)
            if utility is None:
                continue
            better, title = utility.protects, utility.title
            dots.append(_dot(variant, utility, trial, swept.get(variant.label)))
        frontier.draw(axes, dots, "lower" if better == "lower" else "higher")
        _join(axes, study, name)
        _limits(axes, study)
        side = "→" if better == "higher" else "←"
        axes.set_xlabel(f"{title} {side} more useful", parse_math=False)
        axes.set_ylabel("rank-1 ↓ better protected")
        axes.margins(x=0.06)
        pending.append((axes, dots))
    _legend(panels[0])
    for axes, dots in pending:
        frontier.label_dots(axes, dots)
    save_figure(figure, out)
    return tuple(utilities)


def _dot(
    variant: Variant, utility: frontier.Interval, trial: Trial, swept: tuple[str, str, float] | None
) -> Dot:
    if variant.group == "sweep" and swept is not None:
        return Dot(f"{swept[1]}{swept[2]:g}", utility, trial, swept[0], "o", small=True)
    colour, marker = _STYLE[variant.group]
    candidate = variant.group in ("condition", "baseline")
    return Dot(variant.label, utility, trial, colour, marker, candidate)


def _join(axes: Axes, study: Study, name: str) -> None:
    """A thin line through the points of each sweep, in the order of the setting."""
    rows = {v.label: (a, t) for v, a, t in study.rows("condition", "sweep", "baseline")}
    colours = _colours(study)
    for sweep in study.results.sweeps:
        found = [rows[p.variant] for p in sweep.points if p.variant in rows]
        places = [
            (u.value, t.value) for a, t in found if (u := a.useful(name)) and u.value is not None
        ]
        if len(places) > 1:
            x, y = zip(*places, strict=True)
            axes.plot(x, y, color=colours[sweep.variant], linewidth=0.8, zorder=2)


def _colours(study: Study) -> dict[str, str]:
    """One colour per variant that is swept."""
    return dict(zip((s.variant for s in _distinct(study)), _LINES * 9, strict=False))


def _distinct(study: Study) -> list[Sweep]:
    return list({s.variant: s for s in study.results.sweeps}.values())


def _limits(axes: Axes, study: Study) -> None:
    """Lines at chance and at 1 / k."""
    chance = 1 / study.results.people
    k = study.definition.k
    for y, text in ((chance, "chance"), (1 / k, f"k = {k}")):
        axes.axhline(y, color=GREY, linestyle="--" if text == "chance" else ":", linewidth=1)
        axes.annotate(
            text, (1, y), xycoords=("axes fraction", "data"), fontsize=7.5, color=GREY,
            xytext=(-3, 2), textcoords="offset points", ha="right",
        )  # fmt: skip
    axes.set_ylim(-0.02, 1.04)
    axes.spines[["top", "right"]].set_visible(False)


def end_labels(axes: Axes, lines: Sequence[tuple[str, float, str]]) -> None:
    """Names at the right ends of lines, pushed apart where they would meet.

    Args:
        lines: name, last value and colour of each.
    """
    below = -1.0
    for name, last, colour in sorted(lines, key=lambda line: line[1]):
        below = max(last, below + 0.055)
        axes.annotate(
            name, (1, below), xycoords=("axes fraction", "data"), xytext=(3, 0),
            textcoords="offset points", color=colour, fontsize=9, va="center", parse_math=False,
            annotation_clip=False,
        )  # fmt: skip


def _legend(axes: Axes) -> None:
    names = {"condition": "condition", "baseline": "baseline", "control": "control",
             "diagnostic": "diagnostic"}  # fmt: skip
    for group, name in names.items():
        colour, marker = _STYLE[group]
        face = colour if group in ("condition", "baseline") else "white"
        axes.plot([], [], marker, color=colour, markerfacecolor=face, label=name)
    axes.plot([], [], "o-", color=RED, markersize=4, linewidth=0.8, label="setting swept")
    axes.legend(frameon=False, fontsize=7.5, ncols=6, loc="lower center", bbox_to_anchor=(0.5, 1))


def _points(sweep: Sweep, rows: dict[str, Trial]) -> list[tuple[float, Trial]]:
    return [(p.value, rows[p.variant]) for p in sweep.points if p.variant in rows]


def _known(attacked: Attacked, name: str) -> bool:
    utility = attacked.useful(name)
    return utility is not None and utility.value is not None
