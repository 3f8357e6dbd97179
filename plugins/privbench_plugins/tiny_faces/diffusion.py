"""Second stage: train the UNet, its guides and the text encoder on stored latents.

A guide is a ControlNet or a T2I adapter with the condition it follows. All train together with
the UNet: each step has one of them steer a share of the batch.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import T2IAdapter
from torch import nn

from ..conditions import canny, draw_landmarks, soft_edges
from ..geometry import Geometry
from .autoencoder import encode_images, learning_rate
from .checkpoints import (
    Ema,
    Progress,
    has_checkpoint,
    load_checkpoint,
    save_checkpoint,
    share_done,
)
from .faces import Faces
from .models import place, token_ids
from .muon import muon_with_adam
from .workers import ALONE, Workers


@dataclass(frozen=True)
class DiffusionSettings:
    """Hyperparameters of the second stage.

    batch: samples per worker and step. hours: wall time of the whole stage; steps: its length
    instead, where it is not 0 (a run by steps can be repeated exactly). checkpoint_every:
    seconds. condition_share: share of each batch that a guide steers; the others train the base
    model alone. caption_share: probability that a sample keeps its caption, independently of
    the condition; empty_share: that it has none. The rest gets a text that says no more than
    that there is a face.
    """

    hours: float = 1.0
    steps: int = 0
    checkpoint_every: float = 300.0
    batch: int = 32
    rate: float = 1e-3
    condition_share: float = 0.6
    caption_share: float = 0.8
    empty_share: float = 0.12
    ema: float = 0.999
    compiled: bool = False


GUIDES: Final[Mapping[str, str]] = {
    "canny": "canny",
    "depth": "depth",
    "softedge": "softedge",
    "landmarks": "landmarks",
    "t2i-canny": "canny",
}
"""Guide -> the condition that it follows."""

SHARES: Final[Mapping[str, int]] = {
    "canny": 3,
    "depth": 4,
    "softedge": 3,
    "landmarks": 3,
    "t2i-canny": 4,
}
"""How often each guide has its turn, of the sum of those that train."""


@dataclass(frozen=True)
class LatentFaces:
    """What the second stage trains on; row i of everything is one face.

    latents: (2, N, C, 16, 16) float16, the image and its mirror image. maps: condition ->
    (N, 128, 128) uint8. ids: (N, 32) int64 tokens.
    """

    latents: torch.Tensor
    maps: Mapping[str, torch.Tensor]
    ids: torch.Tensor

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True)
class Nets:
    """The networks that train together; `guides` by their names in `GUIDES`."""

    unet: Any
    text_encoder: Any
    guides: Mapping[str, Any]

    def named(self) -> dict[str, nn.Module]:
        """The networks by the names that checkpoints use."""
        return {"unet": self.unet, "text_encoder": self.text_encoder, **self.guides}

    def parameters(self) -> list[nn.Parameter]:
        """All trained parameters."""
        return [p for net in self.named().values() for p in net.parameters()]


@dataclass(frozen=True)
class Draw:
    """One batch: everything random about a step, drawn beforehand.

    `guide` steers the first samples, those that have a map.
    latents, noise: (B, C, 16, 16). times: (B,) int64. maps: (conditioned, 3, 128, 128) in
    [0, 1]. ids: (B, 32).
    """

    guide: str
    latents: torch.Tensor
    noise: torch.Tensor
    times: torch.Tensor
    maps: torch.Tensor
    ids: torch.Tensor


def condition_maps(images: Any, geometry: Geometry) -> dict[str, Any]:
    """All conditions of (N, H, W, 3) uint8 images: name -> (N, H, W) uint8."""
    return {
        "canny": canny(images),
        "depth": geometry.depth(images),
        "softedge": soft_edges(images),
        "landmarks": draw_landmarks(geometry.landmarks(images), *images.shape[1:3]),
    }


def encode_faces(
    autoencoder: Any,
    tokenizer: Any,
    geometry: Geometry,
    faces: Faces,
    device: torch.device,
    known: LatentFaces | None = None,
) -> LatentFaces:
    """Encode each face and its mirror image, estimate its conditions, tokenise its caption.

    `known` is returned as it is while no further faces have appeared.
    """
    if known is not None and len(known) == len(faces):
        return known
    images = faces.images
    pair = [encode_images(autoencoder, x, device).half() for x in (images, images[:, :, ::-1])]
    return LatentFaces(
        torch.stack(pair),
        {name: torch.from_numpy(x) for name, x in condition_maps(images, geometry).items()},
        token_ids(tokenizer, faces.captions),
    )


def draw_guide(seed: int, step: int, guides: Mapping[str, Any]) -> str:
    """The guide whose turn it is: the same for all workers, whatever their rank."""
    names = sorted(guides)
    shares = np.array([SHARES[name] for name in names], np.float64)
    rng = np.random.default_rng((seed, step))
    return str(rng.choice(names, p=shares / shares.sum()))


def draw_batch(
    data: LatentFaces,
    guide: str,
    settings: DiffusionSettings,
    common: torch.Tensor,
    rng: np.random.Generator,
    steps: int,
    device: torch.device,
) -> Draw:
    """Draw a batch; `steps` is the number of noise levels.

    `common` (K, 32): tokens of the texts that stand for any face, no caption at all first.

    The times are stratified (one in each B-th of the range): it costs nothing and makes the
    loss of a small batch far steadier than independent times.
    """
    size = settings.batch
    rows = torch.from_numpy(rng.choice(len(data), size))
    mirrored = torch.from_numpy(rng.integers(0, 2, size))
    latents = data.latents[mirrored, rows].float()
    strata = (rng.permutation(size) + rng.random(size)) / size
    shares = rng.random(size) - settings.caption_share
    keep = torch.from_numpy(shares < 0)
    general = np.where(shares < settings.empty_share, 0, rng.integers(0, len(common), size))
    conditioned = round(size * settings.condition_share)
    maps = data.maps[GUIDES[guide]][rows[:conditioned]]
    maps = torch.where(mirrored[:conditioned, None, None].bool(), maps.flip(-1), maps)
    noise = rng.standard_normal(tuple(latents.shape), np.float32)
    return Draw(
        guide,
        latents.to(device),
        torch.from_numpy(noise).to(device),
        torch.from_numpy((strata * steps).astype(np.int64)).to(device),
        (maps[:, None].float() / 255).expand(-1, 3, -1, -1).to(device),
        torch.where(keep[:, None], data.ids[rows], common[torch.from_numpy(general)]).to(device),
    )


def predict(nets: Nets, noisy: torch.Tensor, draw: Draw) -> torch.Tensor:
    """Return the velocity (B, C, 16, 16) float32; the guide runs on its share only."""
    text = nets.text_encoder(draw.ids)[0]
    count, size = len(draw.maps), len(noisy)
    maps = draw.maps.contiguous(memory_format=torch.channels_last)

    def pad(features: torch.Tensor) -> torch.Tensor:
        return F.pad(features, (0, 0, 0, 0, 0, 0, 0, size - count))

    guide = nets.guides[draw.guide]
    steering: dict[str, Any] = {}
    if isinstance(guide, T2IAdapter):
        steering["down_intrablock_additional_residuals"] = [pad(x) for x in guide(maps)]
    else:
        down, middle = guide(
            noisy[:count],
            draw.times[:count],
            text[:count],
            controlnet_cond=maps,
            return_dict=False,
        )
        steering["down_block_additional_residuals"] = [pad(x) for x in down]
        steering["mid_block_additional_residual"] = pad(middle)
    output: torch.Tensor = nets.unet(noisy, draw.times, text, **steering, return_dict=False)[0]
    return output.float()


def diffusion_loss(nets: Nets, scheduler: Any, draw: Draw) -> torch.Tensor:
    """Mean squared error of the velocity.

    No SNR weighting on top: weights of the min-SNR kind vanish as the SNR does, and it is at
    the noisy end that colours and the whole composition are decided.
    """
    noisy = scheduler.add_noise(draw.latents, draw.noise, draw.times)
    target = scheduler.get_velocity(draw.latents, draw.noise, draw.times)
    noisy = noisy.contiguous(memory_format=torch.channels_last)
    with torch.autocast(noisy.device.type, torch.bfloat16):
        output = predict(nets, noisy, draw)
    return F.mse_loss(output, target)


def new_optimizers(nets: Nets) -> list[torch.optim.Optimizer]:
    """Return the optimisers; embeddings, first and last layers count as outer."""
    named = [pair for net in nets.named().values() for pair in net.named_parameters()]
    return muon_with_adam(
        named, lambda name: name.startswith(("conv_in", "conv_out")) or "embeddings" in name
    )


def train_diffusion(
    nets: Nets,
    scheduler: Any,
    common: torch.Tensor,
    load: Callable[[LatentFaces | None], LatentFaces],
    settings: DiffusionSettings,
    folder: Path,
    device: torch.device,
    seed: int = 0,
    report: Callable[[str], None] = print,
    on_checkpoint: Callable[[Progress], None] = lambda progress: None,
    workers: Workers = ALONE,
) -> Progress:
    """Train in place; at each checkpoint and at the end `nets` hold the averaged weights.

    `common` as for `draw_batch`. `load` gets what was loaded before and may return more rows.
    `on_checkpoint` is called while the averaged weights are in place, so that it can export
    them.
    """
    for net in nets.named().values():
        place(net, device).train()
    parameters = nets.parameters()
    optimizers = new_optimizers(nets)
    ema = Ema(parameters, settings.ema)
    progress = Progress(seed=seed)
    if has_checkpoint(folder):
        extras, progress = load_checkpoint(folder, nets.named(), optimizers)
        ema.restore(extras)
    loss_of = torch.compile(diffusion_loss) if settings.compiled else diffusion_loss
    data, saved, recent = load(None), progress.seconds, 0.0
    while (share := share_done(progress, settings.hours, settings.steps)) < 1:
        start = time.monotonic()
        rng = np.random.default_rng((progress.seed, progress.step, workers.rank))
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(share, progress.step, settings.rate)
        steps = scheduler.config.num_train_timesteps
        guide = draw_guide(progress.seed, progress.step, nets.guides)
        draw = draw_batch(data, guide, settings, common, rng, steps, device)
        loss = loss_of(nets, scheduler, draw)
        loss.backward()  # type: ignore[no-untyped-call]
        progress.seconds += workers.average(parameters, time.monotonic() - start)
        nn.utils.clip_grad_norm_(parameters, 1.0)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        progress.step += 1
        progress.samples += settings.batch * workers.count
        ema.update(progress.step)
        recent = loss.item() if not recent else 0.98 * recent + 0.02 * loss.item()
        if progress.step % 100 == 0 and workers.leads:
            report(f"diffusion {progress} loss {recent:.4f}")
        if progress.seconds - saved > settings.checkpoint_every:
            if workers.leads:
                save_checkpoint(folder, nets.named(), optimizers, ema.tensors(), progress)
                ema.swap()
                on_checkpoint(progress)
                ema.swap()
            data, saved = load(data), progress.seconds
    if workers.leads:
        save_checkpoint(folder, nets.named(), optimizers, ema.tensors(), progress)
    ema.swap()
    if workers.leads:
        on_checkpoint(progress)
    return progress
