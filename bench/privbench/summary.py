"""The numbers of a study, from records and per-probe hits alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from privbench.keys import stage_seed
from privbench.ladder import ladders, verdict
from privbench.paired import FLIPS, differences, holm
from privbench.record import PACKED, Record
from privbench.studyfile import Curve, StudyFile, Variant
from privbench.types import Estimate

Hits = Mapping[tuple[str, str], tuple[np.ndarray, np.ndarray]]

RANK1 = ("identification", "rank-1")
AUC = ("verification", "auc")
DIR = ("open-set", "dir@fpir=0.1")
D_SYS = ("linkability", "d-sys")
OF_JUDGE = {
    "released": "rank-1-released",
    "inverted": "rank-1",
    "gain": "gain",
    "matched": "matched@fmr=0.01",
    "similarity": "similarity",
    "similarity_others": "similarity-others",
    "similarity_released": "similarity-released",
}
"""Fields of a judge's summary, and the outputs of the metric `inversion` that they come from."""
FIDELITY = ("psnr", "ssim", "lpips", "psnr-released", "ssim-released", "lpips-released")


def summarise(
    study: StudyFile,
    rows: Sequence[tuple[Variant, Sequence[Record], str]],
    hits: Hits,
    curves: Sequence[tuple[Curve, str, Sequence[Record]]] = (),
) -> dict[str, Any]:
    """Everything that the study's tables and plots show.

    Args:
        rows: variant, its records (one per attack), and why it is missing or not whole.
        hits: (variant, record key) -> (N,) subject, (N,) hit on the primary trial.
        curves: a curve, the label of a variant, and its records.

    Returns:
        JSON-able: `protocol`, `variants` (each with `attacks`), `sweeps`, `curves`, `tests`.
    """
    first = next(record for _, records, _ in rows for record in records)
    asked = [
        (c, label, [r for r in found if "inversion" in r.inversion]) for c, label, found in curves
    ]
    measured = [curve for curve in asked if curve[2]]
    metrics = [m.id for m in study.metrics]
    variants: list[dict[str, Any]] = [
        {
            "label": variant.label,
            "group": variant.group,
            "anonymizer": variant.anonymizer,
            "settings": variant.settings,
            "error": error,
            "control": records[0].anonymizer.control if records else None,
            "attacks": [_attack(record, study.k, metrics) for record in records],
            "worst_case": _worst_case(records),
        }
        for variant, records, error in rows
    ]
    found = _differences(study, rows, hits, first.protocol["resamples"])
    for entry, (_, records, _) in zip(variants, rows, strict=True):
        for attack, record in zip(entry["attacks"], records, strict=True):
            attack["differences"] = found.get((entry["label"], record.keys["record"]), {})
    return {
        "protocol": first.protocol,
        "primary_trial": first.primary_trial,
        "dataset": first.dataset,
        "people": first.parts["gallery"].identities,
        "probes": first.parts["probes"].images,
        "variants": variants,
        "sweeps": _sweeps(study, rows),
        **({"curves": [_points(*curve) for curve in measured]} if measured else {}),
        "tests": {"count": sum(len(d) for d in found.values()), "flips": FLIPS},
    }


def _attack(record: Record, k: int, metrics: Sequence[str]) -> dict[str, Any]:
    people = record.parts["gallery"].identities
    trials = {}
    for trial, found in record.estimates.items():
        rank1 = _named(found.get(RANK1[0], []), RANK1[1])
        if rank1 is not None:
            trials[trial] = _shown(rank1) | {"verdict": verdict(rank1.low, rank1.high, people, k)}
    primary = record.estimates[record.primary_trial]
    single = {
        title: _named(primary.get(metric, []), name)
        for title, (metric, name) in {"auc": AUC, "dir": DIR, "d_sys": D_SYS}.items()
    }
    stage = f"{record.anonymizer.id}: probes"
    timing = next((t for t in record.timing if t["stage"] == stage), {})
    return {
        "attack": record.attack.id,
        "control": record.attack.control,
        "threat_model": record.threat_model,
        "config": record.attack.config,
        "record": f"{record.name}{PACKED}",
        "trials": trials,
        "worst": _worst([t["verdict"] for t in trials.values()]),
        **{title: _shown(number) if number else None for title, number in single.items()},
        "queries": record.oracle_queries,
        "det": _curve(primary.get("det", []), "det-"),
        "utility": [
            {"metric": metric, "name": e.name} | _shown(e)
            for metric in metrics
            for e in record.utility.get(metric, [])
        ],
        "ms_per_image": timing.get("summary", {}).get("median_ms_per_image"),
        "device": timing.get("device", {}),
        **({"inversion": inversion_of(record)} if "inversion" in record.inversion else {}),
    }


def inversion_of(record: Record) -> dict[str, Any]:
    """What each judge says of an inversion, the chosen one first, and pixel fidelity."""
    found = {e.name: e for numbers in record.inversion.values() for e in numbers}

    def shown(name: str) -> dict[str, Any] | None:
        return _shown(found[name]) if name in found else None

    return {
        "judge": record.attack_report["judge"],
        "judges": [
            {"name": judge["name"]}
            | {field: shown(f"{judge['name']}/{name}") for field, name in OF_JUDGE.items()}
            for judge in record.attack_report["judges"]
        ],
        **{name.replace("-", "_"): shown(name) for name in FIDELITY},
    }


def _points(curve: Curve, label: str, records: Sequence[Record]) -> dict[str, Any]:
    """One curve of one variant; the judge at a point is the one that validation chose there."""
    points = []
    for record in records:
        summary = inversion_of(record)
        judge = summary["judges"][0]
        points.append(
            {
                "value": record.attack.config[curve.setting],
                "queries": record.oracle_queries,
                "judge": judge["name"],
                "rank1": judge["inverted"],
                "released": judge["released"],
                "gain": judge["gain"],
                "record": f"{record.name}{PACKED}",
            }
        )
    points.sort(key=lambda point: point["value"])
    return {
        "variant": label,
        "attack": curve.attack.id,
        "setting": curve.setting,
        "judge": points[-1]["judge"],
        "points": points,
    }


def _worst_case(records: Sequence[Record]) -> dict[str, Any] | None:
    """Rank-1 of the strongest of all attacks that are no controls, its interval included."""
    worst = ladders(records)[0].worst if records else None
    return _shown(worst) if worst else None


def _curve(numbers: Sequence[Estimate], prefix: str) -> list[list[float]]:
    """Points (x, value) of a metric whose outputs are called `prefix` and x."""
    found = [(float(n.name.removeprefix(prefix)), n.value) for n in numbers]
    return [[x, y] for x, y in found if y is not None]


def _worst(verdicts: Sequence[str]) -> str:
    """Over all trials: one violation is enough, and all must be within."""
    for bad in ("violates", "undecided"):
        if bad in verdicts:
            return bad
    return "within" if verdicts else "undecided"


def _differences(
    study: StudyFile,
    rows: Sequence[tuple[Variant, Sequence[Record], str]],
    hits: Hits,
    resamples: int,
) -> dict[tuple[str, str], dict[str, Any]]:
    """(variant, record key) -> reference -> difference; Holm over all of them together."""
    seed = stage_seed(study.seed, "paired")
    tests: list[tuple[tuple[str, str], str, dict[str, Any]]] = []
    entries = [
        (variant.label, record)
        for variant, records, _ in rows
        for record in records
        if record.attack.control is None and (variant.label, record.keys["record"]) in hits
    ]
    for reference in study.references:
        for base in (record for label, record in entries if label == reference):
            others = [
                (label, record.keys["record"])
                for label, record in entries
                if label != reference and _same_attack(record, base)
            ]
            if not others:
                continue
            subject, against = hits[reference, base.keys["record"]]
            columns = np.stack([hits[name][1] for name in others], axis=1)
            made = differences(columns, against, subject, resamples, seed)
            tests += [
                (name, reference, _shown(d.estimate) | {"p": d.p})
                for name, d in zip(others, made, strict=True)
            ]
    result: dict[tuple[str, str], dict[str, Any]] = {}
    adjusted = holm(np.array([body["p"] for _, _, body in tests]))
    for (name, reference, body), p in zip(tests, adjusted, strict=True):
        result.setdefault(name, {})[reference] = body | {"p_holm": float(p)}
    return result


def _same_attack(one: Record, other: Record) -> bool:
    return (one.attack.id, one.attack.config) == (other.attack.id, other.attack.config)


def _sweeps(
    study: StudyFile, rows: Sequence[tuple[Variant, Sequence[Record], str]]
) -> list[dict[str, Any]]:
    """Each sweep's points: value of the setting and variant, the default's among them."""
    config = {v.label: records[0].anonymizer.config for v, records, _ in rows if records}
    sweeps = []
    for sweep in study.sweeps:
        labels = [sweep.variant, *(sweep.label(value) for value in sweep.values)]
        points = [
            {"value": config[label][sweep.setting], "variant": label}
            for label in labels
            if label in config and sweep.setting in config[label]
        ]
        points.sort(key=lambda p: p["value"])
        sweeps.append({"variant": sweep.variant, "setting": sweep.setting, "points": points})
    return sweeps


def _named(numbers: Sequence[Estimate], name: str) -> Estimate | None:
    return next((n for n in numbers if n.name == name), None)


def _shown(number: Estimate) -> dict[str, Any]:
    return {
        "value": number.value,
        "low": number.low,
        "high": number.high,
        "chance": number.chance,
        "protects": number.protects,
        "unit": number.unit,
    }
