"""Surface layers blended per pixel before they are lit."""

from dataclasses import dataclass, field

import numpy as np

from .arrays import Floats, Ints, f32


@dataclass
class Layer:
    """Fragments of one surface, (n,) or (n, 3) each. `albedo` is sRGB.

    `gloss` is the strength of the highlight; `strand` tells how hair-like the highlight is, and
    `tangent` is the direction of the hair.
    """

    pixel: Ints
    depth: Floats
    alpha: Floats
    albedo: Floats
    normal: Floats
    gloss: Floats
    strand: Floats | None = None
    tangent: Floats | None = None


@dataclass
class GBuffer:
    """Blended surface of an image of `size` x `size` pixels, flat in y * size + x."""

    size: int
    depth: Floats = field(init=False)
    cover: Floats = field(init=False)
    albedo: Floats = field(init=False)
    normal: Floats = field(init=False)
    gloss: Floats = field(init=False)
    strand: Floats = field(init=False)
    tangent: Floats = field(init=False)

    def __post_init__(self) -> None:
        n = self.size * self.size
        self.depth = np.full(n, -1e3, np.float32)
        self.cover, self.gloss, self.strand = (np.zeros(n, np.float32) for _ in range(3))
        self.albedo, self.normal, self.tangent = (np.zeros((n, 3), np.float32) for _ in range(3))

    def lay(self, layer: Layer) -> None:
        """Blend a layer over what lies behind it."""
        seen = (layer.depth > self.depth[layer.pixel]) & (layer.alpha > 0.004)
        pixel, alpha = layer.pixel[seen], layer.alpha[seen]
        old = self.cover[pixel]
        new = alpha + old * (1 - alpha)
        share = alpha / new
        self.cover[pixel] = new
        wide = share[:, None]
        for name in ("albedo", "normal", "tangent"):
            source = getattr(layer, name)
            if source is None:
                continue
            target = getattr(self, name)
            target[pixel] += wide * (source[seen] - target[pixel])
        self.gloss[pixel] += share * (layer.gloss[seen] - self.gloss[pixel])
        strand = f32(0.0) if layer.strand is None else layer.strand[seen]
        self.strand[pixel] += share * (strand - self.strand[pixel])
        solid = alpha > 0.5
        self.depth[pixel[solid]] = layer.depth[seen][solid]
