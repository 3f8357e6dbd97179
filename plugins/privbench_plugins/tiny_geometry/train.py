"""Train ``tiny-geometry`` on rendered faces with exact depth, landmarks and pose.

    python -m privbench_plugins.tiny_geometry.train --data build/train --out FOLDER

Every twentieth identity is held out; the errors on them go to ``provenance.json``. Colours,
blur, noise, grey and framing vary, so that the estimates hold on released images too.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from privbench_plugins.synthfaces import RENDERER_VERSION
from privbench_plugins.tiny_faces.checkpoints import Ema
from privbench_plugins.tiny_faces.workers import Workers, run_workers
from privbench_plugins.tiny_geometry import TRAINER_VERSION
from privbench_plugins.tiny_geometry.net import Maps, TinyGeometry, save

_FLIPPED = [1, 0, 2, 4, 3]
"""Order of the landmarks in the mirror image."""

_LOADED_SIDE = 96


@dataclass(frozen=True)
class Labelled:
    """Renders with what the renderer knows of them; row i of everything is one face.

    images: (N, 3, 96, 96) uint8. depth: (N, 64, 64) uint8, 0 background. landmarks: (N, 5, 2)
    in [0, 1] of the side. pose: (N, 2) degrees. subjects: (N,).
    """

    images: Tensor
    depth: Tensor
    landmarks: Tensor
    pose: Tensor
    subjects: np.ndarray

    def take(self, rows: np.ndarray) -> Labelled:
        """The faces at `rows`."""
        index = torch.from_numpy(rows)
        return Labelled(
            self.images[index],
            self.depth[index],
            self.landmarks[index],
            self.pose[index],
            self.subjects[rows],
        )


def read(folder: Path) -> Labelled:
    """Read all shards of `folder`; images shrink to 96 pixels."""
    images: list[np.ndarray] = []
    depths, points, poses, subjects = [], [], [], []
    for path in sorted(folder.glob("*.jsonl")):
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        full = np.load(path.with_name(f"{path.stem}-images.npy"), allow_pickle=False)
        size = (_LOADED_SIDE, _LOADED_SIDE)
        images += [cv2.resize(x, size, interpolation=cv2.INTER_AREA) for x in full]
        depths.append(np.load(path.with_name(f"{path.stem}-depth.npy"), allow_pickle=False))
        side = full.shape[1]
        points += [(np.reshape(r["landmarks"], (5, 2)) + 0.5) / side for r in rows]
        poses += [(r["yaw"], r["pitch"]) for r in rows]
        subjects += [int(r["subject"]) for r in rows]
    if not images:
        raise FileNotFoundError(f"No complete shard (*.jsonl) of training renders in {folder}.")
    return Labelled(
        torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous(),
        torch.from_numpy(np.concatenate(depths)),
        torch.tensor(np.array(points), dtype=torch.float32),
        torch.tensor(poses, dtype=torch.float32),
        np.array(subjects),
    )


def augment(batch: Labelled, rng: torch.Generator, side: int) -> tuple[Tensor, Maps]:
    """Vary framing and look: (N, 3, side, side) in [0, 1] and the truth that goes with them."""
    n = len(batch.images)
    scale = 1 + 0.12 * torch.randn(n, generator=rng).clamp(-2, 2)
    angle = 0.1 * torch.randn(n, generator=rng)
    shift = 0.06 * torch.randn((n, 2), generator=rng)
    flip = torch.where(torch.rand(n, generator=rng) < 0.5, -1.0, 1.0)
    cos, sin = scale * angle.cos(), scale * angle.sin()
    # Output to input coordinates, both in [-1, 1].
    matrix = torch.stack([torch.stack([cos * flip, -sin], 1), torch.stack([sin * flip, cos], 1)], 1)
    theta = torch.cat([matrix, shift[:, :, None]], 2)
    grid = F.affine_grid(theta, [n, 3, side, side], align_corners=False)
    pixels = F.grid_sample(
        batch.images.float() / 255, grid, padding_mode="reflection", align_corners=False
    )
    # Nearest: a mean of background (0) and face would be a depth that nothing has.
    depth = F.grid_sample(
        batch.depth[:, None].float() / 255,
        grid,
        mode="nearest",
        padding_mode="reflection",
        align_corners=False,
    )[:, 0]
    points = (batch.landmarks * 2 - 1 - shift[:, None]) @ torch.linalg.inv(matrix).mT
    mirrored = flip < 0
    points = torch.where(mirrored[:, None, None], points[:, _FLIPPED], points)
    yaw = batch.pose[:, 0] * flip
    truth = Maps(
        depth, (depth > 0).float(), (points + 1) / 2, torch.stack([yaw, batch.pose[:, 1]], 1)
    )
    return _look(pixels, rng), truth


def _look(pixels: Tensor, rng: torch.Generator) -> Tensor:
    """Colour, contrast, grey, blur, coarse cells and noise, each on some of the images."""
    n = len(pixels)

    def some(share: float) -> Tensor:
        return torch.rand((n, 1, 1, 1), generator=rng) < share

    gain = 1 + 0.2 * torch.randn((n, 3, 1, 1), generator=rng)
    lift = 0.08 * torch.randn((n, 3, 1, 1), generator=rng)
    pixels = torch.where(some(0.7), pixels * gain + lift, pixels)
    pixels = torch.where(some(0.15), pixels.mean(1, keepdim=True).expand_as(pixels), pixels)
    pixels = torch.where(some(0.25), F.avg_pool2d(pixels, 3, 1, 1), pixels)
    pixels = torch.where(some(0.15), F.interpolate(F.avg_pool2d(pixels, 4), scale_factor=4), pixels)
    noise = 0.06 * torch.randn(pixels.shape, generator=rng)
    return torch.where(some(0.3), pixels + noise, pixels).clamp(0, 1)


def loss_of(found: Maps, truth: Maps) -> Tensor:
    """Depth inside the person, outline, landmarks and pose, each of about equal weight."""
    inside = truth.outline
    depth = ((found.depth - truth.depth).abs() * inside).sum() / inside.sum()
    outline = F.binary_cross_entropy_with_logits(found.outline, truth.outline)
    points = (found.landmarks - truth.landmarks).abs().mean()
    pose = F.smooth_l1_loss(found.pose / 30, truth.pose / 30, beta=0.1)
    return 8 * depth + outline + 20 * points + 2 * pose


@torch.no_grad()
def measure(net: TinyGeometry, faces: Labelled) -> dict[str, float]:
    """Errors on faces as they are: what the model card states."""
    net.eval()
    side = net.config.side
    pixels = F.interpolate(
        faces.images.float() / 255, (side, side), mode="bilinear", antialias=True
    )
    parts = [net(pixels[i : i + 64]) for i in range(0, len(pixels), 64)]
    found = Maps(*(torch.cat(x) for x in zip(*parts, strict=True)))
    net.train()
    inside = faces.depth > 0
    depth = (found.depth - faces.depth.float() / 255).abs()[inside].mean() * 255
    both = (found.outline > 0) & inside
    either = (found.outline > 0) | inside
    apart = (found.landmarks - faces.landmarks).norm(dim=-1)
    eyes = (faces.landmarks[:, 0] - faces.landmarks[:, 1]).norm(dim=-1)
    angles = (found.pose - faces.pose).abs().mean(0)
    return {
        "faces": len(faces.subjects),
        "depth_error_levels": round(float(depth), 2),
        "outline_iou": round(float(both.sum() / either.sum()), 4),
        "landmark_error_of_eye_distance": round(float((apart.mean(1) / eyes).mean()), 4),
        "yaw_error_degrees": round(float(angles[0]), 2),
        "pitch_error_degrees": round(float(angles[1]), 2),
    }


def train(arguments: argparse.Namespace, workers: Workers) -> None:
    """Train for `--minutes`; the averaged weights are written at the end."""
    torch.set_num_threads(1 if workers.count > 1 else arguments.threads)
    torch.manual_seed(arguments.seed)
    faces = read(arguments.data)
    held = faces.subjects % 20 == 19
    trained = faces.take(np.flatnonzero(~held)[workers.rank :: workers.count])
    net = TinyGeometry().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    parameters = list(net.parameters())
    optimizer = torch.optim.AdamW(parameters, arguments.rate, weight_decay=0.01)
    ema = Ema(parameters, 0.998)
    step, seconds = 0, 0.0
    while (share := seconds / (60 * arguments.minutes)) < 1:
        start = time.monotonic()
        draws = np.random.default_rng((arguments.seed, step, workers.rank))
        rng = torch.Generator().manual_seed(int(draws.integers(2**62)))
        rate = arguments.rate * min(1, (step + 1) / 100) * (1 + math.cos(math.pi * share)) / 2
        optimizer.param_groups[0]["lr"] = rate
        rows = torch.randint(len(trained.subjects), (arguments.batch,), generator=rng).numpy()
        pixels, truth = augment(trained.take(rows), rng, net.config.side)
        with torch.autocast("cpu", torch.bfloat16):
            found = net(pixels.contiguous(memory_format=torch.channels_last))
        loss = loss_of(Maps(*(x.float() for x in found)), truth)
        loss.backward()  # type: ignore[no-untyped-call]
        seconds += workers.average(parameters, time.monotonic() - start)
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        step += 1
        ema.update(step)
        if step % 200 == 0 and workers.leads:
            print(f"step {step}, {seconds:.0f} s, loss {loss.item():.4f}", flush=True)
    ema.swap()
    if workers.leads:
        _write(net, arguments, faces.take(np.flatnonzero(held)), step, seconds, workers.count)


def _write(
    net: TinyGeometry,
    arguments: argparse.Namespace,
    unseen: Labelled,
    step: int,
    seconds: float,
    workers: int,
) -> None:
    save(net, arguments.out)
    errors = measure(net, unseen)
    weights = arguments.out / "model.safetensors"
    record: dict[str, Any] = {
        "model": "tiny-geometry",
        "licence": "CC0-1.0",
        "trainer_version": TRAINER_VERSION,
        "renderer_version": RENDERER_VERSION,
        "seed": arguments.seed,
        "steps": step,
        "samples": step * arguments.batch * workers,
        "minutes": round(seconds / 60, 1),
        "held_out": errors,
        "packages": {name: version(name) for name in ("torch", "opencv-python-headless")},
        "sha256": {weights.name: sha256(weights.read_bytes()).hexdigest()},
    }
    (arguments.out / "provenance.json").write_text(json.dumps(record, indent=2) + "\n")
    print(json.dumps(errors), flush=True)


def main(argv: list[str] | None = None) -> None:
    """Parse the command line and train."""
    parser = argparse.ArgumentParser(
        prog="python -m privbench_plugins.tiny_geometry.train", description=__doc__
    )
    parser.add_argument("--data", type=Path, required=True, help="folder of the rendered shards")
    parser.add_argument("--out", type=Path, required=True, help="folder of the weights")
    parser.add_argument("--minutes", type=float, default=10.0, help="time spent in steps")
    parser.add_argument("--batch", type=int, default=32, help="samples per worker and step")
    parser.add_argument("--rate", type=float, default=2e-3, help="peak learning rate")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--workers", type=int, default=1, help="processes of one thread each")
    arguments = parser.parse_args(argv)
    run_workers(partial(train, arguments), arguments.workers)


if __name__ == "__main__":
    main()
