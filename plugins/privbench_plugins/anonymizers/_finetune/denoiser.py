"""Gray-box access: what a model takes for noise."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from privbench.types import Floats
from privbench_plugins.anonymizers._ldm.loading import Diffuser, choose_scheduler
from privbench_plugins.anonymizers._ldm.memory import Fit, in_pieces
from privbench_plugins.anonymizers._ldm.pixels import resize
from privbench_plugins.anonymizers._ldm.text import Text


class LatentDenoiser:
    """Noise predictions under the prompt of the release, without guidance, in float32.

    Batches have one shape, so that a row depends on no other.

    Attributes:
        alphas: (T,) float64 cumulative signal share of each noise level, descending.
    """

    alphas: Floats

    def __init__(self, model: Diffuser, batch_size: int) -> None:
        schedule = choose_scheduler(model.scheduler, "ddim")
        self.alphas = schedule.alphas_cumprod.double().numpy()
        self._kind = str(schedule.config.prediction_type)
        self._model = model
        added = {name: rows[-1:] for name, rows in model.text.added.items()}
        self._text = Text(model.text.hidden[-1:], added)
        self._fit = Fit(batch_size)

    @torch.no_grad()
    def encode(self, pixels: Tensor) -> Tensor:
        """(N, C, h, w) float32 latents of (N, 3, H, W) uint8 images of any size."""
        side = self._model.resolution

        def latents(rows: Tensor) -> Tensor:
            given = pixels[rows.to(pixels.device)].to(self._model.device).float().div_(255)
            return self._model.encode(resize(given, side, side))

        return self._batches(len(pixels), latents)

    @torch.no_grad()
    def predict(self, noisy: Tensor, levels: Tensor) -> Tensor:
        """(N, C, h, w) float32 predicted noise, whatever it is that the model predicts.

        Args:
            noisy: (N, C, h, w) float32.
            levels: (N,) int64 in [0, T).
        """
        device = self._model.device
        noisy, levels = noisy.to(device), levels.to(device)
        alphas = torch.from_numpy(self.alphas).to(device)[levels].float().view(-1, 1, 1, 1)

        def predicted(rows: Tensor) -> Tensor:
            rows = rows.to(device)
            given = noisy[rows].contiguous(memory_format=torch.channels_last)
            text = self._text.inputs(len(rows))
            made = self._model.unet(given, levels[rows], return_dict=False, **text)[0]
            return as_noise(self._kind, made, noisy[rows], alphas[rows])

        return self._batches(len(noisy), predicted)

    def _batches(self, total: int, compute: Callable[[Tensor], Tensor]) -> Tensor:
        """`compute` of the rows 0 to total - 1, so many at once; the last row fills them up."""
        if not total:
            return torch.zeros(0, *self._model.latent_shape, device=self._model.device)

        def piece(start: int, count: int) -> Tensor:
            rows = torch.arange(start, start + count).clamp_(max=total - 1)
            return compute(rows)[: total - start]

        return in_pieces(total, self._fit, self._model.device, piece)


def as_noise(kind: str, predicted: Tensor, noisy: Tensor, alphas: Tensor) -> Tensor:
    """The noise that a prediction amounts to, (N, C, h, w).

    Args:
        kind: what is predicted: `epsilon`, `v_prediction` or `sample`.
        predicted: (N, C, h, w).
        noisy: (N, C, h, w).
        alphas: (N, 1, 1, 1) signal share, below 1.
    """
    if kind == "epsilon":
        return predicted
    if kind == "sample":
        return (noisy - alphas.sqrt() * predicted) / (1 - alphas).sqrt()
    return alphas.sqrt() * predicted + (1 - alphas).sqrt() * noisy
