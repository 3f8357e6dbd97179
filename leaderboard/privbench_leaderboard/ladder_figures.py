"""Plots of a study with several attacks: each attack's rank-1, and verification curves."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from privbench_leaderboard.canvas import new_figure, save_figure
from privbench_leaderboard.frontier import BLUE, GREEN, GREY, ORANGE, PURPLE, RED

if TYPE_CHECKING:
    from privbench_leaderboard.studies import Attacked, Study

_COLOURS = (ORANGE, GREEN, BLUE, PURPLE, RED)
_MARKERS = ("v", "s", "o", "D", "P", "X")
_SPREAD = 0.7  # share of a row's height over which its attacks lie


def plot_ladder(study: Study, out: Path) -> bool:
    """Rank-1 of every attack on every variant, with intervals; controls are hollow.

    Args:
        out: PNG file.

    Returns:
        Whether there was anything to draw: at least two attacks.

    Raises:
        LeaderboardError: the file cannot be written.
    """
    trial, names = study.results.primary_trial, study.ladder
    variants = [v for v in study.results.variants if v.attacks]
    if not names or not variants:
        return False
    controls = {a.attack for v in variants for a in v.attacks if a.control is not None}
    height = max(0.16 * len(names), 0.4)
    figure = new_figure(8, 1.2 + height * len(variants))
    axes = figure.subplots()
    for i, name in enumerate(names):
        shown = [
            (row, a.trials[trial])
            for row, v in enumerate(variants)
            for a in v.attacks
            if a.attack == name and trial in a.trials and a.trials[trial].value is not None
        ]
        y = [row + _SPREAD * ((i + 0.5) / len(names) - 0.5) for row, _ in shown]
        x = [t.value or 0.0 for _, t in shown]
        left = [v if t.low is None else t.low for v, (_, t) in zip(x, shown, strict=True)]
        right = [v if t.high is None else t.high for v, (_, t) in zip(x, shown, strict=True)]
        control = name in controls
        colour = GREY if control else _COLOURS[i % len(_COLOURS)]
        axes.hlines(y, left, right, color=colour, linewidth=1, alpha=0.6)
        axes.plot(x, y, _MARKERS[i % len(_MARKERS)], color=colour, markersize=5, linestyle="",
                  markerfacecolor="white" if control else colour,
                  label=f"{name} (control)" if control else name)  # fmt: skip
    for row in range(len(variants) - 1):
        axes.axhline(row + 0.5, color="#dddddd", linewidth=0.6)
    axes.axvline(1 / study.results.people, color=GREY, linewidth=0.8, linestyle=":")
    axes.set_yticks(range(len(variants)), [v.label for v in variants], parse_math=False)
    axes.set_ylim(len(variants) - 0.5, -0.5)
    axes.set_xlim(-0.02, 1.02)
    axes.set_xlabel(f"rank-1, {trial} ← better protected (dotted: chance)", parse_math=False)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=7.5, ncols=4, loc="lower center", bbox_to_anchor=(0.4, 1))
    save_figure(figure, out)
    return True


def plot_det(study: Study, out: Path) -> bool:
    """False non-match rate against false match rate, each variant under its hardest attack.

    Args:
        out: PNG file.

    Returns:
        Whether there was anything to draw.

    Raises:
        LeaderboardError: the file cannot be written.
    """
    trial = study.results.primary_trial
    found: list[tuple[str, Attacked]] = [
        (v.label, a) for v in study.results.variants if (a := v.hardest(trial)) and len(a.det) > 1
    ]
    if not found:
        return False
    figure = new_figure(6.4, 4.4)
    axes = figure.subplots()
    for i, (label, attacked) in enumerate(found):
        x, y = zip(*attacked.det, strict=True)
        line = ("-", "--", "-.")[i // len(_COLOURS) % 3]
        axes.plot(x, y, line, color=_COLOURS[i % len(_COLOURS)], linewidth=1.4,
                  label=f"{label} ({attacked.attack})")  # fmt: skip
    low = min(x for _, a in found for x, _ in a.det)
    grid = [low * (1 / low) ** (i / 60) for i in range(61)]
    axes.plot(grid, [1 - x for x in grid], ":", color=GREY, linewidth=0.9, label="chance")
    axes.set_xscale("log")
    axes.set_ylim(-0.02, 1.02)
    axes.set_xlabel("false match rate")
    axes.set_ylabel("false non-match rate ↑ better protected")
    axes.spines[["top", "right"]].set_visible(False)
    legend = axes.legend(frameon=False, fontsize=7, loc="upper left", bbox_to_anchor=(1, 1))
    for text in legend.get_texts():
        text.set_parse_math(False)
    save_figure(figure, out)
    return True
