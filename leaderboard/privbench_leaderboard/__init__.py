"""Records to tables: a board that anyone can recompute from JSON files alone."""

from privbench_leaderboard.board import Board, read_board
from privbench_leaderboard.change import changed_files, changes, compare
from privbench_leaderboard.errors import LeaderboardError
from privbench_leaderboard.markdown import render_markdown
from privbench_leaderboard.membership_page import render_membership, write_membership
from privbench_leaderboard.membership_study import MembershipStudy, load_membership
from privbench_leaderboard.publish import write
from privbench_leaderboard.reading import load, read
from privbench_leaderboard.records import Entry
from privbench_leaderboard.studies import Study, load_study
from privbench_leaderboard.study_page import render_study, write_study
from privbench_leaderboard.tables import Row, SummaryTable, build

__all__ = [
    "Board",
    "Entry",
    "LeaderboardError",
    "MembershipStudy",
    "Row",
    "Study",
    "SummaryTable",
    "build",
    "changed_files",
    "changes",
    "compare",
    "load",
    "load_membership",
    "load_study",
    "read",
    "read_board",
    "render_markdown",
    "render_membership",
    "render_study",
    "write",
    "write_membership",
    "write_study",
]
