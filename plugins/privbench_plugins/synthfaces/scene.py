"""What differs from one image of a subject to the next: pose, light, expression, clothes, ..."""

from dataclasses import dataclass

import numpy as np

from .palette import BACKGROUND_COLORS, CLOTH_COLORS, FORMAL_COLORS
from .seeds import stream

POPULATIONS = ("wild", "campus-a", "campus-b")
EXPRESSIONS = ("neutral", "smiling", "laughing", "talking", "surprised", "frowning")
CLOTHES = ("t-shirt", "sweater", "turtleneck", "v-neck", "shirt", "suit", "suit and tie", "hoodie")
SETTINGS = ("plain", "gradient", "studio", "office", "outdoors", "bookshelf", "lights")


@dataclass(frozen=True)
class Camera:
    """Degrees for the angles; `height` is the visible height in rest-pose units."""

    yaw: float
    pitch: float
    roll: float
    field_of_view: float
    height: float
    shift: tuple[float, float]
    torso_yaw: float
    blur: float


@dataclass(frozen=True)
class Light:
    """Key light direction in degrees, strengths and colour factors."""

    yaw: float
    pitch: float
    key: float
    fill: float
    ambient: float
    rim: float
    tint: tuple[float, float, float]
    exposure: float


@dataclass(frozen=True)
class Clothing:
    """One garment. `under` is the colour of the shirt below a suit, `accent` that of the tie."""

    kind: str
    color: str
    under: str
    accent: str
    striped: bool


@dataclass(frozen=True)
class Background:
    """A setting in a main colour; `texture` seeds its layout."""

    setting: str
    color: str
    texture: int


@dataclass(frozen=True)
class Scene:
    """All parameters that belong to one image and none that belong to the subject."""

    name: str
    population: str
    camera: Camera
    light: Light
    expression: str
    strength: float
    blink: float
    gaze: tuple[float, float]
    clothing: Clothing
    background: Background
    glasses_on: bool
    stray_hair: int


@dataclass(frozen=True)
class _Style:
    """Spread of the nuisance parameters in one population."""

    yaw: float
    pitch: float
    height: tuple[float, float]
    expressions: tuple[float, ...]
    clothes: tuple[float, ...]
    colors: tuple[str, ...]
    backgrounds: tuple[tuple[str, str], ...]
    light_yaw: tuple[float, float]
    key: tuple[float, float]
    fill: tuple[float, float]
    ambient: tuple[float, float]
    warmth: tuple[float, float]
    exposure: tuple[float, float]


_WILD_BACKGROUNDS = tuple((setting, color) for setting in SETTINGS for color in BACKGROUND_COLORS)
_STYLES = {
    "wild": _Style(
        yaw=15,
        pitch=6,
        height=(2.65, 3.2),
        expressions=(0.28, 0.24, 0.16, 0.12, 0.10, 0.10),
        clothes=(0.24, 0.18, 0.08, 0.10, 0.14, 0.08, 0.06, 0.12),
        colors=tuple(CLOTH_COLORS),
        backgrounds=_WILD_BACKGROUNDS,
        light_yaw=(-65, 65),
        key=(0.55, 1.05),
        fill=(0.05, 0.4),
        ambient=(0.22, 0.5),
        warmth=(-0.1, 0.1),
        exposure=(0.85, 1.12),
    ),
    "campus-a": _Style(
        yaw=7,
        pitch=3,
        height=(3.0, 3.2),
        expressions=(0.34, 0.46, 0.14, 0.02, 0.02, 0.02),
        clothes=(0.04, 0.12, 0.06, 0.08, 0.3, 0.22, 0.18, 0.0),
        colors=FORMAL_COLORS,
        backgrounds=(("studio", "blue"), ("studio", "grey"), ("gradient", "blue")),
        light_yaw=(-35, -10),
        key=(0.55, 0.7),
        fill=(0.3, 0.4),
        ambient=(0.42, 0.5),
        warmth=(-0.05, -0.01),
        exposure=(1.0, 1.08),
    ),
    "campus-b": _Style(
        yaw=11,
        pitch=4,
        height=(2.72, 2.88),
        expressions=(0.42, 0.36, 0.12, 0.04, 0.02, 0.04),
        clothes=(0.08, 0.2, 0.1, 0.1, 0.24, 0.18, 0.1, 0.0),
        colors=FORMAL_COLORS,
        backgrounds=(("bookshelf", "brown"), ("plain", "beige"), ("office", "brown")),
        light_yaw=(30, 62),
        key=(0.85, 1.05),
        fill=(0.04, 0.14),
        ambient=(0.22, 0.32),
        warmth=(0.04, 0.1),
        exposure=(0.9, 1.0),
    ),
}


def draw_scene(population: str, name: str) -> Scene:
    """Draw the scene that `name` stands for, e.g. "shipped/wild/12/3"."""
    g = stream(f"{name}:scene")
    style = _STYLES[population]
    expression = str(g.choice(EXPRESSIONS, p=style.expressions))
    setting, color = style.backgrounds[int(g.integers(len(style.backgrounds)))]
    return Scene(
        name=name,
        population=population,
        camera=_draw_camera(g, style),
        light=_draw_light(g, style),
        expression=expression,
        strength=float(g.uniform(0.55, 1.0)),
        blink=float(g.uniform(0, 0.12)),
        gaze=(float(np.clip(g.normal(0, 0.35), -1, 1)), float(np.clip(g.normal(0, 0.2), -1, 1))),
        clothing=_draw_clothing(g, style),
        background=Background(setting, color, int(g.integers(1 << 30))),
        glasses_on=bool(g.random() < 0.85),
        stray_hair=int(g.integers(1 << 20)),
    )


def _draw_camera(g: np.random.Generator, style: _Style) -> Camera:
    yaw = float(np.clip(g.normal(0, style.yaw), -35, 35))
    return Camera(
        yaw=yaw,
        pitch=float(np.clip(g.normal(0, style.pitch), -14, 14)),
        roll=float(g.normal(0, 0.5 * style.pitch)),
        field_of_view=float(g.uniform(16, 26)),
        height=float(g.uniform(*style.height)),
        shift=(float(g.normal(0, 0.025)), float(g.normal(0, 0.02))),
        torso_yaw=float(0.5 * yaw + g.normal(0, 8)),
        blur=float(g.uniform(0, 0.5)),
    )


def _draw_light(g: np.random.Generator, style: _Style) -> Light:
    warmth = float(g.uniform(*style.warmth))
    return Light(
        yaw=float(g.uniform(*style.light_yaw)),
        pitch=float(g.uniform(8, 55)),
        key=float(g.uniform(*style.key)),
        fill=float(g.uniform(*style.fill)),
        ambient=float(g.uniform(*style.ambient)),
        rim=float(g.uniform(0, 0.5)),
        tint=(1 + warmth, 1 + float(g.normal(0, 0.012)), 1 - warmth),
        exposure=float(g.uniform(*style.exposure)),
    )


def _draw_clothing(g: np.random.Generator, style: _Style) -> Clothing:
    kind = str(g.choice(CLOTHES, p=style.clothes))
    suit_colors = ("black", "grey", "navy", "blue", "brown", "beige")
    color = str(g.choice(suit_colors if kind.startswith("suit") else style.colors))
    under = "white" if color != "white" and g.random() < 0.6 else str(g.choice(style.colors))
    return Clothing(
        kind=kind,
        color=color,
        under=under,
        accent=str(g.choice(list(CLOTH_COLORS))),
        striped=bool(kind in ("t-shirt", "sweater", "shirt") and g.random() < 0.2),
    )
