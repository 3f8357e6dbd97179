"""Tables as Markdown. Whatever comes from a record is escaped: a record may be anyone's."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType

from tabulate import tabulate

from privbench_leaderboard.audits import AuditRow, AuditTable
from privbench_leaderboard.frontier import Interval
from privbench_leaderboard.records import Number, Stage
from privbench_leaderboard.standing import LONGEST_REASON, Withdrawn
from privbench_leaderboard.tables import Row, SummaryTable
from privbench_leaderboard.text import MAX_TEXT, plain

_COLUMNS = (
    ("Rank", "left"),
    ("Ties", "left"),
    ("Anonymizer", "left"),
    ("Rank-1 ↓", "left"),
    ("S", "right"),
    ("Chance", "right"),
    ("Worst attack (of)", "left"),
    ("Same-photo rank-1 ↓", "left"),
    ("ROC AUC ↓", "left"),
    ("Set < 10 ↓", "left"),
    ("DIR at FPIR 10 % ↓", "left"),
    ("D_sys ↓", "left"),
    ("No face in source", "right"),
)
_OPTIONAL = {"Ties", "DIR at FPIR 10 % ↓", "D_sys ↓", "No face in source", "Weights' licence"}
"""Columns that appear where some row has a value."""

_COSTS = (
    ("ms/image ↓", "right"),
    ("Peak MiB ↓", "right"),
    ("Device", "left"),
    ("Seeds", "right"),
    ("Weights' licence", "left"),
    ("Grade", "left"),
)

UTILITY = (
    ("detection", "Faces found"),
    ("attributes/mean", "Attributes kept"),
    ("downstream/mean", "Downstream"),
    ("ssim", "SSIM"),
)
"""Utilities that have a column wherever some record holds them: `metric/output`, or `metric` for
its first output."""

ATTACKER = {
    "adaptive": "adaptive (may ask the anonymizer about images of its own)",
    "black-box": "black-box (sees releases, may not ask)",
    "none": "knows nothing of the anonymizer",
}

BOUND = (
    "A privacy number is an upper bound on protection under the attacks tried: a better attack "
    "can only show less protection, never more."
)

_LEGEND = f"""\
{BOUND}

↓ lower is better, ↑ higher is better; for rank-1, AUC and set size better means better protected.
**Rank-1**: share of released images whose person the attacker names first, among S enrolled
people, with other photographs of each person as references. **Same-photo**: the very photograph
that was anonymized is among the references. **Set < 10**: share of images that leave the attacker
fewer than ten candidates. **DIR at FPIR 10 %**: share of images whose person is named first and
above a threshold that one in ten images of people who are not enrolled passes. **D_sys**: how
linkable releases and people are, from 0 to 1 (`docs/metrics.md`). **No face in source**: share of
photographs in which the data set's detector found no face; they take part all the same. Utility
columns appear where it was measured; **Faces found**: share of releases in which a face detector
finds a face, which is utility and never privacy; **Attributes kept**: share of attributes that a
classifier reads off releases rightly; **Downstream**: the same of a classifier trained on releases
and tested on clean images; **SSIM**: similarity of the release to its source. Intervals are 95 %,
from resampling identities.

A row is one anonymizer against one kind of attacker, and shows the worst case: of all attacks
that this attacker may run (who may do more may also do less) and of all seeds, the run with the
highest rank-1. All numbers of the row are that run's; its interval is not widened for having been
picked as the worst. Ranks count within a threat model, and hold for all rows at once: two rows
differ where a paired test on the same photographs, which resamples people and is corrected for
the number of pairs, says so at 5 %; rows that share a letter under **Ties** do not. (Without hits
of each probe in all records, rows whose intervals overlap share a range of ranks.) Controls and
diagnostics are not ranked: a positive control leaves the person recognisable, a negative control
shows somebody else, a diagnostic releases what nobody would, to see what it gives away. What was
not measured is blank.

**Grade** is what was checked of a row's records, the worst of them: *claimed*, nothing;
*recomputed*, all numbers follow from the scores stored with them; *re-run*, a sample of the images
comes out the same again (`docs/leaderboard.md`).
"""


def escape(text: str, most: int = MAX_TEXT) -> str:
    r"""Text from a record, made inert inside a Markdown table or paragraph.

    >>> print(escape("a|b\n<i>`x`</i> [l](http://e.org)"))
    a&#124;b &#60;i&#62;&#96;x&#96;&#60;/i&#62; &#91;l&#93;(http&#58;//e.org)
    """
    shown = "".join(f"&#{ord(c)};" if c in _SPECIAL else c for c in plain(text, most))
    # GitHub links bare addresses as well, and GH-1.
    shown = _ADDRESS.sub(lambda found: f"{found[1]}&#46;", shown.replace("://", "&#58;//"))
    return _ISSUE.sub(lambda found: f"{found[1]}&#45;", shown)


_ADDRESS, _ISSUE = re.compile(r"(www)\.", re.I), re.compile(r"\b(GH)-(?=[0-9])", re.I)
_SPECIAL = frozenset("&<>|`\\[]*_~@#$!")


def render_markdown(
    tables: Sequence[SummaryTable],
    plots: Mapping[int, str] = MappingProxyType({}),
    withdrawn: Sequence[Withdrawn] = (),
    audits: Sequence[AuditTable] = (),
) -> str:
    """The whole board as Markdown.

    Args:
        tables: as `build` returns them.
        plots: place of a table -> file name of its plot, beside the page.
        withdrawn: records that count no more.
        audits: tables of membership.
    """
    parts = [
        "# Leaderboard\n\n<!-- Written by `privbench leaderboard`. Do not edit. -->\n",
        _LEGEND,
        *(_section(table, plots.get(i, "")) for i, table in enumerate(tables)),
        *(_audits(table) for table in audits),
        *([_withdrawals(withdrawn)] if withdrawn else []),
    ]
    return "\n".join(parts)


MEMBERSHIP_SAYS = (
    "Were these people in the data that a model was trained on? AUC: chance that a member scores "
    "higher than a person who is none; 0.5 is guessing. TPR: share of members found where 1 % of "
    "others are taken for one. Of retrained targets the one on which the attack did best. Rows "
    "have no ranks: other targets were met by other suspects. A target that has never seen the "
    "suspects is a control: an attack that does better than guessing there finds something else. "
    "Only in-distribution is about membership alone; other trials also tell populations apart."
)
AUDIT_HEADS = (
    "Target", "Saw the suspects", "Trial", "Attack", "Attacker", "AUC ↓", "TPR at FPR 1 % ↓", "N",
    "Records", "Grade",
)  # fmt: skip
AUDIT_NUMBERS = range(5, 9)
"""Which of them are numbers."""


def audit_cells(row: AuditRow) -> tuple[str, ...]:
    """A row of a table of membership as plain text."""
    worst = row.worst
    said = f" ({worst.attack.control} control)" if worst.attack.control else ""
    return (
        plain(row.target), worst.seen, plain(row.trial), plain(row.attack) + said,
        worst.threat_model, estimate(row.auc), estimate(row.tpr), str(row.auc.n) if row.auc else "",
        str(row.records), row.grade,
    )  # fmt: skip


def audit_title(table: AuditTable) -> str:
    """Heading of a table of membership, plain text."""
    return f"Membership: {plain(table.protocol)} v{table.version} on {plain(table.data.id)}"


def _audits(table: AuditTable) -> str:
    rows = [
        [c if i in AUDIT_NUMBERS else escape(c) for i, c in enumerate(audit_cells(row))]
        for row in table.rows
    ]
    said = [f"Licence {table.data.licence}."] if table.data.licence else []
    said += [f"Consent: {table.data.consent}."] if table.data.consent else []
    head = f"## {escape(audit_title(table))}\n\n{MEMBERSHIP_SAYS} {escape(' '.join(said), 400)}\n"
    warnings = [f"> **Warning.** {inert(text)}\n" for text in table.warnings]
    return "\n".join([head, f"{pipe_table(AUDIT_HEADS, rows)}\n", *warnings])


def _withdrawals(withdrawn: Sequence[Withdrawn]) -> str:
    rows = [
        [
            escape(w.date),
            escape(w.entry.anonymizer.id),
            escape(w.entry.attack.id),
            escape(w.entry.stem),
            escape(w.reason, LONGEST_REASON),
        ]
        for w in withdrawn
    ]
    head = ["Date", "Anonymizer", "Attack", "Record", "Reason"]
    return f"## Withdrawn\n\nThese records count in no row.\n\n{pipe_table(head, rows)}\n"


def _section(table: SummaryTable, image: str) -> str:
    utilities = [(n, u) for n, _ in UTILITY if (u := _first(table.rows, n)) is not None]
    names = dict(UTILITY)
    columns = [
        *_COLUMNS,
        *((f"{names[n]} {'↑' if u.protects == 'higher' else '↓'}", "left") for n, u in utilities),
        *_COSTS,
    ]

    cells = {id(row): _cells(row, [n for n, _ in utilities]) for row in table.rows}
    used = [
        i
        for i, (name, _) in enumerate(columns)
        if name not in _OPTIONAL or any(row[i] for row in cells.values())
    ]

    def grid(rows: Sequence[Row]) -> str:
        return tabulate(
            [[cells[id(row)][i] for i in used] for row in rows],
            headers=[columns[i][0] for i in used],
            tablefmt="github",
            colalign=[columns[i][1] for i in used],
            disable_numparse=True,  # or an id such as 1e3 would become a number
        )

    parts = [f"## {escape(table.protocol)} v{table.version} on {escape(table.data)}", ""]
    ranked, apart = ([r for r in table.rows if bool(r.control) == c] for c in (False, True))
    models = list(dict.fromkeys(row.threat_model for row in table.rows))
    for i, model in enumerate(models):
        parts += [f"### Attacker: {ATTACKER[model]}", ""]
        for rows in (ranked, apart):
            if shown := [row for row in rows if row.threat_model == model]:
                parts += ["Controls and diagnostics:", ""] if rows is apart else []
                parts += [grid(shown), ""]
        if image and not i:
            parts += [f"![Worst-case rank-1 against utility and time]({image})", ""]
    warnings = [f"> **Warning.** {inert(text)}\n" for text in table.warnings]
    return "\n".join([*parts, _facts(table), *_controls(table), *warnings])


def _first(rows: Iterable[Row], metric: str) -> Number | None:
    return next((u for row in rows if (u := row.utility.get(metric)) is not None), None)


def inert(sentence: str) -> str:
    """A sentence: escaped, but not cut. `code` marks in it are ours to keep."""
    pieces = sentence.split("`")
    if len(pieces) % 2 == 0:  # an odd mark would swallow the rest
        pieces = [" ".join(pieces)]
    shown = [
        f"`{_code(piece)}`" if i % 2 else " ".join(escape(word) for word in piece.split(" "))
        for i, piece in enumerate(pieces)
    ]
    return "".join(shown)


def _code(text: str) -> str:
    """Inside a code span only its mark or the end of the line could do harm."""
    return "".join(" " if unicodedata.category(c)[0] in "CZ" else c for c in text)


def facts_of(table: SummaryTable) -> str:
    """How large a table's evidence is, as plain text."""
    probes = _spread(row.probes for row in table.rows)
    people = _spread(row.people for row in table.rows)
    chance = _spread(number(row.rank1.chance) for row in table.rows if row.rank1)
    return (
        f"{probes} probes of {people} enrolled people; chance {chance}; {table.resamples:,} "
        f"resamples of identities; primary trial {plain(table.trial)}; data set "
        f"{plain(table.data)}, SHA-256 {plain(table.digest[:12])}"
    )


def _facts(table: SummaryTable) -> str:
    said = [f"licence {d.licence}" for d in table.datasets if d.licence]
    said += [f"consent: {d.consent}" for d in table.datasets if d.consent]
    return f"{'; '.join(escape(s, 400) for s in [facts_of(table), *said])}. {BOUND}\n"


def _controls(table: SummaryTable) -> list[str]:
    found = [f"{escape(name)} {estimate(number)}" for name, number in table.control_attacks]
    if not found:
        return []
    return [f"Rank-1 of control attacks, which no row counts: {'; '.join(found)}.\n"]


def _cells(row: Row, utilities: Sequence[str]) -> list[str]:
    return [
        _rank(row),
        escape(" ".join(row.ties)),
        escape(row.anonymizer),
        estimate(row.rank1),
        "" if row.people is None else str(row.people),
        number(row.rank1.chance) if row.rank1 else "",
        f"{escape(row.attack)} ({row.attacks})",
        estimate(row.same_photo),
        estimate(row.auc),
        estimate(row.small_set),
        estimate(row.open_set),
        estimate(row.linkability),
        number(row.undetected),
        *(estimate(row.utility.get(name)) for name in utilities),
        _milliseconds(row.stage),
        f"{row.stage.peak_bytes / 2**20:.0f}" if row.stage else "",
        _device(row.stage, row.dtype),
        str(row.seeds),
        escape(row.worst.anonymizer.licence),
        row.grade,
    ]


def _rank(row: Row) -> str:
    if row.control:
        return row.control if row.control == "diagnostic" else f"{row.control} control"
    if row.rank is None:
        return ""
    best, worst = row.rank
    return str(best) if best == worst else f"{best}–{worst}"


def estimate(found: Interval | None) -> str:
    """`value [low, high]`; "" for what is missing."""
    if found is None or found.value is None:
        return ""
    if found.low is None or found.high is None:
        return number(found.value)
    return f"{number(found.value)} [{number(found.low)}, {number(found.high)}]"


def signed(found: Interval | None) -> str:
    """A difference as `+value [+low, +high]`; "" for what is missing."""
    if found is None or found.value is None:
        return ""
    if found.low is None or found.high is None:
        return f"{found.value:+.3f}"
    return f"{found.value:+.3f} [{found.low:+.3f}, {found.high:+.3f}]"


def number(value: float | None) -> str:
    """Three decimals; "" for what is missing."""
    return "" if value is None else f"{value:.3f}"


def pipe_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Escaped cells as a Markdown table."""
    return tabulate(rows, headers=head, tablefmt="github", disable_numparse=True)


def _milliseconds(stage: Stage | None) -> str:
    if stage is None or stage.summary.median_ms_per_image is None:
        return ""
    return f"{stage.summary.median_ms_per_image:.3g}"


def _device(stage: Stage | None, dtype: str) -> str:
    if stage is None:
        return ""
    threads = stage.device.get("threads")
    facts = [stage.device.get("name", ""), f"{threads} thread(s)" if threads else "", dtype]
    return escape(", ".join(f for f in facts if f))


def _spread(values: Iterable[object]) -> str:
    """The distinct values; one, as a rule."""
    found = sorted({str(v) for v in values if v not in (None, "")})
    return "/".join(found) or "?"
