"""Train an attack and let it score the probes; the truth stays here."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import cast

import numpy as np
import torch

from privbench.errors import PluginError
from privbench.keys import sample_seed, stage_seed
from privbench.plan import ATTACKER_PARTS, Cell, Resolved
from privbench.release import anonymize_batch, fit, fitted, released_set
from privbench.session import Session, blame
from privbench.store import Artefact
from privbench.timing import fingerprint, memory_bytes, stopwatch, to_json
from privbench.types import UNKNOWN, Attack, AttackerView, ImageSet, Ints, Timing, TrainedAttack


class CountedOracle:
    """The anonymizer as the attacker may use it: counted, and closed to evaluation images."""

    def __init__(self, session: Session, cell: Cell, released: Mapping[str, Artefact]) -> None:
        self._session, self._cell = session, cell
        self.queries = 0
        self._open = True
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
        asked = list(zip(images.keys, hashes, strict=True))
        if draw == 0 and all(a in self._known for a in asked):
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
    if oracle:
        oracle.close()
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
        left, right = rng.permutation(len(rows)), rng.permutation(len(rows))
        enrolled = _neutral(sources.take(rows[right]), "source", np.arange(len(rows)))
        shown = _neutral(probes.take(rows[left]), "probe")
        with blame(cell.attack, "scoring"), torch.inference_mode():
            scores = trained.enroll(enrolled, False).score(shown)
        own[rows] = _unshuffled(cell.attack, scores, left, right).diagonal()
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
