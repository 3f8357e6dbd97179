"""Train an attack and let it score the probes; the truth stays here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import numpy as np
import torch

from privbench.comparison import Scored, score
from privbench.errors import PluginError
from privbench.inversion import judged
from privbench.oracle import CountedOracle
from privbench.plan import ATTACKER_PARTS, VALIDATION, Cell, labelled
from privbench.release import Released, released_set
from privbench.session import Session, blame
from privbench.store import Artefact
from privbench.timing import fingerprint, memory_bytes, stopwatch, to_json
from privbench.training import seed_of, train, train_once
from privbench.types import FittedScoreFusion, ImageSet, ScoreFusion, Timing, ValidationScores


def attack(session: Session, cell: Cell, released: Released) -> Artefact:
    """Train the attack and score the probes; an attack that fuses others combines their scores,
    and recognisers score what one that inverts reconstructs.

    The attack meets probes and gallery in shuffled order, under neutral keys and labels, so
    that nothing but the pixels can tell it who is who.
    """
    step, store = cell.score, session.store
    if done := store.find(step.stage, step.plugin, step.key):
        return done
    if cell.members:
        scored = _fused(session, cell)
    else:
        scored = (judged if cell.invert else _scored)(session, cell, released)
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
    parts = tuple(store.write_part(step.key, i, dict(a)) for i, a in enumerate(scored.arrays))
    return store.commit(step.stage, step.plugin, step.key, step.inputs, parts, notes)


def _scored(session: Session, cell: Cell, released: Released) -> Scored:
    adaptive, plugin = cell.threat_model == "adaptive", cell.attack
    oracle = CountedOracle(session, cell, released) if adaptive else None
    made = train(session, plugin, cell.draws, oracle) if oracle else None
    trained, seconds = made or train_once(session, plugin, cell.draws)
    if oracle:
        oracle.close()
    torch.manual_seed(seed_of(session, plugin))  # a resumed run need not have trained

    def draws(part: str) -> list[ImageSet]:
        count = cell.draws if part != "cross-gallery" else 1
        return [released_set(session, released, part, draw) for draw in range(count)]

    with stopwatch(session.device) as scoring:
        arrays, facts = score(session, plugin, trained, draws, adaptive)
    return Scored(
        (arrays,),
        trained.fusion,
        {**trained.report, **({"scoring": facts} if facts else {})},
        oracle.queries if oracle else 0,
        (
            ("training", seconds, len(session.part(ATTACKER_PARTS[0]))),
            ("scoring", scoring[0], len(arrays["source"])),
        ),
    )


def _fused(session: Session, cell: Cell) -> Scored:
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
    return Scored(
        (fused,),
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
