"""The space that is searched, and a linear reading of it from releases."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.decomposition import PCA
from sklearn.linear_model import Ridge
from torch import Tensor

from privbench.errors import ModelError
from privbench_plugins.anonymizers._ldm.loading import explained, quiet, settle
from privbench_plugins.attacks.inversion._linear_cut import Cut, sampled
from privbench_plugins.models import read_json, resolve

_BLOCK: Final = 16
_KINDS: Final = ("AutoencoderTiny", "AutoencoderKL")
_COMPONENTS: Final = 256
_SAMPLES: Final = 8000


def in_blocks(rows: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:
    """Apply to (N, ...) rows in blocks of one size: a row must not see how many others there
    are."""
    made = [
        function(torch.cat([block, block.new_zeros(_BLOCK - len(block), *block.shape[1:])]))[
            : len(block)
        ]
        for block in torch.split(rows, _BLOCK)
    ]
    return torch.cat(made)


@dataclass(frozen=True, slots=True, eq=False)
class Autoencoder:
    """A latent diffusion model's autoencoder.

    Attributes:
        network: AutoencoderTiny or AutoencoderKL.
        factor: pixels per latent, along one side.
    """

    network: Any
    factor: int

    @classmethod
    def load(cls, model: str, revision: str, device: torch.device, dtype: torch.dtype) -> Self:
        """Read the `vae` of a diffusers folder or hub id.

        Raises:
            ModelError: there is none, it is of another kind, or it cannot be loaded.
        """
        folder: Path = resolve(model, revision) / "vae"
        config = read_json(folder / "config.json")
        kind = config.get("_class_name")
        if kind not in _KINDS:
            raise ModelError(f"{folder} holds a {kind}; expected one of {', '.join(_KINDS)}.")
        with explained(folder), quiet():
            import diffusers

            network = getattr(diffusers, kind).from_pretrained(
                folder, use_safetensors=True, torch_dtype=torch.float32, local_files_only=True
            )
        widths = config.get("block_out_channels", config.get("decoder_block_out_channels"))
        return cls(settle(network, device, dtype), 2 ** (len(widths) - 1))

    def encode(self, pixels: Tensor) -> Tensor:
        """(N, 3, h, w) in [0, 1] to (N, C, h / factor, w / factor) float32 on the CPU."""
        return in_blocks(pixels, self._encoded)

    def decode(self, latents: Tensor) -> Tensor:
        """(N, C, h / factor, w / factor) to (N, 3, h, w) float32 in [0, 1] on the CPU."""
        return in_blocks(latents, self._decoded)

    @torch.no_grad()
    def _encoded(self, pixels: Tensor) -> Tensor:
        made = self.network.encode(self._given(pixels.mul(2).sub_(1)))
        found = made.latents if hasattr(made, "latents") else made.latent_dist.mode()
        return found.float().cpu()  # type: ignore[no-any-return]

    @torch.no_grad()
    def _decoded(self, latents: Tensor) -> Tensor:
        pixels = self.network.decode(self._given(latents), return_dict=False)[0]
        return pixels.float().cpu().div_(2).add_(0.5).clamp_(0, 1)  # type: ignore[no-any-return]

    def _given(self, rows: Tensor) -> Tensor:
        return rows.to(self.network.device, self.network.dtype, memory_format=torch.channels_last)


@dataclass(frozen=True, slots=True, eq=False)
class Reading:
    """What a release says about each latent of its source: a ridge regression from the released
    pixels around it, shared over positions and therefore a convolution.

    Attributes:
        weight: (C, 3, k, k).
        bias: (C,).
        factor: pixels per latent, along one side.
    """

    weight: Tensor
    bias: Tensor
    factor: int

    @classmethod
    def fit(
        cls, released: Tensor, latents: Tensor, factor: int, margin: int, penalty: float, seed: int
    ) -> Self:
        """Fit to (N, 3, h, w) releases in [0, 1] and (N, C, h / factor, w / factor) latents.

        Args:
            penalty: variance of noise in each principal component of the released pixels.
        """
        kernel = factor + 2 * margin
        cut = Cut((released.shape[2], released.shape[3]), (factor, factor), margin)
        cells = Cut((latents.shape[2], latents.shape[3]), (1, 1), 0)
        inputs, targets = sampled(cut, released, cells, latents, _SAMPLES, seed)
        solver = "covariance_eigh" if len(inputs) > inputs.shape[1] else "auto"
        count = min(_COMPONENTS, *inputs.shape)
        basis = PCA(count, svd_solver=solver, random_state=seed % 2**32).fit(inputs.numpy())
        rows = basis.transform(inputs.numpy()).astype(np.float64)
        ridge = Ridge(penalty * len(rows)).fit(rows, targets.numpy())
        weight = ridge.coef_ @ basis.components_
        bias = ridge.intercept_ - weight @ basis.mean_
        made = torch.from_numpy(weight).float().view(-1, released.shape[1], kernel, kernel)
        return cls(made, torch.from_numpy(bias).float(), factor)

    def __call__(self, released: Tensor) -> Tensor:
        """(N, 3, h, w) in [0, 1] to (N, C, h / factor, w / factor)."""
        margin = (self.weight.shape[2] - self.factor) // 2
        padded = F.pad(released, (margin,) * 4, mode="replicate")
        return in_blocks(padded, lambda x: F.conv2d(x, self.weight, self.bias, self.factor))
