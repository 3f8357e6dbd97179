"""Who a head is: everything that stays the same in all images of one subject."""

from dataclasses import dataclass

import numpy as np

from .assets import Head
from .palette import (
    FRAME_COLORS,
    HAIR_COLORS,
    IRIS_COLORS,
    RGB,
    SKIN_NAMES,
    SKIN_STOPS,
)
from .seeds import stream

HAIR_STYLES = (
    "bald",
    "shaved",
    "receding",
    "short",
    "side-parted",
    "slicked back",
    "curly",
    "afro",
    "bob",
    "long",
    "wavy",
    "bun",
    "ponytail",
)
_MALE_STYLES = (0.08, 0.11, 0.10, 0.24, 0.20, 0.09, 0.08, 0.03, 0.01, 0.03, 0.02, 0.01, 0.0)
_FEMALE_STYLES = (0.01, 0.02, 0.0, 0.08, 0.06, 0.04, 0.09, 0.04, 0.20, 0.18, 0.13, 0.08, 0.07)
BEARDS = ("none", "stubble", "moustache", "goatee", "short beard", "full beard")
FRAMES = ("round", "oval", "rectangular", "square", "cat-eye")
_OPPOSITES = {
    "decr": "incr",
    "down": "up",
    "backward": "forward",
    "in": "out",
    "concave": "convex",
    "compress": "uncompress",
}
_FREE_SHAPE_GROUPS = ("head", "forehead", "eyes", "nose", "mouth", "chin", "cheek", "ears", "neck")
_SPREAD = {"eyes": 0.36, "mouth": 0.31, "ears": 0.34, "neck": 0.2, "head": 0.28, "forehead": 0.26}


@dataclass(frozen=True)
class Brows:
    """Eyebrows, in rest-pose units: height above the eye line, half thickness, ends, darkness."""

    height: float
    thickness: float
    arch: float
    inner: float
    outer: float
    darkness: float


@dataclass(frozen=True)
class Marks:
    """Permanent skin marks. `moles` are (x, y, radius) in the rest pose; the rest is 0..1."""

    moles: tuple[tuple[float, float, float], ...]
    freckles: float
    redness: float
    blotches: float
    eye_shadow: float
    texture: int


@dataclass(frozen=True)
class Hair:
    """Habitual hair. Lengths in rest-pose units, `hairline` in degrees of elevation."""

    style: str
    color: str
    rgb: RGB
    volume: float
    length: float
    part: float
    hairline: float
    temples: float
    opening: float
    fringe: bool
    wave: float
    texture: int


@dataclass(frozen=True)
class Glasses:
    """The frame that a subject owns; whether it is worn is up to the scene."""

    frame: str
    color: str
    rgb: RGB
    width: float
    height: float
    rim: float


@dataclass(frozen=True)
class Identity:
    """All parameters that belong to the subject and none that belong to one image."""

    name: str
    sex: str
    masculinity: float
    age: float
    ancestry: tuple[float, float, float]
    weight: float
    muscle: float
    shape: tuple[tuple[str, float], ...]
    skin_tone: str
    skin: RGB
    lips: RGB
    eye_color: str
    iris: RGB
    brows: Brows
    marks: Marks
    hair: Hair
    beard: str
    beard_density: float
    glasses: Glasses | None

    @property
    def age_group(self) -> str:
        """Coarse age word."""
        return "young" if self.age < 35 else "middle-aged" if self.age < 56 else "older"


def draw_identity(head: Head, name: str) -> Identity:
    """Draw the identity that `name` stands for, e.g. "shipped/wild/12"."""
    g = stream(f"{name}:identity")
    masculinity = float(np.clip(g.normal(g.choice([0.06, 0.94]), 0.1), 0, 1))
    male = masculinity > 0.5
    age = float(g.uniform(19, 78))
    african, asian, european = (float(a) for a in g.dirichlet([0.4, 0.4, 0.5]))
    tone = float(
        np.clip(0.86 * african + 0.34 * asian + 0.1 * european + g.normal(0, 0.09), 0, 0.999)
    )
    skin = _shade(g, _skin_color(tone), 0.012)
    dark_hair = bool(tone > 0.5 or asian > 0.5)
    hair = _draw_hair(g, male, age, dark_hair, curly=african > 0.45)
    eyes = (0.6, 0.34, 0.06, 0, 0, 0) if dark_hair else (0.12, 0.27, 0.14, 0.13, 0.24, 0.10)
    eye_color = str(g.choice(list(IRIS_COLORS), p=eyes))
    return Identity(
        name=name,
        sex="man" if male else "woman",
        masculinity=masculinity,
        age=age,
        ancestry=(african, asian, european),
        weight=float(np.clip(g.normal(0.5, 0.24), 0, 1)),
        muscle=float(g.uniform(0.2, 0.8)),
        shape=_draw_shape(head, g),
        skin_tone=SKIN_NAMES[int(tone * len(SKIN_NAMES))],
        skin=skin,
        lips=_draw_lips(g, skin, male),
        eye_color=eye_color,
        iris=_shade(g, IRIS_COLORS[eye_color], 0.015),
        brows=_draw_brows(g, male),
        marks=_draw_marks(g, tone),
        hair=hair,
        beard=_draw_beard(g) if male else "none",
        beard_density=float(g.uniform(0.7, 1.0)),
        glasses=_draw_glasses(g),
    )


def _shade(g: np.random.Generator, rgb: RGB, spread: float) -> RGB:
    """The colour `rgb` a little brighter or darker and a little off hue."""
    red, green, blue = np.clip(np.array(rgb) * g.uniform(0.9, 1.1) + g.normal(0, spread, 3), 0, 1)
    return float(red), float(green), float(blue)


def _skin_color(tone: float) -> RGB:
    stops = np.array(SKIN_STOPS)
    at = np.linspace(0, 1, len(stops))
    red, green, blue = (float(np.interp(tone, at, stops[:, k])) for k in range(3))
    return red, green, blue


def _draw_shape(head: Head, g: np.random.Generator) -> tuple[tuple[str, float], ...]:
    """Local shape targets with their weights, sides mirrored, opposites merged to one number."""
    weights: list[tuple[str, float]] = []
    for name in sorted(head.rows):
        group, _, stem = name.partition("/")
        base, _, end = stem.rpartition("-")
        if group not in _FREE_SHAPE_GROUPS or stem.startswith(("r-", "measure", "forehead-nubian")):
            continue
        if stem in ("head-trans", "neck-trans") or base in ("head-trans", "neck-trans"):
            continue
        if base in ("mouth-trans", "nose-trans") and end in ("in", "out"):
            continue
        opposite = f"{group}/{base}-{_OPPOSITES.get(end, '')}"
        value = float(np.clip(g.normal(0, _SPREAD.get(group, 0.38)), -0.95, 0.95))
        if opposite in head.rows:
            weights.append((name if value < 0 else opposite, abs(value)))
        elif end not in _OPPOSITES.values() and value > 0:
            weights.append((name, 0.5 * value if group == "head" else value))
    mirrored = [(n.replace("/l-", "/r-"), v) for n, v in weights if "/l-" in n]
    return tuple(weights + mirrored)


def _draw_lips(g: np.random.Generator, skin: RGB, male: bool) -> RGB:
    tint = (0.93, 0.74, 0.72) if male or g.random() < 0.4 else (0.93, 0.55, 0.56)
    return _shade(g, (skin[0] * tint[0], skin[1] * tint[1], skin[2] * tint[2]), 0.02)


def _draw_brows(g: np.random.Generator, male: bool) -> Brows:
    return Brows(
        height=float(g.normal(0.255, 0.018)),
        thickness=float(g.uniform(0.032, 0.06) * (1.1 if male else 0.8)),
        arch=float(g.uniform(-0.005, 0.055)),
        inner=float(g.uniform(0.09, 0.16)),
        outer=float(g.uniform(0.50, 0.60)),
        darkness=float(g.uniform(0.55, 0.9)),
    )


def _draw_marks(g: np.random.Generator, tone: float) -> Marks:
    count = int(g.choice([0, 1, 2, 3, 5], p=[0.45, 0.28, 0.15, 0.08, 0.04]))
    moles = tuple(
        (float(x), float(y), float(r))
        for x, y, r in zip(
            g.uniform(-0.5, 0.5, count),
            g.uniform(6.42, 7.9, count),
            g.uniform(0.016, 0.032, count),
            strict=True,
        )
    )
    return Marks(
        moles=moles,
        freckles=float(g.uniform(0.4, 1)) if tone < 0.45 and g.random() < 0.2 else 0.0,
        redness=float(g.uniform(0.2, 1) ** 1.5 * (1 - 0.6 * tone)),
        blotches=float(g.uniform(0, 1) ** 2),
        eye_shadow=float(g.uniform(0, 1)),
        texture=int(g.integers(1 << 20)),
    )


def _draw_hair(g: np.random.Generator, male: bool, age: float, dark: bool, curly: bool) -> Hair:
    chances = np.array(_MALE_STYLES if male else _FEMALE_STYLES)
    index = {name: i for i, name in enumerate(HAIR_STYLES)}
    if curly:
        for name, factor in {
            "curly": 3.0,
            "afro": 7.0,
            "shaved": 2.0,
            "long": 0.5,
            "side-parted": 0.3,
            "slicked back": 0.3,
        }.items():
            chances[index[name]] *= factor
    else:
        chances[index["afro"]] *= 0.15
    if age < 38:
        chances[[index["bald"], index["receding"]]] *= 0.25
    style = str(g.choice(HAIR_STYLES, p=chances / chances.sum()))
    color = _draw_hair_color(g, age, dark)
    return Hair(
        style=style,
        color=color,
        rgb=_shade(g, HAIR_COLORS[color], 0.01),
        volume=float(g.uniform(0.7, 1.3)),
        length=float(g.uniform(0, 1)),
        part=float(g.choice([-1, 1]) * g.uniform(0.12, 0.36)),
        hairline=float(g.normal(0, 3.0)),
        temples=float(np.clip(g.normal(0.35 if male else 0.1, 0.25), 0, 1)),
        opening=float(g.uniform(54, 63) if g.random() < 0.7 else g.uniform(74, 80)),
        fringe=bool(style in ("bob", "long", "wavy", "ponytail", "bun") and g.random() < 0.3),
        wave=float(g.uniform(0.2, 1)),
        texture=int(g.integers(1 << 20)),
    )


def _draw_hair_color(g: np.random.Generator, age: float, dark: bool) -> str:
    chances = (
        np.array([0.72, 0.2, 0.05, 0.0, 0.02, 0.01, 0, 0])
        if dark
        else np.array([0.1, 0.2, 0.24, 0.16, 0.2, 0.1, 0, 0])
    )
    grey = float(np.clip((age - 42) / 45, 0, 0.8))
    chances = chances * (1 - grey)
    chances[6:] = grey * np.array([0.68, 0.32] if age > 58 else [0.95, 0.05])
    return str(g.choice(list(HAIR_COLORS), p=chances / chances.sum()))


def _draw_beard(g: np.random.Generator) -> str:
    return str(g.choice(BEARDS, p=[0.46, 0.16, 0.08, 0.08, 0.12, 0.10]))


def _draw_glasses(g: np.random.Generator) -> Glasses | None:
    owner = g.random() < 0.27
    color = str(g.choice(list(FRAME_COLORS), p=[0.4, 0.2, 0.12, 0.14, 0.07, 0.07]))
    glasses = Glasses(
        frame=str(g.choice(FRAMES)),
        color=color,
        rgb=FRAME_COLORS[color],
        width=float(g.uniform(0.2, 0.235)),
        height=float(g.uniform(0.85, 1.1)),
        rim=float(g.uniform(0.014, 0.034)),
    )
    return glasses if owner else None
