"""The board: what a folder of committed records says, and the files that show it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from privbench_leaderboard.audits import AuditTable, audit_tables
from privbench_leaderboard.reading import load
from privbench_leaderboard.records import Audit, Entry
from privbench_leaderboard.standing import Withdrawn, judge
from privbench_leaderboard.tables import Ranker, SummaryTable, build


@dataclass(frozen=True, slots=True)
class Board:
    """All tables, the records that count in none of them any more, and tables of membership."""

    tables: tuple[SummaryTable, ...]
    withdrawn: tuple[Withdrawn, ...] = ()
    audits: tuple[AuditTable, ...] = ()


def read_board(records: Path | str, ranker: Ranker | None = None) -> Board:
    """The board of a folder of records, with the grades and withdrawals that lie beside it.

    Args:
        records: folder that holds record files, at any depth.
        ranker: compares rows probe by probe; see `build`.

    Raises:
        LeaderboardError: see `load`, `judge` and `build`.
    """
    kept, withdrawn = judge(load(records), Path(records).parent)
    return Board(
        build([e for e in kept if isinstance(e, Entry)], ranker),
        withdrawn,
        audit_tables(e for e in kept if isinstance(e, Audit)),
    )
