"""Records to tables: a board that anyone can recompute from JSON files alone."""

from privbench_leaderboard.errors import LeaderboardError
from privbench_leaderboard.figures import plot
from privbench_leaderboard.markdown import render_markdown, write
from privbench_leaderboard.records import Entry, load
from privbench_leaderboard.tables import Row, SummaryTable, build

__all__ = [
    "Entry",
    "LeaderboardError",
    "Row",
    "SummaryTable",
    "build",
    "load",
    "plot",
    "render_markdown",
    "write",
]
