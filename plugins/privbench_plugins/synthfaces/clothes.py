"""Garments: a second skin over the shoulders with a neckline cut per pixel."""

from dataclasses import dataclass

import numpy as np

from .arrays import Floats, Ints, bump, f32, mix, ramp
from .assets import SKIN, Head
from .palette import CLOTH_COLORS
from .scene import Clothing
from .texture import Noise, look_up

_THICKNESS = {"hoodie": 0.10, "sweater": 0.075, "suit": 0.09, "suit and tie": 0.09}
_HIGHEST_Y = 6.45


@dataclass(frozen=True)
class Garment:
    """The part of the body mesh that clothes can cover. outward: (V,) how far it stands off."""

    triangles: Ints
    outward: Floats


def cut_garment(head: Head) -> Garment:
    """Select the skin below the chin and behind it."""
    skin = head.triangles[head.material == SKIN]
    corners = head.rest[skin]
    y, z = corners[:, :, 1].max(1), corners[:, :, 2].max(1)
    keep = (y < _HIGHEST_Y) & ((y < 6.02) | (z < 0.62))
    return Garment(skin[keep], f32(np.ones(len(head.rest))))


def stand_off(kind: str, rest: Floats) -> Floats:
    """Distance (V,) of the cloth from the skin."""
    thick = _THICKNESS.get(kind, 0.05)
    collar = (
        0.06 * bump(rest[:, 1], 6.0, 0.14) * (kind in ("shirt", "suit", "suit and tie", "hoodie"))
    )
    return f32(thick + collar)


def paint_clothes(clothing: Clothing, rest: Floats, noise: Noise) -> tuple[Floats, Floats]:
    """Alpha (n,) and colour (n, 3) of the cloth at rest-pose points."""
    x, y, z = rest.T
    side = np.abs(x)
    front = z > 0.15
    below = 5.97 - 0.24 * (z - 0.15) - y
    main = f32(CLOTH_COLORS[clothing.color])
    weave = (
        1
        + 0.03 * look_up(noise.fine, x / 2.7, y / 2.7)
        + 0.05 * look_up(noise.coarse, x / 2.7, y / 2.7)
    )
    color = main * weave[:, None]
    if clothing.striped:
        color = mix(color, CLOTH_COLORS[clothing.under], ramp(np.sin(34 * x), 0.2, 0.6))
    edge = 0.02
    match clothing.kind:
        case "t-shirt":
            color = _darken(color, bump(below, 0.045, 0.012), 0.3)
        case "sweater" | "hoodie":
            color = _darken(color, ((below < 0.09) * (0.5 + 0.5 * np.sin(x * 160))), 0.25)
            color = _darken(color, bump(below, 0.095, 0.012), 0.35)
            if clothing.kind == "hoodie":
                color, below = _hood(color, below, x, y, front)
        case "turtleneck":
            below = 6.24 - 0.05 * z - y
            color = _darken(color, bump(below, 0.16, 0.02), 0.3)
        case "v-neck":
            below = np.where(front, np.minimum(below, 1.2 * (side - 0.42 * (y - 5.25))), below)
            color = _darken(color, bump(below, 0.05, 0.012), 0.35)
        case "shirt":
            color, below = _shirt(color, below, side, y, front)
        case _:
            color, below = _suit(clothing, color, below, side, y, front)
    return ramp(below, -edge, edge), f32(np.clip(color, 0, 1))


def _darken(color: Floats, mask: Floats, amount: float) -> Floats:
    return f32(color * (1 - amount * np.clip(mask, 0, 1))[:, None])


def _hood(
    color: Floats, below: Floats, x: Floats, y: Floats, front: np.ndarray
) -> tuple[Floats, Floats]:
    below = np.where(front, below, below + 0.16)
    cords = bump(np.abs(x), 0.2, 0.016) * front * (y < 5.8) * (y > 5.3)
    return mix(color, (0.92, 0.92, 0.9), 0.9 * cords), f32(below)


def _shirt(
    color: Floats, below: Floats, side: Floats, y: Floats, front: np.ndarray
) -> tuple[Floats, Floats]:
    """An open collar with a button line."""
    below = f32(below + 0.12)
    opening = side - 0.5 * (y - 5.58)
    below = np.where(front, np.minimum(below, 1.4 * opening), below)
    flap = front & (side < 0.5) & (y > 5.60 + 0.30 * side)
    color = f32(np.where(flap[:, None], np.minimum(color * 1.12 + 0.02, 1), color))
    rim = bump(y - 5.58 - 0.30 * side, 0, 0.016) * front * (side < 0.52)
    color = _darken(color, rim, 0.45)
    line = bump(side, 0, 0.012) * front * (y < 5.58)
    return _darken(color, line, 0.35), f32(below)


def _suit(
    clothing: Clothing, color: Floats, below: Floats, side: Floats, y: Floats, front: np.ndarray
) -> tuple[Floats, Floats]:
    """A jacket over a shirt, with a tie if the kind says so."""
    lapel = side - 0.40 * (y - 4.9)
    under = f32(CLOTH_COLORS[clothing.under])
    shirt = np.broadcast_to(under, color.shape)
    collar_rim = bump(y - 5.62 - 0.35 * side, 0, 0.015) * (side < 0.42)
    shirt = _darken(f32(shirt), collar_rim, 0.35)
    if clothing.kind == "suit and tie":
        width = 0.075 + 0.05 * np.clip(5.75 - y, 0, 1) + 0.03 * (y > 5.72)
        tie = ramp(width - side, -0.01, 0.01) * (y < 5.86)
        accent = f32(CLOTH_COLORS[clothing.accent]) * (1 - 0.3 * bump(y, 5.72, 0.02))[:, None]
        shirt = mix(shirt, accent, tie)
        open_collar = np.full_like(side, 1.0)
    else:
        open_collar = side - 0.45 * (y - 5.52)
    color = _darken(
        color, bump(lapel, 0.0, 0.025) + 0.7 * bump(lapel - 0.16 - 0.25 * (y - 5.6), 0, 0.014), 0.5
    )
    color = np.where((front & (lapel < 0))[:, None], shirt, color)
    below = below + np.where(lapel < 0.04, 0.12, 0.03)
    below = np.where(front, np.minimum(below, 1.4 * open_collar), below)
    return f32(color), f32(below)
