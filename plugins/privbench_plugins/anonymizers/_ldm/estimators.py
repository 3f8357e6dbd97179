"""Find the networks of transformers that look at a source, from their JSON files alone.

Torch-free: see `folders`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from privbench.errors import ModelError
from privbench_plugins import models
from privbench_plugins.anonymizers._ldm.folders import check_weights

GEOMETRY: Final = "tiny-geometry"
"""The embedded estimator of depth and landmarks."""

CAPTIONER: Final = "tiny-captioner"
"""The embedded captioner."""

DEPTH: Final = ("DPTForDepthEstimation", "DepthAnythingForDepthEstimation")
CAPTION: Final = ("BlipForConditionalGeneration",)

_SETTINGS: Final = (".json", ".txt", ".model")


@dataclass(frozen=True, slots=True, eq=False)
class EstimatorFolder:
    """A network of transformers that was found and checked.

    Attributes:
        path: folder with config.json, preprocessor_config.json and safetensors weights.
        kind: name of its class.
    """

    path: Path
    kind: str

    def digest(self) -> dict[str, str]:
        """SHA-256 of every file that is used, by name."""
        files = {
            file
            for file in self.path.iterdir()
            if file.suffix in _SETTINGS and ".index." not in file.name
        }
        files |= set(models.weight_files(self.path))
        return {file.name: models.file_digest(file) for file in sorted(files)}


def find_depth_model(name: str, revision: str = "") -> EstimatorFolder:
    """Find a depth estimator: Depth-Anything or DPT.

    Raises:
        ModelError: missing or damaged files, or another architecture.
    """
    return _find(name, revision, DEPTH, "a depth estimator")


def find_captioner(name: str, revision: str = "") -> EstimatorFolder:
    """Find a captioner: BLIP.

    Raises:
        ModelError: missing or damaged files, or another architecture.
    """
    found = _find(name, revision, CAPTION, "a captioner")
    if not any(found.path.glob("tokenizer*")):
        raise ModelError(f"{found.path} has no tokenizer (tokenizer.json, tokenizer_config.json).")
    return found


def _find(name: str, revision: str, expected: tuple[str, ...], what: str) -> EstimatorFolder:
    path = models.resolve(name, revision, stem="model")
    wanted = " or ".join(expected)
    if not (path / "config.json").is_file():
        raise ModelError(f"{path} is no folder of {what}: expected the config.json of {wanted}.")
    config = models.read_json(path / "config.json")
    kinds = config.get("architectures") or [config.get("_class_name") or config.get("architecture")]
    if kinds[0] not in expected:
        raise ModelError(f"{path} is not {what}: expected {wanted}, got {kinds[0]}.")
    models.read_json(path / "preprocessor_config.json")
    check_weights(path, "")
    return EstimatorFolder(path, str(kinds[0]))
