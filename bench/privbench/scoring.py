"""Train an attack and let it score the probes; the truth stays here."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast

import numpy as np
import torch

from privbench.errors import PluginError
from privbench.keys import canonical_json, stage_seed
from privbench.plan import ATTACKER_PARTS, VALIDATION, Cell, Resolved, labelled
from privbench.progress import Prefixed
from privbench.release import (
    Released,
    anonymize_batch,
    fit,
    fitted,
    joined,
    released_set,
    seeds_for,
)
from privbench.session import Session, blame
from privbench.store import Artefact
from privbench.timing import fingerprint, memory_bytes, stopwatch, to_json
from privbench.types import (
    UNKNOWN,
    Attack,
    AttackerView,
    DrawScorer,
    FittedScoreFusion,
    ImageSet,
    Ints,
    ScoreFusion,
    Timing,
    TrainedAttack,
    ValidationScores,
)


class CountedOracle:
    """The anonymizer as the attacker may use it: counted, and closed to evaluation images."""

    def __init__(self, session: Session, cell: Cell, released: Released) -> None:
        self._session, self._cell = session, cell
        self.queries = 0
        self._open = True
        self._forbidden = {
            h for part in ("gallery", "probes", "non-mated") for h in _hashes(session.part(part))
        }
        self._known: dict[tuple[int, str, bytes], torch.Tensor] = {}
        for part in ATTACKER_PARTS:
            own = session.part(part)
            hashes = _hashes(own)
            for draw in range(cell.draws):
                answers = released_set(session, released, part, draw).pixels
                names = zip([draw] * len(own), own.keys, hashes, strict=True)
                self._known |= dict(zip(names, answers, strict=True))

    def __call__(self, images: ImageSet, draw: int = 0) -> ImageSet:
        """See `privbench.types.Oracle`."""
        if not self._open:
            raise PluginError(
                f"The attack {self._cell.attack.id} asked the oracle after training; queries "
                "belong to training, where no evaluation image is in reach."
            )
        hashes = _hashes(images)
        if leaked := sum(h in self._forbidden for h in hashes):
            raise PluginError(
                f"The attack {self._cell.attack.id} asked the oracle for {leaked} evaluation "
                "image(s); an attacker has no access to those."
            )
        self.queries += len(images)
        asked = list(zip([draw] * len(images), images.keys, hashes, strict=True))
        if all(a in self._known for a in asked):
            pixels = torch.stack([self._known[a] for a in asked])
        else:
            pixels = self._live(images, draw)
        return ImageSet(pixels, images.subject, images.keys)

    def close(self) -> None:
        """Refuse every further query: scoring sees evaluation images."""
        self._open = False

    def _live(self, images: ImageSet, draw: int) -> torch.Tensor:
        session, cell = self._session, self._cell
        if cell.anonymizer.registered.spec.tags.fit_on == "release":
            # What is asked for together is one release: the attacker's own, fitted on it alone.
            plugin = fit(cell.anonymizer, session.build(cell.anonymizer), images)
        else:
            plugin = fitted(session, cell, ATTACKER_PARTS[0])
        seeds = seeds_for(session, cell, images.keys, draw)
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


def attack(session: Session, cell: Cell, released: Released) -> Artefact:
    """Train the attack and score the probes; an attack that fuses others combines their scores.

    The attack meets probes and gallery in shuffled order, under neutral keys and labels, so
    that nothing but the pixels can tell it who is who.
    """
    step, store = cell.score, session.store
    if done := store.find(step.stage, step.plugin, step.key):
        return done
    scored = _fused(session, cell) if cell.members else _scored(session, cell, released)
    if scored.fusion not in ("max", "mean"):
        raise PluginError(
            f"The attack {cell.attack.id} must fuse by 'max' or 'mean'; got {scored.fusion!r}."
        )
    height, width = session.part(ATTACKER_PARTS[0]).pixels.shape[2:]
    device, memory = fingerprint(session.device), memory_bytes(session.device)
    timings = [
        Timing(f"{step.label}: {what}", (seconds,), (n,), 0, n, (height, width), memory, device)
        for what, seconds, n in scored.times
    ]
    notes = {
        "fusion": scored.fusion,
        "queries": scored.queries,
        "report": dict(scored.report),
        "timing": [to_json(t) for t in timings],
    }
    part = store.write_part(step.key, 0, dict(scored.arrays))
    return store.commit(step.stage, step.plugin, step.key, step.inputs, (part,), notes)


@dataclass(frozen=True, slots=True)
class _Scored:
    """An attack's photo-level scores (see `privbench.evidence.Scores`) and how they came about."""

    arrays: Mapping[str, np.ndarray]
    fusion: str
    report: Mapping[str, Any]
    queries: int
    times: tuple[tuple[str, float, int], ...]


def _scored(session: Session, cell: Cell, released: Released) -> _Scored:
    adaptive = cell.threat_model == "adaptive"
    oracle = CountedOracle(session, cell, released) if adaptive else None
    trained, seconds = _trained(session, cell, oracle)
    if oracle:
        oracle.close()
    torch.manual_seed(_seed(session, cell))  # a resumed run need not have trained
    with stopwatch(session.device) as scoring:
        arrays, facts = score(session, cell, trained, released)
    return _Scored(
        arrays,
        trained.fusion,
        {**trained.report, **({"scoring": facts} if facts else {})},
        oracle.queries if oracle else 0,
        (
            ("training", seconds, len(session.part(ATTACKER_PARTS[0]))),
            ("scoring", scoring[0], len(arrays["source"])),
        ),
    )


def _seed(session: Session, cell: Cell) -> int:
    return stage_seed(session.plan.study.seed, "attack", cell.attack.id)


def _trained(
    session: Session, cell: Cell, oracle: CountedOracle | None
) -> tuple[TrainedAttack, float]:
    """The trained attack, and the seconds that its training took.

    One that never asks is the same for all anonymizers of a run, and is trained once.
    """
    plugin = cell.attack
    name = canonical_json([plugin.ref(), cell.draws])
    if oracle is None and name in session.trained:
        return session.trained[name]
    seed = _seed(session, cell)
    view = AttackerView(
        train=session.part(ATTACKER_PARTS[0]),
        validation=session.part(ATTACKER_PARTS[1]),
        oracle=oracle,
        seed=seed,
        device=session.device,
        reporter=Prefixed(session.reporter, plugin.id),
        draws=cell.draws,
    )
    torch.manual_seed(seed)
    with stopwatch(session.device) as seconds, blame(plugin, "training"):
        trained = cast(Attack, session.build(plugin)).train(view)
    made = trained, seconds[0]
    if oracle is None:
        session.trained[name] = made
    return made


def _fused(session: Session, cell: Cell) -> _Scored:
    """One attack from the scores of others; weights from attacker-validation."""
    store, members = session.store, labelled(cell.members)
    found = {
        name: store.find(c.score.stage, c.score.plugin, c.score.key) for name, c in members.items()
    }
    if lost := [members[name].score.label for name, made in found.items() if made is None]:
        raise PluginError(
            f"{cell.score.label} needs the scores of {', '.join(lost)}, which failed."
        )
    notes = {name: made.notes for name, made in found.items() if made}
    scores = {name: next(iter(store.read(made))) for name, made in found.items() if made}
    photos = session.part(VALIDATION).subject
    subject = np.unique(photos, return_inverse=True)[1].astype(np.int64)
    adaptive = cell.threat_model == "adaptive"
    with stopwatch(session.device) as fitting, blame(cell.attack, "fitting"):
        plugin = cast(ScoreFusion, session.build(cell.attack))
        fusions = {
            kind: plugin.fit(
                {
                    name: ValidationScores(arrays[own].astype(np.float64), subject)
                    for name, arrays in scores.items()
                }
            )
            for kind, own in (
                ("clear", "validation" if adaptive else "validation-clear"),
                ("cross", "validation-cross" if adaptive else "validation-clear"),
            )
        }
    shared = sorted(set.intersection(*(set(arrays) for arrays in scores.values())))
    with stopwatch(session.device) as combining, blame(cell.attack, "combining scores"):
        fused = {
            name: _combined(cell, fusions["cross" if "cross" in name else "clear"], name, scores)
            for name in shared
        }
    clear = fusions["clear"]
    return _Scored(
        fused,
        clear.fusion,
        {**clear.report, "cross": dict(fusions["cross"].report)},
        sum(n["queries"] for n in notes.values()),
        (("fitting", fitting[0], len(subject)), ("combining", combining[0], len(fused["source"]))),
    )


def _combined(
    cell: Cell,
    fusion: FittedScoreFusion,
    name: str,
    scores: Mapping[str, Mapping[str, np.ndarray]],
) -> np.ndarray:
    """One array of all members, fused entry by entry.

    Raises:
        PluginError: another shape, or not finite.
    """
    inputs = {label: arrays[name].astype(np.float64) for label, arrays in scores.items()}
    shape = next(iter(inputs.values())).shape
    made = np.asarray(fusion.combine(inputs), np.float32)
    if made.shape != shape or not np.isfinite(made).all():
        raise PluginError(
            f"The attack {cell.attack.id} must combine scores of shape {shape} to finite scores "
            f"of that shape; got shape {made.shape}."
        )
    return made


def score(
    session: Session, cell: Cell, trained: TrainedAttack, released: Released
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Photo-level scores in the split's order (`privbench.evidence.Scores` says which), and what
    the scorers noted about released probes and each gallery."""
    rng = np.random.default_rng(stage_seed(session.plan.study.seed, "shuffle"))
    compare = _Comparison(cell, trained, rng)

    def draws(part: str) -> list[ImageSet]:
        return [released_set(session, released, part, draw) for draw in range(cell.draws)]

    probes, held_out = draws("probes"), draws(VALIDATION)
    everyone = [joined([p, s]) for p, s in zip(probes, draws("non-mated"), strict=True)]
    cross = released_set(session, released, "cross-gallery")
    validation, n = session.part(VALIDATION), len(probes[0])
    clear = compare(everyone, session.part("gallery"), False, "gallery")  # enrols it once
    anonymized = compare(everyone, cross, True, "cross")
    arrays = {
        "gallery": clear[:n],
        "cross": anonymized[:n],
        "source": compare.pairwise(probes, session.part("probes")),
        "non-mated": clear[n:],
        "non-mated-cross": anonymized[n:],
        "validation": compare(held_out, validation, False),
        "validation-cross": compare(held_out, held_out[0], True),
    }
    if cell.threat_model != "adaptive":  # all that such an attacker can fix a threshold on
        arrays["validation-clear"] = compare([validation], validation, False)
    return arrays, compare.facts


@dataclass(frozen=True, slots=True)
class _Comparison:
    """Scores of an attack that sees neither names nor order, and what its scorers noted."""

    cell: Cell
    trained: TrainedAttack
    rng: np.random.Generator
    facts: dict[str, Any] = field(default_factory=dict)

    def __call__(
        self, draws: Sequence[ImageSet], gallery: ImageSet, anonymized: bool, name: str = ""
    ) -> np.ndarray:
        """(N, G) scores of N probes, each in one draw or several, against a labelled gallery.

        Args:
            name: under which to keep the scorer's facts; "" keeps none.
        """
        rows, columns = self.rng.permutation(len(draws[0])), self.rng.permutation(len(gallery))
        people = np.unique(gallery.subject)
        labels = self.rng.permutation(len(people))[np.searchsorted(people, gallery.subject)]
        shown = _neutral(gallery.take(columns), "gallery", labels[columns])
        hidden = [_neutral(probes.take(rows), "probe") for probes in draws]
        plugin = self.cell.attack
        with blame(plugin, "scoring"), torch.inference_mode():
            scorer = self.trained.enroll(shown, anonymized)
            if len(hidden) > 1 and isinstance(scorer, DrawScorer):
                scores: object = scorer.score_draws(hidden)
            elif len(hidden) > 1:
                scores = torch.stack([scorer.score(probes) for probes in hidden]).mean(0)
            else:
                scores = scorer.score(hidden[0])
        if name and (noted := getattr(scorer, "facts", None)):
            self.facts[name] = dict(noted)
        return _unshuffled(plugin, scores, rows, columns)

    def pairwise(self, draws: Sequence[ImageSet], sources: ImageSet) -> np.ndarray:
        """(N,) score of each probe against its own source photo, which is enrolled clear."""
        own = np.empty(len(sources), np.float32)
        alone = replace(sources, subject=np.arange(len(sources)))
        for start in range(0, len(sources), 1024):  # blockwise: only the diagonal is wanted
            rows = np.arange(start, min(start + 1024, len(sources)))
            own[rows] = self([d.take(rows) for d in draws], alone.take(rows), False).diagonal()
        return own


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
