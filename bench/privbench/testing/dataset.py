"""What a data set does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import numpy as np
import torch

from privbench.data import Dataset
from privbench.spec import PluginSpec
from privbench.testing import conduct
from privbench.testing.bench import Results, UsableBench
from privbench.testing.check import require

SOME = 6
"""Images that are decoded."""


def checks(spec: PluginSpec) -> list[Callable[[DatasetBench], None]]:
    """The checks of a data set."""
    return [
        check_labels,
        check_pixels,
        check_subset,
        check_digest,
        check_licence,
        *conduct.CHECKS,
    ]


class DatasetBench(UsableBench):
    """A data set, read with its smoke settings."""

    def make(self) -> Dataset:
        """Opened; where it aligns, without a detector."""
        build = cast(Callable[..., Any], self.spec.build)
        made: Dataset = (
            build(self.config, _no_detector) if self.spec.tags.aligns else build(self.config)
        )
        return made

    def use(self, made: Dataset) -> Results:
        """Labels and a few images."""
        return {
            "keys": made.keys,
            "subject": made.subject,
            "population": made.population,
            "digest": made.digest,
            "pixels": made.pixels(some(made)),
        }


def _no_detector(name: str) -> Any:
    raise LookupError(f"smoke settings must name no detector; got {name}")


def some(made: Dataset) -> np.ndarray:
    """A few rows, spread over the data set."""
    count = len(made.keys)
    rows: np.ndarray = np.unique(np.linspace(0, count - 1, min(SOME, count)).astype(np.int64))
    return rows


def check_labels(bench: DatasetBench) -> None:
    """Sample ids are distinct, every image has a subject and a population, attributes a label."""
    made = bench.made
    n = len(made.keys)
    require(n > 1, bench, f"it must have images; got {n}")
    require(len(set(made.keys)) == n, bench, "sample ids must be distinct")
    require(all(isinstance(k, str) for k in made.keys), bench, "sample ids must be strings")
    subject = np.asarray(made.subject)
    require(
        subject.shape == (n,) and subject.dtype == np.int64 and bool((subject >= 0).all()),
        bench,
        f"subject must be ({n},) int64 from 0; got {subject.shape} {subject.dtype}",
    )
    population = np.asarray(made.population)
    require(population.shape == (n,), bench, f"population must be ({n},); got {population.shape}")
    for name, labels in getattr(made, "attributes", {}).items():
        require(np.shape(labels) == (n,), bench, f"attribute {name!r} must be ({n},)")


def check_pixels(bench: DatasetBench) -> None:
    """Images are (n, 3, H, W) uint8 on the CPU."""
    pixels, rows = bench.first["pixels"], some(bench.made)
    require(isinstance(pixels, torch.Tensor), bench, f"expected a tensor; got {type(pixels)}")
    shape = tuple(pixels.shape)
    require(
        len(shape) == 4 and shape[:2] == (len(rows), 3) and min(shape[2:]) > 0,
        bench,
        f"pixels must be ({len(rows)}, 3, H, W); got {shape}",
    )
    require(
        pixels.dtype == torch.uint8 and pixels.device.type == "cpu",
        bench,
        f"pixels must be uint8 on the CPU; got {pixels.dtype} on {pixels.device}",
    )


def check_subset(bench: DatasetBench) -> None:
    """An image is the same alone, in another order and among others."""
    rows, pixels = some(bench.made), bench.first["pixels"]
    backwards = bench.made.pixels(rows[::-1].copy())
    require(
        torch.equal(backwards, pixels.flip(0)), bench, "images differ when asked in another order"
    )
    alone = bench.made.pixels(rows[-1:])
    require(torch.equal(alone, pixels[-1:]), bench, "an image alone differs from the same in a set")


def check_digest(bench: DatasetBench) -> None:
    """The digest is SHA-256 in lower-case hex."""
    digest = bench.made.digest
    require(
        len(digest) == 64 and set(digest) <= set("0123456789abcdef"),
        bench,
        f"digest must be SHA-256 in lower-case hex; got {digest!r}",
    )


def check_licence(bench: DatasetBench) -> None:
    """The licence of the images is given, and the data set has a name for the record."""
    made = bench.made
    require(bool(made.name.strip()), bench, "name must not be empty")
    require(bool(made.licence.strip()), bench, "licence must say under what terms the images are")
