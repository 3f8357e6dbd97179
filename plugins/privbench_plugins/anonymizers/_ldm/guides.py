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
from privbench_plugins.anonymizers._ldm.denoise import Course
from privbench_plugins.anonymizers._ldm.loading import Diffuser, settle
from privbench_plugins.anonymizers._ldm.pixels import resize

Estimator = Callable[[NDArray[np.uint8]], NDArray[np.uint8]]
"""(N, H, W, 3) uint8 RGB -> (N, H, W) uint8 condition map; each image on its own."""


class Guide(Protocol):
    """Turns source images into the course of their sampling."""

    def condition(self, pixels: Tensor) -> Tensor | None:
        """(N, 3, R, R) float32 in [0, 1] as the model sees it, or None if it sees nothing."""
        ...

    def course(self, pixels: Tensor, model: Diffuser, guided: bool) -> Course:
        """What (N, 3, H, W) float32 sources in [0, 1] do; per-image work is done once, here."""
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

    def course(self, pixels: Tensor, model: Diffuser, guided: bool) -> Course:
        """A sample of the model alone."""
        return Course()

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
        return estimated(self.estimate, pixels)

    def course(self, pixels: Tensor, model: Diffuser, guided: bool) -> Course:
        """Residuals of the ControlNet, for both halves of a guided batch."""
        fitted = resize(pixels, model.resolution, model.resolution)
        maps = self.condition(fitted).to(self.network.dtype, memory_format=torch.channels_last)
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

        return Course(steer=residuals)

    def to(self, device: torch.device, dtype: torch.dtype) -> Self:
        """The same guide on another device."""
        return replace(
            self,
            network=settle(self.network, device, dtype),
            embedding=settle(self.embedding, device, dtype),
            estimate=moved(self.estimate, device),
        )


@dataclass(frozen=True, slots=True, eq=False)
class AdapterGuide:
    """A T2I-Adapter (Mou et al. 2023) and the estimator of its condition.

    Attributes:
        network: T2IAdapter. Its features do not depend on the time step.
        estimate: the map that the adapter was trained on.
        scale: weight of the features.
    """

    network: Any
    estimate: Estimator
    scale: float

    def condition(self, pixels: Tensor) -> Tensor:
        """The condition map of each image, in three equal channels."""
        return estimated(self.estimate, pixels)

    def course(self, pixels: Tensor, model: Diffuser, guided: bool) -> Course:
        """Features of the adapter, for both halves of a guided batch."""
        fitted = resize(pixels, model.resolution, model.resolution)
        maps = self.condition(fitted)[:, : self.network.config.in_channels]
        maps = maps.to(self.network.dtype, memory_format=torch.channels_last)
        features = [self.scale * feature for feature in self.network(maps)]
        given = [torch.cat([f, f]) for f in features] if guided else features

        def residuals(sample: Tensor, step: Tensor, text: Mapping[str, Any]) -> Mapping[str, Any]:
            # The UNet empties the list that it is given; the features themselves it only reads.
            return {"down_intrablock_additional_residuals": list(given)}

        return Course(steer=residuals)

    def to(self, device: torch.device, dtype: torch.dtype) -> Self:
        """The same guide on another device."""
        return replace(
            self,
            network=settle(self.network, device, dtype),
            estimate=moved(self.estimate, device),
        )


@dataclass(frozen=True, slots=True, eq=False)
class JointGuide:
    """Several guides at once, such as two ControlNets, whose residuals are summed.

    Attributes:
        parts: at most one of them may do more than steer.
    """

    parts: tuple[Guide, ...]

    def condition(self, pixels: Tensor) -> Tensor | None:
        """The maps laid over each other: the lightest of them at each place."""
        maps = [found for part in self.parts if (found := part.condition(pixels)) is not None]
        return torch.stack(maps).amax(0) if maps else None

    def course(self, pixels: Tensor, model: Diffuser, guided: bool) -> Course:
        """The course of the part that does more than steer, with the steering of all."""
        courses = [part.course(pixels, model, guided) for part in self.parts]

        def residuals(sample: Tensor, step: Tensor, text: Mapping[str, Any]) -> Mapping[str, Any]:
            total: dict[str, Any] = {}
            for course in courses:
                for name, value in course.steer(sample, step, text).items():
                    total[name] = _sum(total[name], value) if name in total else value
            return total

        leading = [course for course in courses if not course.only_steers] or [Course()]
        return replace(leading[0], steer=residuals)

    def to(self, device: torch.device, dtype: torch.dtype) -> Self:
        """The same guides on another device."""
        return replace(self, parts=tuple(part.to(device, dtype) for part in self.parts))


def estimated(estimate: Estimator, pixels: Tensor) -> Tensor:
    """(N, 3, H, W) in [0, 1] to its map in three equal channels, of the same shape and range."""
    maps = estimate(quantize(pixels).permute(0, 2, 3, 1).numpy())
    grey = torch.from_numpy(maps).to(pixels.device).float().div_(255)
    return grey[:, None].expand(-1, 3, -1, -1).contiguous()


def moved(estimate: Estimator, device: torch.device) -> Estimator:
    """The estimator on another device, if it is a network."""
    mover = getattr(estimate, "to", None)
    found: Estimator = mover(device) if mover else estimate
    return found


def _sum(a: Any, b: Any) -> Any:
    """Residuals added: a tensor, or one for each level."""
    if isinstance(a, Tensor):
        return a + b
    return [x + y for x, y in zip(a, b, strict=True)]
