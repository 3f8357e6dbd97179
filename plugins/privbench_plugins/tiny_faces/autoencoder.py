"""First stage: train the autoencoder on whole images."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from .checkpoints import (
    Ema,
    Progress,
    has_checkpoint,
    load_checkpoint,
    save_checkpoint,
    share_done,
)
from .faces import Faces
from .models import fold_normalisation, place
from .muon import muon_with_adam
from .workers import ALONE, Workers


@dataclass(frozen=True)
class AutoencoderSettings:
    """Hyperparameters of the first stage.

    hours: wall time of the whole stage; steps: its length instead, where it is not 0 (a run by
    steps can be repeated exactly). checkpoint_every: seconds. latent_noise: standard deviation
    of the noise added to the (unit variance) latents before decoding, so that the decoder
    forgives the small errors of a sampler and the encoder cannot hide detail in tiny
    differences. half_share: share of steps on latents and images halved in size, which keeps
    the latents smooth and so easier for the UNet.
    """

    hours: float = 0.5
    steps: int = 0
    checkpoint_every: float = 300.0
    batch: int = 16
    rate: float = 1.5e-3
    latent_noise: float = 0.1
    half_share: float = 0.25
    colour_gain: float = 0.1
    spectrum: float = 0.05
    ema: float = 0.998


class NormalisedAutoencoder(nn.Module):
    """An AutoencoderTiny whose latents are normalised per channel while it trains.

    With `frozen` the encoder stays as it is, its normalisation folded in: more training of
    the decoder then leaves the latents, and so the UNet, valid.
    """

    def __init__(self, autoencoder: Any, frozen: bool = False) -> None:
        super().__init__()
        self.autoencoder = autoencoder
        channels = autoencoder.config.latent_channels
        batch_norm = nn.BatchNorm2d(channels, affine=False, momentum=0.01)
        self.norm = nn.Identity() if frozen else batch_norm
        autoencoder.encoder.requires_grad_(not frozen)

    def encode(self, images: torch.Tensor) -> torch.Tensor:
        """(N, 3, H, W) in [-1, 1] -> (N, C, H/8, W/8) float32 of unit variance."""
        with _half(images.device):
            latents = self.autoencoder.encoder(images)
        normal: torch.Tensor = self.norm(latents.float())
        return normal

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """(N, C, h, w) -> (N, 3, 8h, 8w) float32, about [-1, 1]."""
        with _half(latents.device):
            images: torch.Tensor = self.autoencoder.decoder(latents)
        return images.float()


def _half(device: torch.device) -> torch.autocast:
    return torch.autocast(device.type, torch.bfloat16)


def face_weight(height: int, width: int, device: torch.device) -> torch.Tensor:
    """(height, width) weights of the pixels: 3 where the face is in every render, 1 outside.

    Eyes and mouth cover few pixels, yet whether a detector sees a face hangs on them.
    """
    y = torch.linspace(-1, 1, height, device=device)[:, None]
    x = torch.linspace(-1, 1, width, device=device)[None, :]
    return 1 + 2 * torch.exp(-((x / 0.45) ** 2) - (y / 0.55) ** 2)


def reconstruction_loss(output: torch.Tensor, target: torch.Tensor, spectrum: float) -> Any:
    """L1 on pixels, on 8x8 means, on differences, and on the moduli of the 2-D spectrum.

    All inputs (N, 3, H, W) float32. Without the means the net learns colours last, as the
    lines outweigh them; the differences keep edges in place; the spectrum asks for the right
    amount of fine texture, wherever it is. Pixels and differences count more in the face.
    """
    weight = face_weight(output.shape[-2], output.shape[-1], output.device)
    error = output - target
    loss = (weight * error.abs()).mean()
    loss = loss + 2 * F.avg_pool2d(error, 8).abs().mean()
    loss = loss + (weight[:, 1:] * error.diff(dim=-1).abs()).mean()
    loss = loss + (weight[1:] * error.diff(dim=-2).abs()).mean()
    if spectrum:
        moduli = [torch.fft.rfft2(x, norm="ortho").abs() for x in (output, target)]
        loss = loss + spectrum * F.l1_loss(moduli[0], moduli[1])
    return loss


def learning_rate(share: float, step: int, peak: float, warmup: int = 100) -> float:
    """Linear warm-up, then a cosine from `peak` to 2 % of it as `share` goes from 0 to 1."""
    cosine = (1 + math.cos(math.pi * min(share, 1.0))) / 2
    return peak * min(1.0, (step + 1) / warmup) * (0.02 + 0.98 * cosine)


def _batch(
    faces: Faces, settings: AutoencoderSettings, rng: np.random.Generator, device: torch.device
) -> torch.Tensor:
    """Draw (batch, 3, 128, 128) in [-1, 1]: flipped at random, colour channels scaled."""
    rows = rng.choice(len(faces), settings.batch)
    pixels = torch.from_numpy(faces.images[rows]).permute(0, 3, 1, 2).to(device).float() / 255
    if rng.random() < 0.5:
        pixels = pixels.flip(-1)
    gain = 1 + settings.colour_gain * rng.standard_normal((len(pixels), 3, 1, 1))
    pixels = pixels * torch.from_numpy(gain).float().to(device)
    images = pixels.clamp(0, 1) * 2 - 1
    return images.contiguous(memory_format=torch.channels_last)


def autoencoder_step(
    model: NormalisedAutoencoder,
    images: torch.Tensor,
    settings: AutoencoderSettings,
    halved: bool,
    noise: torch.Generator,
) -> torch.Tensor:
    """Return the loss of one step on `images`."""
    latents = model.encode(images)
    if halved:
        latents, images = F.avg_pool2d(latents, 2), F.avg_pool2d(images, 2)
    disturbance = torch.randn(latents.shape, generator=noise, device=latents.device)
    output = model.decode(latents + settings.latent_noise * disturbance)
    loss: torch.Tensor = reconstruction_loss(output, images, settings.spectrum)
    return loss


def train_autoencoder(
    autoencoder: Any,
    load: Callable[[], Faces],
    settings: AutoencoderSettings,
    folder: Path,
    device: torch.device,
    seed: int = 0,
    report: Callable[[str], None] = print,
    workers: Workers = ALONE,
    frozen: bool = False,
) -> Progress:
    """Train in place, then fold the normalisation in; checkpoints go to `folder`.

    With `frozen` only the decoder trains. `load` is called again at each checkpoint: shards
    that have appeared meanwhile join in.
    """
    model = place(NormalisedAutoencoder(autoencoder, frozen), device)
    parameters = [p for p in autoencoder.parameters() if p.requires_grad]
    # The first and the last layer have few channels on one side: no matter for Muon.
    outer = {id(p) for p in parameters if p.ndim > 1 and min(p.shape[:2]) <= 3}
    named = [("outer" if id(p) in outer else "inner", p) for p in parameters]
    optimizers = muon_with_adam(named, lambda name: name == "outer")
    ema = Ema(parameters, settings.ema)
    progress = Progress(seed=seed)
    if has_checkpoint(folder):
        extras, progress = load_checkpoint(folder, {"model": model}, optimizers)
        ema.restore(extras)
    faces, saved = load(), progress.seconds
    while (share := share_done(progress, settings.hours, settings.steps)) < 1:
        start = time.monotonic()
        rng = np.random.default_rng((progress.seed, progress.step, workers.rank))
        noise = torch.Generator(device).manual_seed(int(rng.integers(2**62)))
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(share, progress.step, settings.rate)
        images = _batch(faces, settings, rng, device)
        halved = bool(rng.random() < settings.half_share)
        loss = autoencoder_step(model, images, settings, halved, noise)
        loss.backward()  # type: ignore[no-untyped-call]
        progress.seconds += workers.average(parameters, time.monotonic() - start)
        nn.utils.clip_grad_norm_(parameters, 1.0)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        progress.step += 1
        progress.samples += len(images) * workers.count
        ema.update(progress.step)
        if progress.step % 100 == 0 and workers.leads:
            report(f"autoencoder {progress} loss {loss.item():.4f}")
        if progress.seconds - saved > settings.checkpoint_every:
            if workers.leads:
                save_checkpoint(folder, {"model": model}, optimizers, ema.tensors(), progress)
            faces, saved = load(), progress.seconds
    if workers.leads:
        save_checkpoint(folder, {"model": model}, optimizers, ema.tensors(), progress)
    ema.swap()
    if not frozen:
        finish_autoencoder(model, faces, device)
    return progress


@torch.no_grad()
def finish_autoencoder(model: NormalisedAutoencoder, faces: Faces, device: torch.device) -> None:
    """Measure the latents' mean and deviation per channel and fold them into the encoder."""
    rows = np.linspace(0, len(faces) - 1, min(len(faces), 2048)).astype(int)
    latents = encode_images(model.autoencoder, faces.images[rows], device)
    mean = latents.mean((0, 2, 3)).to(device)
    std = latents.std((0, 2, 3)).to(device)
    fold_normalisation(model.autoencoder, mean, std)


@torch.no_grad()
def encode_images(autoencoder: Any, images: Any, device: torch.device) -> torch.Tensor:
    """(N, H, W, 3) uint8 -> (N, C, H/8, W/8) float32 latents, on the CPU."""
    parts = []
    for start in range(0, len(images), 64):
        block = torch.from_numpy(np.ascontiguousarray(images[start : start + 64]))
        block = block.permute(0, 3, 1, 2)
        scaled = (block.to(device).float() / 127.5 - 1).contiguous(
            memory_format=torch.channels_last
        )
        with _half(device):
            parts.append(autoencoder.encoder(scaled).float().cpu())
    return torch.cat(parts)


@torch.no_grad()
def reconstruct(autoencoder: Any, images: Any, device: torch.device) -> Any:
    """(N, H, W, 3) uint8 -> the autoencoder's reconstruction, same shape and type."""
    latents = encode_images(autoencoder, images, device)
    parts = []
    for start in range(0, len(latents), 64):
        with _half(device):
            block = autoencoder.decoder(latents[start : start + 64].to(device)).float()
        pixels = (block.clamp(-1, 1) + 1) * 127.5
        parts.append(pixels.round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy())
    return np.concatenate(parts)


def psnr(a: Any, b: Any) -> Any:
    """Peak signal-to-noise ratio in dB of each pair: (N, H, W, 3) uint8 twice -> (N,)."""
    error = (a.astype(np.float64) - b.astype(np.float64)) ** 2
    return 10 * np.log10(255.0**2 / np.maximum(error.mean((1, 2, 3)), 1e-9))
