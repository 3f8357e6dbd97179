"""Inversion attacks: sources reconstructed from releases, and recognisers that judge them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, cast

import numpy as np
import torch

from privbench import evidence as ev
from privbench.comparison import Comparison, Scored, neutral, score
from privbench.data import Trial
from privbench.errors import PluginError
from privbench.keys import stage_seed
from privbench.oracle import CountedOracle
from privbench.plan import ATTACKER_PARTS, VALIDATION, Cell, Resolved, Step, drawn
from privbench.release import Released, released_set
from privbench.session import Session, blame, report_facts
from privbench.store import Artefact
from privbench.timing import fingerprint, memory_bytes, stopwatch, to_json
from privbench.training import seed_of, train, train_once
from privbench.types import ImageSet, Ints, Judgement, Timing, TrainedInverter, quantize

INVERTED: Final = ("probes", "cross-gallery", "non-mated", VALIDATION)
"""Parts that are reconstructed, in the order of the stored parts."""

OF_EACH: Final = ("gallery", "source", "validation")
"""What every judge scores of reconstructions; the chosen one scores everything."""

BLOCK: Final = 256
"""Releases inverted at once: floats of a large part need not fit into memory."""


def invert(session: Session, cell: Cell, released: Released) -> Artefact:
    """Train the inverter on the attacker's photos and reconstruct what was released.

    The inverter meets releases in shuffled order under neutral keys. It may go on asking the
    oracle about images of its own; evaluation images are out of reach all the while.
    """
    step, store = cast(Step, cell.invert), session.store
    if done := store.find(step.stage, step.plugin, step.key):
        return done
    oracle = CountedOracle(session, cell, released)
    trained, seconds = train(session, cell.attack, cell.draws, oracle)
    in_training = oracle.queries
    inverter = cast(TrainedInverter, trained)
    rng = np.random.default_rng(stage_seed(session.plan.study.seed, "shuffle"))
    torch.manual_seed(seed_of(session, cell.attack))
    names, spent, count = [], 0.0, 0
    with session.reporter.task(f"{step.label}", len(INVERTED), "parts") as task:
        for place, part in enumerate(INVERTED):
            draws = [
                released_set(session, released, part, draw)
                for draw in range(cell.draws)
                if drawn(part, draw) in released
            ]
            with stopwatch(session.device) as took:
                pixels = _reconstructed(session, cell.attack, inverter, draws, rng)
            names.append(store.write_part(step.key, place, {"pixels": pixels.numpy()}))
            spent, count = spent + took[0], count + len(pixels)
            task.advance()
    oracle.close()
    height, width = session.part(ATTACKER_PARTS[0]).pixels.shape[2:]
    device, memory = fingerprint(session.device), memory_bytes(session.device)
    times = (
        ("training", seconds, len(session.part(ATTACKER_PARTS[0]))),
        ("inverting", spent, count),
    )
    notes = {
        "queries": oracle.queries,
        "report": {
            **report_facts(cell.attack, inverter.report),
            "queries_while_inverting": oracle.queries - in_training,
        },
        "timing": [
            to_json(
                Timing(
                    f"{cell.score.label}: {what}", (s,), (n,), 0, n, (height, width), memory, device
                )
            )
            for what, s, n in times
        ],
    }
    return store.commit(step.stage, step.plugin, step.key, step.inputs, tuple(names), notes)


def _reconstructed(
    session: Session,
    plugin: Resolved,
    inverter: TrainedInverter,
    draws: Sequence[ImageSet],
    rng: np.random.Generator,
) -> torch.Tensor:
    """(N, R, 3, H, W) uint8 in the order of the part."""
    rows = rng.permutation(len(draws[0]))
    blocks = []
    for start in range(0, len(rows), BLOCK):
        chosen = rows[start : start + BLOCK]
        hidden = [neutral(images.take(chosen), "release") for images in draws]
        with blame(plugin, "inverting"), session.sealed():
            made = inverter.invert(hidden)
            blocks.append(quantize(_checked(plugin, made, hidden[0])))
    if len({block.shape[1] for block in blocks}) > 1:
        raise PluginError(f"The attack {plugin.id} must make equally many images of each release.")
    pixels = torch.cat(blocks)
    ordered = torch.empty_like(pixels)
    ordered[torch.from_numpy(rows)] = pixels
    return ordered


def _checked(plugin: Resolved, made: object, images: ImageSet) -> torch.Tensor:
    """Refuse reconstructions that break the contract.

    Raises:
        PluginError: not a float tensor (N, R, 3, H, W), R >= 1, finite, in [0, 1].
    """
    n, _, height, width = images.pixels.shape
    wanted = f"float tensor ({n}, R >= 1, 3, {height}, {width}) with pixels in [0, 1]"
    problem = ""
    if not isinstance(made, torch.Tensor):
        problem = f"a {type(made).__name__}"
    elif (
        made.ndim != 5 or (len(made), *made.shape[2:]) != (n, 3, height, width) or made.shape[1] < 1
    ):
        problem = f"shape {tuple(made.shape)}"
    elif not made.is_floating_point():
        problem = f"dtype {made.dtype}"
    elif not bool(torch.isfinite(made).all()):
        problem = "NaN or infinite pixels"
    elif made.numel() and (float(made.min()) < -1e-3 or float(made.max()) > 1 + 1e-3):
        problem = f"pixels from {float(made.min()):.3g} to {float(made.max()):.3g}"
    if problem or not isinstance(made, torch.Tensor):
        raise PluginError(f"The attack {plugin.id} must reconstruct a {wanted}; got {problem}.")
    return made


def reconstructions(session: Session, made: Artefact, part: str) -> list[ImageSet]:
    """R sets of reconstructions of a part, with the sources' keys and subjects."""
    step, name = made.key, made.parts[INVERTED.index(part)]
    pixels = torch.from_numpy(session.store.read_part(step, name)["pixels"]).unbind(1)
    source = session.part(part)
    return [ImageSet(p.contiguous(), source.subject, source.keys) for p in pixels]


def judged(session: Session, cell: Cell, released: Released) -> Scored:
    """Scores of every judge on reconstructions and on the releases as they are.

    Attacker-validation chooses the judge whose scores are the attack's: the one that best tells
    other photographs of a reconstructed person from those of other people.
    """
    made = invert(session, cell, released)
    images = {part: reconstructions(session, made, part) for part in INVERTED}
    raw = [released_set(session, released, "probes", draw) for draw in range(cell.draws)]
    validation = session.part(VALIDATION)
    scores: dict[str, dict[str, np.ndarray]] = {}
    judges: list[dict[str, Any]] = []
    with stopwatch(session.device) as seconds:
        for name, judge in cell.judges.items():
            trained, _ = train_once(session, judge, 1)
            compare = Comparison.of(session, judge, trained)
            scores[name] = {"validation": compare(images[VALIDATION], validation, False)}
            judges.append(
                {
                    "name": name,
                    "attack": judge.id,
                    "fusion": trained.fusion,
                    "validation_auc": _auc(scores[name]["validation"], validation.subject),
                    "weights": dict(judge.weights),
                }
            )
        judges.sort(key=lambda judge: -judge["validation_auc"])
        for place, entry in enumerate(judges):
            name, judge = entry["name"], cell.judges[entry["name"]]
            trained, _ = train_once(session, judge, 1)
            compare = Comparison.of(session, judge, trained)
            if place == 0:  # only the judge that makes the row is asked about every trial
                own, facts = score(session, judge, trained, images.__getitem__, True)
                scores[name] |= own
                compare.facts.update(facts)
            else:
                scores[name] |= _sides(session, compare, images["probes"], "inverted")
            plain = _sides(session, compare, raw, "released")
            scores[name] |= {f"released/{kind}": array for kind, array in plain.items()}
            entry["scoring"] = compare.facts
    by_judge = [
        {
            f"{judge['name']}/{kind}": array
            for kind, array in scores[judge["name"]].items()
            if kind in OF_EACH or "/" in kind
        }
        for judge in judges
    ]
    report = {**made.notes["report"], "judge": judges[0]["name"], "judges": judges}
    return Scored(
        (own, *by_judge),
        judges[0]["fusion"],
        report,
        made.notes["queries"],
        (("judging", seconds[0], len(own["source"])),),
    )


def _sides(
    session: Session, compare: Comparison, draws: Sequence[ImageSet], name: str
) -> dict[str, np.ndarray]:
    """Scores of the probes, in some form, against the clear gallery and their own sources."""
    return {
        "gallery": compare(draws, session.part("gallery"), False, name),
        "source": compare.pairwise(draws, session.part("probes")),
    }


def _auc(scores: np.ndarray, subject: Ints) -> float:
    """ROC AUC of photo against other photos, same person or not; .5 where that is undefined."""
    from sklearn.metrics import roc_auc_score  # a second of every start

    other = ~np.eye(len(subject), dtype=bool)
    same = (subject[:, None] == subject[None, :])[other]
    if same.all() or not same.any():
        return 0.5
    return float(roc_auc_score(same, scores[other]))


def judgements(
    trial: Trial, scores: ev.Scores, judges: Sequence[Mapping[str, Any]]
) -> Iterator[Judgement]:
    """Evidence of each judge, in the order of the report.

    Args:
        scores: whose arrays are called `judge/kind` and `judge/released/kind`.
        judges: the report's entries.
    """
    for judge in judges:
        name, fusion = judge["name"], judge["fusion"]
        sides = []
        for prefix in (f"{name}/released/", f"{name}/"):
            arrays = {
                kind: scores.arrays[f"{prefix}{kind}"]
                for kind in OF_EACH
                if f"{prefix}{kind}" in scores.arrays
            }
            own = ev.Scores(
                arrays, scores.mated, scores.subject, scores.strangers, scores.held_out, fusion
            )
            sides.append((ev.identification(trial, own), own.of("source")))
        (released, before), (inverted, after) = sides
        yield Judgement(name, released, inverted, before, after)
