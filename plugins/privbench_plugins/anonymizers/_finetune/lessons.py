"""Training images as the UNet sees them: encoded once, before any training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from privbench.types import ImageSet
from privbench_plugins.anonymizers._finetune.files import captioner_of
from privbench_plugins.anonymizers._finetune.networks import writer_of
from privbench_plugins.anonymizers._ldm.estimators import EstimatorFolder
from privbench_plugins.anonymizers._ldm.loading import Diffuser, quiet
from privbench_plugins.anonymizers._ldm.pixels import resize
from privbench_plugins.anonymizers._ldm.sources import CaptionGuide
from privbench_plugins.anonymizers._ldm.vision import EmbeddedCaptioner, load_captioner
from privbench_plugins.models import resolve

if TYPE_CHECKING:
    from privbench_plugins.anonymizers.finetune import LdmFinetuneConfig

_BLOCK = 64


@dataclass(frozen=True, slots=True, eq=False)
class Lessons:
    """N images and their captions, on the device that trains.

    Attributes:
        latents: (N, C, h, w) float32.
        caption: (N,) int64, which of the texts is each image's; the last text is the empty one.
        hidden: (K + 1, L, D) float32 token features of K captions and of no caption.
        added: further text inputs of SDXL, K + 1 rows each; empty elsewhere.
        cut: images whose caption is longer than the text encoder reads.
    """

    latents: Tensor
    caption: Tensor
    hidden: Tensor
    added: Mapping[str, Tensor]
    cut: int

    def text(self, caption: Tensor) -> dict[str, Any]:
        """Keyword arguments of the UNet for (B,) captions."""
        added = {name: rows[caption] for name, rows in self.added.items()}
        return {
            "encoder_hidden_states": self.hidden[caption],
            "added_cond_kwargs": added or None,
        }


def prepare(config: LdmFinetuneConfig, model: Diffuser, images: ImageSet) -> Lessons:
    """Caption and encode images with a model that was loaded for guidance.

    Raises:
        ModelError: the captioner cannot be loaded.
    """
    captions = captions_of(config, images)
    known = list(dict.fromkeys(captions))
    place = {caption: row for row, caption in enumerate(known)}
    with quiet():
        hidden, added = _texts(model, known)
        long = _long(model, known)
    return Lessons(
        latents=_latents(model, images),
        caption=torch.tensor([place[c] for c in captions], device=model.device),
        hidden=hidden,
        added=added,
        cut=sum(caption in long for caption in captions),
    )


def captions_of(config: LdmFinetuneConfig, images: ImageSet) -> list[str]:
    """The caption of each image.

    Raises:
        ModelError: the captioner cannot be loaded.
    """
    if not config.captioned:
        return [config.caption] * len(images)
    guide = CaptionGuide(_captioner(config), config.caption)
    blocks = (slice(start, start + _BLOCK) for start in range(0, len(images), _BLOCK))
    return [caption for block in blocks for caption in guide.prompts(images.floats(block))]


def _captioner(config: LdmFinetuneConfig) -> Any:
    found = captioner_of(config)
    if isinstance(found, EstimatorFolder):
        return load_captioner(found)
    from privbench_plugins.tiny_captioner.net import load

    return EmbeddedCaptioner(load(resolve(found.name)))


def _texts(model: Diffuser, captions: list[str]) -> tuple[Tensor, Mapping[str, Tensor]]:
    """Inputs of each caption and, last, of the text that guidance sets against the prompt."""
    written = replace(writer_of(model), guided=False).inputs(captions)
    empty = model.text
    hidden = torch.cat([written["encoder_hidden_states"], empty.hidden[:1]])
    added = written["added_cond_kwargs"] or {}
    return hidden, {name: torch.cat([rows, empty.added[name][:1]]) for name, rows in added.items()}


def _long(model: Diffuser, captions: list[str]) -> set[str]:
    """The captions whose last words the text encoder does not see."""
    tokenizer = writer_of(model).pipe.tokenizer
    tokens = tokenizer(captions).input_ids
    most = tokenizer.model_max_length
    return {caption for caption, ids in zip(captions, tokens, strict=True) if len(ids) > most}


def _latents(model: Diffuser, images: ImageSet) -> Tensor:
    side = model.resolution
    blocks = (slice(start, start + _BLOCK) for start in range(0, len(images), _BLOCK))
    floats = (images.floats(block, model.device) for block in blocks)
    return torch.cat([model.encode(resize(pixels, side, side)) for pixels in floats])
