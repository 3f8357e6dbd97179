"""Array types and the few functions that every part of the renderer uses."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]
Bytes = NDArray[np.uint8]
Bools = NDArray[np.bool_]


def f32(values: Any) -> Floats:
    """Return `values` as a C-ordered float32 array."""
    return np.asarray(values, np.float32, order="C")


def ramp(x: Any, low: float, high: float) -> Floats:
    """Smooth step from 0 at `low` to 1 at `high`."""
    t = np.clip((f32(x) - low) / (high - low), 0.0, 1.0)
    return f32(t * t * (3.0 - 2.0 * t))


def bump(x: Any, centre: float, width: float) -> Floats:
    """Gaussian bell of height 1."""
    t = (f32(x) - centre) / width
    return f32(np.exp(-t * t))


def mix(a: Any, b: Any, weight: Any) -> Floats:
    """Blend `a` (n, 3) towards `b` (n, 3) or (3,) by `weight` (n,)."""
    w = f32(weight)[:, None]
    return f32(f32(a) * (1.0 - w) + f32(b) * w)


def unit(v: Any) -> Floats:
    """Scale the vectors in the last axis to length 1."""
    a = f32(v)
    return f32(a / (np.sqrt(np.einsum("...k,...k->...", a, a))[..., None] + 1e-9))


def rotation(yaw: float, pitch: float, roll: float) -> Floats:
    """3x3 rotation matrix from degrees: yaw about y, then pitch about x, then roll about z."""
    y, p, r = np.radians([yaw, pitch, roll])
    about_y = [[np.cos(y), 0, np.sin(y)], [0, 1, 0], [-np.sin(y), 0, np.cos(y)]]
    about_x = [[1, 0, 0], [0, np.cos(p), -np.sin(p)], [0, np.sin(p), np.cos(p)]]
    about_z = [[np.cos(r), -np.sin(r), 0], [np.sin(r), np.cos(r), 0], [0, 0, 1]]
    return f32(np.array(about_y) @ np.array(about_x) @ np.array(about_z))
