"""How a source image guides the denoiser. A further condition is a further guide."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from privbench.types import quantize
from privbench_plugins.anonymizers._ldm.denoise import Steer, unsteered
from privbench_plugins.anonymizers._ldm.loading import settle

Estimator = Callable[[NDArray[np.uint8]], NDArray[np.uint8]]
"""(N, H, W, 3) uint8 RGB -> (N, H, W) uint8 condition map; each image on its own."""


class Guide(Protocol):
    """Turns source images into steering."""

    def condition(self, pixels: Tensor) -> Tensor | None:
        """(N, 3, R, R) float32 in [0, 1] as the model sees it, or None if it sees nothing."""
        ...

    def steer(self, pixels: Tensor, guided: bool) -> Steer:
        """Steering for (N, 3, R, R) float32 sources in [0, 1]; per-image work is done once."""
        ...

    def to(self, device: torch.device, dtype: torch.dtype) -> Self:
        """The same guide on another device; networks move."""
        ...


@dataclass(frozen=True, slots=True)
class Unguided:
    """Ignores the source."""

    def condition(self, pixels: Tensor) -> None:
        """Nothing is seen."""
        return

    def steer(self, pixels: Tensor, guided: bool) -> Steer:
        """No steering."""
        return unsteered

    def to(self, device: torch.device, dtype: torch.dtype) -> Self:
        """Itself."""
        return self


@dataclass(frozen=True, slots=True, eq=False)
class ControlNetGuide:
    """A ControlNet and the estimator of its condition.

    The embedding of the condition does not depend on the time step, so it is computed once an
    image, and `network` is left to add it. That saves the costliest layers of a small model:
    those that work at full image size.

    Attributes:
        network: ControlNetModel whose condition embedding is the identity.
        embedding: the condition embedding that was taken out of it.
        estimate: the map that the ControlNet was trained on.
        scale: conditioning scale.
    """

    network: Any
    embedding: Any
    estimate: Estimator
    scale: float

    @classmethod
    def of(cls, network: Any, estimate: Estimator, scale: float) -> Self:
        """A guide from a whole ControlNetModel, whose embedding is taken out."""
        embedding = network.controlnet_cond_embedding
        network.controlnet_cond_embedding = torch.nn.Identity()
        return cls(network, embedding, estimate, scale)

    def condition(self, pixels: Tensor) -> Tensor:
        """The condition map of each image, in three equal channels."""
        maps = self.estimate(quantize(pixels).permute(0, 2, 3, 1).numpy())
        grey = torch.from_numpy(maps).to(pixels.device).float().div_(255)
        return grey[:, None].expand(-1, 3, -1, -1).contiguous()

    def steer(self, pixels: Tensor, guided: bool) -> Steer:
        """Residuals of the ControlNet, for both halves of a guided batch."""
        maps = self.condition(pixels).to(self.network.dtype, memory_format=torch.channels_last)
        reversed_ = self.network.config.controlnet_conditioning_channel_order == "bgr"
        embedded = self.embedding(maps.flip(1) if reversed_ else maps)
        embedded = torch.cat([embedded, embedded]) if guided else embedded
        given = embedded.flip(1) if reversed_ else embedded  # the network will flip it back

        def residuals(sample: Tensor, step: Tensor, text: Mapping[str, Any]) -> Mapping[str, Any]:
            down, mid = self.network(
                sample,
                step,
                controlnet_cond=given,
                conditioning_scale=self.scale,
                return_dict=False,
                **text,
            )
            return {"down_block_additional_residuals": down, "mid_block_additional_residual": mid}

        return residuals

    def to(self, device: torch.device, dtype: torch.dtype) -> Self:
        """The same guide on another device."""
        return replace(
            self,
            network=settle(self.network, device, dtype),
            embedding=settle(self.embedding, device, dtype),
        )
