"""Targets of membership inference: trained, restored and sampled; all of it survives a kill."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, Final, cast

import numpy as np
import torch
import torch.nn.functional as F

from privbench.audit_plan import AuditCell, AuditPlan, Model, marked
from privbench.data import load_part
from privbench.errors import PluginError, StoreError
from privbench.keys import sample_seed, stage_seed
from privbench.membership import Arrays, Checkpoint, Generator, TargetModel, Training
from privbench.plan import Resolved
from privbench.progress import Prefixed, Reporter
from privbench.release import checked, joined
from privbench.session import blame
from privbench.store import Artefact, Store
from privbench.timing import fingerprint, memory_bytes, stopwatch, to_json
from privbench.types import UNKNOWN, Anonymizer, ImageBatch, ImageSet, Timing, quantize

GOING_ON: Final = 1_000_000
"""Stored parts from this index on hold what an interrupted training needs; below it, the weights
of the epoch that is the index."""

BLOCK: Final = 256
"""Samples, or marked images, to a stored part."""


@dataclass
class AuditSession:
    """One execution: the plan, the store, and what has been built or decoded so far.

    Attributes:
        checked: folds whose parts are known to be disjoint.
    """

    plan: AuditPlan
    store: Store
    device: torch.device
    reporter: Reporter
    checked: set[int] = field(default_factory=set)
    _built: dict[str, Any] = field(default_factory=dict)
    _parts: dict[tuple[int, str], ImageSet] = field(default_factory=dict)
    _restored: tuple[str, TargetModel | None] = ("", None)

    def build(self, plugin: Resolved) -> Any:
        """The plugin object, built once and moved to the device if it knows how."""
        name = f"{plugin.registered.spec.kind}/{plugin.id}/{plugin.config!r}"
        if name not in self._built:
            with blame(plugin, "building"):
                made = plugin.registered.spec.build(plugin.config)
                mover = getattr(made, "to", None)
                self._built[name] = mover(self.device) if mover else made
        return self._built[name]

    def part(self, cell: AuditCell, name: str) -> ImageSet:
        """Photographs of a part as `marked` names it, decoded once a fold."""
        place = (cell.fold, name)
        if place not in self._parts:
            part, _, mark = name.partition("+")
            if mark:
                made = put_mark(self, cell.marks[mark], self.part(cell, part))
            else:
                made = load_part(self.plan.data, cell.parts[part])
            self._parts[place] = made
        return self._parts[place]

    def forget(self, fold: int) -> None:
        """Free what belongs to other folds, and all models."""
        self._parts = {place: images for place, images in self._parts.items() if place[0] == fold}
        self._built.clear()
        self._restored = ("", None)

    def restored(self, model: Model) -> TargetModel:
        """The model of a role, on the device; trained now if it has to be.

        Raises:
            PluginError: there are only released images and no model.
        """
        name = f"{model.finetune.key if model.finetune else ''}/{model.config!r}"
        if self._restored[0] != name:
            weights: Arrays = {}
            if model.finetune:
                weights = self._weights(model)
            with blame(model.plugin, "restoring"):
                made = cast(Generator, self.build(model.plugin)).restore(weights, self.device)
            self._restored = (name, made)
        found = self._restored[1]
        if found is None:
            raise PluginError(
                f"{model.plugin.id} has released images and no model here; this needs the model "
                "itself. Say where it is with --set model=FOLDER."
            )
        return found

    def _weights(self, model: Model) -> dict[str, np.ndarray]:
        step = model.finetune
        done = step and self.store.find(step.stage, step.plugin, step.key)
        if not step or not done:
            raise StoreError(f"The store does not hold the {step.label if step else 'model'}.")
        epoch = model.config.checkpoint()
        for name in done.parts:
            if int(name.partition("-")[0]) == epoch:
                return self.store.read_part(step.key, name)
        raise StoreError(f"The {step.label} kept no model of epoch {epoch}.")


def put_mark(session: AuditSession, plugin: Resolved, images: ImageSet) -> ImageSet:
    """The images as an anonymizer, a watermark say, leaves them."""
    made = cast(Anonymizer, session.build(plugin))
    blocks = []
    for start in range(0, len(images), BLOCK):
        some = images.take(range(start, min(start + BLOCK, len(images))))
        seeds = [sample_seed(session.plan.study.seed, key) for key in some.keys]
        batch = ImageBatch(some.floats(device=session.device), np.full(len(some), UNKNOWN),
                           tuple(map(str, range(len(some)))))  # fmt: skip
        with blame(plugin, "marking"), torch.inference_mode():
            out = made.anonymize(batch, seeds)
            checked(plugin, out, tuple(batch.pixels.shape))
        blocks.append(quantize(out))
    return replace(images, pixels=torch.cat(blocks))


def fine_tune(session: AuditSession, cell: AuditCell, model: Model) -> Artefact | None:
    """The checkpoints of a model's training; None where nothing is trained.

    A training that was interrupted goes on where it last kept its state.
    """
    step, store = model.finetune, session.store
    if step is None:
        return None
    if done := store.find(step.stage, step.plugin, step.key):
        return done
    marks = [marked(part, model.mark) for part in model.trained_on]
    private = _numbered(joined([session.part(cell, name) for name in marks]))
    released = model.config.released_epochs()
    last: dict[str, Any] = {}

    def keep(made: Checkpoint) -> None:
        if made.epoch in released:
            store.write_part(step.key, made.epoch, made.weights)
        last["report"] = dict(made.report)
        if made.epoch == max(released):
            return
        if made.resume:
            before = [n for i, n in store.parts(step.key).items() if i >= GOING_ON]
            facts = np.frombuffer(json.dumps(last["report"]).encode(), np.uint8)
            arrays = {f"weights/{k}": v for k, v in made.weights.items()}
            arrays |= {f"resume/{k}": v for k, v in made.resume.items()} | {"report": facts}
            store.write_part(step.key, GOING_ON + made.epoch, arrays)
            for name in before:
                with suppress(StoreError):
                    store.drop_part(step.key, name)

    seed = stage_seed(session.plan.study.seed, step.stage, step.key)
    start = going_on(store, step.key)
    begun = start.epoch if start else 0
    reporter = Prefixed(session.reporter, step.label)
    training = Training(seed, session.device, reporter, start, keep)
    torch.manual_seed(seed)
    with stopwatch(session.device) as seconds, blame(model.plugin, "training"):
        cast(Generator, session.build(model.plugin)).fit(private, training)
    parts = store.parts(step.key)
    if missing := set(released) - set(parts):
        raise PluginError(
            f"{model.plugin.id} kept no checkpoint of epoch(s) {sorted(missing)} of its training."
        )
    height, width = private.pixels.shape[2:]
    seen = len(private) * (max(released) - begun)
    timing = Timing(
        step.label,
        (seconds[0],),
        (seen,),
        0,
        seen,
        (height, width),
        memory_bytes(session.device),
        fingerprint(session.device),
    )
    notes = {"report": last["report"], "timing": [to_json(timing)]}
    names = tuple(parts[epoch] for epoch in sorted(released))
    made = store.commit(step.stage, step.plugin, step.key, step.inputs, names, notes)
    for index, name in parts.items():
        if index not in released:
            store.drop_part(step.key, name)
    return made


def going_on(store: Store, key: str) -> Checkpoint | None:
    """Where an interrupted training goes on."""
    found = {i: n for i, n in store.parts(key).items() if i >= GOING_ON}
    if not found:
        return None
    try:
        arrays = store.read_part(key, found[max(found)])
    except StoreError:
        if store.parts(key).get(max(found)) == found[max(found)]:
            raise
        return going_on(store, key)  # another process has gone on

    def of(prefix: str) -> dict[str, np.ndarray]:
        return {k.removeprefix(prefix): v for k, v in arrays.items() if k.startswith(prefix)}

    report: Mapping[str, Any] = json.loads(arrays["report"].tobytes())
    return Checkpoint(max(found) - GOING_ON, of("weights/"), of("resume/"), report)


def sampled(session: AuditSession, cell: AuditCell, name: str) -> ImageSet:
    """Samples of one of the cell's models, made now if they have to be.

    Args:
        name: a key of `cell.samples`.
    """
    step, store = cell.samples[name], session.store
    role = {"generated": "target", "own-generated": "own"}.get(name, name)
    model = next(m for r, m in cell.models.items() if r == role)
    done = store.find(step.stage, step.plugin, step.key)
    if done is None:
        fine_tune(session, cell, model)
        done = _sample(session, cell, model, name)
    pixels = torch.cat([torch.from_numpy(p["pixels"]) for p in store.read(done)])
    return anonymous(pixels, name)


def anonymous(pixels: torch.Tensor, name: str) -> ImageSet:
    """Images of nobody, under neutral keys."""
    keys = tuple(f"{name}-{i:06d}" for i in range(len(pixels)))
    return ImageSet(pixels, np.full(len(pixels), UNKNOWN, np.int64), keys)


def _sample(session: AuditSession, cell: AuditCell, model: Model, name: str) -> Artefact:
    step, store, n = cell.samples[name], session.store, model.config.samples
    size = photo_size(session, cell)
    with blame(model.plugin, "reading released images"):
        found = cast(Generator, session.build(model.plugin)).released()
    if found is not None and name == "target":
        part = store.write_part(step.key, 0, {"pixels": resized(found.pixels, size).numpy()})
        return store.commit(step.stage, step.plugin, step.key, step.inputs, (part,), {"timing": []})
    seeds = [sample_seed(session.plan.study.seed, f"{step.key}/{i}") for i in range(n)]
    target, existing, times = session.restored(model), store.parts(step.key), []
    with session.reporter.task(step.label, n) as task:
        for place, start in enumerate(range(0, n, BLOCK)):
            some = seeds[start : start + BLOCK]
            if place not in existing:
                with stopwatch(session.device) as took:
                    pixels = sample_checked(model.plugin, target, some, size)
                times.append((took[0], len(some)))
                existing[place] = store.write_part(step.key, place, {"pixels": pixels.numpy()})
            task.advance(len(some))
    timing = Timing(
        step.label,
        tuple(t for t, _ in times),
        tuple(k for _, k in times),
        0,
        min(BLOCK, n),
        size,
        memory_bytes(session.device),
        fingerprint(session.device),
    )
    names = tuple(existing[i] for i in sorted(existing))
    notes = {"timing": [to_json(timing)] if times else []}
    return store.commit(step.stage, step.plugin, step.key, step.inputs, names, notes)


def sample_checked(
    plugin: Resolved,
    target: TargetModel,
    seeds: Sequence[int],
    size: tuple[int, int],
    prompts: Sequence[str] | None = None,
) -> torch.Tensor:
    """(n, 3, H, W) uint8 samples.

    Raises:
        PluginError: the model raised, or broke its contract.
    """
    with blame(plugin, "sampling"), torch.inference_mode():
        out = target.sample(seeds, size, prompts)
        checked(plugin, out, (len(seeds), 3, *size))
    return quantize(out)


def photo_size(session: AuditSession, cell: AuditCell) -> tuple[int, int]:
    """(height, width) of the photographs that are queried."""
    height, width = session.part(cell, "calibration").pixels.shape[2:]
    return int(height), int(width)


def resized(pixels: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """(N, 3, H, W) uint8 at another size, block by block."""
    if tuple(pixels.shape[2:]) == size:
        return pixels
    blocks = [
        quantize(F.interpolate(b.float().div(255), size, mode="bicubic", antialias=True))
        for b in torch.split(pixels, BLOCK)
    ]
    return torch.cat(blocks)


def _numbered(images: ImageSet) -> ImageSet:
    """The images with who they show, and no name."""
    return replace(images, keys=tuple(f"{i:06d}" for i in range(len(images))), attributes={})
