"""Plugins with planted defects: one honest plugin of each family, and one defect for each check.

Light, as a plugin's specification must be; what the plugins do is in the modules `planted_*`. A
defect is the value of a setting, so that the honest plugin and the defective one share all else.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from importlib import import_module
from types import MappingProxyType
from typing import Any

from pydantic import Field

from privbench.spec import Config, GeneratorConfig, PluginSpec, Tags


class Defect(Config):
    """What is wrong with a plugin."""

    defect: str = Field(default="", description="Name of the check that it is to fail.")


class Undescribed(Defect):
    """A setting without a description."""

    strength: float = 1.0


class GeneratorDefect(GeneratorConfig):
    """Of a generative anonymizer."""

    defect: str = Field(default="", description="Name of the check that it is to fail.")
    epochs: int = Field(default=1, description="Passes over the images.")

    def recipe(self) -> Mapping[str, Any]:
        """What training depends on."""
        return {"defect": self.defect}

    def checkpoint(self) -> int:
        """The last."""
        return self.epochs

    def released_epochs(self) -> tuple[int, ...]:
        """One."""
        return (self.epochs,)

    def own(self) -> GeneratorConfig:
        """The same recipe."""
        return self.model_copy(update={"defect": "x"}) if self.defect == "recipe" else self

    def base(self) -> GeneratorConfig:
        """No pass."""
        return self.model_copy(update={"epochs": 0})


def build_anonymizer(config: Defect) -> Any:
    """Mosaic."""
    return import_module("planted_anonymizers").Mosaic(config.defect)


def build_noise(config: Defect) -> Any:
    """Mosaic of noise."""
    return import_module("planted_anonymizers").Noise(config.defect)


def build_generator(config: GeneratorDefect) -> Any:
    """Mean image with noise."""
    return import_module("planted_anonymizers").MeanFace(config)


def build_attack(config: Defect) -> Any:
    """Thumbnails compared."""
    return import_module("planted_attacks").Thumbnails(config.defect)


def build_inverter(config: Defect) -> Any:
    """The release itself."""
    return import_module("planted_attacks").Sharpen(config.defect)


def build_fusion(config: Defect) -> Any:
    """The mean of the members."""
    return import_module("planted_attacks").MeanScore(config.defect)


def build_membership(config: Defect) -> Any:
    """Distance from the nearest sample."""
    return import_module("planted_membership").Nearest(config.defect)


def build_labelled(config: Defect) -> Any:
    """Brightness of members and others."""
    return import_module("planted_membership").Brightness(config.defect)


def build_metric(config: Defect) -> Any:
    """Rank-1."""
    return import_module("planted_metrics").RankOne(config.defect)


def build_dataset(config: Defect) -> Any:
    """Plain colours."""
    return import_module("planted_data").Colours(config.defect)


def build_detector(config: Defect) -> Any:
    """The same face everywhere."""
    return import_module("planted_data").Fixed(config.defect)


def bad_weights(config: Defect) -> Mapping[str, str]:
    """A hash that is none."""
    return {"model": "feed"}


def _spec(kind: Any, name: str, build: Any, tags: Tags, **more: Any) -> PluginSpec:
    return PluginSpec(
        kind=kind, id=f"planted/{name}", version=1, summary="Planted.", build=build, tags=tags,
        **{"config": Defect, **more},
    )  # fmt: skip


HONEST: Mapping[str, PluginSpec] = {
    "anonymizer": _spec("anonymizer", "mosaic", build_anonymizer, Tags()),
    "stochastic": _spec("anonymizer", "noise", build_noise, Tags(stochastic=True)),
    "generator": _spec(
        "anonymizer", "mean-face", build_generator,
        Tags(generates=True, stochastic=True, fit_on="release"), config=GeneratorDefect,
    ),
    "attack": _spec("attack", "thumbnails", build_attack, Tags(knowledge="adaptive")),
    "inverter": _spec(
        "attack", "sharpen", build_inverter, Tags(knowledge="adaptive", inverts=True)
    ),
    "fusion": _spec("attack", "mean-score", build_fusion, Tags(fuses=True)),
    "membership": _spec(
        "attack", "nearest", build_membership, Tags(knowledge="black-box", infers="queries")
    ),
    "labelled": _spec(
        "attack", "brightness", build_labelled, Tags(knowledge="none", infers="labels")
    ),
    "metric": _spec("metric", "rank-one", build_metric, Tags(evidence="identification")),
    "dataset": _spec("dataset", "colours", build_dataset, Tags()),
    "detector": _spec("detector", "fixed", build_detector, Tags()),
}  # fmt: skip
"""A plugin of each family that keeps every promise; of some families two."""


def defective(of: str, check: str) -> PluginSpec:
    """The honest plugin with the defect that one check is to find."""
    spec = replace(HONEST[of], smoke={"defect": check})
    special: Mapping[str, Mapping[str, Any]] = {
        "description": {"id": "no-distribution", "smoke": {}},
        "config": {"config": Undescribed},
        "light_import": {"build": import_module("planted_heavy").build},
        "spec_pickles": {"smoke": MappingProxyType({})},
        "weights": {"weights": bad_weights, "smoke": {}},
    }
    if of == "anonymizer" and check in special:
        return replace(spec, **special[check])
    if (of, check) == ("stochastic", "stochastic"):
        return replace(HONEST["anonymizer"], tags=Tags(stochastic=True))
    if (of, check) == ("anonymizer", "deterministic"):
        return replace(HONEST["stochastic"], tags=Tags())
    return spec


CONDUCT = ("offline", "repeatable", "resources")

PLANTED: Mapping[str, tuple[str, ...]] = {
    "anonymizer": (
        "description", "config", "light_import", "spec_pickles", "weights", "fit", "output",
        "plain_result", "source_hidden", "input_unchanged", *CONDUCT, "order", "companions",
        "batch_shape", "identity_withheld", "deterministic", "offline:child", "resources:file",
        "resources:thread", "resources:use", "repeatable:numpy", "repeatable:torch",
    ),
    "stochastic": ("seed_of_each_image", "stochastic"),
    "generator": (
        "recipe", "checkpoints", "input_unchanged", *CONDUCT, "output", "companions", "stochastic",
    ),
    "attack": (
        "output", "training", "input_unchanged", *CONDUCT, "gallery_order", "companions",
        "identity_withheld", "draws", "finds_people", "chance_on_noise", "training:late",
    ),
    "inverter": (
        "output", "training", "input_unchanged", *CONDUCT, "companions", "identity_withheld",
        "draws", "finds_sources", "chance_on_noise",
    ),
    "fusion": (
        "output", "training", "input_unchanged", *CONDUCT, "companions", "finds_people",
        "chance_on_noise",
    ),
    "membership": (
        "output", "training", "input_unchanged", *CONDUCT, "companions", "identity_withheld",
        "finds_members", "chance_without_members",
    ),
    "labelled": ("finds_members", "chance_without_members"),
    "metric": (
        "fit", "output", "input_unchanged", *CONDUCT, "order", "shards", "repeated_rows", "range",
        "direction", "range:chance",
    ),
    "dataset": ("labels", "pixels", "subset", "digest", "licence", *CONDUCT),
    "detector": ("output", "input_unchanged", *CONDUCT, "companions"),
}  # fmt: skip
"""Of each honest plugin, the checks that a defect is planted for; behind a colon, which defect."""
