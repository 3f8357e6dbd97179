"""What a detector does."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property

import numpy as np
import torch

from privbench.errors import PluginError
from privbench.spec import PluginSpec
from privbench.testing import conduct
from privbench.testing.bench import Results, UsableBench
from privbench.testing.check import require
from privbench.testing.drawings import drawing
from privbench.types import Detections, Detector, quantize


def checks(spec: PluginSpec) -> list[Callable[[DetectorBench], None]]:
    """The checks of a detector."""
    return [check_output, check_input_unchanged, *conduct.CHECKS, check_companions]


class DetectorBench(UsableBench):
    """A detector, with faces."""

    @cached_property
    def faces(self) -> torch.Tensor:
        """(N, 3, H, W) uint8: the faces to detect, the kit's own drawings unless others are set."""
        return quantize(torch.stack([drawing(i) for i in range(4)]))

    def make(self) -> Detector:
        """Built with the smoke configuration."""
        made: Detector = self.spec.build(self.config)
        return made

    def use(self, made: Detector) -> Results:
        """What it finds."""
        found = made.detect(self.faces.clone())
        if not isinstance(found, Detections):
            raise PluginError(f"{self.spec.id}: expected Detections; got {type(found).__name__}.")
        return {"points": found.points, "score": found.score}

    @cached_property
    def found(self) -> Detections:
        """In the faces, by the shared detector."""
        return Detections(self.first["points"], self.first["score"])


def check_output(bench: DetectorBench) -> None:
    """Five points and a score for each image: all finite, or all NaN where no face was found."""
    count, found = len(bench.faces), bench.found
    for name, array, shape in (
        ("points", found.points, (count, 5, 2)),
        ("score", found.score, (count,)),
    ):
        require(array.shape == shape, bench, f"{name} must be {shape}; got {array.shape}")
        require(array.dtype == np.float32, bench, f"{name} must be float32; got {array.dtype}")
    numbers = np.concatenate([found.points.reshape(count, -1), found.score[:, None]], axis=1)
    require(
        bool((np.isfinite(numbers).all(1) | np.isnan(numbers).all(1)).all()),
        bench,
        "points and score of an image must be finite together, or NaN together: no face",
    )
    across = found.points[found.found][:, 1, 0] - found.points[found.found][:, 0, 0]
    require(
        not len(across) or bool(np.median(across) > 0),
        bench,
        "the first point must be the eye on the image's left",
    )
    none = bench.made.detect(bench.faces[:0])
    require(none.points.shape == (0, 5, 2), bench, "no images must give no points: (0, 5, 2)")


def check_input_unchanged(bench: DetectorBench) -> None:
    """The images are not written to."""
    given = bench.faces.clone()
    bench.made.detect(given)
    require(torch.equal(given, bench.faces), bench, "it changed the images that it was given")


def check_companions(bench: DetectorBench) -> None:
    """An image alone, and in another place of the batch, gives the same points, bit for bit."""
    found = bench.found
    backwards = bench.made.detect(bench.faces.flip(0))
    alone = bench.made.detect(bench.faces[-1:])
    for other, rows, when in (
        (backwards, slice(None, None, -1), "when the order was reversed"),
        (alone, slice(-1, None), "when it came alone"),
    ):
        require(
            np.array_equal(found.points[rows], other.points, equal_nan=True)
            and np.array_equal(found.score[rows], other.score, equal_nan=True),
            bench,
            f"an image gave other points {when}",
        )
