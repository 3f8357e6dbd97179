"""D_sys against the paper's formulas written out, known distributions, and its null."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.stats import norm

from privbench.types import Floats, Identification
from privbench_plugins.metrics import linkability
from privbench_plugins.metrics._linkability import local_linkability

(SPEC,) = linkability.SPECS
METRIC = SPEC.build(SPEC.config())


def trial(seed: int = 0, probes: int = 300, people: int = 30, shift: float = 1.0) -> Identification:
    """Standard normal scores, raised by `shift` for the true person."""
    rng = np.random.default_rng(seed)
    mated = rng.integers(people, size=probes)
    scores = rng.normal(size=(probes, people))
    scores[np.arange(probes), mated] += shift
    return Identification(scores, mated, mated)


def d_sys(evidence: Identification, omega: float = 1.0, bins: int = 100) -> float:
    """The point estimate."""
    metric = SPEC.build(SPEC.config(omega=omega, bins=bins))
    rows = metric.rows(evidence)
    return float(metric.reduce(rows, np.ones((1, len(rows))))[0, 0])


def written_out(evidence: Identification, omega: float, bins: int) -> float:
    """Bin by bin: likelihood ratio, posterior, local measure, their mean over mated scores."""
    own = [s[m] for s, m in zip(evidence.scores, evidence.mated, strict=True)]
    other = [
        x for s, m in zip(evidence.scores, evidence.mated, strict=True) for x in np.delete(s, m)
    ]
    edges = np.linspace(evidence.scores.min(), evidence.scores.max(), bins + 1)
    width = edges[1] - edges[0]
    likelihood, _ = np.histogram(own, edges, density=True)
    unlike, _ = np.histogram(other, edges, density=True)
    total = 0.0
    for f, g in zip(likelihood, unlike, strict=True):
        if f == 0:
            continue
        if g == 0:
            local = 1.0
        else:
            ratio = f / g
            local = 2 * ratio * omega / (1 + ratio * omega) - 1 if ratio * omega > 1 else 0.0
        total += local * f * width
    return total


@pytest.mark.parametrize("omega", [0.3, 1.0, 3.0])
@pytest.mark.parametrize("shift", [0.0, 1.0, 4.0])
def test_d_sys_is_the_paper_s_formula(omega: float, shift: float) -> None:
    """The same as the definition, one bin at a time; 300 mated scores make 30 bins."""
    evidence = trial(shift=shift)
    assert d_sys(evidence, omega) == pytest.approx(written_out(evidence, omega, 30))


def test_number_of_bins() -> None:
    """One bin per 10 mated scores, 100 at most, never fewer than 2."""
    widths = [METRIC.rows(trial(probes=n)).shape[1] / 2 for n in (5, 300, 999, 3000)]
    assert widths == [2, 30, 99, 100]


@pytest.mark.parametrize("shift", [0.5, 1.5, 3.0])
def test_normal_scores_have_a_known_d_sys(shift: float) -> None:
    """Many scores come near the integral over two normal densities."""

    def integrand(s: float) -> float:
        f, g = norm.pdf(s, shift), norm.pdf(s)
        return float(f * max(0.0, (f - g) / (f + g)))

    expected = quad(integrand, -9, 9 + shift, points=[shift / 2])[0]
    assert d_sys(trial(probes=40_000, people=10, shift=shift)) == pytest.approx(expected, abs=0.01)


def test_perfect_and_constant_scores() -> None:
    """Scores that tell everything give 1, scores that say nothing 0."""
    assert d_sys(trial(shift=1000)) == METRIC.outputs(trial())[0].worst
    evidence = trial()
    assert d_sys(Identification(0 * evidence.scores, evidence.mated, evidence.subject)) == 0


def test_local_measure() -> None:
    """Known values: no evidence, three to one, certainty; never negative."""
    f, g = np.array([1.0, 3.0, 1.0, 1.0, 0.0]), np.array([1.0, 1.0, 3.0, 0.0, 0.0])
    assert local_linkability(f, g).tolist() == [0, 0.5, 0, 1, 0]
    assert local_linkability(f, g, 3.0).tolist() == [0.5, 0.8, 0, 1, 0]


def test_noise_is_biased_upward_and_so_is_chance() -> None:
    """Without any link D_sys is not 0; its chance level is what noise gives on average."""
    found = [d_sys(trial(seed, shift=0)) for seed in range(60)]
    declared = [METRIC.chance(trial(seed, shift=0))[0] for seed in range(10)]
    assert np.mean(found) > 0.05
    assert np.mean(declared) == pytest.approx(np.mean(found), abs=0.01)


def test_chance_is_relabelling() -> None:
    """The null is what dealing the names anew, one deal at a time, gives."""
    evidence = trial(people=12, probes=100)
    rng = np.random.default_rng(0)
    names = rng.permuted(np.broadcast_to(np.arange(12), (500, 12)), axis=1)
    slow = [
        d_sys(Identification(evidence.scores, deal[evidence.mated], evidence.subject))
        for deal in names
    ]
    assert METRIC.chance(evidence)[0] == pytest.approx(np.mean(slow))


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 2**32 - 1),
    weights=st.lists(st.integers(0, 3), min_size=20, max_size=20).filter(any),
)
def test_weights_are_repetitions(seed: int, weights: list[int]) -> None:
    """Reducing with weights is reducing rows that are physically repeated."""
    rows = METRIC.rows(trial(seed, probes=20, people=5))
    repeated = np.repeat(rows, weights, axis=0)
    expected = METRIC.reduce(repeated, np.ones((1, len(repeated))))
    np.testing.assert_allclose(METRIC.reduce(rows, np.array([weights], float)), expected)


@pytest.mark.filterwarnings("error")
def test_undefined() -> None:
    """Without rows, and with nobody else enrolled, there is no number, silently."""
    rows: Floats = METRIC.rows(trial())
    assert np.isnan(METRIC.reduce(rows, np.zeros((2, len(rows))))).all()
    alone = Identification(np.zeros((40, 1)), np.zeros(40, int), np.zeros(40, int))
    assert np.isnan(d_sys(alone))
    assert np.isnan(METRIC.chance(alone)).all()
