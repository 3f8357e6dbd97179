"""A z-buffer over triangles, vectorised: no Python loop over triangles or pixels."""

from dataclasses import dataclass

import numpy as np

from .arrays import Floats, Ints, f32, unit


@dataclass(frozen=True)
class Fragments:
    """The visible surface: one entry per covered pixel.

    pixel: (n,) flat index y * size + x. triangle: (n,). weights: (n, 3) barycentric.
    depth: (n,) larger is nearer.
    """

    pixel: Ints
    triangle: Ints
    weights: Floats
    depth: Floats

    def interpolate(self, values: Floats, triangles: Ints) -> Floats:
        """Interpolate per-vertex `values` (V, k) at the fragments: (n, k)."""
        corners = triangles[self.triangle]
        w = self.weights
        return f32(
            values[corners[:, 0]] * w[:, :1]
            + values[corners[:, 1]] * w[:, 1:2]
            + values[corners[:, 2]] * w[:, 2:]
        )

    def interpolate_corners(self, values: Floats) -> Floats:
        """Interpolate per-corner `values` (F, 3, k) at the fragments: (n, k)."""
        return f32((values[self.triangle] * self.weights[:, :, None]).sum(1))


def rasterise(
    screen: Floats, triangles: Ints, size: int, *, cull: bool, clip: Floats | None = None
) -> Fragments:
    """Find the nearest triangle at each pixel centre.

    screen: (V, 3) pixel x, pixel y (down), depth (larger is nearer). `cull` drops the triangles
    that face away from the viewer; `clip` (V,) drops the points where it interpolates below 0.
    """
    a, b, c = (screen[triangles[:, k]] for k in range(3))
    area = (b[:, 0] - a[:, 0]) * (c[:, 1] - a[:, 1]) - (c[:, 0] - a[:, 0]) * (b[:, 1] - a[:, 1])
    low = np.ceil(np.minimum(np.minimum(a, b), c)[:, :2]).clip(0, size).astype(np.int64)
    high = np.floor(np.maximum(np.maximum(a, b), c)[:, :2]).clip(-1, size - 1).astype(np.int64)
    span = high - low + 1
    facing = area < -1e-6 if cull else np.abs(area) > 1e-6
    index = np.nonzero((span > 0).all(1) & facing)[0]
    counts = span[index, 0] * span[index, 1]
    owner = np.repeat(np.arange(len(index)), counts)
    step = np.arange(len(owner)) - np.repeat(np.cumsum(counts) - counts, counts)
    row, column = np.divmod(step, np.repeat(span[index, 0], counts))
    start = low[index, 1] * size + low[index, 0]
    pixel = start[owner] + row * size + column
    plane = _planes(a[index], b[index], c[index], area[index], low[index])[owner]
    u = plane[:, 0] + plane[:, 1] * f32(column) + plane[:, 2] * f32(row)
    v = plane[:, 3] + plane[:, 4] * f32(column) + plane[:, 5] * f32(row)
    hit = np.nonzero((u >= -1e-4) & (v >= -1e-4) & (u + v <= 1.0001))[0]
    owner, u, v, pixel = owner[hit], u[hit], v[hit], pixel[hit]
    if clip is not None:
        at = clip[triangles[index]][owner]
        kept = at[:, 0] * (1 - u - v) + at[:, 1] * u + at[:, 2] * v >= 0
        owner, u, v, pixel = owner[kept], u[kept], v[kept], pixel[kept]
    w = 1.0 - u - v
    depth = w * a[index, 2][owner] + u * b[index, 2][owner] + v * c[index, 2][owner]
    near = _nearest(pixel, depth, size * size)
    weights = np.stack([w[near], u[near], v[near]], 1)
    return Fragments(pixel[near], index[owner[near]], f32(weights), f32(depth[near]))


def _planes(a: Floats, b: Floats, c: Floats, area: Floats, low: Ints) -> Floats:
    """Barycentric weights of b and c as linear functions of the pixel within the bounding box.

    Returns (n, 6): value at the corner `low`, step per column, step per row; for b, then for c.
    """
    inverse = 1.0 / area
    ux, uy = (c[:, 1] - a[:, 1]) * inverse, (a[:, 0] - c[:, 0]) * inverse
    vx, vy = (a[:, 1] - b[:, 1]) * inverse, (b[:, 0] - a[:, 0]) * inverse
    dx, dy = low[:, 0] - a[:, 0], low[:, 1] - a[:, 1]
    return f32(np.stack([ux * dx + uy * dy, ux, uy, vx * dx + vy * dy, vx, vy], 1))


def _nearest(pixel: Ints, depth: Floats, pixels: int) -> Ints:
    """Index of the fragment with the largest depth at every covered pixel."""
    best = np.full(pixels, -np.inf, np.float32)
    np.maximum.at(best, pixel, depth)
    winners = np.nonzero(depth == best[pixel])[0]
    winner = np.full(pixels, -1)
    winner[pixel[winners]] = winners
    return winner[winner >= 0]


def vertex_normals(positions: Floats, triangles: Ints) -> Floats:
    """Area-weighted unit normals: (V, 3)."""
    a, b, c = (positions[triangles[:, k]] for k in range(3))
    face = np.cross(b - a, c - a)
    corner = triangles.T.reshape(-1)
    normals = [np.bincount(corner, np.tile(face[:, k], 3), len(positions)) for k in range(3)]
    return unit(np.stack(normals, 1))
