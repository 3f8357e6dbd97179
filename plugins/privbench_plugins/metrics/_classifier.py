"""Attribute classifiers on frozen features: logistic regression, one per attribute."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

from privbench.types import Evidence, Floats, Labels
from privbench_plugins.metrics._common import release
from privbench_plugins.metrics._features import EMBEDDED, Extract, extractor

LAYERS = ("embedding", "thumbnail")
SIDE = 80
INVERSE_PENALTY = 10.0  # of blocks scaled to a variance of 1 in total; .01 to 100 tried
ITERATIONS = 300


def embedded_features() -> Extract:
    """What the classifiers see: `tiny-encoder`'s embedding and an 8 x 8 thumbnail."""
    return extractor(EMBEDDED, LAYERS, SIDE)


@dataclass(frozen=True, slots=True, eq=False)
class Classifier:
    """A fitted classifier.

    Attributes:
        centre: per layer, the mean of the training features.
        scale: per layer, their standard deviation times the root of their number, so that
            every layer weighs the same.
        model: scikit-learn's, or the only label there was.
    """

    centre: tuple[Floats, ...]
    scale: tuple[Floats, ...]
    model: Any

    def predict(self, layers: Sequence[Floats]) -> Labels:
        """(N,) labels."""
        if isinstance(self.model, str):
            return np.full(len(layers[0]), self.model)
        found: Labels = self.model.predict(_joined(layers, self.centre, self.scale))
        return found


def train(layers: Sequence[Floats], labels: Labels) -> Classifier | None:
    """Fit on the images whose label is known; None where there is none.

    Args:
        layers: (N, D) features of each layer.
        labels: (N,), "" where unknown.
    """
    known = labels != ""
    if not known.any():
        return None
    used = [layer[known] for layer in layers]
    centre = tuple(layer.mean(0) for layer in used)
    spread = [layer.std(0) for layer in used]
    scale = tuple(np.where(s > 0, s, 1.0) * np.sqrt(len(s)) for s in spread)
    if len(np.unique(labels[known])) == 1:
        return Classifier(centre, scale, str(labels[known][0]))
    model = LogisticRegression(C=INVERSE_PENALTY, max_iter=ITERATIONS)
    with warnings.catch_warnings():  # the last iterate is a classifier, too
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(_joined(used, centre, scale), labels[known])
    return Classifier(centre, scale, model)


def _joined(layers: Sequence[Floats], centre: Sequence[Floats], scale: Sequence[Floats]) -> Floats:
    return np.concatenate([(x - c) / s for x, c, s in zip(layers, centre, scale, strict=True)], 1)


def correct(predicted: Labels, truth: Labels) -> Floats:
    """(N,) 1 or 0; NaN where the truth is unknown."""
    return np.where(truth == "", np.nan, (predicted == truth).astype(np.float64))


def labelled(evidence: Evidence) -> Mapping[str, Labels]:
    """Attributes of the sources that differ between them, by name; others cannot be told."""
    found = release(evidence).source.attributes
    return {name: found[name] for name in sorted(found) if len(_known(found[name])) > 1}


def majority(labels: Labels) -> float:
    """Share of the commonest label: the accuracy of an answer that looks at no image."""
    _, counts = np.unique(labels[labels != ""], return_counts=True)
    return float(counts.max() / counts.sum())


def majority_by_attribute(evidence: Evidence) -> Floats:
    """(1 + A,) mean of the attributes, then each; (0,) without attributes."""
    shares = [majority(labels) for labels in labelled(evidence).values()]
    return np.array([np.mean(shares), *shares] if shares else [])


def _known(labels: Labels) -> NDArray[np.str_]:
    return np.unique(labels[labels != ""])
