"""The numbers of a membership record beyond those of metrics: exact rates, and tests of sets.

A record's key holds this module's code.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, Final

import numpy as np
from pydantic import BaseModel, ConfigDict

from privbench import settest
from privbench.types import Floats, Ints, Membership

RATES: Final = (0.01, 0.001)
"""False positive rates at which the record has exact intervals."""

SIZES: Final = (10, 50, 100, 500, 1000)
"""People on each side of a set test."""

DRAWS: Final = 400
LEARNING_DRAWS: Final = 40
"""Draws of a set test that learns from features, which is slower."""

CONTAMINATIONS: Final = (0.0, 0.25, 0.5)
GROUP: Final = 25
"""People on each side where tests share nobody."""


class _Plain(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class AtRate(_Plain):
    """TPR at the largest FPR that is at most `rate`.

    Attributes:
        rate: the FPR allowed.
        fpr: the FPR attained on the trial's non-members.
        tpr: share of members above the threshold; None where refused.
        low: of the TPR at the threshold that passes `rate` of all non-members: see
            `privbench.settest.tpr_interval`.
        high: likewise.
        refused: why there is no number.
    """

    rate: float
    fpr: float | None = None
    tpr: float | None = None
    low: float | None = None
    high: float | None = None
    refused: str = ""


class SetResult(_Plain):
    """A whole set under test; see `privbench.settest`. The unit is the person.

    Attributes:
        learns: the test learns from features of half of the people.
        suspect: the whole suspect set against all people whom no target has seen.
        groups: tests of groups of the suspects that share nobody: rejections.
        null: false positives among people whom nobody was trained on.
        power: by contamination: points by number of people.
        size: people on each side of `groups` and `null`.
    """

    learns: bool
    suspect: dict[str, float]
    groups: dict[str, Any]
    null: dict[str, Any]
    power: list[dict[str, Any]]
    size: int


def at_rate(evidence: Membership, rate: float) -> AtRate:
    """TPR at FPR <= `rate`; refused where non-members are too few people.

    The threshold is a non-member's score, and only what lies above it is called a member: tied
    scores are never credited.
    """
    member, subject = evidence.member, evidence.subject
    others = evidence.scores[~member]
    if reason := settest.refusal(rate, len(np.unique(subject[~member]))):
        return AtRate(rate=rate, refused=reason)
    allowed = int(np.floor(rate * len(others) + 1e-9))
    threshold = np.sort(others)[::-1][allowed]
    ours = evidence.scores[member]
    low, high = settest.tpr_interval(ours, subject[member], others, subject[~member], rate)
    return AtRate(
        rate=rate,
        fpr=float((others > threshold).mean()),
        tpr=float((ours > threshold).mean()),
        low=low,
        high=high,
    )


def set_result(
    suspects: tuple[Floats, Ints],
    unseen: tuple[Floats, Ints],
    unpublished: tuple[Floats, Ints],
    seed: int,
) -> SetResult | None:
    """Tests of a whole set; None for too few people.

    Args:
        suspects: (N, 1 + F) scores of the suspect set and the identity of each image.
        unseen: likewise, of people whom no target has seen.
        unpublished: likewise, of more of them.
    """
    people = [settest.by_person(*side) for side in (suspects, unseen, unpublished)]
    learns = people[0].shape[1] > 1
    if not learns:
        people = [scores[:, 0] for scores in people]
    ours, others, more = people
    outside = np.concatenate([others, more])
    least = 8 if learns else 4
    if min(len(ours), len(others)) < least // 2 or len(outside) < least:
        return None
    draws = LEARNING_DRAWS if learns else DRAWS
    size = min(GROUP, len(ours), len(others), len(outside) // 2)
    test = settest.cdi_test(ours, outside, seed) if learns else settest.welch(ours, outside)
    curves = [
        settest.power(ours, others, SIZES, draws, seed, share, more) for share in CONTAMINATIONS
    ]
    return SetResult(
        learns=learns,
        suspect=asdict(test),
        groups=asdict(settest.group_rejections(ours, others, size, seed)),
        null=asdict(settest.false_positive_rate([outside], size, draws, seed)),
        power=[_plain(curve) for curve in curves],
        size=size,
    )


def _plain(curve: settest.Power) -> dict[str, Any]:
    """A power curve with text for keys, as JSON has them."""
    body: Mapping[str, Any] = asdict(curve)
    keyed = ("points", "disjoint", "left_out")
    return {
        name: {str(n): v for n, v in value.items()} if name in keyed else value
        for name, value in body.items()
    }
