"""Records to tables: a board that anyone can recompute from JSON files alone."""

from privbench_leaderboard.errors import LeaderboardError
from privbench_leaderboard.figures import plot
from privbench_leaderboard.markdown import render_markdown, write
from privbench_leaderboard.records import Entry, load
from privbench_leaderboard.studies import Study, load_study
from privbench_leaderboard.study_page import render_study, write_study
from privbench_leaderboard.tables import Row, SummaryTable, build

__all__ = [
    "Entry",
    "LeaderboardError",
    "Row",
    "Study",
    "SummaryTable",
    "build",
    "load",
    "load_study",
    "plot",
    "render_markdown",
    "render_study",
    "write",
    "write_study",
]
