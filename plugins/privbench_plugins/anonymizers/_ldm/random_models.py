"""Networks of the true architecture with random weights: to measure time, never privacy.

A network is made on the meta device, where it has shapes and no memory. `materialise` gives it
memory on the device and in the number type that it is to have, so that SDXL needs no float32
copy on the way.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from privbench.errors import ModelError
from privbench_plugins.anonymizers._ldm.random_configs import TOKENS, family
from privbench_plugins.anonymizers._ldm.text import Text


def network(name: str, part: str) -> Any:
    """One network of a family on the meta device: shapes without memory.

    Args:
        name: such as `random:sd15`.
        part: a component of its pipeline, `controlnet` or `t2i`.

    Raises:
        ModelError: there is no such family.
    """
    found = family(name)
    kind, options = {**found.parts, **found.extras}[part]
    with torch.device("meta"):
        if part.startswith("text_encoder"):
            import transformers

            return getattr(transformers, kind)(transformers.CLIPTextConfig(**options))
        import diffusers

        return getattr(diffusers, kind)(**options)


def scheduler(name: str) -> Any:
    """The sampler that the family's pipeline comes with."""
    import diffusers

    kind, options = family(name).parts["scheduler"]
    return getattr(diffusers, kind)(**options)


@torch.no_grad()
def materialise(module: Any, device: torch.device, dtype: torch.dtype) -> Any:
    """Give a network on the meta device memory and random weights.

    Weights are normal with variance 1 / fan-in, so that activations stay of order one: neither
    overflow in float16 nor subnormal numbers, which would slow a CPU down. They are the same
    at every call.

    Args:
        module: a network whose parameters are all on the meta device; it is changed.
        device: where the memory is taken.
        dtype: its number type.
    """
    module.to(dtype).to_empty(device=device)
    generator = torch.Generator(device).manual_seed(0)
    for weight in module.parameters():
        if weight.ndim < 2:
            weight.zero_()
        else:
            weight.normal_(0, 1 / math.sqrt(weight[0].numel()), generator=generator)
    for part in module.modules():
        if isinstance(part, torch.nn.GroupNorm | torch.nn.LayerNorm) and part.weight is not None:
            part.weight.fill_(1)
    for name, buffer in module.named_buffers():
        if not name.endswith("position_ids"):
            raise ModelError(f"{type(module).__name__} has a buffer {name} of unknown content.")
        buffer.copy_(torch.arange(buffer.shape[-1], device=device))
    return module


@torch.inference_mode()
def encode(name: str, guided: bool, resolution: int) -> Text:
    """What the text encoders make of random tokens: there is no vocabulary to hand.

    Args:
        name: such as `random:sd15`.
        guided: whether the negative prompt is needed.
        resolution: side of the square that will be made, in pixels (SDXL is told).

    Returns:
        (1 or 2, 77, D) float32 features on the CPU, with SDXL's further inputs.
    """
    rows = 2 if guided else 1
    parts = [part for part in family(name).parts if part.startswith("text_encoder")]
    if len(parts) == 1:
        return Text(_read(name, parts[0], rows)["last_hidden_state"], {})
    made = [_read(name, part, rows) for part in parts]
    hidden = torch.cat([each["hidden_states"][-2] for each in made], dim=-1)
    ids = torch.tensor([[resolution, resolution, 0, 0, resolution, resolution]])
    return Text(
        hidden,
        {"text_embeds": made[1]["text_embeds"], "time_ids": ids.float().repeat(rows, 1)},
    )


def _read(name: str, part: str, rows: int) -> Mapping[str, Tensor]:
    """Outputs of one text encoder, which is dropped again."""
    encoder = materialise(network(name, part), torch.device("cpu"), torch.float32).eval()
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(encoder.config.vocab_size, (rows, TOKENS), generator=generator)
    made: Mapping[str, Tensor] = encoder(tokens, output_hidden_states=True)
    return made
