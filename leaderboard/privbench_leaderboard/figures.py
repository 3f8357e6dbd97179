"""The privacy-utility picture of one table."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from privbench_leaderboard.errors import LeaderboardError

if TYPE_CHECKING:
    from privbench_leaderboard.records import Number, ThreatModel
    from privbench_leaderboard.tables import Row, SummaryTable

_COLOURS: dict[ThreatModel, str] = {
    "none": "#7b8794",
    "black-box": "#2b6cb0",
    "adaptive": "#c2410c",
}


def plot(table: SummaryTable, out: Path | str) -> tuple[str, ...]:
    """Worst-case rank-1 against SSIM, with intervals and the chance line, as PNG.

    Controls are hollow. The same table gives the same bytes with the same matplotlib.

    Args:
        table: one of those that `build` returns.
        out: file to write.

    Returns:
        Names of rows that are not shown because rank-1 or SSIM is missing.

    Raises:
        LeaderboardError: the file cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.5), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    shown = [row for row in table.rows if _known(row.rank1) and _known(row.ssim)]
    for row in shown:
        assert row.rank1 is not None  # noqa: S101 - `_known` says so
        assert row.ssim is not None  # noqa: S101
        x, y = row.ssim.value or 0.0, row.rank1.value or 0.0
        colour = _COLOURS[row.threat_model]
        axes.errorbar(
            x,
            y,
            xerr=_error(row.ssim),
            yerr=_error(row.rank1),
            fmt="o",
            color=colour,
            markerfacecolor="white" if row.control else colour,
            capsize=3,
        )
        axes.annotate(
            _label(row),
            (x, y),
            xytext=(-7, 5) if x > 0.6 else (7, 5),
            textcoords="offset points",
            ha="right" if x > 0.6 else "left",
            fontsize=8,
            parse_math=False,  # a name from a record is text, not TeX
        )
    for chance in sorted({r.rank1.chance for r in shown if r.rank1 and r.rank1.chance is not None}):
        axes.axhline(chance, color="#7b8794", linestyle="--", linewidth=1)
        axes.annotate(
            "chance",
            (1, chance),
            xycoords=("axes fraction", "data"),
            fontsize=8,
            xytext=(-4, 3),
            textcoords="offset points",
            ha="right",
            color="#7b8794",
        )
    for model in sorted({row.threat_model for row in shown}):
        axes.plot([], [], "o", color=_COLOURS[model], label=f"attacker: {model}")
    if shown:
        axes.legend(frameon=False, fontsize=8)
    axes.set_xlim(0, 1.02)
    axes.set_ylim(0, 1.04)
    axes.set_xlabel("SSIM to the source → more useful")
    axes.set_ylabel("worst-case rank-1 ↓ better protected")
    axes.set_title(
        f"{table.protocol} v{table.version} on {table.data}", fontsize=10, parse_math=False
    )
    try:
        figure.savefig(Path(out), format="png", metadata={"Software": None})
    except OSError as error:
        raise LeaderboardError(f"Cannot write {out}: {error}") from error
    return tuple(row.anonymizer for row in table.rows if row not in shown)


def _known(number: Number | None) -> bool:
    return number is not None and number.value is not None


def _error(number: Number) -> list[list[float]] | None:
    if number.value is None or number.low is None or number.high is None:
        return None
    return [[max(number.value - number.low, 0)], [max(number.high - number.value, 0)]]


def _label(row: Row) -> str:
    name = row.anonymizer if len(row.anonymizer) <= 40 else row.anonymizer[:39] + "…"
    return f"{name} ({row.control} control)" if row.control else name
