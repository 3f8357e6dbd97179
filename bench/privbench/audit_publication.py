"""Publication of membership records: their evidence, and their numbers anew from it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from privbench.audit_numbers import RATES, AtRate, SetResult, at_rate, set_result
from privbench.audit_record import MembershipRecord
from privbench.data import FIT
from privbench.errors import PrivbenchError, RecordError
from privbench.keys import stage_seed
from privbench.populations import (
    CALIBRATION,
    MEMBERSHIP_PROTOCOLS,
    SEEN,
    UNPUBLISHED,
    UNSEEN,
)
from privbench.recompute import CLOSE, metric_of
from privbench.record import Record, parsed, read_as, read_record, unpacked
from privbench.registry import Registry
from privbench.results import measured
from privbench.store import Arrays
from privbench.types import UNKNOWN, Estimate, Membership

RESAMPLES = 2000
"""Of a protocol that follows the data."""

SETS = (SEEN, UNSEEN, UNPUBLISHED)


def read_result(path: Path) -> Record | MembershipRecord:
    """Read a record of either kind.

    Raises:
        RecordError: it is none.
    """
    try:
        body = parsed(unpacked(path))
    except (ValueError, RecursionError) as error:
        raise RecordError(f"{path} is not a record: {error}") from error
    membership = isinstance(body, dict) and body.get("task") == "membership"
    return read_as(MembershipRecord, path) if membership else read_record(path)


def membership_preset_of(record: MembershipRecord) -> None:
    """Refuse a protocol that is not ours; `fit` follows the data.

    Raises:
        RecordError: not one of this release, or its numbers are not those of its version.
    """
    body = record.protocol
    label = f"{body.get('name')} v{body.get('version')}"
    if body.get("name") == FIT:
        _check_fit(record)
        return
    known = MEMBERSHIP_PROTOCOLS.get(str(body.get("name")))
    if known is None or asdict(known) | {"people": dict(known.people)} != body:
        names = ", ".join(f"{p.name} v{p.version}" for p in MEMBERSHIP_PROTOCOLS.values())
        raise RecordError(
            f"The protocol {label} of the record is not ours; this release knows {names}."
        )


def _check_fit(record: MembershipRecord) -> None:
    """`fit` has the fields, version and resamples of the others, and the record's people."""
    body, model = record.protocol, next(iter(MEMBERSHIP_PROTOCOLS.values()))
    people = {part: found.identities for part, found in record.parts.items()}
    fixed = {"version": 1, "resamples": RESAMPLES}
    if (
        set(body) != set(asdict(model))
        or any(body[name] != value for name, value in fixed.items())
        or not isinstance(body["people"], dict)
        or any(body["people"].get(part) != count for part, count in people.items())
    ):
        raise RecordError(
            f"The protocol fit of the record is not ours, or not of its people: {people} with "
            f"{fixed['resamples']:,} resamples are wanted."
        )


def membership_arrays(record: MembershipRecord, raw: Arrays) -> dict[str, np.ndarray]:
    """The bundle of a record: of the attack's scores, and of who was scored, what its numbers need.

    Args:
        raw: (n, 1 + F) scores by query set or by `trial/NAME`, and `PART_subject`.
    """
    sides = {side for pair in record.pairs.values() for side in pair}
    parts = {side.partition("+")[0] for side in sides} | set(SETS) | {CALIBRATION}
    wanted = {*sides, *SETS, CALIBRATION, *(f"trial/{t}" for t in record.pairs)}
    wanted |= {f"{part}_subject" for part in parts}
    return {name: array for name, array in raw.items() if name in wanted}


def membership_numbers(
    record: MembershipRecord, arrays: Arrays, registry: Registry, name: str
) -> tuple[MembershipRecord, dict[str, str]]:
    """The record with its numbers computed anew, and metrics that could not be, with the reason.

    Raises:
        RecordError: the bundle does not fit the record.
    """
    missing: dict[str, str] = {}
    estimates: dict[str, dict[str, list[Estimate]]] = {}
    exact: dict[str, list[AtRate]] = {}
    resamples = int(record.protocol["resamples"])
    seed = stage_seed(record.seed, "bootstrap")
    for trial, sides in record.pairs.items():
        evidence = _evidence(record, arrays, trial, sides, name)
        exact[trial] = [at_rate(evidence, rate) for rate in RATES]
        estimates[trial] = {}
        for metric, ref in record.metrics.items():
            try:
                plugin, _ = metric_of(metric, ref, registry)
            except PrivbenchError as error:
                missing[metric] = str(error)
                continue
            estimates[trial][metric] = measured(plugin, evidence, resamples, seed)
    update = {"estimates": estimates, "exact": exact, "sets": _sets(record, arrays, name)}
    return record.model_copy(update=update), missing


def membership_differences(
    record: MembershipRecord, ours: MembershipRecord, missing: Mapping[str, str]
) -> list[str]:
    """What a record claims otherwise than it was recomputed."""
    found: list[str] = []
    for field in ("estimates", "exact", "sets"):
        claimed, computed = (r.model_dump(mode="json")[field] for r in (record, ours))
        if field == "estimates":
            for group in claimed.values():
                for metric in missing:
                    group.pop(metric, None)
        found += [f"{field}: {text}" for text in _apart(claimed, computed, "")]
    return found


def _evidence(
    record: MembershipRecord, arrays: Arrays, trial: str, sides: tuple[str, str], name: str
) -> Membership:
    """Scores of a trial with the truth, as `privbench.audit_record.evidence_of` has it."""
    subjects = [_subject(record, arrays, side, name) for side in sides]
    member = np.repeat([True, False], [len(s) for s in subjects])
    if f"trial/{trial}" in arrays:
        scores, calibration = _scores(arrays, f"trial/{trial}", name), np.empty(0)
    else:
        scores = np.concatenate([_scores(arrays, side, name) for side in sides])
        calibration = _scores(arrays, CALIBRATION, name)
    if len(scores) != len(member):
        raise RecordError(f"{name}: {trial} has {len(scores)} scores of {len(member)} images.")
    subject = np.concatenate(subjects)
    unknown = np.flatnonzero(subject == UNKNOWN)  # a sample is a person of its own
    subject[unknown] = subject.max(initial=0) + 1 + np.arange(len(unknown))
    return Membership(scores, member, subject, calibration)


def _sets(record: MembershipRecord, arrays: Arrays, name: str) -> SetResult | None:
    if SEEN not in arrays or record.target.get("mark"):
        return None
    sides = [(_matrix(arrays, part, name), _subject(record, arrays, part, name)) for part in SETS]
    seed = stage_seed(record.seed, "sets", str(record.fold))
    return set_result(sides[0], sides[1], sides[2], seed)


def _matrix(arrays: Arrays, key: str, name: str) -> np.ndarray:
    if key not in arrays or arrays[key].ndim != 2:
        raise RecordError(f"{name} lacks the scores of {key}.")
    return arrays[key].astype(np.float64)


def _scores(arrays: Arrays, key: str, name: str) -> np.ndarray:
    scores: np.ndarray = _matrix(arrays, key, name)[:, 0]
    return scores


def _subject(record: MembershipRecord, arrays: Arrays, side: str, name: str) -> np.ndarray:
    """Who is on each image of a query set; nobody known on samples."""
    part = side.partition("+")[0]
    if part not in record.parts:
        return np.full(len(_matrix(arrays, side, name)), UNKNOWN)
    found = arrays.get(f"{part}_subject")
    if found is None or found.shape != (record.parts[part].images,):
        raise RecordError(
            f"{name} must say who is on {record.parts[part].images} images of {part}."
        )
    return found.astype(np.int64)


def _apart(one: Any, other: Any, where: str) -> Iterator[str]:
    """Where two JSON values differ by more than `CLOSE`."""
    if isinstance(one, dict) and isinstance(other, dict) and set(one) == set(other):
        for key in one:
            yield from _apart(one[key], other[key], f"{where}/{key}")
    elif isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        for i, (mine, yours) in enumerate(zip(one, other, strict=True)):
            label = mine.get("name", i) if isinstance(mine, dict) else i
            yield from _apart(mine, yours, f"{where}/{label}")
    elif isinstance(one, float | int) and isinstance(other, float | int):
        if abs(one - other) > CLOSE * max(1.0, abs(other)):
            yield f"{where[1:]} is {one!r}, and {other!r} when recomputed"
    elif one != other:
        yield f"{where[1:]} is {str(one)[:60]!r}, and {str(other)[:60]!r} when recomputed"
