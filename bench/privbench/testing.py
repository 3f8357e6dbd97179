"""The contract kit: checks that a plugin keeps its promises, for authors to run.

    import pytest
    from privbench.testing import anonymizer_checks

    @pytest.mark.parametrize("check", anonymizer_checks(SPEC))
    def test_contract(check):
        check()

`detector_checks` does the same for detectors. The checks use the specification's `smoke`
settings, a handful of drawn images and the CPU.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from importlib import import_module

import numpy as np
import torch

from privbench.errors import PluginError
from privbench.keys import canonical_json, sample_seed
from privbench.registry import make_config
from privbench.spec import Config, PluginSpec
from privbench.types import (
    UNKNOWN,
    Anonymizer,
    Detections,
    Detector,
    Fittable,
    ImageBatch,
    ImageSet,
    quantize,
)

BATCH = 4
"""Images in a batch."""

SIZE = 128
"""Height and width of the images, in pixels."""

BETWEEN_SHAPES = 1 / 255
"""How far outputs may differ between batch shapes: one grey level."""

SUMMARY = 100
"""Longest summary, in characters."""

HEAVY = (
    "PIL", "cv2", "datasets", "diffusers", "dlib", "jax", "matplotlib", "numpy", "onnxruntime",
    "pandas", "scipy", "skimage", "sklearn", "tensorflow", "torch", "torchvision", "transformers",
)  # fmt: skip
"""Libraries that must not be imported before `build` is called."""


@dataclass(frozen=True, slots=True)
class Finding:
    """A promise that is not kept.

    Attributes:
        check: name of the check.
        problem: what was expected and what happened.
    """

    check: str
    problem: str


class Workbench:
    """A plugin under test, with images to try it on. Everything is made when first needed."""

    def __init__(self, spec: PluginSpec, faces: torch.Tensor | None = None) -> None:
        self.spec = spec
        self._faces = faces

    @cached_property
    def faces(self) -> torch.Tensor:
        """(N, 3, H, W) uint8: the faces to detect, the kit's own drawings unless others came."""
        return self.images.pixels if self._faces is None else self._faces

    @cached_property
    def detector(self) -> Detector:
        """Built with the smoke configuration."""
        made: Detector = self.spec.build(self.config)
        return made

    @cached_property
    def images(self) -> ImageSet:
        """2 x BATCH distinct images."""
        count = 2 * BATCH
        return ImageSet(
            quantize(torch.stack([_drawing(i) for i in range(count)])),
            np.arange(count, dtype=np.int64),
            tuple(f"kit-{i}" for i in range(count)),
        )

    @cached_property
    def seeds(self) -> tuple[int, ...]:
        """One 63-bit seed per image."""
        return tuple(sample_seed(0, key) for key in self.images.keys)

    @cached_property
    def config(self) -> Config:
        """The smoke configuration."""
        return make_config(self.spec, self.spec.smoke)

    @cached_property
    def plugin(self) -> Anonymizer:
        """Built with the smoke configuration, and fitted if its tag asks for it."""
        made = self.build()
        if self.spec.tags.fit_on is None:
            return made
        if not isinstance(made, Fittable):
            raise PluginError(
                f"{self.spec.id} is tagged fit_on={self.spec.tags.fit_on!r} and has no `fit`."
            )
        return made.fit(self.images)

    def build(self) -> Anonymizer:
        """A new plugin, not fitted, on the CPU."""
        made = self.spec.build(self.config)
        mover = getattr(made, "to", None)
        plugin: Anonymizer = mover(torch.device("cpu")) if mover else made
        return plugin

    def batch(self, rows: Sequence[int]) -> ImageBatch:
        """Some of the images, subjects withheld and keys neutral, as the harness does it."""
        names = tuple(str(i) for i in range(len(rows)))
        return ImageBatch(self.images.floats(list(rows)), np.full(len(rows), UNKNOWN), names)

    def run(self, rows: Sequence[int], seeds: Sequence[int] | None = None) -> torch.Tensor:
        """Anonymize some of the images, with their own seeds unless others are given."""
        chosen = [self.seeds[i] for i in rows] if seeds is None else list(seeds)
        return self.call(self.batch(rows), chosen)

    def call(self, batch: ImageBatch, seeds: Sequence[int]) -> torch.Tensor:
        """Anonymize a batch, as the harness does it."""
        with torch.inference_mode():
            return self.plugin.anonymize(batch, seeds)

    @cached_property
    def released(self) -> torch.Tensor:
        """(BATCH, 3, SIZE, SIZE): what became of the first images."""
        return self.run(range(BATCH)).cpu().clone()


@dataclass(frozen=True)
class Check:
    """One check of one plugin; call it, and it raises where the promise is broken."""

    function: Callable[[Workbench], None]
    bench: Workbench

    @property
    def __name__(self) -> str:
        """What pytest calls the test."""
        return self.function.__name__.removeprefix("check_")

    def __call__(self) -> None:
        """Run the check.

        Raises:
            PluginError: the promise is broken.
        """
        self.function(self.bench)


def anonymizer_checks(spec: PluginSpec) -> list[Check]:
    """The checks that apply to an anonymizer by its tags. Nothing runs yet.

    Args:
        spec: of the anonymizer.
    """
    bench = Workbench(spec)
    described = (
        check_description,
        check_config,
        check_light_import,
        *([check_weights] if spec.weights else []),
    )
    if spec.tags.generates:  # what it releases shows no source: the rest has no meaning
        return [Check(function, bench) for function in described]
    return [
        Check(function, bench)
        for function in (
            *described,
            check_fit,
            check_output,
            *([check_source_hidden] if spec.tags.control != "positive" else []),
            check_input_unchanged,
            check_repeatable,
            check_order,
            check_companions,
            check_batch_shape,
            check_identity_withheld,
            check_seed_of_each_image,
            check_stochastic if spec.tags.stochastic else check_deterministic,
        )
    ]


def check_anonymizer(spec: PluginSpec) -> list[Finding]:
    """Run all checks; the promises that are broken, in the order of the checks.

    Args:
        spec: of the anonymizer.
    """
    findings = []
    for check in anonymizer_checks(spec):
        try:
            check()
        except PluginError as error:
            findings.append(Finding(check.__name__, str(error)))
        except Exception as error:  # a plugin may raise anything
            findings.append(Finding(check.__name__, f"{type(error).__name__}: {error}"))
    return findings


def detector_checks(spec: PluginSpec, faces: torch.Tensor | None = None) -> list[Check]:
    """The checks that apply to a detector. Nothing runs yet.

    Args:
        spec: of the detector.
        faces: (N, 3, H, W) uint8 images in which it should find something; at least two. The
            kit's own drawings have eyes and a mouth, and few detectors take them for faces.
    """
    bench = Workbench(spec, faces)
    return [
        Check(function, bench)
        for function in (
            check_config,
            check_light_import,
            *([check_weights] if spec.weights else []),
            check_detections,
            check_detector_input_unchanged,
            check_detector_batch,
        )
    ]


# --- what the plugin says about itself ---------------------------------------------------------


def check_description(bench: Workbench) -> None:
    """Kind, id, summary and tags fit an anonymizer; `build` can be found by its name."""
    spec = bench.spec
    _require(spec.kind == "anonymizer", bench, f"kind must be anonymizer; got {spec.kind!r}")
    summary = spec.summary
    _require(
        bool(summary) and summary == summary.strip() and len(summary.splitlines()) == 1,
        bench,
        f"summary must be one line; got {summary!r}",
    )
    _require(len(summary) <= SUMMARY, bench, f"summary is longer than {SUMMARY} characters")
    home, name = spec.build.__module__, spec.build.__qualname__
    ours = home.partition(".")[0] == "privbench_plugins"
    _require(ours or "/" in spec.id, bench, "a third party's id must be `distribution/name`")
    _require(
        getattr(import_module(home), name, None) is spec.build,
        bench,
        f"build must be a function at the top of its module; got {home}.{name}",
    )
    _require(
        spec.tags.knowledge is None and spec.tags.evidence is None,
        bench,
        "knowledge and evidence are tags of attacks and metrics",
    )


def check_config(bench: Workbench) -> None:
    """Every field has a default and a description; a configuration survives JSON."""
    config = bench.spec.config
    _require(issubclass(config, Config), bench, "config must be a subclass of privbench.Config")
    _require(
        config.model_config.get("frozen") is True and config.model_config.get("extra") == "forbid",
        bench,
        "config must stay frozen and refuse unknown settings",
    )
    for name, field in config.model_fields.items():
        _require(not field.is_required(), bench, f"the setting {name} must have a default")
        _require(bool(field.description), bench, f"the setting {name} must have a description")
    for made in (config(), bench.config):
        text = canonical_json(made.model_dump(mode="json"))
        _require(
            config.model_validate_json(text) == made, bench, f"settings change in JSON: {text}"
        )


def check_light_import(bench: Workbench) -> None:
    """Describing the plugin imports no heavy library: `privbench list` must stay instant."""
    homes = sorted({bench.spec.build.__module__, bench.spec.config.__module__})
    asked = json.dumps([sys.path, homes, HEAVY])
    done = subprocess.run(  # noqa: S603 - our own program, in a fresh interpreter
        [sys.executable, "-c", _IMPORTS, asked],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    last = (done.stderr.strip().splitlines() or [""])[-1]
    _require(done.returncode == 0, bench, f"{', '.join(homes)} cannot be imported: {last}")
    found = json.loads(done.stdout.splitlines()[-1])
    _require(
        not found,
        bench,
        f"importing {', '.join(homes)} imports {', '.join(found)}; move that into build",
    )


_IMPORTS = """
import importlib, json, sys
sys.path[:], homes, heavy = json.loads(sys.argv[1])
import privbench.hookspecs, privbench.spec
before = set(sys.modules)
for home in homes:
    importlib.import_module(home)
print(json.dumps([name for name in heavy if name in sys.modules and name not in before]))
"""


def check_weights(bench: Workbench) -> None:
    """`weights` names every file with its SHA-256, and a licence goes with them."""
    spec = bench.spec
    weights = spec.weights(bench.config) if spec.weights else {}
    for name, sha in weights.items():
        _require(
            len(sha) == 64 and set(sha) <= set("0123456789abcdef"),
            bench,
            f"weights must be SHA-256 in lower-case hex; {name} has {sha!r}",
        )
    _require(not weights or bool(spec.licence), bench, "weights need a licence in the spec")


def check_fit(bench: Workbench) -> None:
    """`fit` is there exactly when the tag says so, and returns a new object."""
    made = bench.build()
    if bench.spec.tags.fit_on is None:
        _require(
            not isinstance(made, Fittable), bench, "it has `fit`, so Tags.fit_on must say on what"
        )
        return
    _require(isinstance(made, Fittable), bench, "Tags.fit_on is set and there is no `fit`")
    if isinstance(made, Fittable):
        _require(made.fit(bench.images) is not made, bench, "fit must return a new object")


# --- what the plugin does ----------------------------------------------------------------------


def check_output(bench: Workbench) -> None:
    """The release has the shape of its source and finite floats in [0, 1]."""
    out = bench.run(range(BATCH))
    _require(isinstance(out, torch.Tensor), bench, f"expected a tensor; got {type(out).__name__}")
    shape = (BATCH, 3, SIZE, SIZE)
    _require(tuple(out.shape) == shape, bench, f"expected shape {shape}; got {tuple(out.shape)}")
    _require(out.is_floating_point(), bench, f"expected floats; got {out.dtype}")
    _require(bool(torch.isfinite(out).all()), bench, "the output holds NaN or infinity")
    low, high = float(out.min()), float(out.max())
    _require(low >= 0 and high <= 1, bench, f"expected values in [0, 1]; got [{low:g}, {high:g}]")


def check_source_hidden(bench: Workbench) -> None:
    """No source passes through: no released image equals a source image, of any person."""
    released, source = quantize(bench.released).flatten(1), bench.images.pixels.flatten(1)
    copies = [i for i, image in enumerate(released) if bool((image == source).all(1).any())]
    _require(
        not copies,
        bench,
        f"{len(copies)} of {BATCH} released images are source images, unchanged "
        "(tag a positive control as such)",
    )


def check_input_unchanged(bench: Workbench) -> None:
    """Neither the batch nor the seeds are written to."""
    batch, seeds = bench.batch(range(BATCH)), list(bench.seeds[:BATCH])
    pixels, subject, given = batch.pixels.clone(), batch.subject.copy(), list(seeds)
    bench.call(batch, seeds)
    _require(torch.equal(batch.pixels, pixels), bench, "it changed the pixels that it was given")
    _require(np.array_equal(batch.subject, subject), bench, "it changed the batch's subjects")
    _require(seeds == given, bench, "it changed the list of seeds")


def check_repeatable(bench: Workbench) -> None:
    """Same images and seeds, same bits: after other calls, in a new object, whatever the
    global random state is.
    """
    expected = bench.released
    state, legacy = torch.get_rng_state(), np.random.get_state()
    try:
        for seed in (1, 2):
            torch.manual_seed(seed)
            np.random.seed(seed)
            _same(bench, bench.run(range(BATCH)), expected, "when it was called again")
    finally:
        torch.set_rng_state(state)
        np.random.set_state(legacy)
    _same(bench, Workbench(bench.spec).released, expected, "in a second object")


def check_order(bench: Workbench) -> None:
    """An image's result does not depend on its place in the batch, bit for bit."""
    backwards = list(range(BATCH))[::-1]
    _same(bench, bench.run(backwards), bench.released[backwards], "when the order was reversed")


def check_companions(bench: Workbench) -> None:
    """An image's result does not depend on the other images of a batch of the same shape."""
    first, second = [0, *range(BATCH, 2 * BATCH - 1)], [*range(BATCH, 2 * BATCH - 1), 1]
    _same(bench, bench.run(first)[:1], bench.released[:1], "among other images")
    _same(bench, bench.run(second)[-1:], bench.released[1:2], "among other images")


def check_batch_shape(bench: Workbench) -> None:
    """An image alone comes out as in a batch, within one grey level."""
    alone = bench.run([0]).cpu()
    gap = float((alone - bench.released[:1]).abs().max())
    _require(
        gap <= BETWEEN_SHAPES,
        bench,
        f"an image alone differs from the same image in a batch by {gap:.4f} "
        f"(at most {BETWEEN_SHAPES:.4f})",
    )


def check_identity_withheld(bench: Workbench) -> None:
    """Subjects and sample ids do not influence the result."""
    batch = bench.batch(range(BATCH))
    named = replace(batch, subject=np.arange(BATCH), keys=bench.images.keys[:BATCH])
    _same(bench, bench.call(named, bench.seeds[:BATCH]), bench.released, "with known subjects")


def check_seed_of_each_image(bench: Workbench) -> None:
    """Another seed for one image leaves the others as they were."""
    seeds = list(bench.seeds[:BATCH])
    seeds[1] = sample_seed(1, "another")
    others = [i for i in range(BATCH) if i != 1]
    out = bench.run(range(BATCH), seeds)
    _same(bench, out[others], bench.released[others], "when only another image's seed changed")


def check_stochastic(bench: Workbench) -> None:
    """Tagged stochastic: other seeds give other images, and a batch shares no randomness."""
    out = bench.run(range(BATCH), [sample_seed(1, k) for k in bench.images.keys[:BATCH]])
    _require(
        not torch.equal(out.cpu(), bench.released),
        bench,
        "it is tagged stochastic, and other seeds change nothing",
    )
    twins = bench.run([0] * BATCH, bench.seeds[:BATCH]).cpu()
    _require(
        not torch.equal(twins[0], twins[1]),
        bench,
        "it is tagged stochastic, and one image with two seeds came out the same",
    )


def check_deterministic(bench: Workbench) -> None:
    """Not tagged stochastic: seeds change nothing."""
    out = bench.run(range(BATCH), [sample_seed(1, k) for k in bench.images.keys[:BATCH]])
    _same(bench, out, bench.released, "with other seeds (tag it stochastic)")


# --- what a detector does ----------------------------------------------------------------------


def check_detections(bench: Workbench) -> None:
    """Five points and a score for each image: all finite, or all NaN where no face was found."""
    count, found = len(bench.faces), bench.detector.detect(bench.faces)
    _require(
        isinstance(found, Detections), bench, f"expected Detections; got {type(found).__name__}"
    )
    for name, array, shape in (
        ("points", found.points, (count, 5, 2)),
        ("score", found.score, (count,)),
    ):
        _require(array.shape == shape, bench, f"{name} must be {shape}; got {array.shape}")
        _require(array.dtype == np.float32, bench, f"{name} must be float32; got {array.dtype}")
    numbers = np.concatenate([found.points.reshape(count, -1), found.score[:, None]], axis=1)
    _require(
        bool((np.isfinite(numbers).all(1) | np.isnan(numbers).all(1)).all()),
        bench,
        "points and score of an image must be finite together, or NaN together: no face",
    )
    across = found.points[found.found][:, 1, 0] - found.points[found.found][:, 0, 0]
    _require(
        not len(across) or bool(np.median(across) > 0),
        bench,
        "the first point must be the eye on the image's left",
    )
    none = bench.detector.detect(bench.faces[:0])
    _require(none.points.shape == (0, 5, 2), bench, "no images must give no points: (0, 5, 2)")


def check_detector_input_unchanged(bench: Workbench) -> None:
    """The images are not written to."""
    pixels = bench.faces.clone()
    bench.detector.detect(pixels)
    _require(torch.equal(pixels, bench.faces), bench, "it changed the images that it was given")


def check_detector_batch(bench: Workbench) -> None:
    """An image alone, and in another place of the batch, gives the same points, bit for bit."""
    found = bench.detector.detect(bench.faces)
    backwards = bench.detector.detect(bench.faces.flip(0))
    alone = bench.detector.detect(bench.faces[-1:])
    for other, rows, when in (
        (backwards, slice(None, None, -1), "when the order was reversed"),
        (alone, slice(-1, None), "when it came alone"),
    ):
        _require(
            np.array_equal(found.points[rows], other.points, equal_nan=True)
            and np.array_equal(found.score[rows], other.score, equal_nan=True),
            bench,
            f"an image gave other points {when}",
        )


def _same(bench: Workbench, got: torch.Tensor, expected: torch.Tensor, when: str) -> None:
    got = got.cpu()
    if torch.equal(got, expected):
        return
    gap = float((got.float() - expected.float()).abs().max()) if got.shape == expected.shape else 1
    raise PluginError(f"{bench.spec.id}: an image came out different {when} (by up to {gap:.2g}).")


def _require(condition: bool, bench: Workbench, problem: str) -> None:
    if not condition:
        raise PluginError(f"{bench.spec.id}: {problem}.")


def _drawing(index: int) -> torch.Tensor:
    """(3, SIZE, SIZE) floats in [0, 1]: an oval with eyes and a mouth before a gradient."""
    rng = np.random.default_rng(index)
    y, x = np.mgrid[-1 : 1 : SIZE * 1j, -1 : 1 : SIZE * 1j]
    colour = rng.uniform(0.2, 0.9, size=(4, 3, 1, 1))
    image = colour[0] * (y + 1) / 2 + colour[1] * (1 - y) / 2
    wide, high = rng.uniform(0.4, 0.7, size=2)
    for cx, cy, rx, ry, c in (
        (0.0, 0.0, wide, high + 0.15, colour[2]),
        (-0.2, -0.15, 0.08, 0.05, 0.1 * colour[3]),
        (0.2, -0.15, 0.08, 0.05, 0.1 * colour[3]),
        (0.0, 0.3, 0.2, 0.05, colour[3]),
    ):
        image = np.where(((x - cx) / rx) ** 2 + ((y - cy) / ry) ** 2 < 1, c, image)
    return torch.from_numpy(image).float()
