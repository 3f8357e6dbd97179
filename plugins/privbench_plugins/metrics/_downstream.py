"""Downstream utility: train on released images, test on clean ones of other people."""

from __future__ import annotations

import numpy as np

from privbench.types import Evidence, Floats, Ints, Output
from privbench_plugins.metrics._classifier import (
    correct,
    embedded_features,
    labelled,
    majority_by_attribute,
    train,
)
from privbench_plugins.metrics._common import known_mean, release


class DownstreamUtility:
    """Cross-fitted by identity: a person's clean images are classified by what was learnt from
    the others. Rows hold, for every attribute: right after training on releases, on sources.

    Attributes:
        folds: groups of people.
    """

    def __init__(self, folds: int) -> None:
        self.folds = folds

    def outputs(self, evidence: Evidence) -> tuple[Output, ...]:
        """The mean of the attributes, what is lost of it, and each one; none without labels."""
        names = labelled(evidence)
        if not names:
            return ()
        mean, *single = (
            (Output(name, "higher", 0.0), Output(f"{name}@clean", "higher", 0.0))
            for name in ("mean", *names)
        )
        lost = (
            Output("difference", "higher", -1.0, unit="difference"),
            Output("ratio", "higher", 0.0, unit="ratio"),
        )
        return (*mean, *lost, *(output for pair in single for output in pair))

    def chance(self, evidence: Evidence) -> Floats:
        """The commonest label's share for accuracies."""
        share = majority_by_attribute(evidence)
        if not len(share):
            return share
        return np.concatenate([share[[0, 0]], [np.nan, np.nan], np.repeat(share[1:], 2)])

    def rows(self, evidence: Evidence) -> Floats:
        """(N, 2 A), 0 or 1; NaN where a label is unknown, or nobody else's is known."""
        pair, names = release(evidence), labelled(evidence)
        rows = np.full((len(pair.subject), 2 * len(names)), np.nan)
        if not names:
            return rows
        extract = embedded_features()
        clean, released = extract(pair.source.pixels), extract(pair.released.pixels)
        fold = identity_folds(pair.subject, self.folds)
        for held_out in (fold == f for f in range(fold.max() + 1)):
            test = [layer[held_out] for layer in clean]
            for i, truth in enumerate(names.values()):
                for j, layers in enumerate((released, clean)):
                    fitted = train([x[~held_out] for x in layers], truth[~held_out])
                    if fitted is not None:
                        rows[held_out, 2 * i + j] = correct(fitted.predict(test), truth[held_out])
        return rows

    def reduce(self, rows: Floats, weights: Floats) -> Floats:
        """(R, 4 + 2 A): means of the attributes, both compared, then each attribute."""
        if not rows.shape[1]:
            return np.empty((len(weights), 0))
        means = known_mean(rows, weights)
        overall = means.reshape(len(weights), -1, 2).mean(1)
        with np.errstate(invalid="ignore", divide="ignore"):  # clean accuracy of 0
            ratio = overall[:, :1] / overall[:, 1:]
        ratio[~np.isfinite(ratio)] = np.nan
        return np.concatenate([overall, overall[:, :1] - overall[:, 1:], ratio, means], axis=1)


def identity_folds(subject: Ints, folds: int) -> Ints:
    """(N,) fold of each row; all images of a person are in one, folds differ by one person."""
    people, identity = np.unique(subject, return_inverse=True)
    deal = np.random.default_rng(0).permutation(len(people)) % folds
    dealt: Ints = deal[identity]
    return dealt
