"""Spectacle frames as tubes in the space of the identity's own mesh."""

from dataclasses import dataclass

import numpy as np

from .arrays import Floats, Ints, f32
from .hair import tube
from .identity import Glasses
from .palette import RGB

_POINTS = 40


@dataclass(frozen=True)
class Spectacles:
    """Meshes in the identity's space: frame tubes and two flat lenses; sRGB of the frame."""

    frame: Floats
    frame_triangles: Ints
    lens: Floats
    lens_triangles: Ints
    rgb: RGB


def outline(glasses: Glasses) -> Floats:
    """Right lens outline (n, 2) around the origin; + x is outward."""
    t = np.linspace(0, 2 * np.pi, _POINTS)
    power = {"round": 1.0, "oval": 1.0, "rectangular": 0.42, "square": 0.5, "cat-eye": 0.7}
    aspect = {"round": 1.0, "oval": 0.76, "rectangular": 0.66, "square": 0.86, "cat-eye": 0.78}
    p = power[glasses.frame]
    x = np.sign(np.cos(t)) * np.abs(np.cos(t)) ** p
    y = np.sign(np.sin(t)) * np.abs(np.sin(t)) ** p
    width = glasses.width * (0.9 if glasses.frame == "round" else 1.0)
    half_height = 0.96 * width * aspect[glasses.frame] * glasses.height
    if glasses.frame == "cat-eye":
        y = y + 0.32 * np.clip(x, 0, 1) ** 2 * (y > -0.2)
    return f32(np.stack([x * width, y * half_height], 1))


def build_spectacles(
    glasses: Glasses, positions: Floats, eyes: Floats, ears: Floats, face: Ints
) -> Spectacles:
    """Fit a frame. positions: (V, 3). eyes, ears: (2, 3), negative x first. face: skin vertices."""
    shape = outline(glasses)
    centre = eyes.mean(0)
    half = max(float(np.abs(eyes[:, 0] - centre[0]).mean()) + 0.01, glasses.width + 0.07)
    height = float(centre[1]) - 0.03
    plane = _clear_plane(positions[face], shape, half, height) + glasses.rim
    paths: list[Floats] = []
    lenses: list[Floats] = []
    for side, ear in zip((-1.0, 1.0), ears, strict=True):
        x = side * (half + shape[:, 0])
        rim = np.stack([x, height + shape[:, 1], plane - 0.16 * (np.abs(x) - 0.1) ** 2], 1)
        paths.append(f32(rim))
        lenses.append(f32(rim))
        hinge = rim[np.abs(x).argmax()] + f32([side * 0.03, 0.35 * shape[:, 1].max(), -0.01])
        tip = f32([max(abs(ear[0]) + 0.03, abs(hinge[0])) * side, ear[1] + 0.15, ear[2]])
        t = np.linspace(0, 1, 10)[:, None]
        path = hinge * (1 - t) + tip * t
        path[:, 0] += (tip[0] - hinge[0]) * (t[:, 0] ** 0.45 - t[:, 0])
        paths.append(f32(path))
    t = np.linspace(-1, 1, 10)
    reach = half - shape[:, 0].max()
    bridge = [t * reach, height + 0.06 + 0.05 * (1 - t**2), plane + 0.05 * (1 - t**2)]
    paths.append(f32(np.stack(bridge, 1)))
    tubes = [tube(path, np.full(len(path), glasses.rim, np.float32), 6) for path in paths]
    starts = np.cumsum([0] + [len(m.positions) for m in tubes[:-1]])
    fan = np.stack(
        [np.zeros(_POINTS - 2, int), np.arange(1, _POINTS - 1), np.arange(2, _POINTS)], 1
    )
    return Spectacles(
        np.concatenate([m.positions for m in tubes]),
        np.concatenate([m.triangles + s for m, s in zip(tubes, starts, strict=True)]),
        np.concatenate(lenses),
        np.concatenate([fan, fan + _POINTS]),
        glasses.rgb,
    )


def _clear_plane(skin: Floats, shape: Floats, half: float, height: float) -> float:
    """z of a lens plane in front of brows and cheeks (not of the nose)."""
    dx = np.abs(np.abs(skin[:, 0]) - half) / shape[:, 0].max()
    dy = np.abs(skin[:, 1] - height) / shape[:, 1].max()
    near = (dx < 0.95) & (dy < 0.95)
    return float(np.quantile(skin[near, 2], 0.97)) + 0.04
