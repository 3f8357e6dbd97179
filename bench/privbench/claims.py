"""What a published record says of itself, against what is known here. No evidence is needed."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path

from PIL import Image

from privbench import bundle
from privbench.audit_plan import GENERATED, PRIMARY, TRIALS
from privbench.audit_record import MembershipRecord, Seen
from privbench.data import PRIMARY_TRIAL, Preset
from privbench.errors import PrivbenchError
from privbench.keys import code_digest
from privbench.plan import Choice, dtype_of, most_known, plain_id, resolve
from privbench.populations import MEMBERSHIP_PROTOCOLS, SEEN
from privbench.recompute import CLOSE
from privbench.record import PluginRef, Record
from privbench.registry import Registered, Registry
from privbench.spec import ID, GeneratorConfig, Kind, Knowledge
from privbench.submission import command_of
from privbench.timing import summarize
from privbench.types import Timing

Published = Record | MembershipRecord

LARGEST_PICTURE = 4 * 2**20
"""Bytes of a gallery."""
WIDEST_PICTURE = 4000
"""Pixels to a side of a gallery."""

_HEX = re.compile(r"[0-9a-f]{64}")


def form(record: Published, name: str) -> Iterator[str]:
    """Names, hashes and ids are of the form that ours have."""
    needed = [f"keys.{n}" for n in ("record",) if n not in record.keys]
    needed += [f"dataset.{n}" for n in ("id", "digest", "licence") if n not in record.dataset]
    if needed:
        yield f"it lacks {', '.join(needed)}"
        return
    if record.name != name:
        yield f"the file must be named after its record, {record.name}; it is {name}"
    hashes = [*record.keys.values(), record.dataset["digest"], record.anonymizer.code,
              record.attack.code, *(m.code for m in record.metrics.values())]  # fmt: skip
    hashes += [record.scores.get("sha256", "")] if record.scores else []
    if bad := [h for h in hashes if not _HEX.fullmatch(h)]:
        yield f"{len(bad)} hashes are no SHA-256 in hex, such as {bad[0][:80]!r}"
    refs = (record.anonymizer, record.attack, *record.metrics.values())
    if odd := [ref.id for ref in refs if not ID.fullmatch(ref.id)]:
        yield f"{odd[0][:80]!r} is no plugin id"
    if odd := [key for key, ref in record.metrics.items() if plain_id(key) != ref.id]:
        yield f"the metric {odd[0][:80]!r} is another plugin's"
    if record.scores and record.scores.get("file") != f"{name}{bundle.SUFFIX}":
        yield f"its evidence must be {name}{bundle.SUFFIX}; it names {record.scores.get('file')!r}"
    named = {metric for numbers in record.estimates.values() for metric in numbers}
    if isinstance(record, Record):
        named |= {*record.utility, *record.inversion}
    if set(record.metrics) != named:
        yield "the metrics that it names are not those that it has numbers of"
    primary = PRIMARY_TRIAL if isinstance(record, Record) else PRIMARY
    if record.primary_trial != primary:
        yield f"the primary trial is {primary}; it says {record.primary_trial[:80]!r}"


def arithmetic(record: Record, preset: Preset) -> Iterator[str]:
    """Parts and draws add up."""
    people = {
        "background": (preset.background, preset.train_images),
        "attacker-train": (preset.attacker_train, preset.train_images),
        "attacker-validation": (preset.attacker_validation, preset.train_images),
        "gallery": (preset.evaluation, preset.references),
        "cross-gallery": (preset.evaluation, preset.cross_references),
        "probes": (preset.evaluation, preset.probes),
        "non-mated": (preset.non_mated, preset.probes),
    }
    if set(record.parts) != set(people):
        yield f"the parts must be {', '.join(people)}"
        return
    for part, (identities, images) in people.items():
        found = record.parts[part]
        if (found.identities, found.images) != (identities, identities * images):
            yield f"the part {part} must have {identities} people and {identities * images} images"
        elif found.undetected is not None and not 0 <= found.undetected <= found.images:
            yield f"the part {part} cannot have {found.undetected} images without a face"
    label = f"anonymize:{record.anonymizer.id}: probes"
    draws = sum(key == label or key.startswith(f"{label}#") for key in record.keys)
    if record.release.get("draws", 1) != max(draws, 1):
        yield f"its keys are those of {draws} draws; it says {record.release.get('draws', 1)!r}"


def membership(record: MembershipRecord) -> Iterator[str]:
    """A published record of membership is of a plain run, with all its trials."""
    known = {trial.name: trial.sides() for trial in (*TRIALS, GENERATED)}
    if odd := [t for t, sides in record.pairs.items() if known.get(t) != tuple(sides)]:
        yield f"the trial {odd[0][:80]!r} does not compare what it should"
    preset = MEMBERSHIP_PROTOCOLS.get(record.protocol["name"])
    wanted = {trial.name for trial in TRIALS} if preset else {PRIMARY}
    if not wanted <= set(record.pairs):
        yield f"the trials {', '.join(sorted(wanted - set(record.pairs)))} are missing"
    if list(record.target.get("trained_on", [])) != [SEEN] or record.target.get("mark"):
        yield "only runs on the plain suspect set are published; studies have pages of their own"
    if record.seen != (seen := _seen(record)):
        yield f"by its settings its target was {seen} on the suspects; it says {record.seen}"
    for part, found in record.parts.items():
        people = record.protocol["people"].get(part)
        images = people and people * record.protocol["images"]
        if preset and (found.identities, found.images) != (people, images):
            yield f"the part {part} must have {people} people and {images} images"


def _seen(record: MembershipRecord) -> Seen:
    """Whether the target has seen the suspects, by its settings and epochs."""
    if any(record.anonymizer.config.get(name) for name in ("model", "release")):
        return "claimed"
    return "trained" if record.target.get("epochs") else "never"


def timings(record: Published) -> Iterator[str]:
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
        except (TypeError, KeyError, ValueError, ArithmeticError) as error:
            yield f"a timing is incomplete: {error}"
            continue
        if not same:
            yield f"the timing of {str(stage['stage'])[:80]} does not follow from its samples"


def plugins(
    record: Published, registry: Registry, notes: list[str], unknown: list[str]
) -> Iterator[str]:
    """What the plugins that are here say of themselves is what the record says.

    Args:
        unknown: gets why the record is only claimed: what decides its place on the board (control,
            threat model) cannot be checked here.
    """
    sides: tuple[tuple[Kind, PluginRef], ...] = (
        ("anonymizer", record.anonymizer),
        ("attack", record.attack),
    )
    for kind, ref in sides:
        found = registry.plugins.get((kind, ref.id))
        why = ""
        if found is None:
            why = f"the {kind} {ref.id} is not installed here"
        elif found.spec.version != ref.version:
            why = f"{ref.id} is version {ref.version}; here it is version {found.spec.version}"
        if found is None or why:
            # A stranger's anonymizer that says nothing special has nothing to gain from it.
            trusted = found is None and kind == "anonymizer" and ref.control is None
            (notes if trusted else unknown).append(why)
            continue
        yield from _said(kind, ref, found, notes)
        wanted = strongest_of(record, registry) if kind == "attack" else None
        if wanted and wanted != record.threat_model:
            yield f"{ref.id} has threat model {wanted}; the record says {record.threat_model}"
        yield from _set_up(record, kind, ref, registry, notes)


def _said(kind: Kind, ref: PluginRef, found: Registered, notes: list[str]) -> Iterator[str]:
    """What it says of itself. Words may have been edited since, with the code; what the board
    prints of an anonymizer's rights, and what decides a place on it, may not."""
    spec = found.spec
    edited = code_digest(spec.build.__module__) != ref.code
    for name, ours, theirs in (
        ("control", spec.tags.control, ref.control),
        ("package", found.distribution.split()[0], ref.distribution.split(" ")[0]),
        ("licence", spec.licence, ref.licence),
        ("summary", spec.summary, ref.summary),
    ):
        if ours == theirs:
            continue
        said = f"{ref.id} has {name} {ours!r}; the record says {str(theirs)[:80]!r}"
        words = name == "summary" or (name == "licence" and kind == "attack")
        if edited and words:
            notes.append(said)
        else:
            yield said


def strongest_of(record: Published, registry: Registry) -> Knowledge | None:
    """What the attacker may know: of a fusion, the most that a member may; None if one is not
    here."""
    found = registry.plugins[("attack", record.attack.id)]
    if not found.spec.tags.fuses:
        return found.spec.tags.knowledge
    members = [k[7:].partition("#")[0] for k in record.keys if k.startswith("member:")]
    known = [registry.plugins.get(("attack", member)) for member in members]
    here = [plugin.spec.tags.knowledge for plugin in known if plugin is not None]
    return most_known(here) if here and len(here) == len(known) else None


def _set_up(
    record: Published, kind: Kind, ref: PluginRef, registry: Registry, notes: list[str]
) -> Iterator[str]:
    """The plugin, set up here as it was."""
    try:
        here = resolve(registry, kind, Choice(id=ref.id, settings=ref.config))
    except PrivbenchError as error:
        notes.append(f"{ref.id} cannot be set up here as it was: {error}")
        return
    if here.config.model_dump(mode="json") != ref.config:
        yield f"the settings of {ref.id} are not all there"
    if here.code != ref.code:
        notes.append(f"the code of {ref.id} that is here is another one, of the same version")
    if dict(here.weights) != ref.weights:
        yield f"the weights of {ref.id} are not those that the record names"
    if kind == "anonymizer":
        dtypes = {dtype_of(here, device) for device in ("cpu", "cuda", "mps")}
        if record.dtype not in dtypes:
            yield f"its dtype cannot be {record.dtype[:80]!r}"
        if isinstance(record, MembershipRecord) and isinstance(here.config, GeneratorConfig):
            epochs = 0 if here.config.existing else here.config.checkpoint()
            if record.target.get("epochs") != epochs:
                yield f"its target was trained for {epochs} epochs by its settings"


def command(record: Published, registry: Registry) -> Iterator[str]:
    """The command is the one that makes the record, or can at least do no harm."""
    refs: Sequence[tuple[Kind, str]] = [
        ("anonymizer", record.anonymizer.id), ("attack", record.attack.id),
        *(("metric", ref.id) for ref in record.metrics.values()),
    ]  # fmt: skip
    if all(ref in registry.plugins for ref in refs):
        if record.command != (ours := command_of(record, registry)):
            yield f"its command must be {ours!r}"
        return
    try:
        words = shlex.split(record.command)
    except ValueError:
        words = []
    if words[:2] != ["privbench", "run"] or shlex.join(words) != record.command:
        yield "its command must be one line of `privbench run`"


def picture(record: Record, path: Path) -> Iterator[str]:
    """The gallery is the one that the record names, and a JPEG file of sensible size."""
    if not record.gallery:
        return
    name, alt = record.gallery.get("file", ""), record.gallery.get("alt", "")
    if name != f"{record.gallery.get('sha256', '')[:16]}.jpg":
        yield f"the gallery must be named after its hash; got {name[:80]!r}"
        return
    if not 0 < len(alt.strip()) <= 2000:
        yield "the gallery needs a text alternative of up to 2,000 characters"
    beside = path.parent.parent / "galleries" / name
    if not beside.is_file():
        yield f"the gallery {name} is missing"
    elif beside.stat().st_size > LARGEST_PICTURE:
        yield f"the gallery {name} has more than {LARGEST_PICTURE:,} bytes"
    elif bundle.sha256(beside.read_bytes()) != record.gallery["sha256"]:
        yield f"the gallery {name} is not the picture that the record names"
    else:
        try:
            with Image.open(beside, formats=("JPEG",)) as image:  # reads the header alone
                if max(image.size) > WIDEST_PICTURE:
                    yield f"the gallery {name} is more than {WIDEST_PICTURE} pixels wide or high"
        except (OSError, Image.DecompressionBombError) as error:
            yield f"the gallery {name} is no JPEG file: {error}"
