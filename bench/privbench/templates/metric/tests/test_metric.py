"""The metric keeps privbench's contract, and does what it says."""

import numpy as np
from privbench.testing import Check, parametrize_with_checks
from privbench.types import Identification

from privbench_median import SPEC, MedianRank

SCORES = np.array([[9.0, 1.0, 2.0], [9.0, 1.0, 2.0], [5.0, 5.0, 5.0], [9.0, 1.0, 2.0]])
TRIAL = Identification(SCORES, mated=np.array([0, 2, 0, 1]), subject=np.array([0, 2, 0, 1]))


@parametrize_with_checks([SPEC])
def test_contract(check: Check) -> None:
    """Every promise that privbench relies on is kept."""
    check()


def test_ranks() -> None:
    """First, second, the middle of three equals, and last."""
    np.testing.assert_array_equal(MedianRank().rows(TRIAL), [[1], [2], [2], [3]])
    np.testing.assert_array_equal(MedianRank().chance(TRIAL), [2])


def test_the_median_is_that_of_repeated_rows() -> None:
    """A weight of k is k copies of a row, as in numpy's median; a weight of 0 leaves it out."""
    metric, rows = MedianRank(), np.array([[1.0], [2.0], [7.0], [3.0]])
    weights = np.array([[1, 1, 1, 1], [3, 0, 1, 0], [0, 0, 1, 1], [0, 0, 4, 0], [1, 2, 0, 4]])
    expected = [[np.median(np.repeat(rows[:, 0], w))] for w in weights]
    np.testing.assert_allclose(metric.reduce(rows, weights.astype(float)), expected)
