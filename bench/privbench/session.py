"""One execution of a plan: what has been built and decoded so far."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, cast

import torch

from privbench.data import load_part
from privbench.errors import PluginError, PrivbenchError
from privbench.plan import Plan, Resolved
from privbench.progress import Reporter
from privbench.store import Store
from privbench.types import FittableMetric, ImageSet, Metric, TrainedAttack


@dataclass
class Session:
    """One execution: the plan, the store, and what has been built or decoded so far.

    Attributes:
        trained: attacks that never ask the anonymizer, by their reference, and the seconds that
            training took; they serve all cells.
    """

    plan: Plan
    store: Store
    device: torch.device
    reporter: Reporter
    trained: dict[str, tuple[TrainedAttack, float]] = field(default_factory=dict)
    _built: dict[str, Any] = field(default_factory=dict)
    _parts: dict[str, ImageSet] = field(default_factory=dict)
    _fitted: dict[str, Metric] = field(default_factory=dict)

    def build(self, plugin: Resolved) -> Any:
        """The plugin object, built once and moved to the device if it knows how."""
        name = f"{plugin.registered.spec.kind}/{plugin.id}/{plugin.config!r}"
        if name not in self._built:
            with blame(plugin, "building"):
                made = plugin.registered.spec.build(plugin.config)
                mover = getattr(made, "to", None)
                self._built[name] = mover(self.device) if mover else made
        return self._built[name]

    def fitted_metric(self, metric: Resolved) -> Metric:
        """The metric, fitted on background images where its tag says so; once for all cells.

        Raises:
            PluginError: it is tagged for fitting and cannot, or for data it must not see.
        """
        made, on = self.build(metric), metric.registered.spec.tags.fit_on
        if on is None:
            return cast(Metric, made)
        if on != "background" or not isinstance(made, FittableMetric):
            raise PluginError(
                f"The metric {metric.id} is tagged fit_on={on!r}; a metric may be fitted on "
                "'background' only, and then needs a method `fit`."
            )
        name = f"{metric.id}/{metric.config!r}"
        if name not in self._fitted:
            with blame(metric, f"fitting on {on}"):
                self._fitted[name] = made.fit(self.part(on))
        return self._fitted[name]

    def part(self, name: str) -> ImageSet:
        """A part of the split, decoded once."""
        if name not in self._parts:
            self._parts[name] = load_part(self.plan.data, self.plan.split.parts()[name])
        return self._parts[name]

    def forget_models(self) -> None:
        """Free the last anonymizer and attack; what serves all cells stays."""
        self._built.clear()


@contextmanager
def blame(plugin: Resolved, doing: str) -> Iterator[None]:
    """Turn whatever a plugin raises into an error that names it.

    Raises:
        PluginError: the plugin raised something that is not one of ours.
    """
    try:
        yield
    except PrivbenchError:
        raise
    except Exception as error:
        spec = plugin.registered.spec
        raise PluginError(
            f"The {spec.kind} {spec.id} ({plugin.registered.distribution}) failed while {doing}: "
            f"{type(error).__name__}: {error}"
        ) from error
