"""Anonymizers that paint a face from maps of the source: depth, soft edges, landmarks, Canny."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from privbench.spec import Config, PluginSpec, Tags
from privbench_plugins.anonymizers.ldm import LICENCE, SMOKE, CannyOptions, LdmConfig
from privbench_plugins.anonymizers.ldm_sources import RegionOptions

if TYPE_CHECKING:
    from privbench.types import Anonymizer

_NETWORK = "ControlNet for `model`: embedded name, local folder or hub id."
_REVISION = "Branch, tag or commit of a hub id in the setting before."


class DepthOptions(Config):
    """Which network estimates depth."""

    depth_model: str = Field(
        default="tiny-geometry",
        description="Depth estimator: `tiny-geometry` (embedded, for rendered faces), or a folder "
        "or hub id of Depth-Anything or DPT (transformers), which real photos need.",
    )
    depth_model_revision: str = Field(
        default="", description="Branch, tag or commit of a hub `depth_model`."
    )


class OneControlNetConfig(LdmConfig):
    """Options that anonymizers with one ControlNet share."""

    controlnet: str = Field(default="", description=_NETWORK)
    controlnet_revision: str = Field(
        default="", description="Branch, tag or commit of a hub `controlnet`."
    )
    conditioning_scale: float = Field(
        default=1.0, ge=0, le=10, description="Strength of the map; 0 ignores the source."
    )


class ControlNetDepthConfig(DepthOptions, OneControlNetConfig):
    """Options of `controlnet-depth`."""

    controlnet: str = Field(default="tiny-faces-depth", description=f"A depth {_NETWORK}")


class ControlNetSoftEdgeConfig(OneControlNetConfig):
    """Options of `controlnet-softedge`."""

    controlnet: str = Field(
        default="tiny-faces-softedge", description=f"A soft edge (HED) {_NETWORK}"
    )


class ControlNetLandmarksConfig(OneControlNetConfig):
    """Options of `controlnet-landmarks`."""

    controlnet: str = Field(
        default="tiny-faces-landmarks",
        description=f"A {_NETWORK} It must know the wire mask of five landmarks that is drawn; "
        "an OpenPose or MediaPipe ControlNet was trained on other drawings.",
    )


class CannyDepthConfig(DepthOptions, CannyOptions, LdmConfig):
    """Options of `controlnet-canny-depth`."""

    canny_controlnet: str = Field(default="tiny-faces-canny", description=f"A canny {_NETWORK}")
    canny_controlnet_revision: str = Field(default="", description=_REVISION)
    canny_scale: float = Field(default=1.0, ge=0, le=10, description="Strength of the edges.")
    depth_controlnet: str = Field(default="tiny-faces-depth", description=f"A depth {_NETWORK}")
    depth_controlnet_revision: str = Field(default="", description=_REVISION)
    depth_scale: float = Field(default=1.0, ge=0, le=10, description="Strength of the depth.")


class DepthSoftEdgeConfig(DepthOptions, RegionOptions, LdmConfig):
    """Options of `controlnet-depth-softedge`; the scales are those of instance augmentation."""

    depth_controlnet: str = Field(default="tiny-faces-depth", description=f"A depth {_NETWORK}")
    depth_controlnet_revision: str = Field(default="", description=_REVISION)
    depth_scale: float = Field(default=0.7, ge=0, le=10, description="Strength of the depth.")
    softedge_controlnet: str = Field(
        default="tiny-faces-softedge", description=f"A soft edge (HED) {_NETWORK}"
    )
    softedge_controlnet_revision: str = Field(default="", description=_REVISION)
    softedge_scale: float = Field(
        default=0.1, ge=0, le=10, description="Strength of the soft edges."
    )
    repaint: Literal["image", "face"] = Field(
        default="image",
        description="Paint the whole image, or the face alone into the kept rest of the source; "
        "`face` also takes inpainting models. dilate and feather matter for `face` only.",
    )


class T2iCannyConfig(CannyOptions, LdmConfig):
    """Options of `t2i-canny`."""

    adapter: str = Field(
        default="tiny-faces-t2i-canny",
        description="A canny T2I-Adapter for `model`: embedded name, local folder or hub id "
        "(SD 1.5: full_adapter or light_adapter; SDXL: full_adapter_xl).",
    )
    adapter_revision: str = Field(
        default="", description="Branch, tag or commit of a hub `adapter`."
    )
    adapter_scale: float = Field(
        default=1.0, ge=0, le=10, description="Weight of its features; 0 ignores the source."
    )


def build_depth(config: ControlNetDepthConfig) -> Anonymizer:
    """A sampler steered by the source's depth.

    Raises:
        ModelError: a model cannot be loaded, or they do not fit together.
    """
    from privbench_plugins.anonymizers._ldm.assemble import controlnet_depth

    return controlnet_depth(config)


def build_softedge(config: ControlNetSoftEdgeConfig) -> Anonymizer:
    """A sampler steered by the source's soft edges.

    Raises:
        ModelError: a model cannot be loaded, or they do not fit together.
    """
    from privbench_plugins.anonymizers._ldm.assemble import controlnet_softedge

    return controlnet_softedge(config)


def build_landmarks(config: ControlNetLandmarksConfig) -> Anonymizer:
    """A sampler steered by five landmarks of the source.

    Raises:
        ModelError: a model cannot be loaded, or they do not fit together.
    """
    from privbench_plugins.anonymizers._ldm.assemble import controlnet_landmarks

    return controlnet_landmarks(config)


def build_canny_depth(config: CannyDepthConfig) -> Anonymizer:
    """A sampler steered by the source's edges and depth.

    Raises:
        ModelError: a model cannot be loaded, or they do not fit together.
    """
    from privbench_plugins.anonymizers._ldm.assemble import controlnet_canny_depth

    return controlnet_canny_depth(config)


def build_depth_softedge(config: DepthSoftEdgeConfig) -> Anonymizer:
    """A sampler steered by the source's depth and soft edges.

    Raises:
        ModelError: a model cannot be loaded, or they do not fit together.
    """
    from privbench_plugins.anonymizers._ldm.assemble import controlnet_depth_softedge

    return controlnet_depth_softedge(config)


def build_t2i_canny(config: T2iCannyConfig) -> Anonymizer:
    """A sampler steered by the source's edges through a T2I-Adapter.

    Raises:
        ModelError: a model cannot be loaded, or they do not fit together.
    """
    from privbench_plugins.anonymizers._ldm.assemble import t2i_canny

    return t2i_canny(config)


def depth_weights(config: ControlNetDepthConfig) -> Mapping[str, str]:
    """SHA-256 of all files: model, ControlNet, depth estimator.

    Raises:
        ModelError: one of them is not usable, or they do not fit together.
    """
    from privbench_plugins.anonymizers._ldm.parts import (
        control_of,
        depth_model_of,
        digests,
        pipeline_of,
    )

    model = pipeline_of(config)
    return digests(
        model=model, controlnet=control_of(config, model), depth_model=depth_model_of(config)
    )


def softedge_weights(config: ControlNetSoftEdgeConfig) -> Mapping[str, str]:
    """SHA-256 of all files: model, ControlNet.

    Raises:
        ModelError: one of them is not usable, or they do not fit together.
    """
    from privbench_plugins.anonymizers._ldm.parts import control_of, digests, pipeline_of

    model = pipeline_of(config)
    return digests(model=model, controlnet=control_of(config, model))


def landmarks_weights(config: ControlNetLandmarksConfig) -> Mapping[str, str]:
    """SHA-256 of all files: model, ControlNet, landmark estimator.

    Raises:
        ModelError: one of them is not usable, or they do not fit together.
    """
    from privbench_plugins.anonymizers._ldm.parts import (
        LANDMARKS,
        control_of,
        digests,
        pipeline_of,
    )

    model = pipeline_of(config)
    control = control_of(config, model)
    return digests(model=model, controlnet=control, landmarks=LANDMARKS)


def canny_depth_weights(config: CannyDepthConfig) -> Mapping[str, str]:
    """SHA-256 of all files: model, both ControlNets, depth estimator.

    Raises:
        ModelError: one of them is not usable, or they do not fit together.
    """
    from privbench_plugins.anonymizers._ldm.parts import (
        canny_and_depth_of,
        depth_model_of,
        digests,
        pipeline_of,
    )

    model = pipeline_of(config)
    canny, depth = canny_and_depth_of(config, model)
    return digests(
        model=model,
        canny_controlnet=canny,
        depth_controlnet=depth,
        depth_model=depth_model_of(config),
    )


def depth_softedge_weights(config: DepthSoftEdgeConfig) -> Mapping[str, str]:
    """SHA-256 of all files: model, both ControlNets, depth estimator, landmark estimator.

    Raises:
        ModelError: one of them is not usable, or they do not fit together.
    """
    from privbench_plugins.anonymizers._ldm.parts import (
        LANDMARKS,
        depth_and_softedge_of,
        depth_model_of,
        digests,
        pipeline_of,
    )

    face = config.repaint == "face"
    model = pipeline_of(config, inpaint=face)
    depth, softedge = depth_and_softedge_of(config, model)
    found = digests(
        model=model,
        depth_controlnet=depth,
        softedge_controlnet=softedge,
        depth_model=depth_model_of(config),
    )
    return found | (digests(landmarks=LANDMARKS) if face else {})


def t2i_canny_weights(config: T2iCannyConfig) -> Mapping[str, str]:
    """SHA-256 of all files: model, adapter.

    Raises:
        ModelError: one of them is not usable, or they do not fit together.
    """
    from privbench_plugins.anonymizers._ldm.parts import adapter_of, digests, pipeline_of

    model = pipeline_of(config)
    return digests(model=model, adapter=adapter_of(config, model))


SPECS: tuple[PluginSpec, ...] = (
    PluginSpec(
        kind="anonymizer",
        id="controlnet-depth",
        version=1,
        summary="Latent diffusion sample that follows the source's estimated depth (ControlNet).",
        build=build_depth,
        config=ControlNetDepthConfig,
        weights=depth_weights,
        tags=Tags(stochastic=True),
        smoke=SMOKE,
        licence=LICENCE,
    ),
    PluginSpec(
        kind="anonymizer",
        id="controlnet-softedge",
        version=1,
        summary="Latent diffusion sample that follows the source's soft edges (ControlNet).",
        build=build_softedge,
        config=ControlNetSoftEdgeConfig,
        weights=softedge_weights,
        tags=Tags(stochastic=True),
        smoke=SMOKE,
        licence=LICENCE,
    ),
    PluginSpec(
        kind="anonymizer",
        id="controlnet-landmarks",
        version=1,
        summary="Latent diffusion sample that follows five landmarks of the source (ControlNet).",
        build=build_landmarks,
        config=ControlNetLandmarksConfig,
        weights=landmarks_weights,
        tags=Tags(stochastic=True),
        smoke=SMOKE,
        licence=LICENCE,
    ),
    PluginSpec(
        kind="anonymizer",
        id="controlnet-canny-depth",
        version=1,
        summary="Latent diffusion sample that follows Canny edges and depth (two ControlNets).",
        build=build_canny_depth,
        config=CannyDepthConfig,
        weights=canny_depth_weights,
        tags=Tags(stochastic=True),
        smoke=SMOKE,
        licence=LICENCE,
    ),
    PluginSpec(
        kind="anonymizer",
        id="controlnet-depth-softedge",
        version=1,
        summary="Instance augmentation: depth at 0.7 and soft edges at 0.1 (two ControlNets).",
        build=build_depth_softedge,
        config=DepthSoftEdgeConfig,
        weights=depth_softedge_weights,
        tags=Tags(stochastic=True),
        smoke=SMOKE,
        licence=LICENCE,
    ),
    PluginSpec(
        kind="anonymizer",
        id="t2i-canny",
        version=1,
        summary="Latent diffusion sample that follows the source's Canny edges (T2I-Adapter).",
        build=build_t2i_canny,
        config=T2iCannyConfig,
        weights=t2i_canny_weights,
        tags=Tags(stochastic=True),
        smoke=SMOKE,
        licence=LICENCE,
    ),
)
