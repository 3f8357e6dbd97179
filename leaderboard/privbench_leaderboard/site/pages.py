"""All files of the site, from a board; and how they reach a folder."""

from __future__ import annotations

import hashlib
import io
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from importlib.resources import files
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from PIL import Image

from privbench_leaderboard.board import Board
from privbench_leaderboard.errors import LeaderboardError
from privbench_leaderboard.markdown import AUDIT_HEADS, AUDIT_NUMBERS, BOUND, MEMBERSHIP_SAYS
from privbench_leaderboard.records import GRADES, Entry, Picture
from privbench_leaderboard.site import curves, frontiers
from privbench_leaderboard.site.anonymizer_view import MEASURES, Slice, anonymizer_view
from privbench_leaderboard.site.frontiers import Panel
from privbench_leaderboard.site.index_view import index_view
from privbench_leaderboard.standing import Withdrawn
from privbench_leaderboard.subjects import names_of, slug_of, subject_of
from privbench_leaderboard.tables import SummaryTable, group
from privbench_leaderboard.text import plain

MARK = '<meta name="generator" content="privbench leaderboard">'
"""In every page: how the command knows a folder as its own."""

LARGEST_PICTURE = 4 * 2**20
STATIC = ("board.css", "chart.css", "board.js")
OWNED = ("anonymizers", "galleries")
"""Folders of the site whose other files are old pages and pictures, and go."""


def site_files(board: Board, drawn: Sequence[Sequence[Panel]], galleries: Path) -> dict[str, bytes]:
    """Path in the site -> content. Equal records give equal bytes.

    Args:
        drawn: the pictures of each table, see `panels`.
        galleries: folder with the pictures that records name. One that is not there is not shown.

    Raises:
        LeaderboardError: a picture is not the one that its record names.
    """
    entries = [entry for table in board.tables for entry in table.entries]
    pictures = _pictures(entries, galleries)
    sizes = {sha: size for sha, (_, _, size) in pictures.items()}
    names = names_of(entries)
    slugs = {subject_of(entry): slug_of(entry) for entry in entries}
    styles = {name: i for i, name in enumerate(sorted({e.attack.id for e in entries}))}
    pages = _environment()
    found = {name: _static(name) for name in STATIC}
    found["index.html"] = _page(
        pages,
        "index.html",
        root="",
        view=index_view(board, drawn, len(slugs)),
        bound=BOUND,
        audit_heads=AUDIT_HEADS,
        audit_numbers=AUDIT_NUMBERS,
        membership_says=MEMBERSHIP_SAYS,
    )
    gone: dict[str, list[Withdrawn]] = defaultdict(list)
    for w in board.withdrawn:
        if isinstance(w.entry, Entry):
            gone[subject_of(w.entry)].append(w)
    slices = _slices(board.tables)
    for subject, slug in slugs.items():
        withdrawn = gone.get(subject, [])
        view = anonymizer_view(names[subject], slices[subject], withdrawn, styles, sizes)
        found[f"anonymizers/{slug}.html"] = _page(
            pages, "anonymizer.html", root="../", view=view, bound=BOUND, galleries=sizes,
            measures=[title for title, *_ in MEASURES], grades=GRADES,
        )  # fmt: skip
    return found | {f"galleries/{file}": data for file, data, _ in pictures.values()}


def write_site(board: Board, drawn: Sequence[Sequence[Panel]], galleries: Path, out: Path) -> None:
    """Write the site; pages and pictures of an earlier one that are no more are removed.

    Raises:
        LeaderboardError: see `site_files`; or the folder holds something else, or cannot be
            written.
    """
    found = site_files(board, drawn, galleries)
    try:
        _check(out)
        for name, data in found.items():
            path = out / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        for folder in OWNED:
            for path in sorted((out / folder).glob("*")):
                if f"{folder}/{path.name}" not in found and path.is_file():
                    path.unlink()
    except OSError as error:
        raise LeaderboardError(f"Cannot write the site {out}: {error}") from error


def _slices(tables: Iterable[SummaryTable]) -> dict[str, list[Slice]]:
    """Subject -> what each table holds of it."""
    found: dict[str, list[Slice]] = defaultdict(list)
    for table in tables:
        rows = group(table.rows, lambda row: subject_of(row.worst))
        for subject, entries in group(table.entries, subject_of).items():
            found[subject].append(Slice(table, entries, rows.get(subject, [])))
    return found


def _check(out: Path) -> None:
    """The folder is empty, missing, or a site: nothing else is ever written over."""
    index = out / "index.html"
    ours = index.is_file() and MARK in index.read_text(encoding="utf-8", errors="replace")[:4000]
    if out.exists() and not ours and (not out.is_dir() or any(out.iterdir())):
        raise LeaderboardError(
            f"{out} holds something other than a site of the leaderboard, and is left alone. "
            "Name another folder, or empty this one."
        )


def _environment() -> Environment:
    pages = Environment(
        loader=PackageLoader("privbench_leaderboard.site"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    pages.filters["plain"] = plain
    pages.globals |= {"swatch": frontiers.swatch, "line": curves.swatch}
    return pages


def _page(pages: Environment, template: str, **values: object) -> bytes:
    text = pages.get_template(template).render(**values)
    return ("\n".join(line for line in text.splitlines() if line.strip()) + "\n").encode()


def _static(name: str) -> bytes:
    return (files("privbench_leaderboard.site") / "static" / name).read_bytes()


def chart_style() -> str:
    """The style of pictures, for one in a file of its own."""
    return _static("chart.css").decode()


def _pictures(
    entries: Iterable[Entry], folder: Path
) -> dict[str, tuple[str, bytes, tuple[int, int]]]:
    """SHA-256 -> file name, content, size of each picture that is there."""
    named: Mapping[str, tuple[Picture, str]] = {
        e.gallery.sha256: (e.gallery, e.stem) for e in entries if e.gallery
    }
    found = {}
    for sha, (picture, stem) in sorted(named.items()):
        path = folder / picture.file
        if path.is_file():
            data = _checked(path, picture, stem)
            with Image.open(io.BytesIO(data)) as image:
                found[sha] = (picture.file, data, image.size)
    return found


def _checked(path: Path, picture: Picture, stem: str) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(LARGEST_PICTURE + 1)
        if len(data) > LARGEST_PICTURE:
            raise LeaderboardError(f"{path} has more than {LARGEST_PICTURE:,} bytes.")
        if hashlib.sha256(data).hexdigest() != picture.sha256:
            raise LeaderboardError(
                f"{path} is not the picture that the record {stem} names: its SHA-256 differs."
            )
        with Image.open(io.BytesIO(data), formats=("JPEG", "PNG", "WEBP")):
            return data
    except (OSError, Image.DecompressionBombError) as error:
        raise LeaderboardError(f"Cannot read the picture {path}: {error}") from error
