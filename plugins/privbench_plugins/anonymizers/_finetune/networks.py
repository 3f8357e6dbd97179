"""Loading what is trained, and saying which of its parameters are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from privbench.errors import ModelError
from privbench_plugins.anonymizers._finetune.files import pipeline_of
from privbench_plugins.anonymizers._ldm.loading import Diffuser, load_diffuser
from privbench_plugins.anonymizers._ldm.text import Writer

if TYPE_CHECKING:
    from privbench_plugins.anonymizers.finetune import LdmFinetuneConfig

_PROJECTIONS = ["to_q", "to_k", "to_v", "to_out.0"]
"""Attention layers that LoRA adds to (diffusers, train_text_to_image_lora.py)."""


def load(config: LdmFinetuneConfig, guided: bool) -> Diffuser:
    """The model in float32 on the CPU, its text encoders kept.

    Raises:
        ModelError: it cannot be loaded.
    """
    return load_diffuser(
        pipeline_of(config), config.prompt, "", guided, config.scheduler, writes=True
    )


def writer_of(model: Diffuser) -> Writer:
    """The text encoders of a model that was loaded with them."""
    if model.writer is None:
        raise TypeError("Expected a model whose text encoders were kept.")
    return model.writer


def add_lora(unet: Any, rank: int, seed: int) -> None:
    """Add low-rank matrices to the attention of a UNet on the CPU; they change nothing as yet.

    Raises:
        ModelError: peft is missing.
    """
    try:
        from peft import LoraConfig
    except ImportError as error:
        raise ModelError("method=lora needs peft; pip install 'privbench[lora]'") from error
    lora = LoraConfig(
        r=rank, lora_alpha=rank, init_lora_weights="gaussian", target_modules=_PROJECTIONS
    )
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        unet.add_adapter(lora)


def trained_parameters(unet: nn.Module, method: str) -> dict[str, nn.Parameter]:
    """The parameters that a method trains, by name."""
    named = unet.named_parameters()
    return {name: p for name, p in named if method == "full" or ".lora_" in name}
