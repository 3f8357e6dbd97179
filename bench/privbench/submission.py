"""From a finished run to what is published: a record with curves and picture, and its evidence."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.numpy import load as load_safetensors

from privbench import bundle
from privbench.audit_publication import (
    membership_arrays,
    membership_differences,
    membership_numbers,
    read_result,
)
from privbench.audit_record import MembershipRecord
from privbench.data import Dataset, Preset, split
from privbench.errors import ConfigError, PrivbenchError, RecordError
from privbench.evidence import Scores
from privbench.inversion import INVERTED
from privbench.keys import canonical_json
from privbench.pictures import strips_jpeg, write_bytes
from privbench.plan import Choice, open_dataset, parse_settings, resolve
from privbench.recompute import Numbers, differences, preset_of, recompute
from privbench.record import PluginRef, Record, write_record
from privbench.registry import Registry, load_registry, make_config
from privbench.results import columns
from privbench.store import Arrays, Artefact, Store

PEOPLE = 6
"""People in a gallery."""

RENDERED = "no real person: rendered"
"""Consent to images that show nobody."""


R = TypeVar("R", Record, MembershipRecord)
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Submitted:
    """What was written.

    Attributes:
        files: the record first, then its evidence, then its gallery if there is one.
        notes: what is left out, and why.
    """

    record: Record | MembershipRecord
    files: tuple[Path, ...]
    notes: tuple[str, ...]


def submit(
    path: Path,
    out: Path,
    *,
    store: str,
    dataset: Choice | None = None,
    consent: str = "",
    own_images: bool = False,
    registry: Registry | None = None,
) -> Submitted:
    """Bundle a record with what its numbers rest on, ready to be published.

    The bundle is read back and all numbers are computed from it again: a record whose numbers do
    not follow is not written.

    Args:
        path: record that `privbench run` wrote; the attack's scores lie beside it.
        out: folder for record and evidence; the gallery goes to `galleries` beside it.
        dataset: where the record's images are; by default its data set as it ships.
        store: of the run, for the rows of metrics that look at images and for the gallery.
        consent: what the people in the images agreed to, where the data set does not say it.
        own_images: show images even where the data set does not say that they are rendered.

    Raises:
        PrivbenchError: a file or a stored step is missing, or the numbers do not follow.
    """
    registry = registry or load_registry()
    record = read_result(path)
    if isinstance(record, MembershipRecord):
        return _submit_membership(record, path, out, dataset, consent, registry)
    return _submit(record, path, out, Store(store), dataset, consent, own_images, registry)


def _submit(
    record: Record,
    path: Path,
    out: Path,
    store: Store,
    dataset: Choice | None,
    consent: str,
    own_images: bool,
    registry: Registry,
) -> Submitted:
    notes: list[str] = []
    preset = preset_of(record)
    raw = _raw_scores(record, path, "probe_subject")
    released = _find(store, record, "anonymize", f"{record.anonymizer.id}: probes",
                     record.anonymizer.id)  # fmt: skip
    pixels = _pixels(store, released, len(raw["probe_subject"]))
    arrays = bundle.evidence_arrays(preset, _with_truth(record, raw, preset))
    arrays |= _rows(record, store) | bundle.prints(pixels)
    data = its_data(record, dataset, registry, notes)
    rendered = bool(getattr(data, "rendered", False))
    shown = data is not None and (own_images or rendered)
    picture = _gallery(record, store, preset, data, pixels) if shown and data else b""
    if not picture:
        notes.append("no gallery: the images may be of real people, or are not here")

    def check(kept: Arrays) -> tuple[list[str], Numbers]:
        numbers = recompute(record, kept, registry, path.name)
        return differences(record, numbers), numbers

    packed, numbers = _packed(arrays, check, path)
    done = _completed(record, packed, consent or RENDERED * rendered, registry, notes)
    update = {
        "curves": numbers.curves,
        "gallery": _described(record, picture) if picture else {},
    }
    return _written(done.model_copy(update=update), out, packed, picture, notes)


def _submit_membership(
    record: MembershipRecord,
    path: Path,
    out: Path,
    dataset: Choice | None,
    consent: str,
    registry: Registry,
) -> Submitted:
    """A membership record needs no store: its numbers rest on scores alone."""
    notes: list[str] = []
    arrays = membership_arrays(record, _raw_scores(record, path, "seen_subject"))

    def check(kept: Arrays) -> tuple[list[str], None]:
        ours, missing = membership_numbers(record, kept, registry, path.name)
        return membership_differences(record, ours, missing), None

    packed, _ = _packed(arrays, check, path)
    rendered = bool(getattr(its_data(record, dataset, registry, notes), "rendered", False))
    done = _completed(record, packed, consent or RENDERED * rendered, registry, notes)
    return _written(done, out, packed, b"", notes)


def _packed(
    arrays: Arrays, check: Callable[[Arrays], tuple[list[str], T]], path: Path
) -> tuple[bytes, T]:
    """A bundle from which all numbers follow: in single precision, unless one minds.

    Args:
        check: what does not follow, and the numbers.

    Raises:
        RecordError: they do not follow from the arrays themselves.
    """
    for kept in (bundle.single(arrays), arrays):
        packed = bundle.pack(kept)
        problems, numbers = check(bundle.unpack(packed, path.name))
        if not problems:
            return packed, numbers
    raise RecordError(f"The numbers of {path} do not follow from its scores: {problems[0]}.")


def _completed(record: R, packed: bytes, consent: str, registry: Registry, notes: list[str]) -> R:
    """The record with its evidence, its command, and what people agreed to."""
    if not consent:
        notes.append("nothing is said of consent: --consent TEXT says what people agreed to")
    name = f"{record.name}{bundle.SUFFIX}"
    update = {
        "dataset": record.dataset | ({"consent": consent} if consent else {}),
        "command": command_of(record, registry),
        "scores": {"file": name, "sha256": bundle.sha256(packed)},
    }
    return record.model_copy(update=update)


def _written(
    record: Record | MembershipRecord, out: Path, packed: bytes, picture: bytes, notes: list[str]
) -> Submitted:
    files = [write_record(record, out, packed=True), out / record.scores["file"]]
    write_bytes(files[1], packed)
    if picture and isinstance(record, Record):
        files.append(out.parent / "galleries" / record.gallery["file"])
        write_bytes(files[2], picture)
    return Submitted(record, tuple(files), tuple(notes))


def command_of(record: Record | MembershipRecord, registry: Registry) -> str:
    """The command line that makes a record again, with settings that are not defaults.

    An attack that fuses others is named after its members.
    """
    members = [k.partition(":")[2].partition("#")[0] for k in record.keys if k[:7] == "member:"]
    words = ["privbench", "run"]
    settings: list[str] = []
    for kind, refs in (
        ("anonymizer", [record.anonymizer]),
        ("attack", [record.attack]),
        ("metric", list(record.metrics.values())),
    ):
        named = []
        for ref in refs:
            argument, changed = _changed(kind, ref, registry)
            named.append(ref.id + argument)
            settings += changed
        if kind == "metric":
            continue  # all that are installed, by default
        words += [f"--{kind}", *([*members] if kind == "attack" else []), *named]
    words += ["--dataset", _data_named(record, registry), "--protocol", record.protocol["name"]]
    words += ["--seed", str(record.seed)]
    release = record.release if isinstance(record, Record) else {}
    if release.get("draws", 1) > 1:
        words += ["--draws", str(release["draws"])]
    if release.get("fixed_seed"):
        words += ["--fixed-seed"]
    return shlex.join([*words, *(["--set", *settings] if settings else [])])


def _data_named(record: Record | MembershipRecord, registry: Registry) -> str:
    """The data set's id; with a word for what the record keeps to itself, such as a path."""
    found = registry.plugins.get(("dataset", record.dataset["id"]))
    first = found.spec.argument if found else ""
    return record.dataset["id"] + (f":{first.upper()}" if first else "")


def _changed(kind: Any, ref: PluginRef, registry: Registry) -> tuple[str, list[str]]:
    """`:VALUE` of a plugin's argument, and `id.key=value` of other settings that differ."""
    try:
        spec = registry.get(kind, ref.id).spec
        default = make_config(spec, {}).model_dump(mode="json")
        first = spec.argument
    except PrivbenchError:
        default, first = {}, ""  # not installed here: name every setting
    changed = {k: v for k, v in ref.config.items() if k not in default or default[k] != v}
    argument = f":{changed.pop(first)}" if first in changed else ""
    return argument, [f"{ref.id}.{k}={_text(v)}" for k, v in changed.items()]


def _text(value: Any) -> str:
    """A setting as the command line takes it."""
    return value if isinstance(value, str) else canonical_json(value)


def _raw_scores(
    record: Record | MembershipRecord, path: Path, marker: str
) -> dict[str, np.ndarray]:
    """What `privbench run` wrote beside the record; `marker` is an array that it holds.

    Raises:
        RecordError: it is missing or not what the record names.
    """
    name = record.scores.get("file", "")
    beside = path.with_name(Path(name).name or "scores")
    try:
        data = beside.read_bytes()
    except OSError as error:
        raise RecordError(
            f"Cannot read the scores of {path}: {error}. Submit a record where `privbench run` "
            "wrote it."
        ) from error
    if bundle.sha256(data) != record.scores.get("sha256"):
        raise RecordError(f"{beside} is not the file that {path} names: its SHA-256 differs.")
    try:
        arrays: dict[str, np.ndarray] = load_safetensors(data)
    except SafetensorError as error:
        raise RecordError(f"{beside} is not what `privbench run` writes: {error}.") from error
    if marker not in arrays:
        raise RecordError(f"{beside} is not what `privbench run` writes: submitted already?")
    return arrays


def _with_truth(record: Record, arrays: Mapping[str, np.ndarray], preset: Preset) -> Scores:
    return Scores(
        arrays,
        columns(arrays["probe_subject"], arrays["gallery_subject"], preset.references),
        arrays["probe_subject"],
        arrays["non_mated_subject"],
        arrays["validation_subject"],
        record.attack_report["fusion"],
    )


def _find(store: Store, record: Record, stage: str, label: str, plugin: str) -> Artefact:
    key = record.keys.get(f"{stage}:{label}", "")
    found = store.find(stage, plugin, key) if key else None
    if found is None:
        raise RecordError(
            f"The store {store.url} does not hold {label!r} of {record.name}. Give the --store of "
            "the run, or run it again; finished steps are not computed twice."
        )
    return found


def _rows(record: Record, store: Store) -> dict[str, np.ndarray]:
    """Rows of the metrics that look at images, by their place in a bundle."""
    rows = {}
    attack = f"{record.attack.id} on {record.anonymizer.id}"
    for owner, metrics in ((record.anonymizer.id, record.utility), (attack, record.inversion)):
        for metric, numbers in metrics.items():
            if numbers:
                found = _find(store, record, "rows", f"{metric} of {owner}", metric)
                rows[bundle.ROWS + metric] = next(iter(store.read(found)))["rows"]
    return rows


def _pixels(store: Store, made: Artefact, count: int) -> torch.Tensor:
    """(N, 3, H, W) uint8: stored images, the first of each."""
    pixels = torch.cat([torch.from_numpy(part["pixels"]) for part in store.read(made)])
    return pixels[:count]


def its_data(
    record: Record | MembershipRecord,
    dataset: Choice | None,
    registry: Registry,
    notes: list[str],
) -> Dataset | None:
    """The record's data set where it is here; None, and a note, where it is not.

    Args:
        dataset: where it is; by default as it ships.
    """
    try:
        choice = dataset or Choice(id=record.dataset["id"])
        data = open_dataset(registry, resolve(registry, "dataset", choice))
    except PrivbenchError as error:
        notes.append(f"the data set is not here: {error}")
        return None
    if data.digest != record.dataset["digest"]:
        notes.append("the data set that is here is another one than the record's")
        return None
    return data


def chosen_data(name: str, settings: Sequence[str], registry: Registry) -> Choice | None:
    """A data set as the command line names it; None where it does not.

    Raises:
        PrivbenchError: there is no such data set, or no such setting.
    """
    if not name:
        if settings:
            raise ConfigError("--set gives settings of --dataset; name the data set, too.")
        return None
    given = parse_settings(settings, [("dataset", name)], registry)
    return Choice(id=name, settings=given["dataset", name])


def _gallery(
    record: Record, store: Store, preset: Preset, data: Dataset, released: torch.Tensor
) -> bytes:
    """A JPEG file: sources, releases, and reconstructions where the attack makes some."""
    first = np.arange(0, len(released), preset.probes)
    chosen = first[np.linspace(0, len(first) - 1, min(PEOPLE, len(first))).round().astype(int)]
    sources = data.pixels(split(data, preset).probes[chosen])
    strips: list[tuple[str, np.ndarray]] = [
        ("source", sources.numpy()),
        ("released", released[torch.from_numpy(chosen)].numpy()),
    ]
    if record.inversion:
        label = f"{record.attack.id} on {record.anonymizer.id}: reconstructions"
        made = _find(store, record, "invert", label, record.attack.id)
        part = store.read_part(made.key, made.parts[INVERTED.index("probes")])["pixels"]
        strips.append(("reconstructed", part[chosen, 0]))
    return strips_jpeg(strips)


def _described(record: Record, picture: bytes) -> dict[str, str]:
    digest = bundle.sha256(picture)
    rows: Sequence[str] = ["photographs", f"what {record.anonymizer.id} releases for them"]
    if record.inversion:
        rows = [*rows, f"what {record.attack.id} reconstructs from that"]
    alt = f"Rows of {PEOPLE} pictures, from above: {'; '.join(rows)}."
    return {"file": f"{digest[:16]}.jpg", "sha256": digest, "alt": alt}
