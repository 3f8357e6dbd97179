"""Reconstructions beside the releases they were made from."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from privbench.errors import PluginError
from privbench.types import (
    Evidence,
    Floats,
    Identification,
    Inversion,
    Judgement,
    Output,
    Release,
)
from privbench_plugins.metrics._common import (
    exceedance,
    expected_hits,
    identification,
    mated_scores,
    weighted_mean,
)
from privbench_plugins.metrics._fidelity import Fidelity
from privbench_plugins.metrics._operating import fixed_threshold

FMR = 0.01
"""False match rate for which attacker-validation fixes each judge's threshold."""

OUTPUTS = (
    Output("rank-1", "lower", 1.0),
    Output("rank-1-released", "lower", 1.0),
    Output("gain", "lower", 1.0, unit="difference"),
    Output(f"matched@fmr={FMR:g}", "lower", 1.0),
    Output("similarity", "lower", 1.0, unit="score"),
    Output("similarity-others", "lower", 1.0, unit="score"),
    Output("similarity-released", "lower", 1.0, unit="score"),
)


class Recognition:
    """What each judge makes of reconstructions and of the releases as they are.

    The gain is the difference of both rank-1 hits of a probe, so its interval is that of a paired
    comparison.
    """

    def outputs(self, evidence: Evidence) -> tuple[Output, ...]:
        """`OUTPUTS` for each judge, as `judge/output`."""
        return tuple(
            replace(output, name=f"{judgement.judge}/{output.name}")
            for judgement in inversion(evidence).judgements
            for output in OUTPUTS
        )

    def chance(self, evidence: Evidence) -> Floats:
        """1 / S for rank-1, 0 for the gain, the chance to pass the threshold; none for scores."""
        found = []
        for judgement in inversion(evidence).judgements:
            guess = 1 / judgement.inverted.scores.shape[1]
            passes = exceedance(len(judgement.inverted.impostors), FMR)
            found += [guess, guess, 0.0, passes, *[np.nan] * 3]
        return np.array(found)

    def rows(self, evidence: Evidence) -> Floats:
        """(N, 7 J), in the order of the outputs.

        NaN where the impostors are too few for a threshold, and for others where there are none.
        """
        return np.concatenate([_judged(j) for j in inversion(evidence).judgements], axis=1)

    def reduce(self, rows: Floats, weights: Floats) -> Floats:
        """Weighted means."""
        return weighted_mean(rows, weights)


class Reconstruction:
    """Fidelity measures of the reconstruction to the source, then of the release to it."""

    def __init__(self, measures: tuple[Fidelity, ...]) -> None:
        self.measures = measures

    def outputs(self, evidence: Evidence) -> tuple[Output, ...]:
        """Those of the measures, then the same with `-released`."""
        own = [measure.output for measure in self.measures]
        return (*own, *(replace(output, name=f"{output.name}-released") for output in own))

    def chance(self, evidence: Evidence) -> Floats:
        """There is none."""
        return np.full(2 * len(self.measures), np.nan)

    def rows(self, evidence: Evidence) -> Floats:
        """(N, 2 M), in the order of the outputs."""
        found = inversion(evidence)
        sides = [Release(found.source, x, found.subject) for x in (found.inverted, found.released)]
        return np.column_stack([m.rows(side) for side in sides for m in self.measures])

    def reduce(self, rows: Floats, weights: Floats) -> Floats:
        """Weighted means."""
        return weighted_mean(rows, weights)


def inversion(evidence: Evidence) -> Inversion:
    """`evidence`, if it is that of an inversion attack."""
    if not isinstance(evidence, Inversion):
        raise PluginError(f"Expected reconstructions; got {type(evidence).__name__}.")
    return evidence


def _judged(judgement: Judgement) -> Floats:
    """(N, 7) rows of one judge."""
    inverted, released = identification(judgement.inverted), identification(judgement.released)
    after, before = _hits(inverted), _hits(released)
    mated = mated_scores(inverted)[:, 0]
    threshold = fixed_threshold(inverted.impostors, FMR)
    matched = np.where(np.isnan(threshold), np.nan, mated > threshold)
    with np.errstate(invalid="ignore"):  # 0 / 0 where one person is enrolled
        others = (inverted.scores.sum(axis=1) - mated) / np.float64(inverted.scores.shape[1] - 1)
    return np.column_stack(
        [
            after,
            before,
            after - before,
            matched,
            judgement.inverted_source,
            others,
            judgement.released_source,
        ]
    )


def _hits(trial: Identification) -> Floats:
    """(N,) chance that the true person is named first."""
    hits: Floats = expected_hits(trial, np.ones(1, dtype=np.int64))[:, 0]
    return hits
