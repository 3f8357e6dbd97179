"""What an anonymizer does."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property

import numpy as np
import torch

from privbench.errors import PluginError
from privbench.keys import sample_seed
from privbench.spec import PluginSpec
from privbench.testing import conduct
from privbench.testing.bench import Results, UsableBench
from privbench.testing.check import Workbench, require
from privbench.testing.copies import RECOVERED, recoverable
from privbench.testing.drawings import SIZE, drawing
from privbench.types import (
    UNKNOWN,
    Anonymizer,
    Fittable,
    ImageBatch,
    ImageSet,
    quantize,
)

BATCH = 4
"""Images in a batch."""

BETWEEN_SHAPES = 1 / 255
"""How far outputs may differ between batch shapes: one grey level."""


def checks(spec: PluginSpec) -> list[Callable[[AnonymizerBench], None]]:
    """The checks that an anonymizer gets by its tags."""
    return [
        check_fit,
        check_output,
        check_plain_result,
        *([check_source_hidden] if spec.tags.control != "positive" else []),
        check_input_unchanged,
        *conduct.CHECKS,
        check_order,
        check_companions,
        check_batch_shape,
        check_identity_withheld,
        check_seed_of_each_image,
        check_stochastic if spec.tags.stochastic else check_deterministic,
    ]


class AnonymizerBench(UsableBench):
    """An anonymizer, with images to try it on."""

    @cached_property
    def images(self) -> ImageSet:
        """2 x BATCH distinct images."""
        count = 2 * BATCH
        return ImageSet(
            quantize(torch.stack([drawing(i) for i in range(count)])),
            np.arange(count, dtype=np.int64),
            tuple(f"kit-{i}" for i in range(count)),
        )

    @cached_property
    def seeds(self) -> tuple[int, ...]:
        """One 63-bit seed per image."""
        return tuple(sample_seed(0, key) for key in self.images.keys)

    def make(self) -> Anonymizer:
        """Built with the smoke configuration, and fitted if its tag asks for it."""
        made = self.build()
        if self.spec.tags.fit_on is None:
            return made
        if not isinstance(made, Fittable):
            raise PluginError(
                f"{self.spec.id} is tagged fit_on={self.spec.tags.fit_on!r} and has no `fit`."
            )
        withheld = replace(self.images, pixels=self.images.pixels.clone())
        return made.fit(withheld)

    def use(self, made: Anonymizer) -> Results:
        """What it makes of the first images."""
        batch = self.batch(range(BATCH))
        return {"release": _call(made, batch, self.seeds[:BATCH])}

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
        """Anonymize a batch with the shared plugin."""
        return _call(self.made, batch, seeds)

    @cached_property
    def released(self) -> torch.Tensor:
        """(BATCH, 3, SIZE, SIZE): what became of the first images."""
        found: torch.Tensor = self.first["release"].cpu().clone()
        return found


def _call(made: Anonymizer, batch: ImageBatch, seeds: Sequence[int]) -> torch.Tensor:
    """Anonymize, as the harness does it."""
    with torch.inference_mode():
        return made.anonymize(batch, seeds)


def check_fit(bench: AnonymizerBench) -> None:
    """A method `fit` is there exactly when the tag says so, and returns a new object."""
    made = bench.build()
    if bench.spec.tags.fit_on is None:
        require(
            not isinstance(made, Fittable), bench, "it has `fit`, so Tags.fit_on must say on what"
        )
        return
    require(isinstance(made, Fittable), bench, "Tags.fit_on is set and there is no `fit`")
    if isinstance(made, Fittable):
        require(made.fit(bench.images) is not made, bench, "fit must return a new object")


def check_output(bench: AnonymizerBench) -> None:
    """The release has the shape of its source and finite floats in [0, 1]."""
    out = bench.run(range(BATCH))
    require(isinstance(out, torch.Tensor), bench, f"expected a tensor; got {type(out).__name__}")
    shape = (BATCH, 3, SIZE, SIZE)
    require(tuple(out.shape) == shape, bench, f"expected shape {shape}; got {tuple(out.shape)}")
    require(out.is_floating_point(), bench, f"expected floats; got {out.dtype}")
    require(bool(torch.isfinite(out).all()), bench, "the output holds NaN or infinity")
    low, high = float(out.min()), float(out.max())
    require(low >= 0 and high <= 1, bench, f"expected values in [0, 1]; got [{low:g}, {high:g}]")


def check_plain_result(bench: AnonymizerBench) -> None:
    """The result is pixels and nothing else: a plain tensor that carries no attributes."""
    out = bench.run(range(BATCH))
    kind = type(out)
    require(kind is torch.Tensor, bench, f"expected a plain torch.Tensor; got {kind.__name__}")
    extra = sorted(vars(out))
    require(not extra, bench, f"the result carries more than pixels: {', '.join(extra)}")


def check_source_hidden(bench: AnonymizerBench) -> None:
    """No source passes through under another name: no source of the batch can be had from a
    release by turning, mirroring and mixing colours.
    """
    copies = recoverable(quantize(bench.released), bench.images.pixels)
    require(
        not copies,
        bench,
        f"{len(copies)} of {BATCH} released images are source images, or become one, within "
        f"{RECOVERED:g} grey level(s), when turned, mirrored or recoloured "
        "(tag a positive control as such)",
    )


def check_input_unchanged(bench: AnonymizerBench) -> None:
    """Neither the batch nor the seeds are written to."""
    batch, seeds = bench.batch(range(BATCH)), list(bench.seeds[:BATCH])
    pixels, subject, given = batch.pixels.clone(), batch.subject.copy(), list(seeds)
    bench.call(batch, seeds)
    require(torch.equal(batch.pixels, pixels), bench, "it changed the pixels that it was given")
    require(np.array_equal(batch.subject, subject), bench, "it changed the batch's subjects")
    require(seeds == given, bench, "it changed the list of seeds")


def check_order(bench: AnonymizerBench) -> None:
    """An image's result does not depend on its place in the batch, bit for bit."""
    backwards = list(range(BATCH))[::-1]
    same(bench, bench.run(backwards), bench.released[backwards], "when the order was reversed")


def check_companions(bench: AnonymizerBench) -> None:
    """An image's result does not depend on the other images of a batch of the same shape."""
    first, second = [0, *range(BATCH, 2 * BATCH - 1)], [*range(BATCH, 2 * BATCH - 1), 1]
    same(bench, bench.run(first)[:1], bench.released[:1], "among other images")
    same(bench, bench.run(second)[-1:], bench.released[1:2], "among other images")


def check_batch_shape(bench: AnonymizerBench) -> None:
    """An image alone comes out as in a batch, within one grey level."""
    alone = bench.run([0]).cpu()
    gap = float((alone - bench.released[:1]).abs().max())
    require(
        gap <= BETWEEN_SHAPES,
        bench,
        f"an image alone differs from the same image in a batch by {gap:.4f} "
        f"(at most {BETWEEN_SHAPES:.4f})",
    )


def check_identity_withheld(bench: AnonymizerBench) -> None:
    """Subjects and sample ids do not influence the result."""
    batch = bench.batch(range(BATCH))
    named = replace(batch, subject=np.arange(BATCH), keys=bench.images.keys[:BATCH])
    same(bench, bench.call(named, bench.seeds[:BATCH]), bench.released, "with known subjects")


def check_seed_of_each_image(bench: AnonymizerBench) -> None:
    """Another seed for one image leaves the others as they were."""
    seeds = list(bench.seeds[:BATCH])
    seeds[1] = sample_seed(1, "another")
    others = [i for i in range(BATCH) if i != 1]
    out = bench.run(range(BATCH), seeds)
    same(bench, out[others], bench.released[others], "when only another image's seed changed")


def check_stochastic(bench: AnonymizerBench) -> None:
    """Tagged stochastic: other seeds give other images, and a batch shares no randomness."""
    out = bench.run(range(BATCH), [sample_seed(1, k) for k in bench.images.keys[:BATCH]])
    require(
        not torch.equal(out.cpu(), bench.released),
        bench,
        "it is tagged stochastic, and other seeds change nothing",
    )
    twins = bench.run([0] * BATCH, bench.seeds[:BATCH]).cpu()
    require(
        not torch.equal(twins[0], twins[1]),
        bench,
        "it is tagged stochastic, and one image with two seeds came out the same",
    )


def check_deterministic(bench: AnonymizerBench) -> None:
    """Not tagged stochastic: seeds change nothing."""
    out = bench.run(range(BATCH), [sample_seed(1, k) for k in bench.images.keys[:BATCH]])
    same(bench, out, bench.released, "with other seeds (tag it stochastic)")


def same(bench: Workbench, got: torch.Tensor, expected: torch.Tensor, when: str) -> None:
    """Two results agree, bit for bit.

    Raises:
        PluginError: they do not.
    """
    got = got.cpu()
    if torch.equal(got, expected):
        return
    gap = float((got.float() - expected.float()).abs().max()) if got.shape == expected.shape else 1
    raise PluginError(f"{bench.spec.id}: an image came out different {when} (by up to {gap:.2g}).")
