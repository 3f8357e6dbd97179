"""The median rank of the true person, as a privbench metric."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from privbench import NoConfig, PluginSpec, Tags, hookimpl

if TYPE_CHECKING:
    from privbench.types import Evidence, Floats, Identification, Output

PRIVBENCH_API = 1


class MedianRank:
    """At which place an attack puts the true person: half of the probes do worse."""

    def outputs(self, evidence: Evidence) -> tuple[Output, ...]:
        """One number; 1 is no protection."""
        from privbench.types import Output

        return (Output("median-rank", protects="higher", worst=1.0, unit="people"),)

    def chance(self, evidence: Evidence) -> Floats:
        """(1,) middle of the ranks 1 to S of a guess among S people."""
        import numpy as np

        people = identification(evidence).scores.shape[1]
        return np.array([(people + 1) / 2])

    def rows(self, evidence: Evidence) -> Floats:
        """(N, 1) rank of each probe's true person; of equal scores, the middle rank."""
        import numpy as np

        trial = identification(evidence)
        true = np.take_along_axis(trial.scores, trial.mated[:, None], axis=1)
        above = (trial.scores > true).sum(axis=1)
        equal = (trial.scores == true).sum(axis=1)
        ranks: Floats = (above + (equal + 1) / 2)[:, None]
        return ranks

    def reduce(self, rows: Floats, weights: Floats) -> Floats:
        """(R, 1) weighted medians: where half of the weight lies on either side, the middle."""
        import numpy as np

        order = np.argsort(rows[:, 0], kind="stable")
        ranks, weight = rows[order, 0], np.cumsum(weights[:, order], axis=1)
        half = weight[:, -1:] / 2
        low = ranks[(weight < half).sum(axis=1)]
        high = ranks[(weight <= half).sum(axis=1).clip(max=len(ranks) - 1)]
        medians: Floats = ((low + high) / 2)[:, None]
        return medians


def identification(evidence: Evidence) -> Identification:
    """The evidence that `Tags.evidence` below asks for."""
    from privbench.types import Identification

    if not isinstance(evidence, Identification):
        raise TypeError(f"expected identification scores; got {type(evidence).__name__}")
    return evidence


def build(config: NoConfig) -> MedianRank:
    """Build the metric; heavy libraries are imported from here on, not before."""
    return MedianRank()


SPEC = PluginSpec(
    kind="metric",
    id="privbench-median/median-rank",
    version=1,
    summary="The median rank of the true person.",
    build=build,
    tags=Tags(evidence="identification"),
)


@hookimpl
def privbench_plugins() -> Iterable[PluginSpec]:
    """The plugins of this package."""
    return [SPEC]
