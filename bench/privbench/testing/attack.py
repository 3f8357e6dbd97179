"""What a re-identification attack does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cached_property

import numpy as np
import torch

from privbench.spec import PluginSpec
from privbench.testing import conduct
from privbench.testing.attacker import (
    PEOPLE,
    REFERENCES,
    ReleaseImages,
    Trained,
    copied,
    gallery,
    mated,
    probes,
    require_report,
    require_trained,
    same_images,
    train,
    unmodified,
)
from privbench.testing.bench import Results, UsableBench
from privbench.testing.chance import ALPHA, identified
from privbench.testing.check import require
from privbench.testing.drawings import static
from privbench.types import DrawScorer, Floats, ImageSet, Scorer

CLOSE = 1e-4
"""How far a score may move with the shape of a batch, as a share of the scores' range."""


def checks(spec: PluginSpec) -> list[Callable[[AttackBench], None]]:
    """The checks that a re-identification attack gets by its tags."""
    return [
        check_output,
        check_training,
        check_input_unchanged,
        *conduct.CHECKS,
        check_gallery_order,
        check_companions,
        check_identity_withheld,
        check_draws,
        *([check_finds_people] if spec.tags.control != "negative" else []),
        check_chance_on_noise,
    ]


class AttackBench(UsableBench):
    """An attack, with people to find."""

    def make(self) -> Trained:
        """Trained by an attacker whose anonymizer changes nothing."""
        made = train(self, unmodified)
        if made.oracle:
            made.oracle.open = False
        return made

    def use(self, made: Trained) -> Results:
        """Scores against clear references and against released ones."""
        return {
            "scores": score(made, gallery(), self.probes),
            "scores against released references": score(made, gallery(), self.probes, True),
        }

    @cached_property
    def probes(self) -> ImageSet:
        """Of a release that changes nothing."""
        return probes(unmodified)

    @property
    def scores(self) -> torch.Tensor:
        """(N, G): every probe against every clear reference."""
        found: torch.Tensor = self.first["scores"]
        return found


def score(
    made: Trained, references: ImageSet, shown: ImageSet, anonymized: bool = False
) -> torch.Tensor:
    """Enrol and score, as the harness does it."""
    with torch.inference_mode():
        scores: torch.Tensor = enrolled(made, references, anonymized).score(shown)
    return scores.cpu() if isinstance(scores, torch.Tensor) else scores


def enrolled(made: Trained, references: ImageSet, anonymized: bool = False) -> Scorer:
    """A scorer with a gallery."""
    scorer: Scorer = made.trained.enroll(references, anonymized)
    return scorer


def of_people(scores: torch.Tensor) -> Floats:
    """(N, S): mean score against each person's references."""
    means: Floats = scores.double().reshape(len(scores), PEOPLE, REFERENCES).mean(2).numpy()
    return means


def check_output(bench: AttackBench) -> None:
    """Scores are finite floats, one for each probe and reference; fusion and report are said."""
    shape = (PEOPLE * REFERENCES, PEOPLE * REFERENCES)
    for name, scores in bench.first.items():
        require(
            isinstance(scores, torch.Tensor),
            bench,
            f"{name} must be a tensor; got {type(scores).__name__}",
        )
        got = tuple(scores.shape)
        require(got == shape, bench, f"{name} must have shape {shape}; got {got}")
        require(scores.is_floating_point(), bench, f"{name} must be floats; got {scores.dtype}")
        require(bool(scores.isfinite().all()), bench, f"{name} hold NaN or infinity")
    trained = bench.made.trained
    require(
        trained.fusion in ("max", "mean"),
        bench,
        f"fusion must be 'max' or 'mean'; got {trained.fusion!r}",
    )
    require_report(bench, trained.report)


def check_training(bench: AttackBench) -> None:
    """Training returns a new object, and the oracle is asked no more when it is over."""
    bench.first  # noqa: B018 - scoring comes first, to see whether it asks
    require_trained(bench, bench.made)


def check_input_unchanged(bench: AttackBench) -> None:
    """Training, enrolling and scoring write to no image, subject or id."""
    view = bench.made.view
    for now, before in zip((view.train, view.validation), bench.made.given, strict=True):
        require(same_images(now, before), bench, "training changed the attacker's photos")
    references, shown = copied(gallery()), probes(unmodified)
    score(bench.made, references, shown)
    require(same_images(references, gallery()), bench, "it changed the gallery")
    require(same_images(shown, probes(unmodified)), bench, "it changed the probes")


def check_gallery_order(bench: AttackBench) -> None:
    """References enrolled in another order get the same scores: columns move and nothing else."""
    order = np.random.default_rng(0).permutation(len(gallery()))
    moved = gallery().take(order)
    again = score(bench.made, moved, bench.probes)
    _close(bench, again, bench.scores[:, order], "when the gallery's order changed")


def check_companions(bench: AttackBench) -> None:
    """A score depends on its probe and its reference alone, not on what else is scored."""
    few, some = [5, 0], [len(gallery()) - 1, 2, 7]
    alone = score(bench.made, gallery().take(some), bench.probes.take(few))
    _close(bench, alone, bench.scores[few][:, some], "among other probes and references")
    backwards = list(range(len(bench.probes)))[::-1]
    again = score(bench.made, gallery(), bench.probes.take(backwards))
    _close(bench, again, bench.scores[backwards], "when the order of the probes was reversed")


def check_identity_withheld(bench: AttackBench) -> None:
    """Ids and labels of probes and references do not influence the scores: only pixels do."""
    n = len(bench.probes)
    names = tuple(f"person-{person}-{place}" for place, person in enumerate(mated()))
    known = replace(bench.probes, subject=mated(), keys=names)
    again = score(bench.made, gallery(), known)
    _close(bench, again, bench.scores, "when probes said who they are")
    labels = np.random.default_rng(0).permutation(PEOPLE)[gallery().subject]
    renamed = replace(gallery(), subject=labels, keys=tuple(f"other-{i}" for i in range(n)))
    again = score(bench.made, renamed, bench.probes)
    _close(bench, again, bench.scores, "when references had other labels")


def check_draws(bench: AttackBench) -> None:
    """An attack that takes several draws at once gives one finite score for each pair, and for
    draws that are all the same the score of one.
    """
    scorer = enrolled(bench.made, gallery())
    if not isinstance(scorer, DrawScorer):
        return  # the harness takes the mean
    for count in (1, 2):
        with torch.inference_mode():
            scores = scorer.score_draws([bench.probes] * count).cpu()
        _close(bench, scores, bench.scores, f"from {count} equal draw(s)")


def check_finds_people(bench: AttackBench) -> None:
    """On unmodified images it finds the kit's people better than chance (p < 0.001)."""
    p = identified(of_people(bench.scores), mated())
    require(
        p < ALPHA,
        bench,
        f"on unmodified images it must be better than chance, p < {ALPHA}; got p = {p:.2g}",
    )


def check_chance_on_noise(bench: AttackBench) -> None:
    """On releases that are noise it is at chance (p >= 0.001): nothing but pixels tells it who is
    who, neither ids nor labels nor order.
    """
    p = identified(of_people(_on(bench, static)), mated())
    require(
        p >= ALPHA,
        bench,
        f"on noise it must be at chance, p >= {ALPHA}; got p = {p:.2g}: it knows more than pixels",
    )


def _on(bench: AttackBench, release: ReleaseImages) -> torch.Tensor:
    """Scores of an attack that was trained for this release; one that never asks is the same."""
    adaptive = bench.spec.tags.knowledge == "adaptive"
    made = train(bench, release) if adaptive else bench.made
    return score(made, gallery(), probes(release))


def _close(bench: AttackBench, got: torch.Tensor, expected: torch.Tensor, when: str) -> None:
    shape = tuple(got.shape)
    require(shape == tuple(expected.shape), bench, f"scores had shape {shape} {when}")
    spread = float(bench.scores.max() - bench.scores.min())
    gap = float((got.double() - expected.double()).abs().max())
    require(
        gap <= CLOSE * spread,
        bench,
        f"scores came out different {when}: by {gap:.2g}, where all of them span {spread:.2g}",
    )
