"""Where hair grows: a hairline in angles around the centre of the skull."""

import numpy as np

from .arrays import Floats, f32
from .identity import Hair

CENTRE = f32([0.0, 7.55, 0.5])
_AZIMUTH = (0, 28, 50, 62, 70, 76, 83, 92, 104, 116, 128, 145, 180)
_ELEVATION = (23, 22, 15, 2, -14, -22, -17, -3, -3, -8, -20, -30, -34)
_TIED = {"bun", "ponytail"}
HANGING = {"bob", "long", "wavy"}


def angles(points: Floats) -> tuple[Floats, Floats]:
    """Azimuth (0 in front, + towards x) and elevation, in degrees, of rest-pose points (n, 3)."""
    d = points - CENTRE
    azimuth = np.degrees(np.arctan2(d[:, 0], d[:, 2]))
    elevation = np.degrees(np.arctan2(d[:, 1], np.hypot(d[:, 0], d[:, 2])))
    return f32(azimuth), f32(elevation)


def inside_hairline(hair: Hair, azimuth: Floats, elevation: Floats) -> Floats:
    """Degrees by which a direction lies inside the hairline (negative: bare skin)."""
    around = np.abs(azimuth)
    edge = np.interp(around, _AZIMUTH, _ELEVATION)
    front = np.clip(1 - around / 70, 0, 1)
    edge = edge + hair.hairline * front
    edge = edge + 9 * hair.temples * np.exp(-(((around - 34) / 16) ** 2))
    if hair.style == "receding":
        edge = edge + 46 * np.clip(1 - np.abs(around) / 62, 0, 1) ** 0.5
    if hair.fringe:
        low = 9 + 5 * np.sin(np.radians(2.2 * azimuth + 40 * np.sign(hair.part)))
        edge = np.where(around < 62, np.minimum(edge, low + 8 * (around / 62) ** 2), edge)
    if hair.style in _TIED:
        edge = np.where((around > 66) & (around < 84), np.maximum(edge, -7), edge)
    if hair.style in HANGING:
        edge = np.where(around > hair.opening, -20.0, edge)
    return f32(elevation - edge)
