"""Is a published record what it says? Its file, its protocol, its arithmetic, its evidence."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from privbench import bundle, claims
from privbench.audit_publication import (
    membership_differences,
    membership_numbers,
    membership_preset_of,
    read_result,
)
from privbench.audit_record import MembershipRecord
from privbench.data import Preset, split
from privbench.errors import ConfigError, PrivbenchError, RecordError
from privbench.grades import Grade, Level, Rerun, stem
from privbench.plan import Choice, open_dataset, resolve
from privbench.progress import Reporter, Silent
from privbench.recompute import differences, preset_of, recompute
from privbench.record import PACKED, Record, unpacked
from privbench.registry import Registry, load_registry
from privbench.rerun import rerun
from privbench.results import columns, package_version
from privbench.store import Arrays
from privbench.submission import its_data

LARGEST_RECORD = 4 * 2**20
"""Bytes that a published record may unpack to: many times what one of `full` takes."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of one record.

    Attributes:
        name: of the record.
        grade: what it deserves; None where it is refused.
        problems: why it is refused.
        notes: what could not be checked, and what is worth knowing.
    """

    name: str
    grade: Grade | None
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def verify(
    path: Path,
    *,
    fraction: float = 0.0,
    dataset: Choice | None = None,
    device: torch.device | None = None,
    seed: int = 0,
    registry: Registry | None = None,
    reporter: Reporter | None = None,
) -> Verdict:
    """Check one record file, and recompute its numbers from the evidence beside it.

    Args:
        path: `.json` or `.json.gz`.
        fraction: of the probes that are anonymized again; 0 for none.
        dataset: where the record's images are; by default its data set as it ships.
        device: for anonymizing again.
        seed: which probes.

    Returns:
        `claimed` where there is no evidence, or no way to recompute some metric here;
        `recomputed` where every number follows; `re-run` where besides that a share of the images
        was anonymized again and came out alike. Where that cannot be done here, a note says why.

    Raises:
        ConfigError: `fraction` is none.
    """
    if not 0 <= fraction <= 1:
        raise ConfigError(f"--rerun takes a share from 0 to 1; got {fraction:g}.")
    registry, name = registry or load_registry(), stem(path)
    notes: list[str] = []
    try:
        digest = bundle.sha256(unpacked(path, LARGEST_RECORD))
        record = read_result(path)
        if isinstance(record, MembershipRecord):
            membership_preset_of(record)
            problems = [*claims.form(record, name), *claims.membership(record)]
        else:
            problems = [*claims.form(record, name), *claims.arithmetic(record, preset_of(record))]
        if problems:
            return Verdict(name, None, tuple(problems))
        unknown: list[str] = []
        problems += [
            *claims.timings(record),
            *claims.plugins(record, registry, notes, unknown),
        ]
        notes += unknown
        if not (path.parent / f"{name}{bundle.SUFFIX}").exists():
            notes.append(f"there is no evidence beside it: {name}{bundle.SUFFIX}")
            return _verdict(name, digest, "claimed", problems, notes)
        arrays = _evidence(record, path)
        problems += [*claims.command(record, registry), *_reused(record, path)]
        found, missing = _recomputed(record, arrays, path, dataset, registry, notes)
        problems += found
        notes += [f"{m} was not recomputed: {why}" for m, why in missing.items()]
        level: Level = "claimed" if missing or unknown else "recomputed"
        if problems or level == "claimed" or fraction == 0:
            return _verdict(name, digest, level, problems, notes)
        if isinstance(record, MembershipRecord):
            notes.append("it releases samples of a model: nothing was anonymized again")
            return _verdict(name, digest, level, problems, notes)
        try:
            again = rerun(
                record,
                arrays,
                fraction,
                dataset=dataset or Choice(id=record.dataset["id"]),
                device=device or torch.device("cpu"),
                seed=seed,
                registry=registry,
                reporter=reporter or Silent(),
            )
        except PrivbenchError as error:  # it says nothing about the record
            notes.append(f"nothing was anonymized again: {error}")
            return _verdict(name, digest, level, problems, notes)
    except PrivbenchError as error:
        return Verdict(name, None, (str(error),))
    except (ArithmeticError, LookupError, MemoryError, TypeError, ValueError) as error:  # hostile
        return Verdict(name, None, (f"it cannot be computed: {type(error).__name__}: {error}",))
    if again.apart:
        few = ", ".join(again.apart[:3])
        problem = f"{len(again.apart)} of {again.images} images come out otherwise ({few}, ...)"
        return Verdict(name, None, (problem,), tuple(notes))
    done = Rerun(images=again.images, of=again.of, identical=again.identical)
    return _verdict(name, digest, "re-run", [], notes, done)


def _recomputed(
    record: Record | MembershipRecord,
    arrays: Arrays,
    path: Path,
    dataset: Choice | None,
    registry: Registry,
    notes: list[str],
) -> tuple[list[str], Mapping[str, str]]:
    """What does not follow from the evidence, and metrics that could not be computed."""
    name = record.scores["file"]
    if isinstance(record, MembershipRecord):
        ours, missing = membership_numbers(record, arrays, registry, name)
        return membership_differences(record, ours, missing), missing
    numbers = recompute(record, arrays, registry, name)
    problems = [
        *claims.picture(record, path),
        *differences(record, numbers),
        *_people(record, arrays, preset_of(record), dataset, registry, notes),
    ]
    return problems, numbers.missing


def _verdict(
    name: str,
    digest: str,
    level: Level,
    problems: Sequence[str],
    notes: Sequence[str],
    again: Rerun | None = None,
) -> Verdict:
    if problems:
        return Verdict(name, None, tuple(problems), tuple(notes))
    grade = Grade(sha256=digest, grade=level, privbench=package_version("privbench"), rerun=again)
    return Verdict(name, grade, (), tuple(notes))


def _evidence(record: Record | MembershipRecord, path: Path) -> Arrays:
    """The bundle beside a record.

    Raises:
        RecordError: it is damaged, or not the one that the record names.
    """
    beside = path.parent / f"{stem(path)}{bundle.SUFFIX}"
    try:
        data = beside.read_bytes()
    except OSError as error:
        raise RecordError(f"Cannot read {beside}: {error}") from error
    if bundle.sha256(data) != record.scores.get("sha256"):
        raise RecordError(f"{beside.name} is not the file that the record names: other SHA-256.")
    return bundle.unpack(data, beside.name)


def _reused(record: Record | MembershipRecord, path: Path) -> Iterator[str]:
    """No other record of the same plugins rests on the same evidence, withdrawn ones included."""
    mine = path.parent / f"{stem(path)}{bundle.SUFFIX}"
    size = mine.stat().st_size
    for other in sorted(path.parent.glob(f"*{bundle.SUFFIX}")):
        if other == mine or other.stat().st_size != size:
            continue
        if bundle.sha256(other.read_bytes()) != record.scores.get("sha256"):
            continue
        near = other.name.removesuffix(bundle.SUFFIX)
        files = [f for f in (path.with_name(f"{near}{end}") for end in (".json", PACKED))
                 if f.exists()]  # fmt: skip
        for theirs in map(read_result, files):
            if (theirs.anonymizer.id, theirs.attack.id) == (record.anonymizer.id, record.attack.id):
                yield f"its evidence is that of {near}"


def _people(
    record: Record,
    arrays: Arrays,
    preset: Preset,
    dataset: Choice | None,
    registry: Registry,
    notes: list[str],
) -> Iterator[str]:
    """Whose photos were probed is what the protocol draws from the data, where they are here."""
    data = its_data(record, dataset, registry, notes)
    if data is None:
        yield from _elsewhere(record, registry)
        return
    if data.licence != record.dataset.get("licence"):
        yield f"the licence of {data.name} is {data.licence!r}"
    parts = split(data, preset)
    subject = data.subject[parts.probes]
    mated = columns(subject, data.subject[parts.gallery], preset.references)
    strangers = data.subject[parts.non_mated]
    for key, ours in (("subject", subject), ("mated", mated), ("strangers", strangers)):
        if not np.array_equal(arrays[key], ours):
            yield f"{key} of the evidence are not the people whom the protocol draws"


def _elsewhere(record: Record, registry: Registry) -> Iterator[str]:
    """Data that are here under another name are not called otherwise."""
    for found in registry.of_kind("dataset"):
        if found.unavailable or found.spec.argument or found.spec.id == record.dataset["id"]:
            continue
        try:
            data = open_dataset(registry, resolve(registry, "dataset", Choice(id=found.spec.id)))
        except PrivbenchError:
            continue
        if data.digest == record.dataset["digest"]:
            yield f"its data are those of {found.spec.id}; it calls them {record.dataset['id']!r}"
