"""Load what `folders` found, with the ordinary diffusers classes and without the network."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Self

import torch
from torch import Tensor

from privbench.errors import ModelError
from privbench_plugins.anonymizers._ldm import random_models
from privbench_plugins.anonymizers._ldm.folders import ModelFolder, PipelineFolder
from privbench_plugins.anonymizers._ldm.memory import AT_ONCE, Fit, in_pieces
from privbench_plugins.anonymizers._ldm.text import Text, Writer, encode

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


@dataclass(frozen=True, slots=True, eq=False)
class Diffuser:
    """A loaded latent diffusion model; its prompt is encoded, its text encoders are gone.

    Attributes:
        unet: UNet2DConditionModel.
        vae: AutoencoderKL or AutoencoderTiny.
        scheduler: any diffusers scheduler.
        text: the encoded prompt.
        resolution: side of the square it makes, in pixels.
        factor: pixels per latent, along one side.
        writer: its text encoders, where images have prompts of their own; else None.
    """

    unet: Any
    vae: Any
    scheduler: Any
    text: Text
    resolution: int
    factor: int
    writer: Writer | None = None

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return torch.device(self.unet.device)

    @property
    def dtype(self) -> torch.dtype:
        """Number type of the UNet."""
        dtype: torch.dtype = self.unet.dtype
        return dtype

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of one image's latent."""
        side = self.resolution // self.factor
        return int(self.vae.config.latent_channels), side, side

    @property
    def inpaints(self) -> bool:
        """Whether the UNet takes a mask and a masked image beside the latents."""
        return bool(self.unet.config.in_channels == 2 * self.vae.config.latent_channels + 1)

    def to(self, device: torch.device, dtype: torch.dtype) -> Self:
        """The same model on another device; the modules move, so the old object is void."""
        return replace(
            self,
            unet=settle(self.unet, device, dtype),
            vae=settle(self.vae, device, self._vae_dtype(dtype)),
            text=self.text.to(device, dtype),
            writer=self.writer and self.writer.to(device, dtype),
        )

    def encode(self, pixels: Tensor) -> Tensor:
        """(N, C, h, w) float32 latents of (N, 3, R, R) pixels in [0, 1]: the mode, no sample."""
        total, size = len(pixels), max(1, AT_ONCE // self.resolution**2)

        def latents(start: int, size: int) -> Tensor:
            rows = torch.arange(start, start + min(size, total)).clamp_(max=total - 1)
            given = pixels[rows.to(pixels.device)].mul(2).sub_(1)
            made = self.vae.encode(given.to(self.vae.dtype))
            found = made.latents if hasattr(made, "latents") else made.latent_dist.mode()
            return found[: total - start].float()  # type: ignore[no-any-return]

        found = in_pieces(total, Fit(size), self.device, latents)
        mean, std = self._statistics(found)
        return (found - mean) / std * self.vae.config.scaling_factor  # type: ignore[no-any-return]

    def decode(self, latents: Tensor) -> Tensor:
        """(N, 3, R, R) float32 pixels in [0, 1] of (N, C, h, w) latents."""
        mean, std = self._statistics(latents)
        latents = latents / self.vae.config.scaling_factor * std + mean
        pixels = self.vae.decode(latents.to(self.vae.dtype), return_dict=False)[0]
        return pixels.float().div(2).add_(0.5).clamp_(0, 1)  # type: ignore[no-any-return]

    def _statistics(self, latents: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of the autoencoder's latents, where they are told."""
        found = (getattr(self.vae.config, f"latents_{name}", None) for name in ("mean", "std"))
        mean, std = (_channels(v, latents) if v is not None else None for v in found)
        if mean is None or std is None:
            return latents.new_zeros(()), latents.new_ones(())
        return mean, std

    def _vae_dtype(self, dtype: torch.dtype) -> torch.dtype:
        """float32 where the autoencoder overflows in float16: SDXL's, as its pipelines do.

        Stable Diffusion 1.x has no `force_upcast`; diffusers fills in True and never reads it.
        """
        xl = bool(self.text.added)
        upcast = dtype == torch.float16 and getattr(self.vae.config, "force_upcast", False)
        return torch.float32 if upcast and xl else dtype


def settle(module: Any, device: torch.device, dtype: torch.dtype) -> Any:
    """Move a network for inference: evaluation mode, no gradients, channels last.

    One that is on the meta device gets its memory, and random weights, here.
    """
    module.requires_grad_(False).eval()
    with quiet():
        if any(weight.is_meta for weight in module.parameters()):
            random_models.materialise(module, device, dtype)
        return module.to(device=device, dtype=dtype, memory_format=torch.channels_last)


def load_diffuser(
    found: PipelineFolder,
    prompt: str,
    negative: str,
    guided: bool,
    scheduler: str,
    *,
    writes: bool = False,
) -> Diffuser:
    """Load a model in float32 on the CPU and encode its prompt.

    `writes` keeps the text encoders, for prompts that come with the images.

    A random model stays on the meta device until it is settled.

    Raises:
        ModelError: diffusers cannot load it.
    """
    if found.random and writes:
        raise ModelError(
            f"{found.random} has no vocabulary to read a prompt for each image with. Time "
            "ldm-unconditional: it does the same work once the prompts are written."
        )
    if found.random:
        return _random_diffuser(found, guided, scheduler)
    options: dict[str, Any] = {"torch_dtype": torch.float32, "local_files_only": True}
    if not found.xl:
        options |= {"safety_checker": None, "requires_safety_checker": False}
        options |= {"feature_extractor": None}
    with explained(found.path), quiet():
        import diffusers

        kind = (
            diffusers.StableDiffusionXLPipeline if found.xl else diffusers.StableDiffusionPipeline
        )
        if found.path.is_dir():
            variant = found.variant or None
            pipe = kind.from_pretrained(
                found.path, use_safetensors=True, variant=variant, **options
            )
        else:
            pipe = kind.from_single_file(str(found.path), config=str(found.configs), **options)
        text = encode(pipe, prompt, negative, guided, found.resolution)
    return Diffuser(
        unet=pipe.unet,
        vae=pipe.vae,
        scheduler=choose_scheduler(pipe.scheduler, scheduler),
        text=text,
        resolution=found.resolution,
        factor=found.factor,
        writer=Writer(pipe, negative, guided, found.resolution) if writes else None,
    )


def _random_diffuser(found: PipelineFolder, guided: bool, scheduler: str) -> Diffuser:
    with explained(found.path), quiet():
        return Diffuser(
            unet=random_models.network(found.random, "unet"),
            vae=random_models.network(found.random, "vae"),
            scheduler=choose_scheduler(random_models.scheduler(found.random), scheduler),
            text=random_models.encode(found.random, guided, found.resolution),
            resolution=found.resolution,
            factor=found.factor,
        )


def load_network(found: ModelFolder, kind: str) -> Any:
    """Load what steers a UNet in float32 on the CPU (a random one: on the meta device).

    Args:
        found: what `folders` or `adapters` found.
        kind: name of its diffusers class, `ControlNetModel` or `T2IAdapter`.

    Raises:
        ModelError: diffusers cannot load it.
    """
    with explained(found.path), quiet():
        if found.random:
            return random_models.network(*found.random)
        import diffusers

        return getattr(diffusers, kind).from_pretrained(
            found.path,
            use_safetensors=True,
            variant=found.variant or None,
            torch_dtype=torch.float32,
            local_files_only=True,
        )


def choose_scheduler(own: Any, name: str) -> Any:
    """The model's own scheduler, or another one built from its settings."""
    import diffusers

    kinds = {
        "keep": type(own),
        "ddim": diffusers.DDIMScheduler,
        "dpmpp": diffusers.DPMSolverMultistepScheduler,
        "unipc": diffusers.UniPCMultistepScheduler,
        "euler": diffusers.EulerDiscreteScheduler,
    }
    return kinds[name].from_config(own.config)


@contextmanager
def explained(path: object) -> Iterator[None]:
    """Turn whatever the loaders raise into a ModelError that names the model."""
    try:
        yield
    except (OSError, ValueError, RuntimeError, KeyError, TypeError, AttributeError) as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise ModelError(f"{path} cannot be loaded: {lines[0]}") from error


@contextmanager
def quiet() -> Iterator[None]:
    """No progress bars and no chatter from the loaders; the former state is restored.

    Among it are notes on torchvision, which is not needed, and on outdated scheduler
    configurations, which the pipelines correct.
    """
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    sides = (diffusers_logging, transformers_logging)
    bars = [side.is_progress_bar_enabled() for side in sides]
    levels = [side.get_verbosity() for side in sides]
    for side in sides:
        side.disable_progress_bar()
        side.set_verbosity_error()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            yield
    finally:
        for side, bar, level in zip(sides, bars, levels, strict=True):
            side.set_verbosity(level)
            if bar:
                side.enable_progress_bar()


def _channels(values: Any, like: Tensor) -> Tensor:
    return torch.as_tensor(values, dtype=like.dtype, device=like.device).view(1, -1, 1, 1)
