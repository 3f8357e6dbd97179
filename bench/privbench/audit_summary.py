"""The numbers of a membership study, from its records alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np

from privbench import settest
from privbench.audit_numbers import AtRate
from privbench.audit_plan import PRIMARY
from privbench.audit_record import MembershipRecord
from privbench.audit_studyfile import AuditStudyFile, Row
from privbench.errors import RecordError
from privbench.record import PACKED
from privbench.stats import exact_binomial
from privbench.types import Estimate

Done = Mapping[str, Mapping[str, Sequence[MembershipRecord]]]
"""Row id -> attack id -> records, one per target, in the row's order."""

Z: Final = 1.959964
TRAINING: Final = "fine-tuning"
NUMBERS: Final = ("tpr@fpr=0.01", "tpr@calibrated=0.01", "fpr@calibrated=0.01")


def summarise(study: AuditStudyFile, done: Done, errors: Mapping[str, str]) -> dict[str, Any]:
    """Everything that the study's tables and plots show.

    Args:
        done: what was finished.
        errors: row id -> why it is missing or not whole; "" where it is whole.

    Returns:
        JSON-able: `protocol`, `rows` (each with `results` by attack), `sets`, `null`.

    Raises:
        RecordError: there is no record.
    """
    every = list(
        {
            record.keys["record"]: record
            for by_attack in done.values()
            for records in by_attack.values()
            for record in records
        }.values()
    )
    if not every:
        raise RecordError("The study has no record: nothing of it was finished.")
    first = every[0]
    rows = [row_summary(row, done.get(row.id, {}), errors.get(row.id, "")) for row in study.rows
            if row.id in done or errors.get(row.id)]  # fmt: skip
    return {
        "protocol": first.protocol,
        "dataset": first.dataset,
        "parts": {name: part.model_dump() for name, part in first.parts.items()},
        "primary_trial": PRIMARY,
        "rows": rows,
        "sets": [
            entry
            for row in study.rows
            for entry in set_summaries(row, done.get(row.id, {}))
            if row.trial == PRIMARY
        ],
        "alpha": settest.ALPHA,
        "null": null_summary(study, done),
        "devices": _devices(every),
    }


def row_summary(
    row: Row, done: Mapping[str, Sequence[MembershipRecord]], error: str
) -> dict[str, Any]:
    """One row of the table."""
    return {
        "id": row.id,
        "group": row.group,
        "what": row.what,
        "trial": row.trial,
        "targets": list(row.targets),
        "settings": row.settings,
        "x": row.x,
        "reported": row.reported,
        "error": error,
        "results": {
            attack: result_summary(row, records) for attack, records in done.items() if records
        },
    }


def result_summary(row: Row, records: Sequence[MembershipRecord]) -> dict[str, Any]:
    """One attack on one row: the mean over retrained targets."""
    found = [r.number("auc", row.trial) for r in records]
    aucs = [e for e in found if e and e.value is not None and e.low is not None]
    suspects, others = records[0].pairs[row.trial]
    exact: list[AtRate] = records[0].exact[row.trial]
    return {
        "auc": combined(aucs),
        "by_target": [e.value for e in aucs],
        "suspects": suspects,
        "others": others,
        "n": aucs[0].n if aucs else None,
        "people": aucs[0].clusters if aucs else None,
        "seen": records[0].seen,
        "epochs": records[0].target["epochs"],
        "numbers": {name: _shown(records[0].number(name, row.trial)) for name in NUMBERS},
        "exact": [rate.model_dump() for rate in exact],
        "control": records[0].attack.control,
        "threat_model": records[0].threat_model,
        "answers": records[0].answers,
        "predictions": records[0].predictions,
        "config": records[0].attack.config,
        "records": [f"{record.name}{PACKED}" for record in records],
    }


def combined(aucs: Sequence[Estimate]) -> dict[str, Any] | None:
    """Mean of the targets' AUCs with an interval that covers people and targets.

    With one target it is the bootstrap's own interval, of people alone.
    """
    if not aucs:
        return None
    values = [float(e.value or 0) for e in aucs]
    if len(aucs) == 1:
        only = aucs[0]
        return {"value": only.value, "low": only.low, "high": only.high, "targets": 1}
    errors = [((e.high or 0) - (e.low or 0)) / (2 * Z) for e in aucs]
    made = settest.combined(values, errors)
    return {
        "value": made.value,
        "low": made.low,
        "high": made.high,
        "targets": made.targets,
        "between": made.between,
        "within": made.within,
    }


def set_summaries(row: Row, done: Mapping[str, Sequence[MembershipRecord]]) -> list[dict[str, Any]]:
    """Inference about whole sets, by attack; the powers of retrained targets are averaged."""
    entries = []
    for attack, records in sorted(done.items()):
        tests = [r.sets for r in records if r.sets]
        if not tests:
            continue
        entries.append(
            {
                "row": row.id,
                "what": row.what,
                "attack": attack,
                "threat_model": records[0].threat_model,
                "seen": records[0].seen,
                "epochs": records[0].target["epochs"],
                "learns": tests[0].learns,
                "p": [t.suspect["p"] for t in tests],
                "people": int(tests[0].suspect["n_suspect"]),
                "unpublished": int(tests[0].suspect["n_unpublished"]),
                "difference": [
                    {k: t.suspect[k] for k in ("difference", "low", "high")} for t in tests
                ],
                "power": [
                    {
                        "contamination": curve["contamination"],
                        "points": {
                            n: float(np.mean([t.power[i]["points"][n]["share"] for t in tests]))
                            for n in curve["points"]
                            if all(n in t.power[i]["points"] for t in tests)
                        },
                        "disjoint": curve["disjoint"],
                        "left_out": curve["left_out"],
                    }
                    for i, curve in enumerate(tests[0].power)
                ],
            }
        )
    return entries


def null_summary(study: AuditStudyFile, done: Done) -> list[dict[str, Any]]:
    """How often set tests reject where nobody is a member: nominally 5 %.

    One entry per attack and target. `non-members`: people whom no target was trained on, in pairs
    of groups; `strangers`: groups of suspects under a target that never saw them, against groups of
    others. Within an entry no two tests of one fold share a person, and folds are added up; entries
    share people, so they are not added up.
    """
    entries: list[dict[str, Any]] = []
    told: set[str] = set()
    for row in study.rows:
        for attack, records in sorted(done.get(row.id, {}).items()):
            tested = [r for r in records if r.sets and r.keys["record"] not in told]
            told |= {r.keys["record"] for r in tested}
            if not tested or row.trial != PRIMARY:
                continue
            kinds = {"non-members": [r.sets.null["disjoint"] for r in tested if r.sets]}
            if tested[0].seen == "never":
                kinds["strangers"] = [r.sets.groups for r in tested if r.sets]
            for kind, found in kinds.items():
                rejected = sum(t["rejected"] for t in found)
                trials = sum(t["trials"] for t in found)
                entries.append(
                    {
                        "row": row.id,
                        "what": row.what,
                        "attack": attack,
                        "kind": kind,
                        "folds": len(found),
                        "size": tested[0].sets.size if tested[0].sets else 0,
                    }
                    | _rate(rejected, trials)
                )
    return entries


def _rate(rejected: int, trials: int) -> dict[str, Any]:
    low, high = exact_binomial(rejected, trials)
    return {
        "rejected": rejected,
        "trials": trials,
        "share": rejected / trials,
        "low": low,
        "high": high,
        "nominal_within": low <= settest.ALPHA <= high,
    }


def _shown(number: Estimate | None) -> dict[str, Any] | None:
    if number is None or number.value is None:
        return None
    return {"value": number.value, "low": number.low, "high": number.high, "n": number.n}


def _devices(records: Sequence[MembershipRecord]) -> list[dict[str, Any]]:
    """Rates of fine-tuning and sampling by device; medians over records.

    That of fine-tuning is the training's own, which an interruption does not distort.
    """
    rates: dict[tuple[str, str], list[float]] = {}
    for record in records:
        for timing in record.timing:
            device, summary = timing["device"], timing["summary"]
            kind = _kind(timing["stage"])
            rate = summary and summary["images_per_second"]
            if kind == TRAINING:
                rate = record.target["training"].get("images_per_second")
            if kind and rate:
                threads = int(device.get("threads", 0))
                more = f" ({threads} thread{'s' * (threads > 1)})" if threads else ""
                rates.setdefault((device["name"] + more, kind), []).append(rate)
    return [
        {"device": where, "stage": kind, "images_per_second": float(np.median(found))}
        for (where, kind), found in sorted(rates.items())
    ]


def _kind(stage: str) -> str:
    for kind, mark in ((TRAINING, "fine-tuning"), ("sampling", "samples of")):
        if mark in stage:
            return kind
    return ""
