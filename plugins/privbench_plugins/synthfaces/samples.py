"""One labelled sample: which subject, which scene, its attributes and its pixels."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass

import cv2
import numpy as np

from .arrays import Bytes
from .captions import caption
from .identity import Identity, draw_identity
from .render import Rendered, Studio, build_subject, render
from .scene import Scene, draw_scene

IMAGE_SIZE, DEPTH_SIZE = 128, 64


@dataclass(frozen=True)
class Labels:
    """Attributes of one image. Angles in degrees; `landmarks` are 5 times x, y in pixels."""

    key: str
    subject: int
    population: str
    caption: str
    age_group: str
    sex: str
    skin_tone: str
    hair: str
    hair_color: str
    beard: str
    glasses: bool
    expression: str
    clothing: str
    clothing_color: str
    setting: str
    background: str
    yaw: float
    pitch: float
    landmarks: list[float]

    def as_row(self) -> dict[str, object]:
        """A plain dictionary."""
        return asdict(self)


@dataclass(frozen=True)
class Sample:
    """labels; pixels: (128, 128, 3); depth: (64, 64)."""

    labels: Labels
    pixels: Bytes
    depth: Bytes


def draw_samples(
    studio: Studio, namespace: str, population: str, number: int, subject: int, images: int
) -> Iterator[Sample]:
    """Render `images` samples of identity `number` of a population."""
    name = f"{namespace}/{population}/{number}"
    identity = draw_identity(studio.head, name)
    built = build_subject(studio, identity)
    for index in range(images):
        scene = draw_scene(population, f"{name}/{index}")
        result = render(studio, built, scene, IMAGE_SIZE)
        key = f"{population}-{number:04d}-{index:02d}"
        labels = _label(key, subject, identity, scene, result)
        yield Sample(labels, result.pixels, shrink_depth(result.depth))


def shrink_depth(depth: Bytes) -> Bytes:
    """Depth (2n, 2n) to (n, n): the nearest of four, so that outlines do not blur into 0."""
    half = depth.shape[0] // 2
    return np.asarray(depth.reshape(half, 2, half, 2).max((1, 3)), np.uint8)


def _label(key: str, subject: int, identity: Identity, scene: Scene, result: Rendered) -> Labels:
    return Labels(
        key=key,
        subject=subject,
        population=scene.population,
        caption=caption(identity, scene),
        age_group=identity.age_group,
        sex=identity.sex,
        skin_tone=identity.skin_tone,
        hair=identity.hair.style,
        hair_color="none" if identity.hair.style == "bald" else identity.hair.color,
        beard=identity.beard,
        glasses=bool(identity.glasses and scene.glasses_on),
        expression=scene.expression,
        clothing=scene.clothing.kind,
        clothing_color=scene.clothing.color,
        setting=scene.background.setting,
        background=scene.background.color,
        yaw=round(scene.camera.yaw, 2),
        pitch=round(scene.camera.pitch, 2),
        landmarks=[round(float(v), 2) for v in result.landmarks.reshape(-1)],
    )


def use_one_thread() -> None:
    """Keep OpenCV to one thread: small images gain nothing from more."""
    cv2.setNumThreads(1)
