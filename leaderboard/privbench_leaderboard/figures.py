"""The privacy-utility picture of one table."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from privbench_leaderboard import frontier
from privbench_leaderboard.canvas import new_figure, save_figure
from privbench_leaderboard.frontier import BLUE, GREY, ORANGE, Dot

if TYPE_CHECKING:
    from privbench_leaderboard.records import Number, ThreatModel
    from privbench_leaderboard.tables import Row, SummaryTable

_STYLE: dict[ThreatModel, tuple[str, str]] = {
    "none": (GREY, "v"),
    "black-box": (ORANGE, "s"),
    "adaptive": (BLUE, "o"),
}

AXES = (
    ("detection", "faces found"),
    ("attributes/mean", "attributes kept"),
    ("ssim", "SSIM to the source"),
)
"""Utilities that a board is plotted against, where its records hold them."""


def plot(table: SummaryTable, out: Path | str) -> tuple[str, ...]:
    """Worst-case rank-1 against utility, with intervals, Pareto front and chance, as PNG.

    Rows of the strongest attacker only: what a weaker one leaves is no protection. One panel per
    utility of `AXES` that at least two rows have. Controls and diagnostics are hollow and never on
    the front. The same table gives the same bytes with the same matplotlib.

    Args:
        table: one of those that `build` returns.
        out: file to write.

    Returns:
        Names of the rows that are shown; without any, no file is written.

    Raises:
        LeaderboardError: the file cannot be written.
    """
    rows = [row for row in table.rows if _known(row.rank1)]
    rows = [row for row in rows if row.threat_model == rows[0].threat_model]
    wanted = [
        (name, title)
        for name, title in AXES
        if sum(_known(row.utility.get(name)) for row in rows) > 1
    ]
    if not wanted:
        return ()
    figure = new_figure(7.5, 4.4 * len(wanted))
    panels = figure.subplots(len(wanted), 1, squeeze=False)[:, 0]
    pending = []
    for axes, (name, title) in zip(panels, wanted, strict=True):
        dots = []
        for row in rows:
            utility = row.utility.get(name)
            if row.rank1 is not None and utility is not None:
                colour, marker = _STYLE[row.threat_model]
                dots.append(
                    Dot(_label(row), utility, row.rank1, colour, marker, candidate=not row.control)
                )
        frontier.draw(axes, dots)
        for chance in sorted({r.rank1.chance for r in rows if r.rank1 and r.rank1.chance}):
            axes.axhline(chance, color=GREY, linestyle="--", linewidth=1)
            axes.annotate(
                "chance", (1, chance), xycoords=("axes fraction", "data"), fontsize=7.5,
                xytext=(-3, 2), textcoords="offset points", color=GREY, ha="right",
            )  # fmt: skip
        axes.set_ylim(-0.02, 1.04)
        axes.margins(x=0.06)
        axes.spines[["top", "right"]].set_visible(False)
        axes.set_xlabel(f"{title} → more useful")
        axes.set_ylabel("worst-case rank-1 ↓ better protected")
        pending.append((axes, dots))
    for model in sorted({row.threat_model for row in rows}):
        colour, marker = _STYLE[model]
        panels[0].plot([], [], marker, color=colour, label=f"attacker: {model}")
    panels[0].legend(
        frameon=False, fontsize=7.5, ncols=4, loc="lower center", bbox_to_anchor=(0.5, 1)
    )
    figure.suptitle(
        f"{table.protocol} v{table.version} on {table.data}", fontsize=10, parse_math=False
    )
    for axes, dots in pending:
        frontier.label_dots(axes, dots)
    save_figure(figure, Path(out))
    return tuple(
        row.anonymizer for row in rows if any(_known(row.utility.get(n)) for n, _ in wanted)
    )


def _known(number: Number | None) -> bool:
    return number is not None and number.value is not None


def _label(row: Row) -> str:
    name = row.anonymizer if len(row.anonymizer) <= 40 else row.anonymizer[:39] + "…"
    return f"{name} ({row.control})" if row.control else name
