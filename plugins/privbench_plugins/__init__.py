"""Built-in anonymizers, attacks, metrics and data sets, registered like anyone's."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from importlib import import_module
from pathlib import Path

from privbench import PluginSpec, hookimpl

PRIVBENCH_API = 1

_MODULES = (
    "anonymizers.classical",
    "anonymizers.controlnets",
    "anonymizers.diagnostics",
    "anonymizers.dppix",
    "anonymizers.finetune",
    "anonymizers.ksame",
    "anonymizers.ldm",
    "anonymizers.ldm_sources",
    "anonymizers.regional",
    "anonymizers.watermarks",
    "attacks.contrastive",
    "attacks.controls",
    "attacks.diagnostics",
    "attacks.edges",
    "attacks.recognisers",
    "attacks.ensemble",
    "attacks.inversion.ldm",
    "attacks.inversion.linear",
    "attacks.inversion.optimise",
    "attacks.inversion.unet",
    "attacks.membership.cdi",
    "attacks.membership.loss",
    "attacks.membership.pia",
    "attacks.membership.secmi",
    "attacks.membership.blind",
    "attacks.membership.generated",
    "attacks.membership.guess",
    "attacks.membership.nearest",
    "attacks.membership.regeneration",
    "attacks.membership.zero_shot",
    "datasets.folder",
    "datasets.hf",
    "datasets.orl",
    "datasets.synthfaces",
    "detectors.builtin",
    "metrics.distances",
    "metrics.fidelity",
    "metrics.identification",
    "metrics.inversion",
    "metrics.kanonymity",
    "metrics.linkability",
    "metrics.membership",
    "metrics.openset",
    "metrics.perceptual",
    "metrics.semantics",
    "metrics.structure",
    "metrics.verification",
)


@hookimpl
def privbench_plugins() -> Iterable[PluginSpec]:
    """Every built-in: one module, one line above."""
    for name in _MODULES:
        yield from import_module(f"{__name__}.{name}").SPECS


@hookimpl
def privbench_studies() -> Mapping[str, Path]:
    """Every TOML file of the folder `studies`, by its stem."""
    return {path.stem: path for path in (Path(__file__).parent / "studies").glob("*.toml")}
