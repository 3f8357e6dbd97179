"""Training renders: shards of uint8 arrays with one JSON line per image."""

import json
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .render import Studio, open_studio
from .samples import Sample, draw_samples, use_one_thread

SHARD_IMAGES = 250
_MIX = ("wild", "campus-a", "wild", "campus-b", "wild")


@dataclass(frozen=True)
class TrainPlan:
    """How many identities and images, where to, and which part `part` of `parts` of the shards.

    Identities are numbered from `first`: sets of disjoint numbers show different people.
    """

    identities: int
    images: int
    out: Path
    part: int = 0
    parts: int = 1
    first: int = 0

    @property
    def shards(self) -> int:
        """Number of shards of the whole set."""
        return -(-self.identities * self.images // SHARD_IMAGES)


def render_training_set(plan: TrainPlan, studio: Studio | None = None) -> None:
    """Write the shards that belong to this part and do not exist yet."""
    use_one_thread()
    plan.out.mkdir(parents=True, exist_ok=True)
    studio = studio or open_studio()
    for shard in range(plan.part, plan.shards, plan.parts):
        stem = plan.out / f"train-{shard:04d}"
        if not stem.with_suffix(".jsonl").exists():
            _write_shard(stem, _shard_samples(studio, plan, shard))
            print(f"{stem.name} written", flush=True)


def _shard_samples(studio: Studio, plan: TrainPlan, shard: int) -> list[Sample]:
    """Samples shard * 250 to (shard + 1) * 250."""
    low = shard * SHARD_IMAGES
    high = min(low + SHARD_IMAGES, plan.identities * plan.images)
    samples = []
    for place in range(low // plan.images, (high - 1) // plan.images + 1):
        number = plan.first + place
        population = _MIX[number % len(_MIX)]
        drawn = draw_samples(studio, "train", population, number, number, plan.images)
        for index, sample in enumerate(drawn):
            if low <= place * plan.images + index < high:
                samples.append(sample)
    return samples


def _write_shard(stem: Path, samples: list[Sample]) -> None:
    """Arrays first and the JSON lines last: where these exist the shard is complete."""
    _write_array(stem.with_name(f"{stem.name}-images.npy"), [s.pixels for s in samples])
    _write_array(stem.with_name(f"{stem.name}-depth.npy"), [s.depth for s in samples])
    part = stem.with_name(f".{stem.name}.{os.getpid()}.part")
    part.write_text("".join(json.dumps(s.labels.as_row()) + "\n" for s in samples))
    part.replace(stem.with_suffix(".jsonl"))


def _write_array(path: Path, arrays: list[np.ndarray]) -> None:
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    with part.open("wb") as file:
        np.save(file, np.stack(arrays))
    part.replace(path)
