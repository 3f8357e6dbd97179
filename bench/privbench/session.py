"""One execution of a plan: what has been built and decoded so far."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any, Final, cast

import torch

from privbench.data import load_part
from privbench.errors import DataError, PluginError, PrivbenchError
from privbench.plan import ATTACKER_PARTS, Plan, Resolved
from privbench.progress import Reporter
from privbench.store import Store
from privbench.types import FittableMetric, ImageSet, Metric, TrainedAttack

EVALUATION: Final = ("gallery", "cross-gallery", "probes", "non-mated")
"""Parts that no attack may meet before it scores."""


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
    _sealed: bool = False
    _parts: dict[str, ImageSet] = field(default_factory=dict)
    _fitted: dict[str, Metric] = field(default_factory=dict)
    _hashes: dict[bytes, str] | None = None
    _disjoint: bool = False

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
        """A part of the split, decoded once.

        Raises:
            PluginError: an evaluation part, while an attack trains or inverts.
        """
        if self._sealed and name in EVALUATION:
            raise PluginError(
                f"The evaluation part {name!r} was asked for while an attack trains or inverts; "
                "an attacker has no access to it."
            )
        if name not in self._parts:
            self._parts[name] = load_part(self.plan.data, self.plan.split.parts()[name])
        return self._parts[name]

    @contextmanager
    def sealed(self) -> Iterator[None]:
        """Whatever runs inside cannot have an evaluation part of this session."""
        before, self._sealed = self._sealed, True
        try:
            yield
        finally:
            self._sealed = before

    def evaluation_hashes(self) -> dict[bytes, str]:
        """Hash of every evaluation image and of its mirror image -> `part/sample id`."""
        if self._hashes is None:
            self._hashes = {
                h: f"{part}/{key}"
                for part in EVALUATION
                for flipped in (False, True)
                for key, h in zip(
                    self.part(part).keys, hashes(self.part(part), flipped), strict=True
                )
            }
        return self._hashes

    def refuse_leak(self) -> None:
        """Make sure, once, that what an attacker owns has no identity and no image of evaluation.

        Raises:
            DataError: it has.
        """
        if self._disjoint:
            return
        people = {int(s) for part in EVALUATION for s in self.part(part).subject}
        known = self.evaluation_hashes()
        for images in map(self.part, ATTACKER_PARTS):
            if both := people & set(images.subject.tolist()):
                raise DataError(
                    f"{len(both)} identities of evaluation are among the attacker's; the parts of "
                    "a split must be identity-disjoint."
                )
            for key, h in zip(images.keys, hashes(images), strict=True):
                if h in known:
                    raise DataError(
                        f"The attacker's photograph {key} is the evaluation photograph {known[h]} "
                        "(or its mirror image) under another identity. Remove duplicates from the "
                        "data set."
                    )
        self._disjoint = True

    def forget_models(self) -> None:
        """Free the last anonymizer and attack; what serves all cells stays."""
        self._built.clear()


def hashes(images: ImageSet, flipped: bool = False) -> list[bytes]:
    """BLAKE2b of each image's pixels, or of its mirror image's."""
    pixels = images.pixels.flip(3) if flipped else images.pixels
    return [blake2b(p.numpy().tobytes(), digest_size=16).digest() for p in pixels]


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


def report_facts(plugin: Resolved, report: object) -> dict[str, Any]:
    """A report as JSON; what is not finite (a loss that diverged, say) is unknown.

    Raises:
        PluginError: it is no mapping that JSON can hold.
    """
    try:
        found = json.loads(json.dumps(report), parse_constant=lambda name: None)
    except (TypeError, ValueError) as error:
        raise PluginError(
            f"The report of the attack {plugin.id} must be JSON-able facts: {error}."
        ) from error
    if not isinstance(found, dict):
        raise PluginError(
            f"The report of the attack {plugin.id} must be a mapping; got {type(report).__name__}."
        )
    return found
