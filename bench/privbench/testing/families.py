"""What kind of thing a plugin is, for the kit: its kind, and of attacks also what they do."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from privbench.spec import PluginSpec
from privbench.testing import (
    anonymizer,
    attack,
    dataset,
    detector,
    fusion,
    generator,
    inverter,
    membership,
    metric,
)
from privbench.testing.check import Workbench


@dataclass(frozen=True)
class Family:
    """Plugins that keep the same promises.

    Attributes:
        module: where its checks are.
        bench: what they are tried on.
    """

    module: ModuleType
    bench: Callable[[PluginSpec], Workbench]

    def checks(self, spec: PluginSpec) -> Sequence[Callable[[Any], None]]:
        """Those that apply to a plugin by its tags, beside `describe.checks`."""
        found: Sequence[Callable[[Any], None]] = self.module.checks(spec)
        return found


FAMILIES: Mapping[str, Family] = {
    "anonymizer": Family(anonymizer, anonymizer.AnonymizerBench),
    "generator": Family(generator, generator.GeneratorBench),
    "attack": Family(attack, attack.AttackBench),
    "inverter": Family(inverter, inverter.InverterBench),
    "fusion": Family(fusion, fusion.FusionBench),
    "membership": Family(membership, membership.MembershipBench),
    "metric": Family(metric, metric.MetricBench),
    "dataset": Family(dataset, dataset.DatasetBench),
    "detector": Family(detector, detector.DetectorBench),
}
"""By name; of an attack on membership it is `membership`."""


def family_of(spec: PluginSpec) -> str:
    """The name of a plugin's family."""
    tags = spec.tags
    for name, holds in (
        ("generator", tags.generates),
        ("inverter", tags.inverts),
        ("fusion", tags.fuses),
        ("membership", tags.infers is not None),
    ):
        if holds:
            return name
    return spec.kind
