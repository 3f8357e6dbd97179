"""Tables of attacks on membership: what samples or predictions of a model give away of its data."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from privbench_leaderboard.records import GRADES, Audit, Data, Grade, Number, Rate
from privbench_leaderboard.subjects import labels_of, ref
from privbench_leaderboard.tables import group

RATE = 0.01
"""FPR at which a table shows TPRs."""


@dataclass(frozen=True, slots=True)
class AuditRow:
    """One attack on one kind of target in one trial: of all retrained targets and seeds, the one
    on which it did best.

    Attributes:
        target: label of the model.
        attack: label.
        trial: who is told from whom.
        worst: its record.
        records: how many there are.
        grade: the worst of theirs.
    """

    target: str
    attack: str
    trial: str
    worst: Audit
    records: int
    grade: Grade

    @property
    def auc(self) -> Number | None:
        """Chance that a member scores higher than another."""
        return self.worst.auc(self.trial)

    @property
    def tpr(self) -> Rate | None:
        """At an FPR of `RATE`."""
        return self.worst.tpr(self.trial, RATE)


@dataclass(frozen=True, slots=True)
class AuditTable:
    """All rows of one protocol version on one data set.

    Attributes:
        warnings: what a reader must know before believing the table.
    """

    protocol: str
    version: int
    data: Data
    rows: tuple[AuditRow, ...]
    entries: tuple[Audit, ...]
    warnings: tuple[str, ...] = ()


def audit_tables(audits: Iterable[Audit]) -> tuple[AuditTable, ...]:
    """Tables from records of membership, in whatever order they come.

    Rows stand by target, attacks on membership by their AUC, controls last. They have no ranks:
    targets that were trained on other people were not met by the same suspects.
    """
    groups = group(audits, lambda a: (a.protocol.name, a.protocol.version, a.dataset.digest))
    return tuple(_table(groups[key]) for key in sorted(groups))


def _table(audits: list[Audit]) -> AuditTable:
    targets = labels_of(a.anonymizer for a in audits)
    attacks = labels_of(a.attack for a in audits)
    trials = [(a, trial) for a in audits for trial in sorted(a.estimates)]
    same = group(trials, lambda t: (ref(t[0].anonymizer), t[0].seen, ref(t[0].attack), t[1]))
    rows = [
        AuditRow(
            target=targets[key[0]],
            attack=attacks[key[2]],
            trial=key[3],
            worst=max(found, key=lambda t: _harm(*t))[0],
            records=len(found),
            grade=min((a.grade for a, _ in found), key=GRADES.index),
        )
        for key, found in same.items()
    ]
    first, ordered = audits[0], tuple(sorted(rows, key=_place))
    return AuditTable(
        protocol=first.protocol.name,
        version=first.protocol.version,
        data=min((a.dataset for a in audits), key=lambda d: (d.id, d.licence, d.consent)),
        rows=ordered,
        entries=tuple(sorted(audits, key=lambda a: (a.stem, a.sha256))),
        warnings=tuple(_warnings(ordered)),
    )


def _warnings(rows: Iterable[AuditRow]) -> Iterator[str]:
    """What the controls say on the trial that is about membership alone."""
    primary = [row for row in rows if row.trial == row.worst.primary_trial]
    if not any(row.worst.attack.control == "negative" for row in primary):
        yield (
            "There is no negative control in this table: nothing shows what an attack that knows "
            "nothing would score."
        )
    for row in primary:
        auc, control = row.auc, row.worst.attack.control
        if auc is None or auc.chance is None or auc.low is None or auc.high is None:
            continue
        if auc.low <= auc.chance <= auc.high:
            continue
        if control == "negative":
            yield (
                f"The interval of the negative control {row.attack} on {row.target} does not "
                "contain chance. Pure noise does that in one draw of people in twenty; where it "
                "does, differences of that size mean nothing in this table."
            )
        elif control is not None or row.worst.seen == "never":
            yield (
                f"{row.attack} on {row.target} does not score at chance, though it cannot know "
                "who was a member: members and others differ in something else."
            )


def _harm(audit: Audit, trial: str) -> tuple[float, str]:
    auc = audit.auc(trial)
    return (-1.0 if auc is None or auc.value is None else auc.value, audit.sha256)


def _place(row: AuditRow) -> tuple[object, ...]:
    other, control = row.trial != row.worst.primary_trial, row.worst.attack.control is not None
    never = row.worst.seen == "never"
    harm, _ = _harm(row.worst, row.trial)
    return (row.target, never, other, row.trial, control, -harm, row.attack)
