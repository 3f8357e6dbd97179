"""From a configuration to a loaded anonymizer: one function per plugin."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from privbench_plugins.anonymizers._ldm.anonymizer import LatentAnonymizer
from privbench_plugins.anonymizers._ldm.estimators import EstimatorFolder
from privbench_plugins.anonymizers._ldm.folders import ModelFolder, PipelineFolder
from privbench_plugins.anonymizers._ldm.guides import (
    AdapterGuide,
    ControlNetGuide,
    Estimator,
    Guide,
    JointGuide,
    Unguided,
)
from privbench_plugins.anonymizers._ldm.loading import load_diffuser, load_network
from privbench_plugins.anonymizers._ldm.parts import (
    adapter_of,
    canny_and_depth_of,
    captioner_of,
    control_of,
    depth_and_softedge_of,
    depth_model_of,
    pipeline_of,
)
from privbench_plugins.anonymizers._ldm.sources import (
    CaptionGuide,
    InpaintGuide,
    Regions,
    SourceGuide,
)
from privbench_plugins.anonymizers._ldm.vision import (
    EmbeddedCaptioner,
    load_captioner,
    load_depth_network,
)
from privbench_plugins.conditions import canny, draw_landmarks, soft_edges
from privbench_plugins.geometry import load_geometry
from privbench_plugins.models import resolve
from privbench_plugins.regions import face_mask

if TYPE_CHECKING:
    from privbench_plugins.anonymizers.controlnets import (
        CannyDepthConfig,
        ControlNetDepthConfig,
        ControlNetLandmarksConfig,
        ControlNetSoftEdgeConfig,
        DepthOptions,
        DepthSoftEdgeConfig,
        T2iCannyConfig,
    )
    from privbench_plugins.anonymizers.ldm import CannyOptions, ControlNetCannyConfig, LdmConfig
    from privbench_plugins.anonymizers.ldm_sources import (
        CaptionConfig,
        Img2ImgConfig,
        InpaintConfig,
        RegionOptions,
    )


def unconditional(config: LdmConfig) -> LatentAnonymizer:
    """`ldm-unconditional`."""
    return _anonymizer(config, pipeline_of(config), Unguided())


def controlnet_canny(config: ControlNetCannyConfig) -> LatentAnonymizer:
    """`controlnet-canny`."""
    found = pipeline_of(config)
    network = _network(config, control_of(config, found))
    return _anonymizer(
        config, found, ControlNetGuide.of(network, _edges(config), config.conditioning_scale)
    )


def controlnet_depth(config: ControlNetDepthConfig) -> LatentAnonymizer:
    """`controlnet-depth`."""
    found = pipeline_of(config)
    control, estimate = control_of(config, found), _depth(config)
    network = _network(config, control)
    return _anonymizer(
        config, found, ControlNetGuide.of(network, estimate, config.conditioning_scale)
    )


def controlnet_softedge(config: ControlNetSoftEdgeConfig) -> LatentAnonymizer:
    """`controlnet-softedge`."""
    found = pipeline_of(config)
    network = _network(config, control_of(config, found))
    return _anonymizer(
        config, found, ControlNetGuide.of(network, soft_edges, config.conditioning_scale)
    )


def controlnet_landmarks(config: ControlNetLandmarksConfig) -> LatentAnonymizer:
    """`controlnet-landmarks`."""
    found = pipeline_of(config)
    network = _network(config, control_of(config, found))
    return _anonymizer(
        config, found, ControlNetGuide.of(network, _wire_mask(), config.conditioning_scale)
    )


def controlnet_canny_depth(config: CannyDepthConfig) -> LatentAnonymizer:
    """`controlnet-canny-depth`."""
    found = pipeline_of(config)
    edges, depth = canny_and_depth_of(config, found)
    parts = (
        ControlNetGuide.of(_network(config, edges), _edges(config), config.canny_scale),
        ControlNetGuide.of(_network(config, depth), _depth(config), config.depth_scale),
    )
    return _anonymizer(config, found, JointGuide(parts))


def controlnet_depth_softedge(config: DepthSoftEdgeConfig) -> LatentAnonymizer:
    """`controlnet-depth-softedge`."""
    face = config.repaint == "face"
    found = pipeline_of(config, inpaint=face)
    depth, softedge = depth_and_softedge_of(config, found)
    parts: tuple[Guide, ...] = (
        ControlNetGuide.of(_network(config, depth), _depth(config), config.depth_scale),
        ControlNetGuide.of(_network(config, softedge), soft_edges, config.softedge_scale),
    )
    return _anonymizer(config, found, JointGuide((*parts, _inpaint(config)) if face else parts))


def t2i_canny(config: T2iCannyConfig) -> LatentAnonymizer:
    """`t2i-canny`."""
    found = pipeline_of(config)
    network = load_network(adapter_of(config, found), "T2IAdapter")
    return _anonymizer(config, found, AdapterGuide(network, _edges(config), config.adapter_scale))


def img2img(config: Img2ImgConfig) -> LatentAnonymizer:
    """`ldm-img2img`."""
    return _anonymizer(config, pipeline_of(config), SourceGuide(config.strength))


def inpaint(config: InpaintConfig) -> LatentAnonymizer:
    """`ldm-inpaint`."""
    return _anonymizer(config, pipeline_of(config, inpaint=True), _inpaint(config))


def caption(config: CaptionConfig) -> LatentAnonymizer:
    """`ldm-caption`."""
    found, described = pipeline_of(config), captioner_of(config)
    if isinstance(described, EstimatorFolder):
        guide = CaptionGuide(load_captioner(described), config.prompt)
    else:
        from privbench_plugins.tiny_captioner.net import load

        guide = CaptionGuide(EmbeddedCaptioner(load(resolve(described.name))), config.prompt)
    return _anonymizer(config, found, guide, writes=True)


def _edges(config: CannyOptions) -> Estimator:
    return partial(canny, low=config.low_threshold, high=config.high_threshold)


def _depth(config: DepthOptions) -> Estimator:
    found = depth_model_of(config)
    if isinstance(found, EstimatorFolder):
        return load_depth_network(found)
    return load_geometry().depth


def _wire_mask() -> Estimator:
    geometry = load_geometry()

    def estimate(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        return draw_landmarks(geometry.landmarks(pixels), pixels.shape[1], pixels.shape[2])

    return estimate


def face_regions() -> Regions:
    """Where the faces of images are, from their estimated landmarks."""
    geometry = load_geometry()

    def regions(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        return face_mask(geometry.landmarks(pixels), pixels.shape[1], pixels.shape[2], feather=0)

    return regions


def _inpaint(config: RegionOptions) -> InpaintGuide:
    return InpaintGuide(face_regions(), config.dilate, config.feather)


def _network(config: LdmConfig, found: ModelFolder) -> Any:
    network = load_network(found, "ControlNetModel")
    if config.compile:
        network.compile(dynamic=False)
    return network


def _anonymizer(
    config: LdmConfig, found: PipelineFolder, guide: Guide, *, writes: bool = False
) -> LatentAnonymizer:
    model = load_diffuser(
        found,
        config.prompt,
        config.negative_prompt,
        guided=config.guidance_scale > 1,
        scheduler=config.scheduler,
        writes=writes,
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
