"""Depth, outline, landmarks and pose of faces, estimated from pixels by ``tiny-geometry``.

What conditions on depth or landmarks, masks a region, or measures landmark error uses this; no
exact map of the renderer ever reaches an anonymizer. Importing this module is cheap.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from privbench_plugins.models import digest, resolve

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from privbench_plugins.tiny_geometry.net import Maps, TinyGeometry

MODEL: Final = "tiny-geometry"
_BATCH: Final = 16


def geometry_weights() -> dict[str, str]:
    """SHA-256 of each file of ``tiny-geometry``.

    Raises:
        ModelError: the files are missing.
    """
    return {f"{MODEL}/{name}": sha for name, sha in digest(resolve(MODEL)).items()}


class Geometry:
    """The estimator. Each image is treated alone, in float32 on the CPU."""

    def __init__(self, net: TinyGeometry) -> None:
        self._net = net

    def depth(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """(N, H, W, 3) uint8 RGB to (N, H, W) uint8: 0 background, else larger is nearer."""
        import torch
        import torch.nn.functional as F

        maps = self._maps(pixels)
        both = torch.stack([maps.depth, maps.outline], 1)
        depth, outline = F.interpolate(both, pixels.shape[1:3], mode="bilinear").unbind(1)
        grey = depth.mul(255).clamp(1, 255).round()
        found: NDArray[np.uint8] = (grey * (outline > 0)).to(torch.uint8).numpy()
        return found

    def landmarks(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """(N, H, W, 3) uint8 RGB to (N, 5, 2) float32 x, y in pixels.

        Order: the eye on the image's left, the eye on its right, tip of the nose, left and
        right corner of the mouth. Pixel centres lie at whole numbers.
        """
        height, width = pixels.shape[1:3]
        points: NDArray[np.float32] = self._maps(pixels).landmarks.numpy()
        return points * (width, height) - 0.5

    def pose(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """(N, H, W, 3) uint8 RGB to (N, 2) float32 yaw and pitch in degrees."""
        angles: NDArray[np.float32] = self._maps(pixels).pose.numpy()
        return angles

    def landmarks_and_pose(
        self, pixels: NDArray[np.uint8]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """`landmarks` and `pose` at the cost of one."""
        height, width = pixels.shape[1:3]
        maps = self._maps(pixels)
        points: NDArray[np.float32] = maps.landmarks.numpy()
        angles: NDArray[np.float32] = maps.pose.numpy()
        return points * (width, height) - 0.5, angles

    def _maps(self, pixels: NDArray[np.uint8]) -> Maps:
        """All outputs; every block has the same shape, so that no image sees its batch."""
        import torch

        from privbench_plugins.tiny_geometry.net import Maps

        _check(pixels)
        blocks: list[Maps] = []
        with torch.inference_mode():
            for start in range(0, len(pixels), _BATCH):
                part = torch.from_numpy(pixels[start : start + _BATCH]).permute(0, 3, 1, 2)
                count = len(part)
                rows = torch.arange(_BATCH).clamp(max=count - 1)
                fitted = self._fit(part.float() / 255)[rows]
                blocks.append(Maps(*(x[:count] for x in self._net(fitted))))
            if not blocks:
                side = self._net.config.side
                return Maps(*(x[:0] for x in self._net(torch.zeros(1, 3, side, side))))
        return Maps(*(torch.cat(x) for x in zip(*blocks, strict=True)))

    def _fit(self, pixels: Any) -> Any:
        import torch.nn.functional as F

        side = self._net.config.side
        if tuple(pixels.shape[-2:]) == (side, side):
            return pixels
        shrinks = min(pixels.shape[-2:]) > side
        return F.interpolate(pixels, (side, side), mode="bilinear", antialias=shrinks)


def load_geometry() -> Geometry:
    """The embedded estimator.

    Raises:
        ModelError: its files are missing.
    """
    from privbench_plugins.tiny_geometry.net import load

    return Geometry(load(resolve(MODEL)))


def _check(pixels: NDArray[np.uint8]) -> None:
    if pixels.dtype.name != "uint8" or pixels.ndim != 4 or pixels.shape[-1] != 3:
        raise ValueError(
            "The 'pixels' parameter must be a uint8 array of shape (N, H, W, 3). "
            f"Got {pixels.dtype} of shape {pixels.shape} instead."
        )
