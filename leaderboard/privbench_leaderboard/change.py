"""What a change of records changes on the board, as Markdown: for the comment on a pull request."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from privbench_leaderboard.audits import AuditRow
from privbench_leaderboard.board import Board, read_board
from privbench_leaderboard.errors import LeaderboardError
from privbench_leaderboard.markdown import (
    ATTACKER,
    AUDIT_HEADS,
    AUDIT_NUMBERS,
    audit_cells,
    audit_title,
    escape,
    estimate,
    pipe_table,
)
from privbench_leaderboard.records import MEMBERSHIP, Filing
from privbench_leaderboard.standing import GRADES_FILE, LONGEST_REASON
from privbench_leaderboard.subjects import ref, subject_of
from privbench_leaderboard.tables import Ranker, Row

MOST_CHARACTERS = 60_000
"""Of the Markdown: a comment on GitHub holds 65,536."""

EVIDENCE = ".evidence.safetensors.xz"
"""How the file with a record's evidence ends."""

_CUT = "\n\nThe rest is left out: too long for a comment.\n"
_HEAD = ("Anonymizer", "Attacker", "", "Rank-1 ↓", "Worst attack", "Rank", "Grade")

_AUDIT_HEAD = (*AUDIT_HEADS[: AUDIT_NUMBERS.start], "", *AUDIT_HEADS[AUDIT_NUMBERS.start :])


@dataclass(frozen=True, slots=True)
class _Line:
    """A row as Markdown: cells that say what it is about, and cells that are compared."""

    about: tuple[str, ...]
    says: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Table:
    """A table of the board; its rows by what makes them the same on two boards."""

    title: str
    head: tuple[str, ...]
    rows: Mapping[Hashable, _Line]


def compare(
    old: Path, new: Path, ranker: Ranker | None = None, verdicts: str = ""
) -> tuple[str, bool]:
    """A comment that says what became of the board, and whether it can be made at all.

    Nothing from a record is live in it: no link, mention or HTML.

    Args:
        old: folder of records, with grades and withdrawals beside it; may be empty.
        new: likewise, of the proposal.
        ranker: compares rows probe by probe; see `build`.
        verdicts: what `privbench verify` printed about the changed records.

    Raises:
        LeaderboardError: there is no such folder, or the old records make no board.
    """
    files = _records(new)
    before = read_board(old, ranker) if _records(old) else Board(())
    try:
        after = read_board(new, ranker) if files else Board(())
        told, sound = changes(before, after), True
    except LeaderboardError as error:
        told = f"No board can be made of these records: {escape(str(error), LONGEST_REASON)}\n"
        sound = False
    parts = ["## What this changes on the leaderboard\n", told]
    if _bytes(new.parent / GRADES_FILE) != _bytes(old.parent / GRADES_FILE):
        parts.append(f"`{GRADES_FILE}` is changed, which only maintainers should do.\n")
    if verdicts.strip():
        parts += ["### What `privbench verify` says of the changed records\n", _quoted(verdicts)]
    return shortened("\n".join(parts)), sound


def changes(old: Board, new: Board) -> str:
    """Rows that are new, gone or other than before, and records that were added or withdrawn."""
    before, after = _tables(old), _tables(new)
    parts = [
        f"### {table.title}\n\n{pipe_table(table.head, body)}\n"
        for key, table in sorted((before | after).items())
        if (body := list(_differing(before.get(key), after.get(key))))
    ]
    text = "\n".join(parts) or "No row of the board changes.\n"
    listed = [
        *_listed("Added", _names(new) - _names(old), new),
        *_listed("Changed", {n for n, sha in _hashes(new).items()
                             if _hashes(old).get(n, sha) != sha}, new),
        *_listed("Removed", _names(old) - _names(new), old),
    ]  # fmt: skip
    known = {w.entry.stem for w in old.withdrawn}
    struck = [
        f"- Withdrawn: {escape(w.entry.stem, 200)}: {escape(w.reason, LONGEST_REASON)}"
        for w in new.withdrawn
        if w.entry.stem not in known
    ]
    lines = [*listed, *struck]
    return "\n".join([text, "### Records\n", *lines, ""]) if lines else text


def changed_files(old: Path, new: Path) -> list[Path]:
    """Record files of `new` that are not in `old` as they are, with their evidence.

    Raises:
        LeaderboardError: there is no such folder, or a file name would not stand on one line.
    """
    found = []
    _records(old)  # a slip in its name would make all files new
    for path in _records(new):
        if not str(path).isprintable():
            raise LeaderboardError(f"A record's file name must be printable; got {str(path)!r}.")
        stem = path.name.removesuffix(".gz").removesuffix(".json")
        pair = [path, path.with_name(stem + EVIDENCE)]
        if any(_bytes(p) != _bytes(old / p.relative_to(new)) for p in pair):
            found.append(path)
    return found


def shortened(text: str, most: int = MOST_CHARACTERS) -> str:
    r"""Whole lines of a text, at most so many characters.

    >>> shortened("one\ntwo\n", 100), len(shortened("line\n" * 99, 200)) <= 200
    ('one\ntwo\n', True)
    """
    if len(text) <= most:
        return text
    return text[: most - len(_CUT)].rpartition("\n")[0] + _CUT


def _records(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise LeaderboardError(f"There is no folder {folder}.")
    return sorted([*folder.rglob("*.json"), *folder.rglob("*.json.gz")])


def _bytes(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except OSError:
        return None


def _tables(board: Board) -> dict[tuple[str, str, int, str], _Table]:
    """All tables of a board, by task, protocol, version and data."""
    found = {}
    for table in board.tables:
        key = ("", table.protocol, table.version, table.digest)
        title = f"{escape(table.protocol)} v{table.version} on {escape(table.data)}"
        found[key] = _Table(title, _HEAD, {_met(row): _row(row) for row in table.rows})
    for audits in board.audits:
        key = (MEMBERSHIP, audits.protocol, audits.version, audits.data.digest)
        lines = {_met(row): _audit(row) for row in audits.rows}
        found[key] = _Table(escape(audit_title(audits)), _AUDIT_HEAD, lines)
    return found


def _row(row: Row) -> _Line:
    rank = "–".join(map(str, dict.fromkeys(row.rank))) if row.rank else row.control or ""
    return _Line(
        (escape(row.anonymizer), ATTACKER[row.threat_model].partition(" (")[0]),
        (estimate(row.rank1), f"{escape(row.attack)} ({row.attacks})", rank, row.grade),
    )


def _audit(row: AuditRow) -> _Line:
    cells = audit_cells(row)
    return _Line(
        tuple(escape(c) for c in cells[: AUDIT_NUMBERS.start]), cells[AUDIT_NUMBERS.start :]
    )


def _met(row: Row | AuditRow) -> Hashable:
    """What makes rows of two boards speak of the same."""
    if isinstance(row, AuditRow):
        return ref(row.worst.anonymizer), row.worst.seen, ref(row.worst.attack), row.trial
    return row.threat_model, subject_of(row.worst)


def _differing(old: _Table | None, new: _Table | None) -> Iterator[list[str]]:
    """Cells of the rows that are not what they were, in the order of the board."""
    before, after = old.rows if old else {}, new.rows if new else {}
    for place in dict.fromkeys([*after, *before]):
        now, was = after.get(place), before.get(place)
        if now and was and now.says != was.says:
            pairs = zip(was.says, now.says, strict=True)
            yield [*now.about, "changed", *(b if a == b else f"{a} → {b}" for a, b in pairs)]
        elif now and not was:
            yield [*now.about, "new", *now.says]
        elif was and not now:
            yield [*was.about, "gone", *was.says]


def _entries(board: Board) -> Iterator[Filing]:
    for table in board.tables:
        yield from table.entries
    for audits in board.audits:
        yield from audits.entries
    yield from (w.entry for w in board.withdrawn)


def _names(board: Board) -> set[str]:
    return {entry.stem for entry in _entries(board)}


def _hashes(board: Board) -> Mapping[str, str]:
    return {entry.stem: entry.sha256 for entry in _entries(board)}


def _listed(what: str, names: Iterable[str], board: Board) -> Sequence[str]:
    grades = {entry.stem: entry.grade for entry in _entries(board)}
    return [f"- {what}: {escape(name, 200)} ({grades[name]})" for name in sorted(names)]


def _quoted(verdicts: str) -> str:
    """Lines that a command printed, as a list; those that are indented belong to the one before."""
    return "\n".join(
        f"{'  ' if line[0] == ' ' else ''}- {escape(line, 400)}"
        for line in verdicts.splitlines()
        if line.strip()
    )
