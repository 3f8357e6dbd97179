"""Commands that publish results."""

from __future__ import annotations

from pathlib import Path

from privbench.errors import PrivbenchError


def leaderboard(
    *,
    records: Path = Path("leaderboard/records"),
    out: Path = Path("leaderboard/LEADERBOARD.md"),
) -> int:
    """Make the leaderboard from committed records.

    Parameters
    ----------
    records
        Directory of record files.
    out
        Markdown file to write.
    """
    import privbench_leaderboard
    from privbench.ranking import rank_rows

    try:
        privbench_leaderboard.write(records, out, rank_rows)
    except privbench_leaderboard.LeaderboardError as error:
        raise PrivbenchError(str(error)) from error
    print(out)
    return 0
