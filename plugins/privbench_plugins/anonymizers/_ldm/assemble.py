"""From a configuration to a loaded anonymizer: one function per plugin."""

from __future__ import annotations

from functools import partial

import torch

from privbench_plugins.anonymizers._ldm.anonymizer import LatentAnonymizer
from privbench_plugins.anonymizers._ldm.folders import (
    PipelineFolder,
    find_controlnet,
    find_pipeline,
)
from privbench_plugins.anonymizers._ldm.guides import ControlNetGuide, Guide, Unguided
from privbench_plugins.anonymizers._ldm.loading import load_controlnet, load_diffuser
from privbench_plugins.anonymizers.ldm import ControlNetCannyConfig, LdmConfig
from privbench_plugins.conditions import canny


def unconditional(config: LdmConfig) -> LatentAnonymizer:
    """`ldm-unconditional`."""
    return _anonymizer(config, _find(config), Unguided())


def controlnet_canny(config: ControlNetCannyConfig) -> LatentAnonymizer:
    """`controlnet-canny`."""
    found = _find(config)
    control = find_controlnet(
        config.controlnet, config.controlnet_revision, config.variant, pipeline=found
    )
    network = load_controlnet(control)
    if config.compile:
        network.compile(dynamic=False)
    edges = partial(canny, low=config.low_threshold, high=config.high_threshold)
    guide = ControlNetGuide.of(network, edges, config.conditioning_scale)
    return _anonymizer(config, found, guide)


def _find(config: LdmConfig) -> PipelineFolder:
    return find_pipeline(config.model, config.revision, config.variant, config.resolution)


def _anonymizer(config: LdmConfig, found: PipelineFolder, guide: Guide) -> LatentAnonymizer:
    model = load_diffuser(
        found,
        config.prompt,
        config.negative_prompt,
        guided=config.guidance_scale > 1,
        scheduler=config.scheduler,
    )
    if config.compile:
        model.unet.compile(dynamic=False)
    made = LatentAnonymizer(
        model,
        guide,
        steps=config.steps,
        guidance_scale=config.guidance_scale,
        dtype=config.dtype,
        batch_size=config.batch_size,
    )
    # Random weights are made where they are wanted, and in that device's number type: `to`.
    return made if found.random else made.to(torch.device("cpu"))
