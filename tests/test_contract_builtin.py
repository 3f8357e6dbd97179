"""Every built-in plugin keeps the contract; what it cannot keep is named, with the reason."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from privbench.registry import load_registry
from privbench.spec import KINDS, Kind, PluginSpec
from privbench.testing import Check, Finding, check_plugin, checks_of, describe

pytestmark = pytest.mark.usefixtures("one_thread")

BASELINE = (
    "beside each release stands one of another person, chosen by the order of the people: what a "
    "release that ignores its source would get; by the contract a comparison with other samples "
    "is part of the row"
)
FROM_OTHERS = (
    "a row holds what was learnt from the other samples, as the contract of `Metric.rows` allows"
)
GUESS = "a control that looks at no image: it guesses by the probe's id and the reference's place"

LONG = (
    "its summary is older than the limit for attacks, and its file may not change: the hashes of "
    "committed records rest on it"
)

EXPECTED: Mapping[tuple[Kind, str], Mapping[str, str]] = {
    ("anonymizer", "watermark-hidden"): {
        "source_hidden": "a diagnostic: it releases the photo, with an overlay of 1 % on purpose",
    },
    ("attack", "random-guess"): {
        "gallery_order": GUESS,
        "companions": GUESS,
        "identity_withheld": GUESS,
    },
    ("attack", "inversion-ldm"): {
        "finds_sources": "its smoke settings train for 4 steps and denoise in one: it paints noise",
    },
    ("attack", "mia-zero-shot"): {
        "finds_members": "it compares with the mean of all samples, which one member among twenty "
        "hardly moves (p = 0.03)",
    },
    ("attack", "mia-regeneration"): {
        "finds_members": "it asks for images by their captions, and the kit's target answers "
        "every prompt alike",
    },
    ("attack", "inversion-linear"): {"description": LONG},
    ("attack", "inversion-optimise"): {"description": LONG},
    ("metric", "conditions"): {
        "order": BASELINE,
        "shards": BASELINE,
        "direction": "depth-error@other is that baseline, and is no worse where all is kept",
    },
    ("metric", "landmarks"): {"order": BASELINE, "shards": BASELINE},
    ("metric", "downstream"): {"shards": FROM_OTHERS},
    ("metric", "linkability"): {"shards": FROM_OTHERS},
    ("metric", "frechet"): {
        "repeated_rows": "its bias falls with the number of people, and a row that is repeated is "
        "no other person: docs/metrics.md says how the distance allows for that",
    },
}
"""Checks that a built-in plugin cannot pass, and why."""

SLOW = {
    "background-reid": "contrastive-reid on images cut to the background",
    "contrastive-paper": "contrastive-reid with a ResNet-50",
    "silhouette-reid": "contrastive-reid on outlines",
    "inversion-ldm": "paints by diffusion; inversion-unet stands for learned inversion",
    "inversion-linear": "solves for weights of many sizes; inversion-unet stands for inverters",
    "inversion-optimise": "asks the oracle about hundreds of candidates; likewise",
    "mia-generated": "trains a ResNet-18 for each of several seeds; mia-nearest sees the same",
}
"""Plugins whose behaviour only `-m study` checks, by id, and what stands for them otherwise."""

NEEDS_FILE = ("folder", "hf", "lpips", "reconstruction-lpips", "yunet")
"""Plugins whose smoke settings name no file, and that need one."""

REGISTERED = [r for kind in KINDS for r in load_registry().of_kind(kind) if not r.unavailable]
BUILT_IN = [r.spec for r in REGISTERED if r.distribution.split()[0] == "privbench"]


def cases() -> Iterator[object]:
    """Every check of every built-in plugin."""
    for spec in BUILT_IN:
        plain = {function.__name__ for function in describe.checks(spec)}
        expected = EXPECTED.get((spec.kind, spec.id), {})
        for check in checks_of(spec):
            behaves = check.function.__name__ not in plain
            if spec.id in NEEDS_FILE and (behaves or check.name == "weights"):
                continue
            marks = [pytest.mark.study] if behaves and spec.id in SLOW else []
            if reason := expected.get(check.name):
                marks.append(pytest.mark.xfail(reason=reason, strict=True))
            yield pytest.param(check, id=f"{spec.kind}-{spec.id}-{check.name}", marks=marks)


@pytest.mark.parametrize("check", list(cases()))
def test_built_in_plugins_keep_the_contract(check: Check) -> None:
    """Every installed plugin passes every check that its kind and tags call for."""
    check()


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random AlexNet under torchvision's names: LPIPS is to run, not to be right."""
    torch.manual_seed(0)
    shapes = {
        0: (64, 3, 11),
        3: (192, 64, 5),
        6: (384, 192, 3),
        8: (256, 384, 3),
        10: (256, 256, 3),
    }
    file = tmp_path_factory.mktemp("backbone") / "alex.safetensors"
    layers = {}
    for layer, (out, given, side) in shapes.items():
        layers[f"features.{layer}.weight"] = torch.randn(out, given, side, side) / side**2
        layers[f"features.{layer}.bias"] = torch.zeros(out)
    save_file(layers, file)
    return file


@pytest.mark.parametrize("plugin", ["lpips", "reconstruction-lpips"])
def test_metrics_on_a_file_keep_the_contract(plugin: str, backbone: Path) -> None:
    """What needs a backbone is checked with one."""
    spec = load_registry().get("metric", plugin).spec
    assert broken(replace(spec, smoke={"backbone": str(backbone)})) == []


@pytest.mark.parametrize("plugin", ["folder", "hf"])
def test_data_sets_on_a_folder_keep_the_contract(plugin: str, faces: Path) -> None:
    """What needs a folder is checked with one."""
    spec = load_registry().get("dataset", plugin).spec
    assert broken(replace(spec, smoke={"path": str(faces / "faces.parquet")})) == []


def broken(spec: PluginSpec) -> list[Finding]:
    """Promises that a plugin breaks."""
    return [found for found in check_plugin(spec) if found.broken]


def test_what_is_expected_is_asked() -> None:
    """No expected failure names a plugin or check that is gone, and none is in two lists."""
    known = {(spec.kind, spec.id): {c.name for c in checks_of(spec)} for spec in BUILT_IN}
    for plugin, expected in EXPECTED.items():
        assert expected.keys() <= known[plugin]
    assert SLOW.keys() <= {plugin for _, plugin in known}
    assert set(NEEDS_FILE) <= {plugin for _, plugin in known}
