"""What a column of the board shows, how it is explained, and how it sorts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from privbench_leaderboard.markdown import UTILITY, number
from privbench_leaderboard.records import GRADES, Grade, Number
from privbench_leaderboard.site.frontiers import device_facts, device_of
from privbench_leaderboard.tables import Row
from privbench_leaderboard.text import plain


@dataclass(frozen=True, slots=True)
class Cell:
    """One cell.

    Attributes:
        text: what it says; "" for what is missing.
        detail: a second, smaller line.
        sort: a number, or text; "" for what is missing, which sorts last either way.
    """

    text: str = ""
    detail: str = ""
    sort: str = ""


@dataclass(frozen=True, slots=True)
class Column:
    """One column.

    Attributes:
        key: for ids and classes; the heading's anchor in `docs/leaderboard.md`.
        head: name.
        about: what it means, in a sentence or two.
        cell: of a row.
        kind: how it sorts and is set.
        better: which way protects better, or is more useful; an arrow of the head.
    """

    key: str
    head: str
    about: str
    cell: Callable[[Row], Cell]
    kind: Literal["number", "text"] = "number"
    better: Literal["", "lower", "higher"] = ""

    @property
    def arrow(self) -> str:
        """↓ where lower is better, ↑ where higher is."""
        return {"": "", "lower": "↓", "higher": "↑"}[self.better]


def estimated(found: Number | None) -> Cell:
    """A value over its interval."""
    if found is None or found.value is None:
        return Cell()
    known = found.low is not None and found.high is not None
    detail = f"{number(found.low)}–{number(found.high)}" if known else ""
    return Cell(number(found.value), detail, f"{found.value:.12g}")


def counted(value: float | None, form: str = "{:g}", detail: str = "") -> Cell:
    """A plain number."""
    return Cell() if value is None else Cell(form.format(value), detail, f"{value:.12g}")


def named(text: str, detail: str = "") -> Cell:
    """Text, of a record perhaps."""
    return Cell(plain(text), plain(detail), plain(text).lower())


def graded(grade: Grade, detail: str = "") -> Cell:
    """A grade; sorts from worst to best."""
    return Cell(grade, detail, str(GRADES.index(grade)))


def _rank(row: Row) -> Cell:
    if row.control or row.rank is None:
        return Cell()
    low, high = row.rank
    return Cell(str(low) if low == high else f"{low}–{high}", "", f"{low + high / 1000:.3f}")


def _milliseconds(row: Row) -> Cell:
    stage = row.stage
    return counted(stage.summary.median_ms_per_image if stage else None, "{:.3g}")


def _memory(row: Row) -> Cell:
    return counted(row.stage.peak_bytes / 2**20 if row.stage else None, "{:.0f}")


def _device(row: Row) -> Cell:
    if row.stage is None:
        return Cell()
    name, *others = device_facts(row.stage.device, row.dtype)
    return Cell(name, ", ".join(others), device_of(row).lower())


def _utility(name: str) -> Callable[[Row], Cell]:
    return lambda row: estimated(row.utility.get(name))


_ABOUT = {
    "detection": "Share of releases in which a face detector finds a face: use, never privacy.",
    "attributes/mean": "Share of attributes that a classifier reads off releases rightly.",
    "downstream/mean": "The same for a classifier trained on releases and tested on clean images.",
    "ssim": "Structural similarity of the release to its source.",
}

RANK1 = "rank-1"
COLUMNS = (
    Column("rank", "Rank", "Best and worst place that the data allow among rows against the same "
           "attacker, for all rows at once at 95 %. Controls have none.", _rank),
    Column("ties", "Ties", "Rows that share a letter do not differ significantly.",
           lambda row: named(" ".join(row.ties)), "text"),
    Column(RANK1, "Rank-1", "Share of released images whose person the attacker names first, "
           "among S enrolled people, from other photographs of them. It ranks the rows.",
           lambda row: estimated(row.rank1), better="lower"),
    Column("attack", "Worst attack", "The attack that did it, of how many tried. All numbers of a "
           "row are that attack's.", lambda row: named(row.attack), "text"),
    Column("grade", "Grade", "What was checked. Claimed: nothing. Recomputed: the "
           "numbers follow from the scores stored with them. Re-run: a sample of the images comes "
           "out the same again. The worst of all records that the row rests on.",
           lambda row: graded(row.grade), "text"),
    Column("same-photo", "Same photo", "Rank-1 where the very photograph that was anonymized is "
           "among the references.", lambda row: estimated(row.same_photo), better="lower"),
    Column("auc", "ROC AUC", "Chance that an image scores higher with its own person than with "
           "another; 0.5 is chance.", lambda row: estimated(row.auc), better="lower"),
    Column("set", "Set < 10", "Share of images that leave the attacker fewer than ten candidates.",
           lambda row: estimated(row.small_set), better="lower"),
    Column("dir", "DIR", "Open set: share of images whose person is named first and above a "
           "threshold that one in ten images of people who are not enrolled passes.",
           lambda row: estimated(row.open_set), better="lower"),
    Column("d-sys", "D_sys", "How linkable releases and people are, from 0 to 1.",
           lambda row: estimated(row.linkability), better="lower"),
    Column("undetected", "No face in source", "Share of source photographs in which the data set's "
           "detector found no face; they take part all the same.",
           lambda row: counted(row.undetected, "{:.3f}")),
    *(Column(name.partition("/")[0], title, _ABOUT[name], _utility(name), better="higher")
      for name, title in UTILITY),
    Column("ms", "ms per image", "Median time to anonymize one image. Comparable only where device "
           "and dtype agree.", _milliseconds, better="lower"),
    Column("memory", "Peak MiB", "Peak memory while anonymizing; on a CPU the whole process.",
           _memory, better="lower"),
    Column("device", "Device", "Where it was timed, and in which dtype.", _device, "text"),
    Column("seeds", "Seeds", "How many seeds that attack was run with.",
           lambda row: counted(row.seeds)),
    Column("licence", "Weights' licence", "What the anonymizer says of the licence of its weights; "
           "blank where it has none or says nothing.",
           lambda row: named(row.worst.anonymizer.licence), "text"),
)  # fmt: skip
"""Every column that the board may have, in order."""

ALWAYS = {"rank", RANK1, "attack", "grade"}
"""Columns that stand even where no row has a value."""


def columns(rows: Sequence[Row]) -> tuple[Column, ...]:
    """The columns that some row has a value for, in the order of the board."""
    return tuple(c for c in COLUMNS if c.key in ALWAYS or any(c.cell(row).text for row in rows))
