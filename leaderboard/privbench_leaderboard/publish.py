"""From a folder of records to the files that people read: Markdown, pictures, the site."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from privbench_leaderboard.board import Board, read_board
from privbench_leaderboard.errors import LeaderboardError
from privbench_leaderboard.markdown import render_markdown
from privbench_leaderboard.site.frontiers import panels, sheet
from privbench_leaderboard.site.pages import chart_style, write_site
from privbench_leaderboard.tables import Ranker

SITE = "site"
GALLERIES = "galleries"


def write(
    records: Path | str,
    out: Path | str,
    ranker: Ranker | None = None,
    site: Path | str | None = None,
) -> Board:
    """Recompute the board from a folder of records: a Markdown page, its pictures, and the site.

    Args:
        records: folder that holds record files, at any depth. `grades.json`, `withdrawn.json` and
            the folder `galleries` lie beside it.
        out: Markdown file to write; a picture of each table goes beside it.
        ranker: compares rows probe by probe; see `build`.
        site: folder of the site; `site` beside `out` where none is named.

    Raises:
        LeaderboardError: see `read_board` and `write_site`; or a file cannot be written.
    """
    path = Path(out)
    if path.is_dir():
        raise LeaderboardError(f"Cannot write {path}: it is a folder.")
    with _uncollected():
        return _write(Path(records), path, ranker, Path(site or path.parent / SITE))


@contextmanager
def _uncollected() -> Iterator[None]:
    """Without the collector of cycles: there are none among a million values that all live to the
    end, and looking for them again and again is a third of the time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _write(records: Path, path: Path, ranker: Ranker | None, site: Path) -> Board:
    board = read_board(records, ranker)
    drawn = [panels(table, f"p{i}") for i, table in enumerate(board.tables, 1)]
    write_site(board, drawn, records.parent / GALLERIES, site)
    plots = {}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        for i, found in enumerate(drawn):
            if found:
                plots[i] = f"{path.stem.lower()}-{i + 1}.svg"
                _text(path.with_name(plots[i]), sheet(found, chart_style()))
        _text(path, render_markdown(board.tables, plots, board.withdrawn, board.audits))
    except OSError as error:
        raise LeaderboardError(f"Cannot write {path}: {error}") from error
    return board


def _text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8", newline="\n")
