"""The board's page as plain values for its template."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from privbench_leaderboard.audits import AuditRow, AuditTable
from privbench_leaderboard.board import Board
from privbench_leaderboard.markdown import (
    ATTACKER,
    AUDIT_HEADS,
    audit_cells,
    audit_title,
    estimate,
    facts_of,
)
from privbench_leaderboard.records import GRADES, Number, ThreatModel
from privbench_leaderboard.site.cells import Cell, Column, columns
from privbench_leaderboard.site.frontiers import Panel, device_of
from privbench_leaderboard.site.svg import element
from privbench_leaderboard.standing import Withdrawn
from privbench_leaderboard.subjects import slug_of
from privbench_leaderboard.tables import Row, SummaryTable
from privbench_leaderboard.text import plain

SHORT: Mapping[str, str] = {
    "adaptive": "adaptive",
    "gray-box": "gray-box",
    "black-box": "black-box",
    "none": "no knowledge",
}
"""Threat models in a word or two."""

CONTROL = {
    "positive": "positive control",
    "negative": "negative control",
    "diagnostic": "diagnostic",
}


@dataclass(frozen=True, slots=True)
class Line:
    """One row of a table.

    Attributes:
        name: of the anonymizer.
        page: link to its page.
        control: which kind of control, in words; "" for none.
        cells: one per column.
        bar: rank-1 with its interval and chance, drawn.
        attacks: link text to all attacks tried.
        device: for the filter; "" where it was not timed.
        grade: for the filter.
        text: for the search.
    """

    name: str
    page: str
    control: str
    cells: tuple[tuple[Column, Cell], ...]
    bar: Markup
    attacks: str
    device: str
    grade: str
    text: str


@dataclass(frozen=True, slots=True)
class Grid:
    """One table: all rows against one kind of attacker."""

    id: str
    model: ThreatModel
    attacker: str
    columns: tuple[Column, ...]
    ranked: tuple[Line, ...]
    apart: tuple[Line, ...]


@dataclass(frozen=True, slots=True)
class Section:
    """Everything of one protocol version on one data set."""

    id: str
    title: str
    data: str
    facts: str
    licences: tuple[tuple[str, str], ...]
    grids: tuple[Grid, ...]
    panels: tuple[Panel, ...]
    controls: tuple[str, ...]
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class AuditSection:
    """A table of membership: cells as text, and what they sort by."""

    id: str
    title: str
    licence: str
    consent: str
    rows: tuple[tuple[tuple[str, str], ...], ...]
    grades: tuple[str, ...]
    models: tuple[str, ...]
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Choice:
    """One entry of a filter."""

    value: str
    text: str


@dataclass(frozen=True, slots=True)
class IndexView:
    """The whole page."""

    counts: str
    grades: str
    sections: tuple[Section, ...]
    legend: tuple[Column, ...]
    audits: tuple[AuditSection, ...]
    withdrawn: tuple[Withdrawn, ...]
    data: tuple[Choice, ...]
    models: tuple[Choice, ...]
    devices: tuple[Choice, ...]


def index_view(board: Board, drawn: Sequence[Sequence[Panel]], pages: int) -> IndexView:
    """The page of a board.

    Args:
        drawn: the pictures of each table.
        pages: how many anonymizers have one.
    """
    sections = tuple(_section(t, d) for t, d in zip(board.tables, drawn, strict=True))
    rows = [row for table in board.tables for row in table.rows]
    entries = [entry for table in board.tables for entry in table.entries]
    models: set[str] = {g.model for s in sections for g in s.grids}
    models |= {row.worst.threat_model for table in board.audits for row in table.rows}
    return IndexView(
        counts=", ".join(
            _plural(count, what)
            for count, what in (
                (pages, "anonymizer"),
                (len({e.attack.id for e in entries}), "attack"),
                (len(entries), "record"),
            )
        ),
        grades=_grades(Counter(e.grade for e in entries)),
        sections=sections,
        legend=columns(rows),
        audits=(audits := tuple(_audit_section(table) for table in board.audits)),
        withdrawn=board.withdrawn,
        data=(
            *(Choice(section.id, section.title) for section in sections),
            *(Choice(audit.id, audit.title) for audit in audits),
        ),
        models=tuple(Choice(m, SHORT[m]) for m in SHORT if m in models),
        devices=tuple(
            Choice(device, plain(device))
            for device in sorted({device_of(row) for row in rows if row.stage})
        ),
    )


def section_id(table: SummaryTable) -> str:
    """An id that stays the same whatever else is on the board."""
    text = f"{table.protocol}/{table.version}/{table.digest}"
    return f"t{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def _audit_section(table: AuditTable) -> AuditSection:
    text = f"membership/{table.protocol}/{table.version}/{table.data.digest}"

    def cells(row: AuditRow) -> tuple[tuple[str, str], ...]:
        sorts = {
            "AUC ↓": _sort(row.auc.value if row.auc else None),
            "TPR at FPR 1 % ↓": _sort(row.tpr.value if row.tpr else None),
            "Grade": str(GRADES.index(row.grade)),
        }
        found = zip(AUDIT_HEADS, audit_cells(row), strict=True)
        return tuple((text, sorts.get(head, text.lower())) for head, text in found)

    return AuditSection(
        id=f"m{hashlib.sha256(text.encode()).hexdigest()[:8]}",
        title=audit_title(table),
        licence=plain(table.data.licence),
        consent=plain(table.data.consent, 400),
        rows=tuple(cells(row) for row in table.rows),
        grades=tuple(row.grade for row in table.rows),
        models=tuple(row.worst.threat_model for row in table.rows),
        warnings=tuple(plain(warning, 400) for warning in table.warnings),
    )


def _sort(value: float | None) -> str:
    return "" if value is None else f"{value:.12g}"


def bar(found: Number | None) -> Markup:
    """A number in [0, 1] with its interval and chance, on one line; the cell's text says it too."""
    if found is None or found.value is None:
        return Markup("")
    parts = [element("line", class_="track", x1=0, x2=100, y1=6, y2=6)]
    if found.chance is not None:
        parts.append(element("line", class_="tick", x1=_on(found.chance), x2=_on(found.chance),
                             y1=1, y2=11))  # fmt: skip
    if found.low is not None and found.high is not None:
        parts.append(element("line", class_="span", x1=_on(found.low), x2=_on(found.high), y1=6,
                             y2=6))  # fmt: skip
    parts.append(element("circle", cx=_on(found.value), cy=6, r=3.5))
    drawn = element("svg", *parts, class_="bar", viewBox="-4 0 108 12", aria_hidden="true")
    return Markup(drawn)  # noqa: S704 - made by `element`, which escapes


def _on(value: float) -> float:
    return 100 * min(max(value, 0.0), 1.0)


def _section(table: SummaryTable, drawn: Sequence[Panel]) -> Section:
    id_ = section_id(table)
    used = columns(table.rows)
    models = list(dict.fromkeys(row.threat_model for row in table.rows))
    return Section(
        id=id_,
        title=f"{plain(table.protocol)} v{table.version} on {plain(table.data)}",
        data=plain(table.data),
        facts=facts_of(table),
        licences=tuple((plain(d.licence), plain(d.consent, 400)) for d in table.datasets),
        grids=tuple(_grid(table, model, used, id_) for model in models),
        panels=tuple(drawn),
        controls=tuple(f"{plain(name)} {estimate(found)}" for name, found in table.control_attacks),
        warnings=tuple(plain(warning, 400) for warning in table.warnings),
    )


def _grid(table: SummaryTable, model: ThreatModel, used: Sequence[Column], id_: str) -> Grid:
    rows = [row for row in table.rows if row.threat_model == model]
    return Grid(
        id=f"{id_}-{model}",
        model=model,
        attacker=f"Attacker: {ATTACKER[model]}",
        columns=tuple(used),
        ranked=tuple(_line(row, used, id_) for row in rows if not row.control),
        apart=tuple(_line(row, used, id_) for row in rows if row.control),
    )


def _line(row: Row, used: Sequence[Column], id_: str) -> Line:
    name, attack = plain(row.anonymizer), plain(row.attack)
    return Line(
        name=name,
        page=f"anonymizers/{slug_of(row.worst)}.html#{id_}",
        control=CONTROL.get(row.control or "", ""),
        cells=tuple((column, column.cell(row)) for column in used),
        bar=bar(row.rank1),
        attacks="only attack tried" if row.attacks == 1 else f"worst of {row.attacks}",
        device=device_of(row) if row.stage else "",
        grade=row.grade,
        text=f"{name} {attack}".lower(),
    )


def _grades(found: Mapping[str, int]) -> str:
    said = [f"{found[grade]} {grade}" for grade in reversed(GRADES) if found.get(grade)]
    return ", ".join(said)


def _plural(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"
