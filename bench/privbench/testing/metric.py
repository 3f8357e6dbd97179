"""What a metric does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from privbench.errors import PluginError
from privbench.spec import PluginSpec
from privbench.testing import conduct
from privbench.testing.bench import Results, UsableBench
from privbench.testing.check import require
from privbench.testing.specimens import EVIDENCE, Protection, arrays, background, taken
from privbench.types import Evidence, FittableMetric, Floats, Metric, OpenSet, Output

EXACT = 1e-9
"""How far numbers may differ that should be equal: rounding of sums in another order."""


def checks(spec: PluginSpec) -> list[Callable[[MetricBench], None]]:
    """The checks of a metric."""
    return [
        check_fit,
        check_output,
        check_input_unchanged,
        *conduct.CHECKS,
        check_order,
        check_shards,
        check_repeated_rows,
        check_range,
        check_direction,
    ]


class MetricBench(UsableBench):
    """A metric, with evidence of its kind."""

    def make(self) -> Metric:
        """Built, and fitted if its tag asks for it."""
        made: Any = self.build()
        if self.spec.tags.fit_on is None:
            return made  # type: ignore[no-any-return]
        if not isinstance(made, FittableMetric):
            raise PluginError(
                f"{self.spec.id} is tagged fit_on={self.spec.tags.fit_on!r} and has no `fit`."
            )
        return made.fit(background())

    def build(self) -> Metric:
        """A new metric, not fitted."""
        made: Metric = self.spec.build(self.config)
        return made

    def use(self, made: Metric) -> Results:
        """Rows, and the numbers that come of them."""
        evidence = self.evidence("some")
        rows = np.asarray(made.rows(evidence), np.float64)
        return {"rows": rows, "values": point(self.build(), rows)}

    def evidence(self, protection: Protection) -> Evidence:
        """Evidence of the kind that the metric takes."""
        kind = self.spec.tags.evidence
        if kind is None:
            raise PluginError(f"{self.spec.id}: Tags.evidence must say what it measures.")
        return EVIDENCE[kind](protection)

    def values(self, protection: Protection) -> dict[str, tuple[Output, float]]:
        """The numbers of some evidence, by name."""
        evidence = self.evidence(protection)
        found = point(self.build(), np.asarray(self.made.rows(evidence), np.float64))
        outputs = self.build().outputs(evidence)
        return {o.name: (o, float(v)) for o, v in zip(outputs, found, strict=True)}

    def rows(self, evidence: Evidence) -> Floats:
        """Rows of the shared metric."""
        return np.asarray(self.made.rows(evidence), np.float64)


def point(metric: Metric, rows: Floats) -> Floats:
    """(M,) point estimates."""
    found: Floats = np.asarray(metric.reduce(rows, np.ones((1, len(rows)))))[0]
    return found


def check_fit(bench: MetricBench) -> None:
    """A method `fit` is there exactly when the tag says so, and returns a new object."""
    made, on = bench.build(), bench.spec.tags.fit_on
    has = isinstance(made, FittableMetric)
    require(has or on is None, bench, "Tags.fit_on is set and there is no `fit`")
    require(not has or on is not None, bench, "it has `fit`, so Tags.fit_on must say on what")
    require(
        not isinstance(made, FittableMetric) or made.fit(background()) is not made,
        bench,
        "fit must return a new object",
    )


def check_output(bench: MetricBench) -> None:
    """One row a sample without infinity, one number and one chance value an output."""
    evidence, metric = bench.evidence("some"), bench.build()
    outputs, rows = metric.outputs(evidence), bench.first["rows"]
    names = [output.name for output in outputs]
    require(bool(names), bench, "it has no outputs for evidence that holds all it may need")
    require(len(set(names)) == len(names), bench, f"outputs need distinct names; got {names}")
    for output in outputs:
        require(
            output.protects in ("higher", "lower") and bool(np.isfinite(output.worst)),
            bench,
            f"{output.name}: protects must be higher or lower, and worst finite; got {output}",
        )
    n = len(evidence.subject)
    require(rows.ndim == 2 and len(rows) == n, bench, f"rows must be ({n}, D); got {rows.shape}")
    require(not np.isinf(rows).any(), bench, "rows hold infinity; unknown is NaN")
    weights = np.ones((3, n))
    reduced = np.asarray(metric.reduce(rows, weights))
    shape = (3, len(names))
    require(reduced.shape == shape, bench, f"reduce must return {shape}; got {reduced.shape}")
    chance = np.asarray(metric.chance(evidence))
    require(chance.shape == shape[1:], bench, f"chance must be {shape[1:]}; got {chance.shape}")
    require(not np.isinf(chance).any(), bench, "chance is infinite; where there is none it is NaN")


def check_input_unchanged(bench: MetricBench) -> None:
    """Neither the evidence nor the rows are written to."""
    evidence, metric = bench.evidence("some"), bench.build()
    before = arrays(evidence)
    metric.outputs(evidence), metric.chance(evidence)
    rows = bench.rows(evidence).copy()
    same = all(map(np.array_equal, before, arrays(evidence)))
    require(same, bench, "it changed the evidence that it was given")
    weights = np.ones((2, len(rows)))
    given = rows.copy()
    metric.reduce(given, weights)
    require(
        np.array_equal(given, rows, equal_nan=True) and bool((weights == 1).all()),
        bench,
        "reduce changed the rows or the weights that it was given",
    )


def check_order(bench: MetricBench) -> None:
    """Samples in another order have the same rows, in that order."""
    evidence = bench.evidence("some")
    order = _shuffled(evidence)
    _close(
        bench,
        bench.rows(taken(evidence, order)),
        bench.first["rows"][order],
        "rows differ when the samples come in another order",
    )


def check_shards(bench: MetricBench) -> None:
    """The rows of two parts, put together, are the rows of the whole: a row comes of its own
    sample alone.
    """
    evidence, halves = bench.evidence("some"), _halves(bench.evidence("some"))
    parts = [bench.rows(taken(evidence, rows)) for rows in halves]
    _close(
        bench,
        np.concatenate(parts),
        bench.first["rows"][np.concatenate(halves)],
        "rows differ when the samples come in two parts",
    )


def check_repeated_rows(bench: MetricBench) -> None:
    """A weight counts how often a row was drawn: numbers of weighted rows are those of repeated
    rows in any order, and several weightings at once those of each alone.
    """
    metric, rows = bench.build(), bench.first["rows"]
    rng = np.random.default_rng(0)
    weights = rng.integers(0, 3, size=(2, len(rows))).astype(np.float64)
    together = np.asarray(metric.reduce(rows, weights))
    for i, weighting in enumerate(weights):
        drawn = rng.permutation(np.repeat(np.arange(len(rows)), weighting.astype(int)))
        _close(
            bench,
            np.stack([together[i], metric.reduce(rows, weights[i : i + 1])[0]]),
            np.stack([point(metric, rows[drawn])] * 2),
            "numbers of weighted rows are not those of repeated rows",
        )


def check_range(bench: MetricBench) -> None:
    """No number is beyond the one called worst, and shares and their chance lie in [0, 1]."""
    for protection in ("none", "some", "full"):
        for name, (output, value) in bench.values(protection).items():
            beyond = value - output.worst if output.protects == "lower" else output.worst - value
            require(
                not beyond > EXACT,
                bench,
                f"{name} is {value:g}, beyond its worst value {output.worst:g}",
            )
    evidence = bench.evidence("some")
    chance = bench.build().chance(evidence)
    for output, value in zip(bench.build().outputs(evidence), chance, strict=True):
        require(
            output.unit != "share" or bool(np.isnan(value)) or 0 <= value <= 1,
            bench,
            f"{output.name} is a share, and its chance is {value:g}",
        )


def check_direction(bench: MetricBench) -> None:
    """Where nothing is protected no number looks better than where all is, by its own direction,
    and one looks worse; of utility the other way round.
    """
    bad, good = bench.values("none"), bench.values("full")
    if bench.spec.tags.evidence == "release":
        bad, good = good, bad
    gains = {}
    for name in bad.keys() & good.keys():
        output, low = bad[name]
        gain = good[name][1] - low
        gains[name] = -gain if output.protects == "lower" else gain
    backwards = sorted(name for name, gain in gains.items() if gain < -EXACT)
    require(
        not backwards,
        bench,
        f"{', '.join(backwards)} looked better where it should be worst; see Output.protects",
    )
    require(
        any(gain > EXACT for gain in gains.values()),
        bench,
        "no number tells the best evidence from the worst",
    )


def _shuffled(evidence: Evidence) -> np.ndarray:
    """(N,) a random order; the mated probes of an open-set trial stay in front."""
    rng = np.random.default_rng(0)
    first = _in_front(evidence)
    return np.concatenate(
        [rng.permutation(first), first + rng.permutation(len(evidence.subject) - first)]
    )


def _halves(evidence: Evidence) -> list[np.ndarray]:
    """Rows of two parts, whole people each, of either half of an open-set trial."""
    rows, first = np.arange(len(evidence.subject)), _in_front(evidence)
    early = rows < np.where(rows < first, first // 2 // 2 * 2, first + (len(rows) - first) // 2)
    return [rows[early], rows[~early]]


def _in_front(evidence: Evidence) -> int:
    return (
        int((evidence.mated >= 0).sum()) if isinstance(evidence, OpenSet) else len(evidence.subject)
    )


def _close(bench: MetricBench, got: Floats, expected: Floats, problem: str) -> None:
    require(got.shape == expected.shape, bench, f"{problem}: their shape is {got.shape}")
    same = np.isclose(got, expected, rtol=EXACT, atol=EXACT, equal_nan=True)
    if not same.all():
        gap = float(np.nanmax(np.abs(got - expected)))
        raise PluginError(f"{bench.spec.id}: {problem}, by up to {gap:.2g}.")
