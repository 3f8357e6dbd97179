"""Second stage: train the UNet, the ControlNet and the text encoder on stored latents."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from ..conditions import canny
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
    seconds. condition_share: share of each batch that sees its edges; the others train the base
    model alone. caption_share: probability that a sample keeps its caption, independently of
    the edges; empty_share: that it has none. The rest gets a text that says no more than that
    there is a face.
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


@dataclass(frozen=True)
class LatentFaces:
    """What the second stage trains on; row i of everything is one face.

    latents: (2, N, C, 16, 16) float16, the image and its mirror image. edges: (N, 128, 128)
    uint8, 0 or 255. ids: (N, 32) int64 tokens.
    """

    latents: torch.Tensor
    edges: torch.Tensor
    ids: torch.Tensor

    def __len__(self) -> int:
        return len(self.edges)


@dataclass(frozen=True)
class Nets:
    """The three networks that train together."""

    unet: Any
    controlnet: Any
    text_encoder: Any

    def named(self) -> dict[str, nn.Module]:
        """The networks by the names that checkpoints use."""
        return {
            "unet": self.unet,
            "controlnet": self.controlnet,
            "text_encoder": self.text_encoder,
        }

    def parameters(self) -> list[nn.Parameter]:
        """All trained parameters."""
        return [p for net in self.named().values() for p in net.parameters()]


@dataclass(frozen=True)
class Draw:
    """One batch: everything random about a step, drawn beforehand.

    The first `conditioned` samples see their edges, the others none.
    latents, noise: (B, C, 16, 16). times: (B,) int64. edges: (conditioned, 3, 128, 128) in
    [0, 1]. ids: (B, 32).
    """

    latents: torch.Tensor
    noise: torch.Tensor
    times: torch.Tensor
    edges: torch.Tensor
    ids: torch.Tensor


def encode_faces(
    autoencoder: Any,
    tokenizer: Any,
    faces: Faces,
    device: torch.device,
    known: LatentFaces | None = None,
) -> LatentFaces:
    """Encode each face and its mirror image, draw its edges, tokenise its caption.

    `known` is returned as it is while no further faces have appeared.
    """
    if known is not None and len(known) == len(faces):
        return known
    images = faces.images
    pair = [encode_images(autoencoder, x, device).half() for x in (images, images[:, :, ::-1])]
    return LatentFaces(
        torch.stack(pair),
        torch.from_numpy(canny(images)),
        token_ids(tokenizer, faces.captions),
    )


def draw_batch(
    data: LatentFaces,
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
    edges = data.edges[rows[:conditioned]]
    edges = torch.where(mirrored[:conditioned, None, None].bool(), edges.flip(-1), edges)
    noise = rng.standard_normal(tuple(latents.shape), np.float32)
    return Draw(
        latents.to(device),
        torch.from_numpy(noise).to(device),
        torch.from_numpy((strata * steps).astype(np.int64)).to(device),
        (edges[:, None].float() / 255).expand(-1, 3, -1, -1).to(device),
        torch.where(keep[:, None], data.ids[rows], common[torch.from_numpy(general)]).to(device),
    )


def predict(nets: Nets, noisy: torch.Tensor, draw: Draw) -> torch.Tensor:
    """Return the velocity (B, C, 16, 16) float32; the ControlNet runs on its share only."""
    text = nets.text_encoder(draw.ids)[0]
    count, size = len(draw.edges), len(noisy)
    down, middle = nets.controlnet(
        noisy[:count],
        draw.times[:count],
        text[:count],
        controlnet_cond=draw.edges.contiguous(memory_format=torch.channels_last),
        return_dict=False,
    )
    padded = [F.pad(x, (0, 0, 0, 0, 0, 0, 0, size - count)) for x in (*down, middle)]
    output: torch.Tensor = nets.unet(
        noisy,
        draw.times,
        text,
        down_block_additional_residuals=padded[:-1],
        mid_block_additional_residual=padded[-1],
        return_dict=False,
    )[0]
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
        draw = draw_batch(data, settings, common, rng, steps, device)
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
