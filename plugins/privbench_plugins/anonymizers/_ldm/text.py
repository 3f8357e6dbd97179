"""The prompt, encoded once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Text:
    """An encoded prompt.

    Attributes:
        hidden: (G, L, D) token features; G is 2 under guidance (negative first), else 1.
        added: SDXL's extra inputs `text_embeds` (G, P) and `time_ids` (G, 6); else empty.
    """

    hidden: Tensor
    added: Mapping[str, Tensor]

    @property
    def guided(self) -> bool:
        """Whether classifier-free guidance is on."""
        return len(self.hidden) == 2

    def to(self, device: torch.device, dtype: torch.dtype) -> Text:
        """The same prompt elsewhere."""
        return Text(
            self.hidden.to(device, dtype), {k: v.to(device, dtype) for k, v in self.added.items()}
        )

    def inputs(self, n: int) -> dict[str, Any]:
        """Keyword arguments of UNet and ControlNet for n images (G n rows)."""
        added = {k: v.repeat_interleave(n, 0) for k, v in self.added.items()}
        return {
            "encoder_hidden_states": self.hidden.repeat_interleave(n, 0),
            "added_cond_kwargs": added or None,
        }


@dataclass(frozen=True, slots=True, eq=False)
class Writer:
    """A model's text encoders, kept to encode a prompt of each image; they stay in float32.

    Attributes:
        pipe: the pipeline that they belong to.
        negative: negative prompt of all images.
        guided: whether it is needed.
        resolution: side of the square that will be made, in pixels.
        dtype: number type of what is returned.
    """

    pipe: Any
    negative: str
    guided: bool
    resolution: int
    dtype: torch.dtype = torch.float32

    def inputs(self, prompts: Sequence[str]) -> dict[str, Any]:
        """`Text.inputs` for images with prompts of their own.

        Each prompt is encoded alone, and equal ones once: no image's text depends on its batch.
        """
        known = {prompt: self._write(prompt) for prompt in dict.fromkeys(prompts)}
        texts = [known[prompt] for prompt in prompts]
        # (G, N, L, D): all negative prompts before all prompts.
        hidden = torch.stack([text.hidden for text in texts], 1).flatten(0, 1)
        names = texts[0].added
        added = {k: torch.stack([t.added[k] for t in texts], 1).flatten(0, 1) for k in names}
        return {"encoder_hidden_states": hidden, "added_cond_kwargs": added or None}

    def to(self, device: torch.device, dtype: torch.dtype) -> Writer:
        """The same encoders elsewhere."""
        for name in ("text_encoder", "text_encoder_2"):
            if (encoder := getattr(self.pipe, name, None)) is not None:
                encoder.to(device)
        return replace(self, dtype=dtype)

    def _write(self, prompt: str) -> Text:
        text = encode(self.pipe, prompt, self.negative, self.guided, self.resolution)
        return text.to(self.pipe.text_encoder.device, self.dtype)


@torch.inference_mode()
def encode(pipe: Any, prompt: str, negative: str, guided: bool, resolution: int) -> Text:
    """Encode a prompt with a pipeline's own text encoders.

    Args:
        pipe: a StableDiffusionPipeline or StableDiffusionXLPipeline.
        prompt: what to show.
        negative: what not to show; "" is the pipeline's default.
        guided: whether the negative prompt is needed at all.
        resolution: side of the square that will be made, in pixels (SDXL is told).
    """
    made = pipe.encode_prompt(
        prompt=prompt,
        device=pipe.text_encoder.device,
        num_images_per_prompt=1,
        do_classifier_free_guidance=guided,
        negative_prompt=negative or None,
    )
    positive, other = made[:2]
    hidden = torch.cat([other, positive]) if guided else positive
    if len(made) == 2:
        return Text(hidden, {})
    pooled = torch.cat([made[3], made[2]]) if guided else made[2]
    side = (resolution, resolution)
    ids = pipe._get_add_time_ids(
        side,
        (0, 0),
        side,
        dtype=hidden.dtype,
        text_encoder_projection_dim=pipe.text_encoder_2.config.projection_dim,
    )
    return Text(hidden, {"text_embeds": pooled, "time_ids": ids.repeat(len(hidden), 1)})
