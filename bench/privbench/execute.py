"""Execute the missing steps of a plan; rows become records."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any, cast

import numpy as np
import torch
from safetensors.numpy import save as save_safetensors

from privbench import evidence as ev
from privbench.data import PRIMARY_TRIAL, load_part, trials
from privbench.errors import PluginError, PrivbenchError, StoreError
from privbench.keys import sample_seed, stage_seed
from privbench.plan import ATTACKER_PARTS, Cell, Plan, Resolved, Step, dtype_of
from privbench.progress import Reporter
from privbench.record import Part, PluginRef, Record
from privbench.stats import bootstrap
from privbench.store import Artefact, Store
from privbench.timing import fingerprint, memory_bytes, reset_peak, stopwatch, to_json
from privbench.types import (
    UNKNOWN,
    Anonymizer,
    Attack,
    AttackerView,
    Estimate,
    Evidence,
    Fittable,
    Identification,
    ImageBatch,
    ImageSet,
    Ints,
    Metric,
    Release,
    Timing,
    TrainedAttack,
    quantize,
)

PACKAGES = ("privbench", "torch", "diffusers", "transformers", "numpy", "scikit-learn", "scipy",
            "opencv-python-headless")  # fmt: skip


@dataclass(frozen=True, slots=True)
class Failure:
    """A cell that could not be finished."""

    label: str
    error: PrivbenchError


@dataclass
class Session:
    """One execution: the plan, the store, and what has been built or decoded so far."""

    plan: Plan
    store: Store
    device: torch.device
    reporter: Reporter
    _built: dict[str, Any] = field(default_factory=dict)
    _parts: dict[str, ImageSet] = field(default_factory=dict)

    def build(self, plugin: Resolved) -> Any:
        """The plugin object, built once and moved to the device if it knows how."""
        name = f"{plugin.registered.spec.kind}/{plugin.id}/{plugin.config!r}"
        if name not in self._built:
            with blame(plugin, "building"):
                made = plugin.registered.spec.build(plugin.config)
                mover = getattr(made, "to", None)
                self._built[name] = mover(self.device) if mover else made
        return self._built[name]

    def part(self, name: str) -> ImageSet:
        """A part of the split, decoded once."""
        if name not in self._parts:
            self._parts[name] = load_part(self.plan.data, self.plan.split.parts()[name])
        return self._parts[name]

    def forget_models(self) -> None:
        """Free what the last anonymizer or attack holds."""
        self._built.clear()


def execute(
    plan: Plan, store: Store, device: torch.device, reporter: Reporter
) -> tuple[list[Record], list[Failure]]:
    """Run what is missing. One cell's failure does not stop the others.

    Returns:
        The records of the finished cells, in the plan's order, and the failures.

    Raises:
        StoreError: the store itself fails (a full disk, a damaged file): no cell could go on.
    """
    session = Session(plan, store, device, reporter)
    records: list[Record] = []
    failures: list[Failure] = []
    for cell in plan.cells:
        try:
            records.append(run_cell(session, cell))
        except StoreError:
            raise
        except PrivbenchError as error:
            failures.append(Failure(f"{cell.attack.id} on {cell.anonymizer.id}", error))
        session.forget_models()
    return records, failures


def run_cell(session: Session, cell: Cell) -> Record:
    """All steps of one anonymizer under one attack."""
    store, step = session.store, cell.record
    if done := store.find(step.stage, step.plugin, step.key):
        return Record.model_validate(done.notes["record"])
    released = {part: anonymize(session, cell, part) for part in cell.anonymize}
    scored = attack(session, cell, released)
    body = make_record(session, cell, released, scored)
    notes = {"record": body.model_dump(mode="json")}
    made = store.commit(step.stage, step.plugin, step.key, step.inputs, (), notes)
    return Record.model_validate(made.notes["record"])


@contextmanager
def blame(plugin: Resolved, doing: str) -> Iterator[None]:
    """Turn whatever a plugin raises into an error that names it.

    Raises:
        PluginError: the plugin raised something that is not one of ours.
    """
    try:
        yield
    except PrivbenchError:
        raise
    except Exception as error:
        spec = plugin.registered.spec
        raise PluginError(
            f"The {spec.kind} {spec.id} ({plugin.registered.distribution}) failed while {doing}: "
            f"{type(error).__name__}: {error}"
        ) from error


# --- anonymize -------------------------------------------------------------------------------


def anonymize(session: Session, cell: Cell, part: str) -> Artefact:
    """The released images of one part, batch by batch; whole batches survive a kill."""
    step, store = cell.anonymize[part], session.store
    if done := store.find(step.stage, step.plugin, step.key):
        return done
    rows = session.plan.split.parts()[part]
    size = cell.anonymizer.batch_size
    existing = store.parts(step.key)
    todo = [i for i in range(0, len(rows), size) if i // size not in existing]
    plugin: Anonymizer | None = None
    left = sum(len(rows[i : i + size]) for i in todo)
    with session.reporter.task(step.label, left) as task:
        for start in todo:
            first = plugin is None
            plugin = plugin or fitted(session, cell, part)
            images = load_part(session.plan.data, rows[start : start + size])
            seeds = [sample_seed(session.plan.study.seed, k) for k in images.keys]
            pixels, seconds, memory = anonymize_batch(session, cell, plugin, images, seeds)
            arrays = {
                "pixels": pixels.numpy(),
                "seconds": np.array([seconds]),
                "memory": np.array([memory]),
                "warmup": np.array([int(first)]),
            }
            existing[start // size] = store.write_part(step.key, start // size, arrays)
            task.advance(len(images))
    names = tuple(existing[i] for i in sorted(existing))
    notes = {"timing": to_json(_timing(session, step, names, size))} if names else {}
    return store.commit(step.stage, step.plugin, step.key, step.inputs, names, notes)


def fitted(session: Session, cell: Cell, part: str) -> Anonymizer:
    """The anonymizer, fitted on what its tag names."""
    plugin = session.build(cell.anonymizer)
    on = cell.anonymizer.registered.spec.tags.fit_on
    if on is None:
        return cast(Anonymizer, plugin)
    with blame(cell.anonymizer, f"fitting on {on}"):
        if not isinstance(plugin, Fittable):
            raise PluginError(
                f"The anonymizer {cell.anonymizer.id} is tagged fit_on={on!r} and has no `fit`."
            )
        return plugin.fit(session.part("background" if on == "background" else part))


def anonymize_batch(
    session: Session, cell: Cell, plugin: Anonymizer, images: ImageSet, seeds: Sequence[int]
) -> tuple[torch.Tensor, float, int]:
    """One batch, padded to the fixed shape: (uint8 pixels, seconds, memory in bytes)."""
    size, n = cell.anonymizer.batch_size, len(images)
    pad = [i % n for i in range(size)]
    padded = images.pixels[torch.tensor(pad)]
    keys = tuple(f"{i}" for i in range(size))
    reset_peak(session.device)
    with blame(cell.anonymizer, "anonymizing"), torch.inference_mode():
        with stopwatch(session.device) as seconds:
            floats = padded.to(session.device, non_blocking=True).float().div_(255)
            batch = ImageBatch(floats, np.full(size, UNKNOWN), keys)
            out = plugin.anonymize(batch, [seeds[i] for i in pad])
        checked(cell.anonymizer, out, tuple(padded.shape))
        pixels = quantize(out[:n])
    return pixels, seconds[0], memory_bytes(session.device)


def checked(plugin: Resolved, out: object, shape: tuple[int, ...]) -> None:
    """Refuse a result that breaks the contract, before it becomes an artefact.

    Raises:
        PluginError: not a tensor, another shape, not finite, or outside [0, 1].
    """
    problem = ""
    if not isinstance(out, torch.Tensor):
        problem = f"a {type(out).__name__}"
    elif tuple(out.shape) != shape:
        problem = f"shape {tuple(out.shape)}"
    elif not out.is_floating_point():
        problem = f"dtype {out.dtype}"
    elif not bool(torch.isfinite(out).all()):
        problem = "NaN or infinite pixels"
    elif float(out.min()) < -1e-3 or float(out.max()) > 1 + 1e-3:
        problem = f"pixels from {float(out.min()):.3g} to {float(out.max()):.3g}"
    if problem:
        raise PluginError(
            f"The anonymizer {plugin.id} must return a float tensor of shape {shape} with "
            f"pixels in [0, 1]; it returned {problem}."
        )


def _timing(session: Session, step: Step, names: tuple[str, ...], size: int) -> Timing:
    """All timed batches of an anonymize step, from its parts."""
    parts = [session.store.read_part(step.key, name) for name in names]
    order = sorted(parts, key=lambda p: -int(p["warmup"][0]))  # warm-up batches first
    height, width = parts[0]["pixels"].shape[2:]
    return Timing(
        stage=step.label,
        seconds=tuple(float(p["seconds"][0]) for p in order),
        images=tuple(len(p["pixels"]) for p in order),
        warmup=sum(int(p["warmup"][0]) for p in parts),
        batch_size=size,
        resolution=(int(height), int(width)),
        peak_bytes=max(int(p["memory"][0]) for p in parts),
        device=fingerprint(session.device),
    )


def released_set(session: Session, artefact: Artefact, part: str) -> ImageSet:
    """Released images of a part, with the sources' keys and subjects."""
    pixels = [torch.from_numpy(p["pixels"]) for p in session.store.read(artefact)]
    source = session.part(part)
    return ImageSet(torch.cat(pixels), source.subject, source.keys)


# --- attack ----------------------------------------------------------------------------------


class CountedOracle:
    """The anonymizer as the attacker may use it: counted, and closed to evaluation images."""

    def __init__(self, session: Session, cell: Cell, released: Mapping[str, Artefact]) -> None:
        self._session, self._cell = session, cell
        self.queries = 0
        self._forbidden = {
            h for part in ("gallery", "probes", "non-mated") for h in _hashes(session.part(part))
        }
        self._known: dict[tuple[str, bytes], torch.Tensor] = {}
        for part in ATTACKER_PARTS:
            own = session.part(part)
            answers = released_set(session, released[part], part).pixels
            self._known |= dict(zip(zip(own.keys, _hashes(own), strict=True), answers, strict=True))

    def __call__(self, images: ImageSet, draw: int = 0) -> ImageSet:
        """See `privbench.types.Oracle`."""
        hashes = _hashes(images)
        if leaked := sum(h in self._forbidden for h in hashes):
            raise PluginError(
                f"The attack {self._cell.attack.id} asked the oracle for {leaked} evaluation "
                "image(s); an attacker has no access to those."
            )
        self.queries += len(images)
        asked = list(zip(images.keys, hashes, strict=True))
        if draw == 0 and all(a in self._known for a in asked):
            pixels = torch.stack([self._known[a] for a in asked])
        else:
            pixels = self._live(images, draw)
        return ImageSet(pixels, images.subject, images.keys)

    def _live(self, images: ImageSet, draw: int) -> torch.Tensor:
        session, cell = self._session, self._cell
        plugin = fitted(session, cell, ATTACKER_PARTS[0])
        seeds = [sample_seed(session.plan.study.seed, k, draw) for k in images.keys]
        size = cell.anonymizer.batch_size
        batches = []
        with session.reporter.task(f"{cell.anonymizer.id}: oracle", len(images)) as task:
            for start in range(0, len(images), size):
                rows = np.arange(start, min(start + size, len(images)))
                chunk = images.take(rows)
                pixels, _, _ = anonymize_batch(
                    session, cell, plugin, chunk, [seeds[i] for i in rows]
                )
                batches.append(pixels)
                task.advance(len(chunk))
        return torch.cat(batches)


def _hashes(images: ImageSet) -> list[bytes]:
    return [hashlib.blake2b(p.numpy().tobytes(), digest_size=16).digest() for p in images.pixels]


def attack(session: Session, cell: Cell, released: Mapping[str, Artefact]) -> Artefact:
    """Train the attack and score the probes.

    The attack meets probes and gallery in shuffled order, under neutral keys and labels, so
    that nothing but the pixels can tell it who is who.
    """
    step, store = cell.score, session.store
    if done := store.find(step.stage, step.plugin, step.key):
        return done
    adaptive = cell.attack.registered.spec.tags.knowledge == "adaptive"
    oracle = CountedOracle(session, cell, released) if adaptive else None
    seed = stage_seed(session.plan.study.seed, "attack", cell.attack.id)
    view = AttackerView(
        train=session.part(ATTACKER_PARTS[0]),
        validation=session.part(ATTACKER_PARTS[1]),
        oracle=oracle,
        seed=seed,
        device=session.device,
        reporter=session.reporter,
    )
    torch.manual_seed(seed)
    with blame(cell.attack, "training"), stopwatch(session.device) as training:
        trained = cast(Attack, session.build(cell.attack)).train(view)
    with stopwatch(session.device) as scoring:
        arrays = score(session, cell, trained, released)
    if trained.fusion not in ("max", "mean"):
        raise PluginError(
            f"The attack {cell.attack.id} must fuse by 'max' or 'mean'; got {trained.fusion!r}."
        )
    device = fingerprint(session.device)
    height, width = view.train.pixels.shape[2:]
    timings = [
        Timing(label, tuple(seconds), (n,), 0, n, (height, width), memory_bytes(session.device),
               device)
        for label, seconds, n in (
            (f"{step.label}: training", training, len(view.train)),
            (f"{step.label}: scoring", scoring, len(arrays["source"])),
        )
    ]  # fmt: skip
    notes = {
        "fusion": trained.fusion,
        "queries": oracle.queries if oracle else 0,
        "report": dict(trained.report),
        "timing": [to_json(t) for t in timings],
    }
    part = store.write_part(step.key, 0, arrays)
    return store.commit(step.stage, step.plugin, step.key, step.inputs, (part,), notes)


def score(
    session: Session, cell: Cell, trained: TrainedAttack, released: Mapping[str, Artefact]
) -> dict[str, np.ndarray]:
    """Photo-level scores in the split's order: `gallery` (N, G), `source` (N,), `cross` (N, C)."""
    rng = np.random.default_rng(stage_seed(session.plan.study.seed, "shuffle"))
    probes = released_set(session, released["probes"], "probes")
    shuffle = rng.permutation(len(probes))
    hidden = _neutral(probes.take(shuffle), "probe")

    def against(gallery: ImageSet, anonymized: bool) -> np.ndarray:
        order = rng.permutation(len(gallery))
        people = np.unique(gallery.subject)
        labels = rng.permutation(len(people))[np.searchsorted(people, gallery.subject)]
        shown = _neutral(gallery.take(order), "gallery", labels[order])
        with blame(cell.attack, "scoring"), torch.inference_mode():
            scores = trained.enroll(shown, anonymized).score(hidden)
        return _unshuffled(cell.attack, scores, shuffle, order)

    own = np.empty(len(probes), np.float32)
    sources = session.part("probes")
    for start in range(0, len(probes), 1024):  # blockwise: only the diagonal is wanted
        rows = np.arange(start, min(start + 1024, len(probes)))
        block = _neutral(sources.take(rows), "source", np.arange(len(rows)))
        with blame(cell.attack, "scoring"), torch.inference_mode():
            scores = trained.enroll(block, False).score(_neutral(probes.take(rows), "probe"))
        identity = np.arange(len(rows))
        own[rows] = _unshuffled(cell.attack, scores, identity, identity).diagonal()
    cross = released_set(session, released["cross-gallery"], "cross-gallery")
    return {
        "gallery": against(session.part("gallery"), False),
        "source": own,
        "cross": against(cross, True),
    }


def _neutral(images: ImageSet, prefix: str, labels: Ints | None = None) -> ImageSet:
    """The same pixels with keys and labels that tell nothing."""
    n = len(images)
    subject = np.full(n, UNKNOWN) if labels is None else labels
    return ImageSet(images.pixels, subject, tuple(f"{prefix}-{i}" for i in range(n)))


def _unshuffled(plugin: Resolved, scores: object, rows: Ints, columns: Ints) -> np.ndarray:
    """Check an attack's scores and put them back in order."""
    shape = (len(rows), len(columns))
    if not isinstance(scores, torch.Tensor) or tuple(scores.shape) != shape:
        got = tuple(scores.shape) if isinstance(scores, torch.Tensor) else type(scores).__name__
        raise PluginError(f"The attack {plugin.id} must return scores of shape {shape}; got {got}.")
    values = scores.detach().float().cpu().numpy()
    if not np.isfinite(values).all():
        raise PluginError(f"The attack {plugin.id} returned scores that are NaN or infinite.")
    ordered = np.empty_like(values)
    ordered[np.ix_(rows, columns)] = values
    return ordered


# --- rows and record -------------------------------------------------------------------------


def trial_evidence(
    plan: Plan, scores: Mapping[str, np.ndarray], fusion: ev.Fusion
) -> Iterator[tuple[str, Identification]]:
    """Evidence of every trial from the attack's photo-level scores."""
    subject = plan.data.subject[plan.split.probes]
    people = plan.data.subject[plan.split.gallery][:: plan.preset.references]
    mated = np.argmax(subject[:, None] == people[None, :], axis=1)
    shape = (len(subject), len(people), -1)
    galleries = {
        name: scores[name].astype(np.float64).reshape(shape) for name in ("gallery", "cross")
    }
    for trial in trials(plan.preset):
        gallery = galleries["cross" if trial.anonymized else "gallery"]
        yield (
            trial.name,
            ev.identification(
                trial, gallery, scores["source"].astype(np.float64), mated, subject, fusion
            ),
        )


def estimates_of(
    session: Session, metric: Resolved, step: Step, evidence: Mapping[str, Evidence]
) -> dict[str, list[Estimate]]:
    """Rows of one metric (stored, one part a trial), and its numbers with intervals."""
    store, plan = session.store, session.plan
    plugin = cast(Metric, session.build(metric))
    done = store.find(step.stage, step.plugin, step.key)
    if done is None:
        with blame(metric, "computing rows"):
            names = tuple(
                store.write_part(step.key, i, {"rows": np.asarray(plugin.rows(e), np.float64)})
                for i, e in enumerate(evidence.values())
            )
        done = store.commit(step.stage, step.plugin, step.key, step.inputs, names, {})
    result = {}
    for (trial, e), arrays in zip(evidence.items(), store.read(done), strict=True):
        if len(arrays["rows"]) != len(e.subject):
            raise PluginError(
                f"The metric {metric.id} must return one row per probe ({len(e.subject)}); "
                f"got {len(arrays['rows'])}."
            )
        with blame(metric, "reducing rows"):
            result[trial] = bootstrap(
                plugin,
                arrays["rows"],
                e.subject,
                plugin.outputs(e),
                plugin.chance(e),
                resamples=plan.preset.resamples,
                seed=stage_seed(plan.study.seed, "bootstrap"),
            )
    return result


def make_record(
    session: Session, cell: Cell, released: Mapping[str, Artefact], scored: Artefact
) -> Record:
    """The record of a finished cell."""
    plan = session.plan
    scores = next(iter(session.store.read(scored)))
    trial_evidences: dict[str, Evidence] = dict(
        trial_evidence(plan, scores, scored.notes["fusion"])
    )
    probes = released_set(session, released["probes"], "probes")
    release: dict[str, Evidence] = {
        "release": Release(session.part("probes"), probes, probes.subject)
    }
    estimates: dict[str, dict[str, list[Estimate]]] = {name: {} for name in trial_evidences}
    utility: dict[str, list[Estimate]] = {}
    total = len(cell.rows) + len(cell.utility)
    with session.reporter.task(f"{cell.record.label}: metrics", total, "metrics") as task:
        for name, step in cell.rows.items():
            found = estimates_of(session, plan.metrics[name], step, trial_evidences)
            for trial, numbers in found.items():
                estimates[trial][name] = numbers
            task.advance()
        for name, step in cell.utility.items():
            utility[name] = estimates_of(session, plan.metrics[name], step, release)["release"]
            task.advance()
    timing = [a.notes["timing"] for a in released.values() if a.notes] + scored.notes["timing"]
    spec = plan.data_plugin.registered.spec
    return Record(
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        privbench=_version("privbench"),
        anonymizer=_ref(cell.anonymizer),
        attack=_ref(cell.attack),
        threat_model=cell.attack.registered.spec.tags.knowledge or "none",
        oracle_queries=scored.notes["queries"],
        dataset={
            "id": spec.id,
            "version": str(spec.version),
            "digest": plan.data.digest,
            "licence": plan.data.licence,
        },
        protocol=asdict(plan.preset) | {"populations": list(plan.preset.populations)},
        primary_trial=PRIMARY_TRIAL,
        parts={
            name: Part(identities=len(np.unique(plan.data.subject[rows])), images=len(rows))
            for name, rows in plan.split.parts().items()
        },
        seed=plan.study.seed,
        dtype=dtype_of(cell.anonymizer, session.device.type),
        estimates=estimates,
        utility=utility,
        attack_report=scored.notes["report"] | {"fusion": scored.notes["fusion"]},
        timing=timing,
        packages={name: _version(name) for name in PACKAGES},
        keys={f"{s.stage}:{s.label}": s.key for s in cell.steps() if s.stage != "record"}
        | {"record": cell.record.key},
    )


def _ref(plugin: Resolved) -> PluginRef:
    spec = plugin.registered.spec
    return PluginRef(
        **plugin.ref(),
        summary=spec.summary,
        distribution=plugin.registered.distribution,
        licence=spec.licence,
        control=spec.tags.control,
    )


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def scores_bytes(plan: Plan, store: Store, cell: Cell) -> bytes:
    """The attack's raw scores with the truth, as safetensors: what a record rests on."""
    scored = store.find(cell.score.stage, cell.score.plugin, cell.score.key)
    if scored is None:
        raise StoreError(f"The store no longer holds the scores of {cell.score.label}.")
    arrays = next(iter(store.read(scored)))
    arrays["probe_subject"] = plan.data.subject[plan.split.probes]
    arrays["gallery_subject"] = plan.data.subject[plan.split.gallery]
    arrays["cross_subject"] = plan.data.subject[plan.split.cross_gallery]
    return save_safetensors({k: np.ascontiguousarray(v) for k, v in arrays.items()})
