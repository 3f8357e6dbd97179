"""Is a published record what it says? Its file, its protocol, its arithmetic, its evidence."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from privbench import bundle
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
from privbench.plan import Choice, resolve
from privbench.progress import Reporter, Silent
from privbench.recompute import CLOSE, differences, preset_of, recompute
from privbench.record import PluginRef, Record, unpacked
from privbench.registry import Registry, load_registry
from privbench.rerun import rerun
from privbench.results import package_version
from privbench.spec import ID, Kind
from privbench.store import Arrays
from privbench.submission import its_data
from privbench.timing import summarize
from privbench.types import Timing

LARGEST_RECORD = 4 * 2**20
"""Bytes that a published record may unpack to: many times what one of `full` takes."""

_HEX = re.compile(r"[0-9a-f]{64}")


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
            problems = list(_form(record, name))
        else:
            preset = preset_of(record)
            problems = [*_form(record, name), *_arithmetic(record, preset)]
        if problems:
            return Verdict(name, None, tuple(problems))
        problems += [*_timings(record), *_plugins(record, registry, notes)]
        if not (path.parent / f"{name}{bundle.SUFFIX}").exists():
            notes.append(f"there is no evidence beside it: {name}{bundle.SUFFIX}")
            return _verdict(name, digest, "claimed", problems, notes)
        arrays = _evidence(record, path)
        if isinstance(record, MembershipRecord):
            ours, missing = membership_numbers(record, arrays, registry, record.scores["file"])
            problems += membership_differences(record, ours, missing)
        else:
            problems += _picture(record, path)
            numbers = recompute(record, arrays, registry, record.scores["file"])
            missing = dict(numbers.missing)
            problems += differences(record, numbers)
            problems += _people(record, arrays, preset, dataset, registry, notes)
        notes += [f"{m} was not recomputed: {why}" for m, why in missing.items()]
        level: Level = "claimed" if missing else "recomputed"
        if problems or missing or fraction == 0:
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
    except RecordError as error:
        return Verdict(name, None, (str(error),))
    except (ArithmeticError, LookupError, TypeError, ValueError) as error:  # hostile contents
        return Verdict(name, None, (f"it cannot be computed: {type(error).__name__}: {error}",))
    if again.apart:
        few = ", ".join(again.apart[:3])
        problem = f"{len(again.apart)} of {again.images} images come out otherwise ({few}, ...)"
        return Verdict(name, None, (problem,), tuple(notes))
    done = Rerun(images=again.images, of=again.of, identical=again.identical)
    return _verdict(name, digest, "re-run", [], notes, done)


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


def _form(record: Record | MembershipRecord, name: str) -> Iterator[str]:
    """Names, hashes and ids are of the form that ours have."""
    if record.name != name:
        yield f"the file must be named after its record, {record.name}; it is {name}"
    hashes = [*record.keys.values(), record.dataset.get("digest", ""), record.anonymizer.code,
              record.attack.code, *(m.code for m in record.metrics.values())]  # fmt: skip
    hashes += [record.scores["sha256"]] if record.scores else []
    if bad := [h for h in hashes if not _HEX.fullmatch(h)]:
        yield f"{len(bad)} hashes are no SHA-256 in hex, such as {bad[0][:80]!r}"
    refs = (record.anonymizer, record.attack, *record.metrics.values())
    if odd := [ref.id for ref in refs if not ID.fullmatch(ref.id)]:
        yield f"{odd[0][:80]!r} is no plugin id"
    if record.scores and record.scores.get("file") != f"{name}{bundle.SUFFIX}":
        yield f"its evidence must be {name}{bundle.SUFFIX}; it names {record.scores.get('file')!r}"
    named = {metric for numbers in record.estimates.values() for metric in numbers}
    if isinstance(record, Record):
        named |= {*record.utility, *record.inversion}
    if set(record.metrics) != named:
        yield "the metrics that it names are not those that it has numbers of"


def _arithmetic(record: Record, preset: Preset) -> Iterator[str]:
    """Parts add up."""
    people = {
        "background": (preset.background, preset.train_images),
        "attacker-train": (preset.attacker_train, preset.train_images),
        "attacker-validation": (preset.attacker_validation, preset.train_images),
        "gallery": (preset.evaluation, preset.references),
        "cross-gallery": (preset.evaluation, preset.cross_references),
        "probes": (preset.evaluation, preset.probes),
        "non-mated": (preset.non_mated, preset.probes),
    }
    for part, (identities, images) in people.items():
        found = record.parts.get(part)
        if found is None or (found.identities, found.images) != (identities, identities * images):
            yield f"the part {part} must have {identities} people and {identities * images} images"
        elif found.undetected is not None and not 0 <= found.undetected <= found.images:
            yield f"the part {part} cannot have {found.undetected} images without a face"


def _timings(record: Record | MembershipRecord) -> Iterator[str]:
    """Timings follow from their samples."""
    for stage in record.timing:
        try:
            timing = Timing(
                **{k: v for k, v in stage.items() if k != "summary"} | {
                    "seconds": tuple(stage["seconds"]), "images": tuple(stage["images"]),
                    "resolution": tuple(stage["resolution"]),
                }
            )  # fmt: skip
            ours = summarize(timing)
            same = set(ours) == set(stage["summary"]) and all(
                abs(v - stage["summary"][k]) <= CLOSE * max(1, abs(v)) for k, v in ours.items()
            )
        except (TypeError, KeyError, ValueError, ZeroDivisionError) as error:
            yield f"a timing is incomplete: {error}"
            continue
        if not same:
            yield f"the timing of {str(stage['stage'])[:80]} does not follow from its samples"


def _plugins(
    record: Record | MembershipRecord, registry: Registry, notes: list[str]
) -> Iterator[str]:
    """What the plugins that are here say of themselves is what the record says."""
    sides: tuple[tuple[Kind, PluginRef], ...] = (
        ("anonymizer", record.anonymizer),
        ("attack", record.attack),
    )
    for kind, ref in sides:
        found = registry.plugins.get((kind, ref.id))
        if found is None:
            notes.append(f"the {kind} {ref.id} is not installed here")
            continue
        spec = found.spec
        if spec.version != ref.version:
            notes.append(f"{ref.id} is version {ref.version}; here it is version {spec.version}")
            continue
        if spec.tags.control != ref.control:
            yield f"{ref.id} has control {spec.tags.control}; the record says {ref.control}"
        if kind == "attack" and not spec.tags.fuses and spec.tags.knowledge != record.threat_model:
            yield (
                f"{ref.id} is an attack of threat model {spec.tags.knowledge}; the record says "
                f"{record.threat_model}"
            )
        try:
            here = resolve(registry, kind, Choice(id=ref.id, settings=ref.config))
        except PrivbenchError as error:
            notes.append(f"{ref.id} cannot be set up here as it was: {error}")
            continue
        if here.code != ref.code:
            notes.append(f"the code of {ref.id} that is here is another one, of the same version")
        if dict(here.weights) != ref.weights:
            yield f"the weights of {ref.id} are not those that the record names"


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


def _picture(record: Record, path: Path) -> Iterator[str]:
    """The gallery is the one that the record names."""
    if not record.gallery:
        return
    name = record.gallery.get("file", "")
    if name != f"{record.gallery.get('sha256', '')[:16]}.jpg":
        yield f"the gallery must be named after its hash; got {name[:80]!r}"
        return
    beside = path.parent.parent / "galleries" / name
    if not beside.is_file():
        yield f"the gallery {name} is missing"
    elif bundle.sha256(beside.read_bytes()) != record.gallery["sha256"]:
        yield f"the gallery {name} is not the picture that the record names"


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
        return
    if data.licence != record.dataset.get("licence"):
        yield f"the licence of {data.name} is {data.licence!r}"
    parts = split(data, preset)
    people = data.subject[parts.gallery][:: preset.references]
    subject = data.subject[parts.probes]
    mated = np.argmax(subject[:, None] == people[None, :], axis=1)
    strangers = data.subject[parts.non_mated]
    for key, ours in (("subject", subject), ("mated", mated), ("strangers", strangers)):
        if not np.array_equal(arrays[key], ours):
            yield f"{key} of the evidence are not the people whom the protocol draws"
