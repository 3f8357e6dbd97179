"""Score-level fusion of attacks: every choice and weight comes from attacker-validation.

Logistic fusion as in speaker recognition (Brummer et al., IEEE TASLP 15, 2007): a weighted sum
of scores whose weights maximise the likelihood of "same person" on pairs of held-out photos.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression

from privbench.errors import PluginError
from privbench.types import FittedScoreFusion, Floats, Ints, ValidationScores
from privbench_plugins.attacks.ensemble import EnsembleConfig
from privbench_plugins.attacks.validation import Fusion, Quality, quality

_FUSIONS: tuple[Fusion, ...] = ("mean", "max")
_LIMIT = 40.0  # log-odds beyond it are equally sure; keeps an outlier from ruling a sum

Rule = Callable[[Floats], Floats]
"""(..., A) scores of A members to (...) scores."""


@dataclass(slots=True, eq=False)
class FittedEnsemble:
    """See `privbench.types.FittedScoreFusion`."""

    members: tuple[str, ...]
    rule: Rule
    fusion: Fusion
    report: Mapping[str, Any]

    def combine(self, scores: Mapping[str, Floats]) -> Floats:
        """The fused scores."""
        return self.rule(np.stack([scores[name] for name in self.members], axis=-1))


class Ensemble:
    """Chooses among single members and combinations by cross-validation over people."""

    def __init__(self, config: EnsembleConfig) -> None:
        self.config = config

    def fit(self, validation: Mapping[str, ValidationScores]) -> FittedScoreFusion:
        """Choose a rule on folds of people, then fit it on all of them.

        Raises:
            PluginError: fewer than two people, or people with one photo only.
        """
        members = tuple(sorted(validation))
        subject = validation[members[0]].subject
        scores = np.stack([validation[name].scores for name in members], axis=-1)
        people, photos = np.unique(subject, return_counts=True)
        if len(people) < 2 or photos.max() < 2:
            raise PluginError(
                "ensemble needs at least two attacker-validation people with two photos each."
            )
        folds = np.arange(len(people)) % min(self.config.folds, len(people) // 2 or 1)
        judged: dict[tuple[str, Fusion], Quality] = {}
        for name in _options(self.config.rule, ("best", "max", "sum", "calibrated")):
            fused = self._held_out(name, scores, subject, folds[subject])
            for fusion in _options(self.config.fusion, _FUSIONS):
                judged[name, fusion] = _mean_quality(fused, subject, folds, fusion)
        # On a tie the simpler rule wins: it was tried first.
        rule, fusion = max(judged, key=lambda key: _rank(judged[key]))
        fitted, facts = _RULES[rule](scores, subject, self.config.ridge)
        report = {
            "rule": rule,
            "members": list(members),
            "fusion": fusion,
            "single": {
                name: asdict(_strongest(scores[..., i], subject)) for i, name in enumerate(members)
            },
            "cross_validation": {
                f"{name}/{how}": asdict(found) for (name, how), found in judged.items()
            },
        } | {k: dict(zip(members, v, strict=True)) for k, v in facts.items()}
        return FittedEnsemble(members, fitted, fusion, report)

    def _held_out(self, name: str, scores: Floats, subject: Ints, fold: Ints) -> Floats:
        """(V, V) fused scores; those within a fold by weights fitted on the other folds."""
        fused = np.full(scores.shape[:2], -np.inf)
        for number in np.unique(fold):
            here = np.flatnonzero(fold == number)
            rest = np.flatnonzero(fold != number)
            rest = rest if len(np.unique(subject[rest])) > 1 else here  # one fold: no other people
            fitted, _ = _RULES[name](scores[np.ix_(rest, rest)], subject[rest], self.config.ridge)
            fused[np.ix_(here, here)] = fitted(scores[np.ix_(here, here)])
        return fused


def _options(setting: str, known: Sequence[Any]) -> Sequence[Any]:
    return known if setting == "auto" else (setting,)


def _mean_quality(fused: Floats, subject: Ints, folds: Ints, fusion: Fusion) -> Quality:
    """Quality within each fold, weighted by its photos."""
    found, weights = [], []
    for number in np.unique(folds):
        rows = np.flatnonzero(folds[subject] == number)
        found.append(_quality(fused[np.ix_(rows, rows)], subject[rows], fusion))
        weights.append(len(rows))
    columns = np.array([[q.rank1, q.log_rank, q.mean_average_precision] for q in found])
    return Quality(*(float(x) for x in np.average(columns, axis=0, weights=weights)))


def _strongest(scores: Floats, subject: Ints) -> Quality:
    """One member's quality, its references combined the better way."""
    return max((_quality(scores, subject, fusion) for fusion in _FUSIONS), key=_rank)


def _rank(found: Quality) -> tuple[float, float, float]:
    """Larger is better: first ranks, then mean log-rank, then mean average precision."""
    return found.rank1, -found.log_rank, found.mean_average_precision


def _quality(scores: Floats, subject: Ints, fusion: Fusion) -> Quality:
    column = np.unique(subject, return_inverse=True)[1]
    return quality(torch.from_numpy(scores), torch.from_numpy(column), fusion)


def _pairs(scores: Floats, subject: Ints) -> tuple[Floats, np.ndarray]:
    """(P, A) scores of all pairs of different photos, and whether they show one person."""
    different = ~np.eye(len(subject), dtype=bool)
    return scores[different], (subject[:, None] == subject[None])[different]


def _odds(scores: Floats, subject: Ints, ridge: float) -> tuple[Floats, Floats]:
    """Slope and offset of each member's log-odds of "same person"; classes weigh the same."""
    lines = [_regression(scores[..., i : i + 1], subject, ridge) for i in range(scores.shape[-1])]
    return np.array([w[0] for w, _ in lines]), np.array([b for _, b in lines])


def _regression(scores: Floats, subject: Ints, ridge: float) -> tuple[Floats, float]:
    values, same = _pairs(scores, subject)
    mean, spread = values.mean(0), values.std(0)
    spread = np.where(spread > 0, spread, 1.0)
    model = LogisticRegression(C=1 / ridge, class_weight="balanced", max_iter=1000)
    model.fit((values - mean) / spread, same)
    weights = model.coef_[0] / spread
    return weights, float(model.intercept_[0] - weights @ mean)


def _best(scores: Floats, subject: Ints, ridge: float) -> tuple[Rule, dict[str, list[float]]]:
    members = range(scores.shape[-1])
    chosen = max(members, key=lambda i: _rank(_strongest(scores[..., i], subject)))
    share = [float(i == chosen) for i in members]
    return lambda values: values[..., chosen], {"weights": share}


def _log_odds(
    scores: Floats, subject: Ints, ridge: float, reduce: Callable[..., Any]
) -> tuple[Rule, dict[str, list[float]]]:
    slope, offset = _odds(scores, subject, ridge)

    def rule(values: Floats) -> Floats:
        fused: Floats = reduce(np.clip(values * slope + offset, -_LIMIT, _LIMIT), axis=-1)
        return fused

    return rule, {"slopes": slope.tolist(), "offsets": offset.tolist()}


def _maximum(scores: Floats, subject: Ints, ridge: float) -> tuple[Rule, dict[str, list[float]]]:
    return _log_odds(scores, subject, ridge, np.max)


def _sum(scores: Floats, subject: Ints, ridge: float) -> tuple[Rule, dict[str, list[float]]]:
    return _log_odds(scores, subject, ridge, np.sum)


def _calibrated(scores: Floats, subject: Ints, ridge: float) -> tuple[Rule, dict[str, list[float]]]:
    weights, offset = _regression(scores, subject, ridge)
    return lambda values: values @ weights + offset, {"weights": weights.tolist()}


_RULES: Mapping[str, Callable[..., tuple[Rule, dict[str, list[float]]]]] = {
    "best": _best,
    "max": _maximum,
    "sum": _sum,
    "calibrated": _calibrated,
}
