"""Anonymize some probes of a published record again, and compare with what it released."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from privbench.bundle import SHA, SMALL, prints
from privbench.data import load_part, split
from privbench.errors import DataError, RecordError
from privbench.keys import sample_seed, stage_seed
from privbench.plan import Choice, open_dataset, refuse_random, released_with, resolve
from privbench.progress import Reporter
from privbench.recompute import preset_of
from privbench.record import Record
from privbench.registry import Registry
from privbench.release import fit, joined, timed_batch
from privbench.session import blame
from privbench.store import Arrays

ALIKE = 3.0
"""Largest mean difference, in grey levels, between small copies of one image made on two machines:
what rounding does where one computes in half precision."""


@dataclass(frozen=True, slots=True)
class Found:
    """What became of a rerun.

    Attributes:
        images: probes anonymized again.
        of: probes of the record.
        identical: those that are the same in every bit.
        apart: sample ids of those that differ by more than `ALIKE`, or look more like the release
            of another probe.
    """

    images: int
    of: int
    identical: int
    apart: tuple[str, ...]


def rerun(
    record: Record,
    arrays: Arrays,
    fraction: float,
    *,
    dataset: Choice,
    device: torch.device,
    seed: int,
    registry: Registry,
    reporter: Reporter,
) -> Found:
    """Anonymize a random share of the probes with the record's settings.

    Args:
        arrays: of the record's bundle.
        fraction: of the probes, above 0 and at most 1; at least one is anonymized.
        dataset: where the record's images are.
        seed: which probes.

    Raises:
        PrivbenchError: the data are others than the record's, the plugin is not here in the
            record's version, or it fails.
    """
    preset, ref = preset_of(record), record.anonymizer
    plugin = resolve(registry, "anonymizer", Choice(id=ref.id, settings=ref.config))
    refuse_random(plugin)
    installed = plugin.registered.spec.version
    if installed != ref.version:
        raise RecordError(
            f"Version {ref.version} of {ref.id} made the record; version {installed} is installed."
        )
    if dict(plugin.weights) != ref.weights:
        raise RecordError(f"The weights of {ref.id} that are here are not those of the record.")
    data = open_dataset(registry, resolve(registry, "dataset", dataset))
    if data.digest != record.dataset["digest"]:
        raise DataError(
            f"{dataset.id} is not the data of the record: its digest is {data.digest[:12]}…, and "
            f"{record.dataset['digest'][:12]}… is wanted. --dataset says where they are."
        )
    parts = split(data, preset).parts()
    rng = np.random.default_rng(stage_seed(seed, "rerun", record.keys["record"]))
    probes = parts["probes"]
    count = max(1, round(fraction * len(probes)))
    rows = np.sort(rng.choice(len(probes), count, replace=False))
    with blame(plugin, "building"):
        made = plugin.registered.spec.build(plugin.config)
        mover = getattr(made, "to", None)
        made = mover(device) if mover else made
    on = plugin.registered.spec.tags.fit_on
    if on is not None:
        names = ("background",) if on == "background" else released_with("probes")
        made = fit(plugin, made, joined([load_part(data, parts[name]) for name in names]))
    images = load_part(data, probes[rows])
    fixed = bool(record.release.get("fixed_seed"))
    seeds = [sample_seed(record.seed, "fixed" if fixed else key, 0) for key in images.keys]
    size, pixels = plugin.batch_size, []
    with reporter.task(f"{ref.id}: anonymizing again", count) as task:
        for start in range(0, count, size):
            chunk = images.take(np.arange(start, min(start + size, count)))
            out, _, _ = timed_batch(plugin, made, device, chunk, seeds[start : start + size], size)
            pixels.append(out)
            task.advance(len(chunk))
    return compare(torch.cat(pixels), rows, images.keys, arrays)


def compare(pixels: torch.Tensor, rows: np.ndarray, keys: tuple[str, ...], arrays: Arrays) -> Found:
    """Images against the prints of a bundle.

    Args:
        pixels: (n, 3, H, W) uint8, of the probes `rows`.
        rows: (n,) places among the N probes.
        keys: their n sample ids.
        arrays: of the bundle.
    """
    mine, small = prints(pixels), arrays[SMALL].astype(np.float64)
    same = (mine[SHA] == arrays[SHA][rows]).all(axis=1)
    apart = []
    for i, row in enumerate(rows):
        gaps = np.abs(small - mine[SMALL][i]).mean(axis=(1, 2, 3))
        if not same[i] and (gaps[row] > ALIKE or gaps[row] > gaps.min()):
            apart.append(keys[i])
    return Found(len(rows), len(small), int(same.sum()), tuple(apart))
