"""Configurations of the models that `random:sd15` and `random:sdxl` build. Torch-free.

The numbers are those of the published models' configuration files; what is left out is the
default of diffusers and transformers. `tests/test_time.py` holds the parameter counts:

- `sd15`: stable-diffusion-v1-5 (UNet 859,520,964), lllyasviel/sd-controlnet-canny
  (361,279,120), TencentARC/t2iadapter_canny_sd15v2.
- `sdxl`: stabilityai/stable-diffusion-xl-base-1.0 (UNet 2,567,463,684),
  diffusers/controlnet-canny-sdxl-1.0 (1,251,014,160), TencentARC/t2i-adapter-canny-sdxl-1.0.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from privbench.errors import ModelError, did_you_mean
from privbench.spec import RANDOM

Config = Mapping[str, Any]

TOKENS: Final = 77
"""Length of every prompt of CLIP's text encoders, padding included."""


@dataclass(frozen=True, slots=True, eq=False)
class Family:
    """One model family; each entry is class name -> arguments of its constructor.

    Attributes:
        parts: the components of the pipeline, by their usual names.
        extras: networks that steer it: `controlnet`, `t2i`.
    """

    parts: Mapping[str, tuple[str, Config]]
    extras: Mapping[str, tuple[str, Config]]

    @property
    def xl(self) -> bool:
        """SDXL rather than Stable Diffusion 1.x."""
        return "text_encoder_2" in self.parts


_SD15_NET: Final[Config] = {
    "block_out_channels": (320, 640, 1280, 1280),
    "down_block_types": (*["CrossAttnDownBlock2D"] * 3, "DownBlock2D"),
    "cross_attention_dim": 768,
    "attention_head_dim": 8,
}
_SDXL_NET: Final[Config] = {
    "block_out_channels": (320, 640, 1280),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "cross_attention_dim": 2048,
    "attention_head_dim": (5, 10, 20),
    "transformer_layers_per_block": (1, 2, 10),
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
}
_CONDITION: Final[Config] = {"conditioning_embedding_out_channels": (16, 32, 96, 256)}
_VAE: Final[Config] = {
    "block_out_channels": (128, 256, 512, 512),
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "layers_per_block": 2,
    "latent_channels": 4,
}
_CLIP_L: Final[Config] = {
    "vocab_size": 49408,
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "max_position_embeddings": TOKENS,
    "projection_dim": 768,
    "hidden_act": "quick_gelu",
}
_BIG_G: Final[Config] = {
    "vocab_size": 49408,
    "hidden_size": 1280,
    "intermediate_size": 5120,
    "num_hidden_layers": 32,
    "num_attention_heads": 20,
    "max_position_embeddings": TOKENS,
    "projection_dim": 1280,
    "hidden_act": "gelu",
}
_NOISE: Final[Config] = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "steps_offset": 1,
}
_ADAPTER: Final[Config] = {"channels": (320, 640, 1280, 1280), "num_res_blocks": 2}

FAMILIES: Final[dict[str, Family]] = {
    "sd15": Family(
        parts={
            "unet": (
                "UNet2DConditionModel",
                {
                    **_SD15_NET,
                    "up_block_types": ("UpBlock2D", *["CrossAttnUpBlock2D"] * 3),
                    "sample_size": 64,
                },
            ),
            "vae": ("AutoencoderKL", {**_VAE, "sample_size": 512, "scaling_factor": 0.18215}),
            "text_encoder": ("CLIPTextModel", _CLIP_L),
            "scheduler": (
                "PNDMScheduler",
                {**_NOISE, "skip_prk_steps": True, "set_alpha_to_one": False},
            ),
        },
        extras={
            "controlnet": ("ControlNetModel", {**_SD15_NET, **_CONDITION}),
            "t2i": (
                "T2IAdapter",
                {
                    **_ADAPTER,
                    "in_channels": 1,
                    "downscale_factor": 8,
                    "adapter_type": "full_adapter",
                },
            ),
        },
    ),
    "sdxl": Family(
        parts={
            "unet": (
                "UNet2DConditionModel",
                {
                    **_SDXL_NET,
                    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
                    "sample_size": 128,
                },
            ),
            "vae": (
                "AutoencoderKL",
                {**_VAE, "sample_size": 1024, "scaling_factor": 0.13025, "force_upcast": True},
            ),
            "text_encoder": ("CLIPTextModel", _CLIP_L),
            "text_encoder_2": ("CLIPTextModelWithProjection", _BIG_G),
            "scheduler": ("EulerDiscreteScheduler", {**_NOISE, "timestep_spacing": "leading"}),
        },
        extras={
            "controlnet": ("ControlNetModel", {**_SDXL_NET, **_CONDITION}),
            "t2i": (
                "T2IAdapter",
                {
                    **_ADAPTER,
                    "in_channels": 3,
                    "downscale_factor": 16,
                    "adapter_type": "full_adapter_xl",
                },
            ),
        },
    ),
}


def family(name: str) -> Family:
    """The family that a model name such as `random:sd15` stands for.

    Raises:
        ModelError: there is no such family.
    """
    short = name.removeprefix(RANDOM)
    if short not in FAMILIES:
        names = [f"{RANDOM}{known}" for known in FAMILIES]
        raise ModelError(
            f"There is no architecture {name!r} to build. {did_you_mean(name, names)} They have "
            "random weights, for `privbench time`."
        )
    return FAMILIES[short]


def part_digest(name: str, part: str) -> str:
    """What stands where trained weights have a SHA-256: `random:sd15:` and its configuration's.

    >>> part_digest("random:sd15", "unet")[:16]
    'random:sd15:1b12'
    """
    found = family(name)
    text = json.dumps({**found.parts, **found.extras}[part], sort_keys=True)
    return f"{name}:{hashlib.sha256(text.encode()).hexdigest()}"
