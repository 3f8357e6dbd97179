"""Lighting of the blended surface, in linear light."""

import cv2
import numpy as np

from .arrays import Floats, f32, unit
from .gbuffer import GBuffer
from .scene import Light

_GAMMA = 2.2


def _direction(yaw: float, pitch: float) -> Floats:
    y, p = np.radians([yaw, pitch])
    return f32([np.sin(y) * np.cos(p), np.sin(p), np.cos(y) * np.cos(p)])


def occlusion(buffer: GBuffer) -> Floats:
    """Screen-space ambient occlusion (size * size,), 1 in the open."""
    size = buffer.size
    low = float(buffer.depth[buffer.depth > -100].min(initial=0.0))
    depth = np.maximum(buffer.depth, low - 0.2).reshape(size, size)
    open_air = np.ones_like(depth)
    for scale, weight in ((size / 80, 0.8), (size / 22, 0.45)):
        around = cv2.GaussianBlur(depth, (0, 0), scale)
        open_air -= weight * np.clip(around - depth, 0, 0.5)
    return f32(np.clip(open_air, 0.35, 1).reshape(-1))


def shade(buffer: GBuffer, light: Light) -> Floats:
    """Linear radiance (size * size, 3) of the surface; background pixels are 0."""
    pixel = np.nonzero(buffer.cover > 0)[0]
    normal = unit(buffer.normal[pixel])
    strand = buffer.strand[pixel]
    key = _direction(light.yaw, light.pitch)
    half = unit(key + f32([0, 0, 1]))
    fill = _direction(-0.8 * light.yaw, 12)
    air = occlusion(buffer)[pixel]
    toward = normal @ key
    wrap = np.clip((toward + 0.28) / 1.28, 0, 1) ** 1.15
    diffuse = light.key * wrap * (0.35 + 0.65 * air)
    other = light.fill * np.clip((normal @ fill + 0.2) / 1.2, 0, 1) * air
    sky = light.ambient * (0.78 + 0.22 * normal[:, 1]) * air
    edge = (
        light.rim
        * np.clip(1 - normal[:, 2], 0, 1) ** 3
        * np.clip(-normal[:, 0] * np.sign(light.yaw) + 0.2, 0, 1)
    )
    irradiance = (diffuse + 0.35 * edge)[:, None] * f32(light.tint) + (other + sky)[:, None]
    terminator = np.clip((toward + 0.28) / 1.28, 0, 1)
    bleed = 0.10 * light.key * terminator * (1 - terminator) * 4 * (1 - strand)
    irradiance = irradiance + bleed[:, None] * f32([0.5, 0.05, -0.06])
    albedo = np.clip(buffer.albedo[pixel], 0, 1) ** _GAMMA
    tangent = unit(buffer.tangent[pixel])
    across = np.sqrt(np.clip(1 - (tangent @ half) ** 2, 0, 1))
    shine = strand * across**28 * 0.5 + (1 - strand) * np.clip(normal @ half, 0, 1) ** 26
    gleam = (buffer.gloss[pixel] * shine * light.key * air * np.clip(toward + 0.5, 0, 1))[:, None]
    color = np.zeros_like(buffer.albedo)
    tinted = gleam * (1 - 0.75 * strand[:, None] * (1 - np.sqrt(albedo)))
    color[pixel] = light.exposure * (0.96 * albedo * irradiance + tinted)
    return color


def to_linear(image: Floats) -> Floats:
    """sRGB 0..1 to linear light."""
    return f32(np.clip(image, 0, 1) ** _GAMMA)


def to_display(image: Floats) -> Floats:
    """Linear light to sRGB 0..1, with a soft shoulder for highlights."""
    soft = np.where(image < 0.7, image, 0.7 + 0.3 * np.tanh((image - 0.7) / 0.3))
    return f32(np.clip(soft, 0, 1) ** (1 / _GAMMA))
