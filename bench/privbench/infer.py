"""Train an attack on membership and let it score the queries; the truth stays here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, cast

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.model_selection import StratifiedGroupKFold

from privbench.audit_plan import SAMPLES, AuditCell, Trial
from privbench.errors import DataError, PluginError
from privbench.keys import stage_seed
from privbench.membership import (
    Denoiser,
    LabelledBaseline,
    MembershipAttack,
    MembershipView,
    Own,
    TrainedMembership,
)
from privbench.plan import Resolved
from privbench.populations import ATTACKERS, AUXILIARY, CALIBRATION, SEEN
from privbench.progress import Prefixed
from privbench.release import joined
from privbench.session import blame, hashes, report_facts
from privbench.store import Artefact
from privbench.target import (
    AuditSession,
    anonymous,
    photo_size,
    sample_checked,
    sampled,
)
from privbench.timing import fingerprint, memory_bytes, stopwatch, to_json
from privbench.types import UNKNOWN, Floats, ImageSet, Timing

CROSS_FITS: Final = 5
"""Parts into which people are dealt, for a baseline that learns from labels."""

BLOCK: Final = 512
"""Queries scored at once."""


@dataclass
class Counted:
    """How often the released model was asked: answers to prompts, predictions of noise."""

    answers: int = 0
    predictions: int = 0
    closed: bool = False


def infer(session: AuditSession, cell: AuditCell) -> Artefact:
    """Train the attack and score every query set of the cell.

    The attack meets all queries together, in shuffled order, under neutral keys.
    """
    step, store = cell.infer, session.store
    if done := store.find(step.stage, step.plugin, step.key):
        return done
    refuse_leak(session, cell)
    counted = Counted()
    if cell.attack.registered.spec.tags.infers == "labels":
        arrays, report, times = _by_labels(session, cell)
    else:
        arrays, report, times = _by_queries(session, cell, counted)
    height, width = photo_size(session, cell)
    device, memory = fingerprint(session.device), memory_bytes(session.device)
    timings = [
        Timing(f"{step.label}: {what}", (s,), (n,), 0, n, (height, width), memory, device)
        for what, s, n in times
    ]
    notes = {
        "report": report,
        "answers": counted.answers,
        "predictions": counted.predictions,
        "timing": [to_json(t) for t in timings],
    }
    part = store.write_part(step.key, 0, arrays)
    return store.commit(step.stage, step.plugin, step.key, step.inputs, (part,), notes)


Found = tuple[dict[str, np.ndarray], dict[str, Any], list[tuple[str, float, int]]]
"""Scores by query set, a report, and what took how long for how many images."""


def _by_queries(session: AuditSession, cell: AuditCell, counted: Counted) -> Found:
    plugin = cell.attack
    seed = stage_seed(session.plan.study.seed, "infer", plugin.id, str(cell.fold))
    queries = {name: query_set(session, cell, name) for name in cell.queries()}
    samples = sampled(session, cell, "target")
    with stopwatch(session.device) as training:
        view = _view(session, cell, samples, counted, seed)
        torch.manual_seed(seed)
        with blame(plugin, "training"):
            trained = cast(MembershipAttack, session.build(plugin)).train(view)
    everyone = joined([_under(images, name) for name, images in queries.items()])
    order = np.random.default_rng(seed).permutation(len(everyone))
    blocks = []
    with (
        stopwatch(session.device) as scoring,
        session.reporter.task(f"{cell.infer.label}: scoring", len(order)) as task,
    ):
        for start in range(0, len(order), BLOCK):
            rows = order[start : start + BLOCK]
            hidden = anonymous(everyone.pixels[torch.from_numpy(rows)], "query")
            blocks.append(scores_of(plugin, trained, hidden))
            task.advance(len(rows))
    counted.closed = True
    found = np.empty((len(order), blocks[0].shape[1]))
    found[order] = np.concatenate(blocks)
    ends = np.cumsum([len(images) for images in queries.values()])
    arrays = dict(zip(queries, np.split(found, ends[:-1]), strict=True))
    times = [("training", training[0], len(samples)), ("scoring", scoring[0], len(order))]
    return arrays, report_facts(plugin, trained.report), times


def _view(
    session: AuditSession, cell: AuditCell, samples: ImageSet, counted: Counted, seed: int
) -> MembershipView:
    knowledge = cell.attack.registered.spec.tags.knowledge
    model = cell.models["target"]
    has_model = model.config.existing != "release"

    def own(kind: Own) -> ImageSet:
        if kind not in ("generated", "base-model"):
            raise PluginError(f"An attacker's own samples are generated or base-model; not {kind}.")
        return sampled(session, cell, "own" if kind == "generated" else "base")

    def generate(prompts: Sequence[str], seeds: Sequence[int]) -> ImageSet:
        if counted.closed:
            raise PluginError("The target answers no more: scoring is over.")
        counted.answers += len(prompts)
        target = session.restored(model)
        size = photo_size(session, cell)
        return anonymous(sample_checked(model.plugin, target, seeds, size, prompts), "answer")

    return MembershipView(
        samples=samples,
        auxiliary=session.part(cell, AUXILIARY),
        validation=session.part(cell, CALIBRATION),
        own=own,
        generate=generate if has_model and knowledge != "none" else None,
        denoiser=_Metered(session, cell, counted) if knowledge == "gray-box" else None,
        seed=seed,
        device=session.device,
        reporter=Prefixed(session.reporter, cell.attack.id),
    )


class _Metered:
    """A denoiser that counts what it is asked."""

    def __init__(self, session: AuditSession, cell: AuditCell, counted: Counted) -> None:
        model = cell.models["target"]
        with blame(model.plugin, "opening its denoiser"):
            self._inner: Denoiser = session.restored(model).denoiser()
        self._counted = counted
        self.alphas = self._inner.alphas

    def encode(self, pixels: torch.Tensor) -> torch.Tensor:
        """See `Denoiser.encode`."""
        return self._inner.encode(pixels)

    def predict(self, noisy: torch.Tensor, levels: torch.Tensor) -> torch.Tensor:
        """See `Denoiser.predict`."""
        self._counted.predictions += len(noisy)
        return self._inner.predict(noisy, levels)


def query_set(session: AuditSession, cell: AuditCell, name: str) -> ImageSet:
    """The images of one query set."""
    return sampled(session, cell, name) if name in SAMPLES else session.part(cell, name)


def _under(images: ImageSet, name: str) -> ImageSet:
    """The images with keys that are distinct beside other sets."""
    keys = tuple(f"{name}/{key}" for key in images.keys)
    return ImageSet(images.pixels, images.subject, keys)


def scores_of(plugin: Resolved, trained: TrainedMembership, images: ImageSet) -> Floats:
    """(N, 1 + F) scores and features.

    Raises:
        PluginError: the attack raised, or returned another shape or what is not finite.
    """
    with blame(plugin, "scoring"), torch.inference_mode():
        made = trained.score(images)
    if not isinstance(made, torch.Tensor) or made.ndim not in (1, 2) or len(made) != len(images):
        got = f"shape {tuple(made.shape)}" if isinstance(made, torch.Tensor) else type(made)
        raise PluginError(
            f"The attack {plugin.id} must score {len(images)} images with a tensor of shape (N,) "
            f"or (N, 1 + F); got {got}."
        )
    scores: Floats = made.detach().cpu().double().numpy().reshape(len(images), -1)
    if not np.isfinite(scores).all():
        raise PluginError(f"The attack {plugin.id} returned scores that are not finite.")
    return scores


def _by_labels(session: AuditSession, cell: AuditCell) -> Found:
    """Each trial cross-fitted by person: nobody is scored by what their own images taught."""
    plugin = cell.attack
    seed = stage_seed(session.plan.study.seed, "infer", plugin.id, str(cell.fold))
    arrays: dict[str, np.ndarray] = {}
    count = 0
    with stopwatch(session.device) as took:
        for trial in cell.trials:
            arrays[of_trial(trial)] = _cross_fitted(session, cell, trial, seed)
            count += len(arrays[of_trial(trial)])
    return arrays, {"cross_fits": CROSS_FITS}, [("cross-fitting", took[0], count)]


def of_trial(trial: Trial) -> str:
    """Under which name the scores of a trial are stored: suspects, then the others."""
    return f"trial/{trial.name}"


def _cross_fitted(session: AuditSession, cell: AuditCell, trial: Trial, seed: int) -> Floats:
    plugin = cell.attack
    sides = [query_set(session, cell, side) for side in trial.sides()]
    member = np.repeat([True, False], [len(s) for s in sides])
    people = persons(sides)
    everyone = joined([_under(s, str(i)) for i, s in enumerate(sides)])
    scores = np.empty((len(everyone), 1))
    parts = min(CROSS_FITS, *(len(np.unique(people[member == m])) for m in (True, False)))
    splits = StratifiedGroupKFold(parts, shuffle=True, random_state=seed)
    with blame(plugin, "building"):
        made = session.build(plugin)
        if not isinstance(made, LabelledBaseline):
            raise PluginError(f"{plugin.id} is tagged infers='labels' and has no `learn`.")
    rng = np.random.default_rng(seed)
    for taught, asked in splits.split(member, member, people):
        fit, held_out = rng.permutation(taught), rng.permutation(asked)
        with blame(plugin, "learning"):
            known = anonymous(everyone.pixels[torch.from_numpy(fit)], "known")
            trained = made.learn(known, member[fit], seed, session.device)
        hidden = anonymous(everyone.pixels[torch.from_numpy(held_out)], "query")
        scores[held_out] = scores_of(plugin, trained, hidden)[:, :1]
    return scores


def persons(sides: Sequence[ImageSet]) -> NDArray[np.int64]:
    """Who is on each image of several sets; a sample is a person of its own."""
    subject = np.concatenate([s.subject for s in sides])
    unknown = np.flatnonzero(subject == UNKNOWN)
    free = subject.max(initial=0) + 1
    subject[unknown] = free + np.arange(len(unknown))
    return subject


def refuse_leak(session: AuditSession, cell: AuditCell) -> None:
    """Make sure, once a fold, that what the attacker owns shows nobody, and holds no image, of the
    queries, and that no member's image is among the non-members.

    Raises:
        DataError: it does.
    """
    if cell.fold in session.checked:
        return
    asked = [p for p in cell.parts if p not in ATTACKERS]
    people = {int(s) for part in asked for s in session.part(cell, part).subject}
    known: dict[bytes, tuple[str, str]] = {}
    for part in (SEEN, *(p for p in asked if p != SEEN), *ATTACKERS):
        images = session.part(cell, part)
        if part in ATTACKERS and (both := people & set(images.subject.tolist())):
            raise DataError(
                f"{len(both)} identities that are queried are among the attacker's; the "
                "populations must be identity-disjoint."
            )
        for key, plain, mirrored in zip(
            images.keys, hashes(images), hashes(images, flipped=True), strict=True
        ):
            other, owner = known.get(plain, ("", part))
            if owner != part:
                raise DataError(
                    f"The photograph {key} of {part} is the photograph {other} of {owner} (or its "
                    "mirror image). Remove duplicates from the data set."
                )
            known[plain] = known[mirrored] = (key, part)
    session.checked.add(cell.fold)
