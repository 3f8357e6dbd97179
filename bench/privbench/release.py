"""Release: the anonymized images of one part, batch by batch."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import cast

import numpy as np
import torch

from privbench.data import load_part
from privbench.errors import PluginError
from privbench.keys import canonical_json, sample_seed
from privbench.plan import Cell, Resolved, Step, drawn, part_and_draw, released_with
from privbench.session import Session, blame
from privbench.store import Artefact
from privbench.timing import fingerprint, memory_bytes, reset_peak, stopwatch, to_json
from privbench.types import (
    UNKNOWN,
    Anonymizer,
    Fittable,
    ImageBatch,
    ImageSet,
    Timing,
    quantize,
)


def anonymize(session: Session, cell: Cell, name: str) -> Artefact:
    """The released images of one draw of one part; whole batches survive a kill.

    Args:
        name: a key of `cell.anonymize`.
    """
    step, store = cell.anonymize[name], session.store
    if done := store.find(step.stage, step.plugin, step.key):
        return done
    part, draw = part_and_draw(name)
    rows = session.plan.split.parts()[part]
    size = cell.anonymizer.batch_size
    existing = store.parts(step.key)
    todo = [i for i in range(0, len(rows), size) if i // size not in existing]
    plugin: Anonymizer | None = None
    left = sum(len(rows[i : i + size]) for i in todo)
    device = canonical_json(fingerprint(session.device)).encode()
    with session.reporter.task(step.label, left) as task:
        for start in todo:
            first = plugin is None
            plugin = plugin or fitted(session, cell, part)
            images = load_part(session.plan.data, rows[start : start + size])
            seeds = seeds_for(session, cell, images.keys, draw)
            pixels, seconds, memory = anonymize_batch(session, cell, plugin, images, seeds)
            arrays = {
                "pixels": pixels.numpy(),
                "seconds": np.array([seconds]),
                "memory": np.array([memory]),
                "warmup": np.array([int(first)]),
                "at_once": np.array([at_once(plugin, size)]),
                "device": np.frombuffer(device, np.uint8),
            }
            existing[start // size] = store.write_part(step.key, start // size, arrays)
            task.advance(len(images))
    names = tuple(existing[i] for i in sorted(existing))
    notes = {"timing": [to_json(t) for t in _timings(session, step, names, size)]}
    return store.commit(step.stage, step.plugin, step.key, step.inputs, names, notes)


def seeds_for(session: Session, cell: Cell, keys: Sequence[str], draw: int) -> list[int]:
    """One seed per sample; one for all where the ablation asks for it."""
    run = session.plan.study.seed
    if cell.fixed_seed:
        return [sample_seed(run, "fixed", draw)] * len(keys)
    return [sample_seed(run, key, draw) for key in keys]


def fitted(session: Session, cell: Cell, part: str) -> Anonymizer:
    """The anonymizer, fitted on what its tag names."""
    plugin = session.build(cell.anonymizer)
    on = cell.anonymizer.registered.spec.tags.fit_on
    if on is None:
        return cast(Anonymizer, plugin)
    with blame(cell.anonymizer, f"fitting on {on}"):
        parts = ("background",) if on == "background" else released_with(part)
        reference = joined([session.part(name) for name in parts])
    return fit(cell.anonymizer, plugin, reference)


def fit(plugin: Resolved, made: object, reference: ImageSet) -> Anonymizer:
    """An anonymizer fitted on reference images.

    Raises:
        PluginError: it has no `fit`, or that raised.
    """
    on = plugin.registered.spec.tags.fit_on
    with blame(plugin, f"fitting on {on}"):
        if not isinstance(made, Fittable):
            raise PluginError(
                f"The anonymizer {plugin.id} is tagged fit_on={on!r} and has no `fit`."
            )
        return made.fit(reference)


def anonymize_batch(
    session: Session, cell: Cell, plugin: Anonymizer, images: ImageSet, seeds: Sequence[int]
) -> tuple[torch.Tensor, float, int]:
    """One batch of a run: (uint8 pixels, seconds, memory in bytes)."""
    size = cell.anonymizer.batch_size
    return timed_batch(cell.anonymizer, plugin, session.device, images, seeds, size)


def timed_batch(
    plugin: Resolved,
    made: Anonymizer,
    device: torch.device,
    images: ImageSet,
    seeds: Sequence[int],
    size: int,
) -> tuple[torch.Tensor, float, int]:
    """One batch, padded to `size` images: (uint8 pixels, seconds, memory in bytes).

    Timed are the copy to the device, the anonymizer, and the wait until the device is done.

    Raises:
        PluginError: the anonymizer raised, or broke its contract.
    """
    n = len(images)
    pad = [i % n for i in range(size)]
    padded = images.pixels[torch.tensor(pad)]
    keys = tuple(f"{i}" for i in range(size))
    reset_peak(device)
    with blame(plugin, "anonymizing"), torch.inference_mode():
        with stopwatch(device) as seconds:
            floats = padded.to(device, non_blocking=True).float().div_(255)
            batch = ImageBatch(floats, np.full(size, UNKNOWN), keys)
            out = made.anonymize(batch, [seeds[i] for i in pad])
        checked(plugin, out, tuple(padded.shape))
        pixels = quantize(out[:n])
    return pixels, seconds[0], memory_bytes(device)


def at_once(made: object, size: int) -> int:
    """Images that a plugin computed at once: its own count, where memory ran out, else `size`."""
    return min(size, int(getattr(made, "batch_size", size)))


def checked(plugin: Resolved, out: object, shape: tuple[int, ...]) -> None:
    """Refuse a result that breaks the contract, before it becomes an artefact.

    Raises:
        PluginError: not a tensor, another shape, not finite, or outside [0, 1].
    """
    problem = ""
    if not isinstance(out, torch.Tensor):
        problem = f"a {type(out).__name__}"
    elif tuple(out.shape) != shape:
        problem = f"shape {tuple(out.shape)}"
    elif not out.is_floating_point():
        problem = f"dtype {out.dtype}"
    elif not bool(torch.isfinite(out).all()):
        problem = "NaN or infinite pixels"
    elif float(out.min()) < -1e-3 or float(out.max()) > 1 + 1e-3:
        problem = f"pixels from {float(out.min()):.3g} to {float(out.max()):.3g}"
    if problem:
        raise PluginError(
            f"The anonymizer {plugin.id} must return a float tensor of shape {shape} with "
            f"pixels in [0, 1]; it returned {problem}."
        )


def _timings(session: Session, step: Step, names: tuple[str, ...], size: int) -> list[Timing]:
    """All timed batches of an anonymize step, from its parts; one timing for each device."""
    parts: dict[bytes, list[dict[str, np.ndarray]]] = {}
    for name in names:
        arrays = session.store.read_part(step.key, name)
        parts.setdefault(arrays["device"].tobytes(), []).append(arrays)
    return [_timing(step, json.loads(device), group, size) for device, group in parts.items()]


def _timing(
    step: Step, device: dict[str, str], parts: list[dict[str, np.ndarray]], size: int
) -> Timing:
    order = sorted(parts, key=lambda p: -int(p["warmup"][0]))  # warm-up batches first
    height, width = parts[0]["pixels"].shape[2:]
    return Timing(
        stage=step.label,
        seconds=tuple(float(p["seconds"][0]) for p in order),
        images=tuple(len(p["pixels"]) for p in order),
        warmup=sum(int(p["warmup"][0]) for p in parts),
        batch_size=size,
        resolution=(int(height), int(width)),
        peak_bytes=max(int(p["memory"][0]) for p in parts),
        device=device,
        at_once=min(int(p["at_once"][0]) if "at_once" in p else size for p in parts),
    )


def joined(sets: Sequence[ImageSet]) -> ImageSet:
    """Several sets of images as one; attributes are left out."""
    return ImageSet(
        torch.cat([s.pixels for s in sets]),
        np.concatenate([s.subject for s in sets]),
        tuple(key for s in sets for key in s.keys),
    )


Released = Mapping[str, Artefact]
"""Part name, or `part#draw` -> its released images."""


def released_set(session: Session, released: Released, part: str, draw: int = 0) -> ImageSet:
    """Released images of a part, with the sources' keys and subjects."""
    read = session.store.read(released[drawn(part, draw)])
    pixels = [torch.from_numpy(p["pixels"]) for p in read]
    source = session.part(part)
    return ImageSet(torch.cat(pixels), source.subject, source.keys)
