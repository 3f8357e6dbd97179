"""Pretrained networks that place images in a space of features."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from privbench.errors import ModelError
from privbench_plugins.attacks.alignment import Chips, Faces
from privbench_plugins.attacks.membership.black_box import ENCODER
from privbench_plugins.attacks.recogniser_files import backbone_folder
from privbench_plugins.attacks.recogniser_models import (
    Backbone,
    Encoder,
    Preprocessing,
    Recogniser,
    padded,
    preprocessing,
)
from privbench_plugins.models import digest, read_json, resolve

Space = Callable[[Tensor], Tensor]
"""(N, 3, H, W) uint8 images to (N, D) float32 features, each from its image alone."""

_CLIP = ("CLIPModel", "CLIPVisionModelWithProjection")
_BLOCK = 1024


@dataclass(frozen=True, slots=True, eq=False)
class Embedding:
    """Rows of length one by a recogniser; no more than `_BLOCK` images are resized at once."""

    network: Recogniser

    def __call__(self, pixels: Tensor) -> Tensor:
        """See `Space`."""
        rows = [
            self.network.embed(self.network.align(Faces(block)).pixels)
            for block in torch.split(pixels, _BLOCK)
            if len(block)
        ]
        return torch.cat(rows) if rows else torch.zeros(0, 1)


@dataclass(frozen=True, slots=True, eq=False)
class Clip:
    """The half of CLIP that sees, up to where its features meet words (Radford et al. 2021)."""

    network: nn.Module
    prepare: Preprocessing
    batch: int
    device: torch.device

    @classmethod
    def load(cls, folder: Path, batch: int, device: torch.device) -> Clip:
        """Read the model; safetensors only.

        Raises:
            ModelError: it cannot be read, or part of its weights is missing.
        """
        digest(folder)  # refuses pickles by name
        from transformers import CLIPVisionModelWithProjection

        try:
            network, facts = CLIPVisionModelWithProjection.from_pretrained(
                folder, use_safetensors=True, local_files_only=True, output_loading_info=True
            )
        except Exception as error:  # transformers, safetensors and torch each raise their own
            raise ModelError(f"Cannot read CLIP from {folder}: {error}") from error
        if facts["missing_keys"]:
            missing = ", ".join(sorted(facts["missing_keys"]))
            raise ModelError(f"The weights in {folder} lack {missing}.")
        prepare = preprocessing(folder, int(network.config.image_size))
        return cls(network.to(device).eval(), prepare, batch, device)

    def align(self, faces: Faces) -> Chips:
        """See `Recogniser.align`: the images, resized as the model's folder says."""
        return Chips(self.prepare.resized(faces.pixels))

    @torch.no_grad()
    def embed(self, pixels: Tensor) -> Tensor:
        """See `Recogniser.embed`."""
        return padded(pixels, self.batch, self._run)

    def _run(self, pixels: Tensor) -> Tensor:
        rows: Tensor = self.network(
            pixel_values=self.prepare.normalised(pixels.to(self.device))
        ).image_embeds
        return rows


def load_embedding(name: str, batch: int, device: torch.device) -> Embedding:
    """The network that a setting names.

    Raises:
        ModelError: there is none, or it cannot be read.
    """
    if name == ENCODER:
        return Embedding(Encoder.load(resolve(ENCODER), batch, device))
    from privbench_plugins.anonymizers._ldm.loading import quiet

    folder = backbone_folder(name)
    kinds = read_json(folder / "config.json").get("architectures") or [""]
    load = Clip.load if kinds[0] in _CLIP else Backbone.load
    with quiet():
        return Embedding(load(folder, batch, device))
