"""Write a pipeline as one original-format Stable Diffusion checkpoint.

The names are those of the CompVis code; diffusers reads them in `loaders/single_file_utils.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

Tensors = Mapping[str, torch.Tensor]

UNET = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
    "mid_block.attentions.0": "middle_block.1",
    "mid_block.resnets.0": "middle_block.0",
    "mid_block.resnets.1": "middle_block.2",
}
RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "time_emb_proj": "emb_layers.1",
    "conv_shortcut": "skip_connection",
}
VAE = {
    "mid_block.resnets.0": "mid.block_1",
    "mid_block.resnets.1": "mid.block_2",
    "mid_block.attentions.0": "mid.attn_1",
    "conv_shortcut": "nin_shortcut",
    "conv_norm_out": "norm_out",
}
ATTENTION = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}


def save(pipe: Any, path: Path) -> None:
    """Write UNet, autoencoder and text encoder into `path`."""
    tensors = unet(pipe.unet.state_dict(), pipe.unet.config) | vae(
        pipe.vae.state_dict(), len(pipe.vae.config.block_out_channels)
    )
    for name, value in pipe.text_encoder.state_dict().items():
        name = name if name.startswith("text_model.") else f"text_model.{name}"
        tensors[f"cond_stage_model.transformer.{name}"] = value
    save_file({name: value.contiguous() for name, value in tensors.items()}, path)


def unet(tensors: Tensors, config: Any) -> dict[str, torch.Tensor]:
    """Original names of a UNet's tensors."""
    names, each = dict(UNET), config.layers_per_block + 1
    for i in range(len(config.block_out_channels)):
        for j in range(each):
            names[f"down_blocks.{i}.resnets.{j}"] = f"input_blocks.{each * i + j + 1}.0"
            names[f"down_blocks.{i}.attentions.{j}"] = f"input_blocks.{each * i + j + 1}.1"
            names[f"up_blocks.{i}.resnets.{j}"] = f"output_blocks.{each * i + j}.0"
            names[f"up_blocks.{i}.attentions.{j}"] = f"output_blocks.{each * i + j}.1"
        place = 2 if "CrossAttn" in config.up_block_types[i] else 1
        names[f"down_blocks.{i}.downsamplers.0.conv"] = f"input_blocks.{each * (i + 1)}.0.op"
        names[f"up_blocks.{i}.upsamplers.0.conv"] = (
            f"output_blocks.{each * (i + 1) - 1}.{place}.conv"
        )
    made = {}
    for name, value in tensors.items():
        new = replaced(name, names)
        made[f"model.diffusion_model.{replaced(new, RESNET) if 'resnets' in name else new}"] = value
    return made


def vae(tensors: Tensors, levels: int) -> dict[str, torch.Tensor]:
    """Original names of an AutoencoderKL's tensors; its attention was made of convolutions."""
    names = dict(VAE)
    for i in range(levels):
        names[f"down_blocks.{i}.resnets"] = f"down.{i}.block"
        names[f"down_blocks.{i}.downsamplers.0.conv"] = f"down.{i}.downsample.conv"
        names[f"up_blocks.{i}.resnets"] = f"up.{levels - 1 - i}.block"
        names[f"up_blocks.{i}.upsamplers.0.conv"] = f"up.{levels - 1 - i}.upsample.conv"
    made = {}
    for name, value in tensors.items():
        new = replaced(name, names)
        if "attentions" in name:
            new = replaced(new, ATTENTION)
            value = value[..., None, None] if value.ndim == 2 else value
        made[f"first_stage_model.{new}"] = value
    return made


def replaced(name: str, names: Mapping[str, str]) -> str:
    """A name with every whole part in `names` exchanged."""
    padded = f".{name}."
    for old in sorted(names, key=len, reverse=True):
        padded = padded.replace(f".{old}.", f".{names[old]}.")
    return padded.strip(".")
