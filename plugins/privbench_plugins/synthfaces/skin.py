"""Colour of skin, eyes and mouth as functions of the rest-pose position of each pixel."""

from dataclasses import dataclass

import numpy as np

from .arrays import Floats, Ints, bump, f32, mix, ramp
from .assets import EYE, SKIN, TEETH, TONGUE, Head
from .identity import Identity
from .scalp import angles, inside_hairline
from .texture import Noise, look_up

EYE_Y, EYE_X = 7.285, 0.308
_DENSITY = {
    "none": 0.0,
    "stubble": 0.33,
    "moustache": 0.94,
    "goatee": 0.92,
    "short beard": 0.8,
    "full beard": 0.97,
}


@dataclass(frozen=True)
class Surface:
    """Visible points of the head. rest: (n, 3) rest-pose positions. material: (n,).

    lips, mouth: (n,) mask values.
    """

    rest: Floats
    material: Ints
    lips: Floats
    mouth: Floats


def paint(identity: Identity, surface: Surface, noise: Noise, gaze: tuple[float, float]) -> Floats:
    """Colour (n, 3) in sRGB of every visible point of the head."""
    albedo = np.empty_like(surface.rest)
    skin = surface.material == SKIN
    albedo[skin] = _paint_skin(
        identity, surface.rest[skin], surface.lips[skin], surface.mouth[skin], noise
    )
    eye = surface.material == EYE
    albedo[eye] = _paint_eye(identity, surface.rest[eye], gaze)
    albedo[surface.material == TEETH] = (0.78, 0.75, 0.69)
    albedo[surface.material == TONGUE] = (0.56, 0.25, 0.24)
    return albedo


def beard_mask(kind: str, rest: Floats) -> Floats:
    """Where a beard of this kind grows, (n,) in 0..1."""
    x, y, z = rest.T
    side = np.abs(x)
    front = ramp(z, 0.42, 0.72) * ramp(y, 5.98, 6.22)
    line = 6.64 + 0.62 * ramp(side, 0.30, 0.80)
    jaw = ramp(line - y, -0.05, 0.09) * front
    moustache = (
        ramp(y, 6.695, 6.75)
        * ramp(-y, -6.88, -6.83)
        * ramp(-side - 1.6 * np.clip(6.79 - y, 0, 1), -0.36, -0.24)
    )
    moustache = moustache * (z > 1.1)
    beside = bump(side, 0.37, 0.12) * ramp(y, 6.35, 6.5) * ramp(-y, -6.8, -6.7) * (z > 1.0)
    chin = ramp(-y, -6.50, -6.40) * ramp(-side, -0.36, -0.24) * (z > 0.9) * front
    match kind:
        case "none":
            return np.zeros_like(x)
        case "moustache":
            return f32(moustache)
        case "goatee":
            return f32(np.maximum(np.maximum(moustache, chin), 0.9 * beside))
        case _:
            return f32(np.maximum(np.maximum(jaw, moustache), 0.55 * beside))


def _paint_skin(
    identity: Identity, rest: Floats, lips: Floats, mouth: Floats, noise: Noise
) -> Floats:
    marks, brows = identity.marks, identity.brows
    x, y, z = rest.T
    side = np.abs(x)
    tile_x, tile_y = x / 2.7, y / 2.7
    fine = look_up(noise.fine, tile_x, tile_y, marks.texture)
    middle = look_up(noise.middle, tile_x, tile_y, marks.texture)
    coarse = look_up(noise.coarse, tile_x, tile_y, marks.texture)
    face = ramp(z, 0.6, 0.9)
    shade = 1 + 0.012 * fine + 0.012 * middle + (0.012 + 0.03 * marks.blotches) * coarse
    shade = shade * _age_lines(identity.age, rest, middle)
    shade = shade * (1 - 0.16 * (0.3 + marks.eye_shadow) * _under_eye(side, y) * face)
    lid = bump(side, EYE_X, 0.17) * bump(y, EYE_Y + 0.085, 0.05) * (z > 1.1)
    shade = shade * (1 - 0.12 * lid)
    freckle = ramp(fine + 0.25 * middle, 1.1, 2.0) * face
    freckle = freckle * bump(y, 7.05, 0.33) * bump(side, 0.2, 0.5)
    shade = shade * (1 - 0.30 * marks.freckles * freckle)
    for mole_x, mole_y, radius in marks.moles:
        spot = np.exp(-((((x - mole_x) ** 2 + (y - mole_y) ** 2) / radius**2) ** 2)) * (z > 1.05)
        shade = shade * (1 - 0.52 * spot)
    albedo = f32(identity.skin) * shade[:, None]
    flush = marks.redness * (
        bump(side, 0.43, 0.2) * bump(y, 6.98, 0.2) * (z > 0.7)
        + 0.8 * bump(x, 0, 0.15) * bump(y, 6.95, 0.13) * (z > 1.3)
        + 0.5 * (side > 0.74) * (z < 0.9)
    )
    albedo = albedo * (1 + flush[:, None] * f32([0.07, -0.10, -0.09]))
    lip = np.clip(lips * 1.15, 0, 1)
    crease = f32(identity.lips) * (1 - 0.08 * np.abs(middle))[:, None]
    albedo = mix(albedo, crease, lip)
    albedo = mix(albedo, (0.22, 0.07, 0.07), 0.85 * mouth)
    hair_rgb = f32(identity.hair.rgb)
    strand = look_up(noise.strands, tile_x * 1.6 + 0.4 * tile_y, tile_y * 2, marks.texture)
    brow_rgb = np.minimum(hair_rgb * 0.72, 0.26 + 0.12 * hair_rgb) + 0.02
    brow = _brow_mask(brows.height, brows.thickness, brows.arch, brows.inner, brows.outer, rest)
    albedo = mix(albedo, brow_rgb, np.clip(brow * (brows.darkness + 0.06 * strand), 0, 0.97))
    beard = beard_mask(identity.beard, rest) * _DENSITY[identity.beard] * identity.beard_density
    grain = fine if identity.beard == "stubble" else 0.5 * (fine + strand)
    beard = np.clip(beard * (1 - lip) * (1 + 0.12 * grain), 0, 0.97)
    tint = hair_rgb * (0.9 + 0.2 * np.clip(grain, -1, 1))[:, None]
    albedo = mix(albedo, np.clip(tint, 0, 1), beard)
    return _paint_scalp(identity, rest, albedo, fine, strand)


def _under_eye(side: Floats, y: Floats) -> Floats:
    return bump(side, EYE_X, 0.18) * bump(y, EYE_Y - 0.145, 0.06)


def _brow_mask(
    height: float, thickness: float, arch: float, inner: float, outer: float, rest: Floats
) -> Floats:
    x, y, z = rest.T
    side = np.abs(x)
    along = np.clip((side - inner) / (outer - inner), 0, 1)
    middle = EYE_Y + height + arch * np.sin(np.pi * np.clip(along * 0.86, 0, 1)) - 0.02 * along
    half = thickness * (1 - 0.62 * along**1.5)
    across = np.exp(-((((y - middle) / half) ** 2) ** 1.2))
    ends = ramp(side, inner - 0.05, inner + 0.09) * ramp(-side, -outer - 0.01, -outer + 0.07)
    return f32(across * ends * (z > 0.85))


def _age_lines(age: float, rest: Floats, wobble: Floats) -> Floats:
    """Darkening by wrinkles, (n,), growing with age."""
    x, y, z = rest.T
    side = np.abs(x)
    depth = float(np.clip((age - 34) / 40, 0, 1))
    if depth == 0:
        return np.ones_like(x)
    waves = ramp(np.sin(46 * y + 9 * side**2 + 0.5 * wobble), 0.72, 1.0)
    forehead = waves * bump(y, 7.82, 0.13) * ramp(-side, -0.5, -0.25) * (z > 0.9)
    fold_x = 0.20 + 0.55 * np.clip(6.95 - y, 0, 1)
    folds = bump(side, 0, 1) * bump(side - fold_x, 0, 0.02) * ramp(y, 6.58, 6.68)
    folds = folds * ramp(-y, -6.97, -6.88) * (z > 1.0)
    ray = ramp(np.sin(40 * (y - EYE_Y) + 14 * (side - 0.6)), 0.5, 1.0)
    corner = ray * bump(side, 0.60, 0.07) * bump(y, EYE_Y, 0.1) * (z > 0.8)
    bag = bump(y - (EYE_Y - 0.20) - 0.25 * (side - EYE_X) ** 2, 0, 0.016)
    bag = bag * bump(side, EYE_X, 0.14) * (z > 0.9)
    return f32(1 - depth * (0.13 * forehead + 0.24 * folds + 0.16 * corner + 0.16 * bag))


def _paint_scalp(
    identity: Identity, rest: Floats, albedo: Floats, fine: Floats, strand: Floats
) -> Floats:
    hair = identity.hair
    if hair.style == "bald":
        return albedo
    x, y, z = rest.T
    upper = np.nonzero(y > 6.7)[0]
    azimuth, elevation = angles(rest[upper])
    inside = inside_hairline(hair, azimuth, elevation)
    ear = (np.abs(x[upper]) > 0.775) & (y[upper] < 7.72) & (z[upper] > 0.05)
    if hair.style == "shaved":
        alpha = 0.72 * ramp(inside + 0.8 * fine[upper], -2.5, 6.0)
        alpha = alpha * (1 + 0.08 * fine[upper])
    else:
        alpha = 0.97 * ramp(inside + 0.9 * strand[upper], -2.0, 3.0)
    alpha = np.where(ear, 0, np.clip(alpha, 0, 0.97))
    grain = fine[upper] if hair.style == "shaved" else strand[upper]
    color = f32(hair.rgb) * (0.85 + 0.15 * np.clip(grain, -1.5, 1.5))[:, None]
    albedo[upper] = mix(albedo[upper], color, alpha)
    return albedo


def _paint_eye(identity: Identity, rest: Floats, gaze: tuple[float, float]) -> Floats:
    side = np.sign(rest[:, 0])
    dx = rest[:, 0] - side * EYE_X - 0.035 * gaze[0]
    dy = rest[:, 1] - EYE_Y - 0.02 * gaze[1]
    r = np.hypot(dx, dy)
    white = f32([0.96, 0.94, 0.93]) * (1 - 0.3 * ramp(np.abs(dx), 0.08, 0.17))[:, None]
    white = white * (1 - 0.35 * ramp(dy, 0.02, 0.09))[:, None]
    iris = f32(identity.iris) * (0.75 + 0.6 * ramp(r, 0.03, 0.075))[:, None]
    iris = iris * (1 - 0.55 * ramp(r, 0.066, 0.082))[:, None]
    color = mix(white, iris, ramp(-r, -0.086, -0.076))
    color = mix(color, (0.02, 0.02, 0.02), ramp(-r, -0.042, -0.033))
    glint = np.exp(
        -((rest[:, 0] - side * EYE_X - 0.028) ** 2 + (rest[:, 1] - EYE_Y - 0.032) ** 2) / 0.017**2
    )
    return mix(color, (1.0, 1.0, 1.0), 0.9 * glint)


def mask_values(head: Head, uv: Floats) -> tuple[Floats, Floats]:
    """Lips and inside-of-mouth masks at texture coordinates (n, 2)."""
    rows, columns = head.lips.shape
    column = (uv[:, 0] * (columns - 1)).astype(np.int64).clip(0, columns - 1)
    row = ((1 - uv[:, 1]) * (rows - 1)).astype(np.int64).clip(0, rows - 1)
    return head.lips[row, column], head.mouth[row, column]
