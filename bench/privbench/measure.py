"""Speed and memory of an anonymizer alone: no attack, no identities, no number about privacy."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from privbench.data import Dataset, get_preset, load_part, split
from privbench.errors import ConfigError, PluginError, PrivbenchError
from privbench.isolate import Failure, Isolation, isolated
from privbench.keys import sample_seed
from privbench.plan import (
    Choice,
    Resolved,
    dtype_of,
    is_random,
    open_dataset,
    parse_settings,
    resolve,
)
from privbench.progress import Reporter, Silent
from privbench.registry import Registry, load_registry
from privbench.release import at_once, fit, timed_batch
from privbench.results import PACKAGES, package_version, plugin_ref
from privbench.session import blame
from privbench.spec import Kind
from privbench.timing import fingerprint, pick_device, same_threads, stopwatch, to_json
from privbench.timing_record import TimingRecord, write_timing
from privbench.types import Anonymizer, ImageSet, Timing, quantize
from privbench.worker import Run, in_words

TIMINGS = ".privbench/timings"
BATCHES = 5
"""Batches that are timed where no number of images is asked for."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """How to measure.

    Attributes:
        device: where.
        images: at least so many are timed, in whole batches; None: `BATCHES` batches.
        warmup: batches before the clock counts, at least 1.
        seed: of the run.
        protocol: the preset whose background part fits what must be fitted on one.
    """

    device: torch.device
    images: int | None = None
    warmup: int = 1
    seed: int = 0
    protocol: str = "auto"


@dataclass(frozen=True, slots=True)
class Timings:
    """What is to be measured, all of it checked.

    Attributes:
        asked: what `plan_timings` was called with.
        plugins: each anonymizer at each batch size.
        source: the data set whose images are anonymized.
    """

    asked: Mapping[str, Any]
    plugins: Sequence[tuple[Resolved, int]]
    source: Resolved
    data: Dataset
    wanted: Wanted

    def measure(self, place: int, reporter: Reporter) -> TimingRecord:
        """One of the plugins, as `measure` does."""
        plugin, size = self.plugins[place]
        return measure(plugin, size, self.source, self.data, self.wanted, reporter)


def time_anonymizers(
    anonymizers: Sequence[str],
    *,
    records: str | None = TIMINGS,
    reporter: Reporter | None = None,
    registry: Registry | None = None,
    **how: Any,
) -> Iterator[TimingRecord]:
    """Measure anonymizers one after the other, each at every batch size.

    Ids, settings and models are checked before anything is timed.

    Args:
        anonymizers: their ids.
        records: directory for the timing records; None writes none.
        reporter: progress.
        registry: the plugins to choose from; the installed ones by default.
        how: as for `plan_timings`.

    Yields:
        One record for each anonymizer and batch size, when it is done and written.

    Raises:
        PrivbenchError: before the first record if ids, settings, models or data are at fault;
            later if an anonymizer fails.
    """
    timings = plan_timings(anonymizers, registry=registry, **how)
    return (
        _written(timings.measure(place, reporter or Silent()), records)
        for place in range(len(timings.plugins))
    )


def run_timings(
    timings: Timings,
    *,
    records: str | None = TIMINGS,
    reporter: Reporter | None = None,
    isolate: Isolation | None = None,
) -> tuple[list[TimingRecord], list[Failure]]:
    """Measure all that can be measured; an anonymizer that fails stops no other.

    Args:
        timings: from `plan_timings`.
        records: directory for the timing records; None writes none.
        reporter: progress.
        isolate: as for `privbench.api.run_study`; each anonymizer is a cell.
    """
    done: list[TimingRecord] = []
    failures: list[Failure] = []
    told = reporter or Silent()
    given = {"asked": timings.asked, "threads": torch.get_num_threads()}
    with isolated("privbench.measure:open_timings", given, isolate, told) as worker:
        for place, (plugin, size) in enumerate(timings.plugins):
            try:
                if worker is None:
                    record = timings.measure(place, told)
                else:
                    record = TimingRecord.model_validate(worker.run(str(place)))
            except PrivbenchError as error:
                failures.append(Failure(f"{plugin.id}, batch {size}", error))
            except SystemExit as error:
                failures.append(Failure(f"{plugin.id}, batch {size}", PluginError(in_words(error))))
            else:
                done.append(_written(record, records))
    return done, failures


def open_timings(given: Mapping[str, Any], reporter: Reporter) -> Run:
    """In a worker: plan the same timings once more, then measure by place."""
    same_threads(given["threads"])
    timings = plan_timings(**given["asked"])
    return lambda place: timings.measure(int(place), reporter).model_dump(mode="json")


def plan_timings(
    anonymizers: Sequence[str],
    *,
    settings: Sequence[str] = (),
    dataset: str = "synthfaces",
    protocol: str = "auto",
    device: str = "auto",
    images: int | None = None,
    batch: Sequence[int] = (),
    warmup: int = 1,
    seed: int = 0,
    registry: Registry | None = None,
) -> Timings:
    """Check ids, settings, models and data.

    Args:
        anonymizers: their ids.
        settings: `key=value` or `plugin.key=value`, as for a run.
        dataset: whose images are anonymized.
        protocol: the preset whose background part fits what must be fitted on one.
        device: `auto`, `cpu`, `cuda`, `cuda:1`, ...
        images: at least so many are timed, in whole batches; None: five batches.
        batch: batch sizes; empty: each anonymizer's own.
        warmup: batches before the clock counts.
        seed: of the anonymizers' randomness.
        registry: the plugins to choose from; the installed ones by default.

    Raises:
        PrivbenchError: something of it is at fault.
    """
    asked = {
        "anonymizers": list(anonymizers), "settings": list(settings), "dataset": dataset,
        "protocol": protocol, "device": device, "images": images, "batch": list(batch),
        "warmup": warmup, "seed": seed,
    }  # fmt: skip
    if not anonymizers:
        raise ConfigError("Say what to time: ids of anonymizers. `privbench list` shows them.")
    for what, number, least in (("images", images, 1), ("warmup", warmup, 1), ("seed", seed, 0)):
        if number is not None and number < least:
            raise ConfigError(f"{what} must be {least} or more; got {number}.")
    registry = registry or load_registry()
    selected: list[tuple[Kind, str]] = [("anonymizer", a) for a in dict.fromkeys(anonymizers)]
    given = parse_settings(settings, [*selected, ("dataset", dataset)], registry)
    plugins = [
        resolved
        for _, name in selected
        for resolved in _sizes(registry, name, given["anonymizer", name], batch)
    ]
    for plugin, _ in plugins:
        if plugin.registered.spec.tags.generates:
            raise ConfigError(
                f"{plugin.id} is trained on the images to protect and releases samples: it cannot "
                "be timed alone. Its run prints how fast it trains and samples."
            )
    source = resolve(registry, "dataset", Choice(id=dataset, settings=given["dataset", dataset]))
    data = open_dataset(registry, source)
    wanted = Wanted(pick_device(device), images, warmup, seed, protocol)
    return Timings(asked, plugins, source, data, wanted)


def _sizes(
    registry: Registry, name: str, settings: Mapping[str, Any], batch: Sequence[int]
) -> list[tuple[Resolved, int]]:
    """The plugin at each batch size: by its own setting where it has one."""
    if any(size < 1 for size in batch):
        raise ConfigError(f"A batch size must be 1 or more; got {min(batch)}.")
    own = "batch_size" in registry.get("anonymizer", name).spec.config.model_fields
    if batch and "batch_size" in settings:
        raise ConfigError(f"Give --batch or --set {name}.batch_size, not both.")
    if not batch or not own:
        plugin = resolve(registry, "anonymizer", Choice(id=name, settings=dict(settings)))
        return [(plugin, size) for size in batch or (plugin.batch_size,)]
    choices = [Choice(id=name, settings={**settings, "batch_size": size}) for size in batch]
    return [(resolve(registry, "anonymizer", c), c.settings["batch_size"]) for c in choices]


def _written(record: TimingRecord, records: str | None) -> TimingRecord:
    """The record, written where it is wanted."""
    if records is not None:
        write_timing(record, Path(records))
    return record


def measure(
    plugin: Resolved,
    size: int,
    source: Resolved,
    data: Dataset,
    wanted: Wanted,
    reporter: Reporter,
) -> TimingRecord:
    """Measure one anonymizer at one batch size.

    Every batch is full and all have one shape. Images are taken evenly from the data set, and
    again from its start where it has too few; a model that works at a larger size is given
    them at that size, so that its output is not scaled down again.

    Raises:
        PrivbenchError: the anonymizer fails, or breaks its contract.
    """
    with blame(plugin, "building"), stopwatch(wanted.device) as built:
        made = plugin.registered.spec.build(plugin.config)
        mover = getattr(made, "to", None)
        made = mover(wanted.device) if mover else made
    batches = wanted.warmup + (BATCHES if wanted.images is None else -(-wanted.images // size))
    images = _images(data, batches * size, int(getattr(made, "resolution", 0)))
    start = time.perf_counter()
    fitted = _fitted(plugin, made, images, data, wanted)
    fit_seconds = None if fitted is made else time.perf_counter() - start
    seconds, peak = [], 0
    with reporter.task(f"{plugin.id}: timing, batch {size}", batches * size) as task:
        for first in range(0, batches * size, size):
            rows = np.arange(first, first + size) % len(images)
            seeds = [sample_seed(wanted.seed, images.keys[i], first // len(images)) for i in rows]
            chunk = _repeated(images, rows)
            _, took, memory = timed_batch(plugin, fitted, wanted.device, chunk, seeds, size)
            seconds.append(took)
            peak = max(peak, memory)
            task.advance(size)
    height, width = images.pixels.shape[2:]
    timing = Timing(
        stage=f"{plugin.id}: timing",
        seconds=tuple(seconds),
        images=(size,) * batches,
        warmup=wanted.warmup,
        batch_size=size,
        resolution=(int(height), int(width)),
        peak_bytes=peak,
        device=fingerprint(wanted.device),
        at_once=at_once(fitted, size),
    )
    spec = source.registered.spec
    return TimingRecord(
        label="timing-only" if is_random(plugin) else "measured",
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        privbench=package_version("privbench"),
        anonymizer=plugin_ref(plugin),
        dataset={"id": spec.id, "version": str(spec.version), "digest": data.digest},
        seed=wanted.seed,
        dtype=dtype_of(plugin, wanted.device.type),
        images=(batches - wanted.warmup) * size,
        build_seconds=built[0],
        fit_seconds=fit_seconds,
        timing=to_json(timing),
        packages={name: package_version(name) for name in PACKAGES},
    )


def _images(data: Dataset, count: int, side: int) -> ImageSet:
    """Up to `count` images, evenly from the whole data set, enlarged to `side` where smaller."""
    total = len(data.keys)
    rows = np.unique(np.linspace(0, total - 1, min(count, total)).round().astype(np.int64))
    images = load_part(data, rows)
    if side <= images.pixels.shape[-1]:
        return images
    pixels = torch.cat(
        [
            quantize(F.interpolate(part.float().div(255), (side, side), mode="bilinear"))
            for part in torch.split(images.pixels, 64)
        ]
    )
    return ImageSet(pixels, images.subject, images.keys)


def _repeated(images: ImageSet, rows: np.ndarray) -> ImageSet:
    """Rows with repetition, under ids of their own."""
    pixels = images.pixels[torch.from_numpy(rows)]
    return ImageSet(pixels, images.subject[rows], tuple(f"{i}" for i in range(len(rows))))


def _fitted(
    plugin: Resolved, made: Anonymizer, images: ImageSet, data: Dataset, wanted: Wanted
) -> Anonymizer:
    """The anonymizer, fitted as in a run: on a protocol's background, or on what it releases."""
    on = plugin.registered.spec.tags.fit_on
    if on is None:
        return made
    if on == "release":
        return fit(plugin, made, images)
    return fit(
        plugin, made, load_part(data, split(data, get_preset(wanted.protocol, data)).background)
    )
