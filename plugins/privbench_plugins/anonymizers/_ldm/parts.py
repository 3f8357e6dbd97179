"""What a configuration names: found, checked and hashed, the same when planned and when built.

Torch-free: see `folders`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

from privbench_plugins.anonymizers._ldm.adapters import find_adapter
from privbench_plugins.anonymizers._ldm.estimators import (
    CAPTIONER,
    GEOMETRY,
    EstimatorFolder,
    find_captioner,
    find_depth_model,
)
from privbench_plugins.anonymizers._ldm.folders import (
    ModelFolder,
    PipelineFolder,
    find_controlnet,
    find_pipeline,
)
from privbench_plugins.models import digest, resolve

if TYPE_CHECKING:
    from privbench_plugins.anonymizers.controlnets import (
        CannyDepthConfig,
        DepthOptions,
        DepthSoftEdgeConfig,
        OneControlNetConfig,
        T2iCannyConfig,
    )
    from privbench_plugins.anonymizers.ldm import ControlNetCannyConfig, LdmConfig
    from privbench_plugins.anonymizers.ldm_sources import CaptionConfig


class Hashed(Protocol):
    """Something whose files are pinned by their content."""

    def digest(self) -> dict[str, str]:
        """SHA-256 of every file that is used, by relative name."""
        ...


@dataclass(frozen=True, slots=True)
class Embedded:
    """An estimator that the package ships."""

    name: str

    def digest(self) -> dict[str, str]:
        """SHA-256 of every file that is used, by relative name."""
        return digest(resolve(self.name))


LANDMARKS: Final = Embedded(GEOMETRY)
"""The landmark estimator: `tiny-geometry`, always."""


def digests(**parts: Hashed) -> dict[str, str]:
    """SHA-256 of all files, by part and relative name."""
    return {f"{part}/{file}": sha for part, x in parts.items() for file, sha in x.digest().items()}


def pipeline_of(config: LdmConfig, *, inpaint: bool = False) -> PipelineFolder:
    """The diffusion model.

    Raises:
        ModelError: see `find_pipeline`.
    """
    return find_pipeline(
        config.model, config.revision, config.variant, config.resolution, inpaint=inpaint
    )


def control_of(
    config: ControlNetCannyConfig | OneControlNetConfig, pipeline: PipelineFolder
) -> ModelFolder:
    """The ControlNet of a configuration that has one.

    Raises:
        ModelError: see `find_controlnet`.
    """
    return find_controlnet(
        config.controlnet, config.controlnet_revision, config.variant, pipeline=pipeline
    )


def canny_and_depth_of(
    config: CannyDepthConfig, pipeline: PipelineFolder
) -> tuple[ModelFolder, ModelFolder]:
    """The ControlNets of `controlnet-canny-depth`.

    Raises:
        ModelError: see `find_controlnet`.
    """
    canny = (config.canny_controlnet, config.canny_controlnet_revision)
    depth = (config.depth_controlnet, config.depth_controlnet_revision)
    return (
        find_controlnet(*canny, config.variant, pipeline=pipeline),
        find_controlnet(*depth, config.variant, pipeline=pipeline),
    )


def depth_and_softedge_of(
    config: DepthSoftEdgeConfig, pipeline: PipelineFolder
) -> tuple[ModelFolder, ModelFolder]:
    """The ControlNets of `controlnet-depth-softedge`.

    Raises:
        ModelError: see `find_controlnet`.
    """
    depth = (config.depth_controlnet, config.depth_controlnet_revision)
    softedge = (config.softedge_controlnet, config.softedge_controlnet_revision)
    return (
        find_controlnet(*depth, config.variant, pipeline=pipeline),
        find_controlnet(*softedge, config.variant, pipeline=pipeline),
    )


def adapter_of(config: T2iCannyConfig, pipeline: PipelineFolder) -> ModelFolder:
    """The T2I-Adapter.

    Raises:
        ModelError: see `find_adapter`.
    """
    return find_adapter(config.adapter, config.adapter_revision, config.variant, pipeline=pipeline)


def depth_model_of(config: DepthOptions) -> EstimatorFolder | Embedded:
    """The depth estimator.

    Raises:
        ModelError: see `find_depth_model`.
    """
    if config.depth_model == GEOMETRY:
        return Embedded(GEOMETRY)
    return find_depth_model(config.depth_model, config.depth_model_revision)


def captioner_of(config: CaptionConfig) -> EstimatorFolder | Embedded:
    """The captioner.

    Raises:
        ModelError: see `find_captioner`.
    """
    if config.captioner == CAPTIONER:
        return Embedded(CAPTIONER)
    return find_captioner(config.captioner, config.captioner_revision)
