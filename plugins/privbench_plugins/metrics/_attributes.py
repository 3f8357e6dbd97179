"""Attribute preservation: what a classifier of background people reads off a release."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from privbench.errors import PluginError
from privbench.types import Evidence, Floats, ImageSet, Output
from privbench_plugins.metrics._classifier import (
    Classifier,
    correct,
    embedded_features,
    labelled,
    majority_by_attribute,
    train,
)
from privbench_plugins.metrics._common import known_mean, release


class AttributePreservation:
    """Rows hold, for every attribute: right on the release, right on the source, same answer.

    Attributes:
        classifiers: by attribute; None before `fit`.
    """

    def __init__(self, classifiers: Mapping[str, Classifier] | None = None) -> None:
        self.classifiers = classifiers

    def fit(self, reference: ImageSet) -> AttributePreservation:
        """Train on clean images of background people."""
        if not reference.attributes:
            return AttributePreservation({})
        layers = embedded_features()(reference.pixels)
        fitted = {name: train(layers, labels) for name, labels in reference.attributes.items()}
        return AttributePreservation({k: v for k, v in fitted.items() if v is not None})

    def outputs(self, evidence: Evidence) -> tuple[Output, ...]:
        """Three for the mean of the attributes and for each; none without labels."""
        names = labelled(evidence)
        return tuple(
            Output(f"{name}{kind}", "higher", 0.0)
            for name in (["mean", *names] if names else [])
            for kind in ("", "@clean", "@agreement")
        )

    def chance(self, evidence: Evidence) -> Floats:
        """The commonest label's share for accuracies, none for agreement."""
        share = majority_by_attribute(evidence)
        return np.stack([share, share, np.full(len(share), np.nan)], axis=1).ravel()

    def rows(self, evidence: Evidence) -> Floats:
        """(N, 3 A), 0 or 1; NaN where a label is unknown, or was to the background."""
        pair, names = release(evidence), labelled(evidence)
        if self.classifiers is None:
            raise PluginError("Attribute classifiers must be fitted on background images first.")
        rows = np.full((len(pair.subject), 3 * len(names)), np.nan)
        if not names:
            return rows
        extract = embedded_features()
        clean, released = extract(pair.source.pixels), extract(pair.released.pixels)
        for i, (name, truth) in enumerate(names.items()):
            if classifier := self.classifiers.get(name):
                before, after = classifier.predict(clean), classifier.predict(released)
                rows[:, 3 * i] = correct(after, truth)
                rows[:, 3 * i + 1] = correct(before, truth)
                rows[:, 3 * i + 2] = np.where(truth == "", np.nan, before == after)
        return rows

    def reduce(self, rows: Floats, weights: Floats) -> Floats:
        """(R, 3 + 3 A): mean of the attributes, blank if one of them is, then each."""
        if not rows.shape[1]:
            return np.empty((len(weights), 0))
        means = known_mean(rows, weights)
        overall = means.reshape(len(weights), -1, 3).mean(1)
        return np.concatenate([overall, means], axis=1)
