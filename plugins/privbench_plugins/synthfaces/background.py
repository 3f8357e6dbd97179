"""Backgrounds: painted small, blurred and enlarged."""

import cv2
import numpy as np

from .arrays import Floats, f32
from .palette import BACKGROUND_COLORS
from .scene import Background

_SIZE = 96


def paint_background(background: Background, size: int) -> Floats:
    """Background image (size, size, 3), sRGB 0..1."""
    g = np.random.default_rng(background.texture)
    color = f32(BACKGROUND_COLORS[background.color])
    color = np.clip(color * g.uniform(0.85, 1.12) + g.normal(0, 0.015, 3), 0.02, 1)
    image = f32(np.broadcast_to(color, (_SIZE, _SIZE, 3)))
    match background.setting:
        case "plain":
            image, blur = _slope(g, image, 0.12), 0.0
        case "gradient":
            image, blur = _slope(g, image, 0.45), 0.0
        case "studio":
            image, blur = _studio(g, image), 0.0
        case "office":
            image, blur = _office(g, image), float(g.uniform(0.8, 2.0))
        case "outdoors":
            image, blur = _outdoors(g, image), float(g.uniform(1.0, 2.2))
        case "bookshelf":
            image, blur = _bookshelf(g, image), float(g.uniform(0.5, 1.1))
        case _:
            image, blur = _lights(g, image), 1.3
    if blur:
        image = cv2.GaussianBlur(image, (0, 0), blur)
    return f32(np.clip(cv2.resize(image, (size, size), interpolation=cv2.INTER_CUBIC), 0, 1))


def _slope(g: np.random.Generator, image: Floats, strength: float) -> Floats:
    angle = g.uniform(0, 2 * np.pi)
    y, x = np.mgrid[0:_SIZE, 0:_SIZE] / (_SIZE - 1) - 0.5
    slope = 1 + strength * 1.4 * (x * np.cos(angle) + y * np.sin(angle))
    return f32(image * slope[..., None])


def _studio(g: np.random.Generator, image: Floats) -> Floats:
    """A mottled backdrop with a bright spot."""
    y, x = np.mgrid[0:_SIZE, 0:_SIZE] / (_SIZE - 1) - 0.5
    x0, y0 = g.uniform(-0.25, 0.25), g.uniform(-0.2, 0.2)
    spot = np.exp(-((x - x0) ** 2 + (y - y0) ** 2) / 0.2)
    clouds = cv2.resize(f32(g.normal(0, 1, (7, 7))), (_SIZE, _SIZE), interpolation=cv2.INTER_CUBIC)
    return f32(image * (0.72 + 0.45 * spot + 0.05 * clouds)[..., None])


def _box(image: Floats, low: tuple[float, float], high: tuple[float, float], rgb: Floats) -> None:
    """Fill a rectangle with corners (x, y) in 0..1."""
    corners = [(round(px * _SIZE), round(py * _SIZE)) for px, py in (low, high)]
    cv2.rectangle(image, corners[0], corners[1], tuple(float(c) for c in rgb), -1)


def _office(g: np.random.Generator, image: Floats) -> Floats:
    """A wall with a window, a picture and furniture."""
    image = _slope(g, image, 0.2)
    x = g.uniform(-0.2, 0.7)
    bright = f32([0.86, 0.92, 0.97]) * g.uniform(0.8, 1.05)
    _box(image, (x, 0.05), (x + g.uniform(0.25, 0.5), g.uniform(0.5, 0.8)), bright)
    for _ in range(int(g.integers(2, 5))):
        left, top = g.uniform(-0.1, 0.9), g.uniform(0.1, 0.8)
        rgb = np.clip(image[5, 5] * g.uniform(0.3, 1.3) + g.normal(0, 0.1, 3), 0, 1)
        _box(image, (left, top), (left + g.uniform(0.08, 0.35), top + g.uniform(0.1, 0.5)), rgb)
    return image


def _outdoors(g: np.random.Generator, image: Floats) -> Floats:
    """Sky above a horizon and foliage in the main colour."""
    horizon = g.uniform(0.25, 0.6)
    sky = f32([0.62, 0.78, 0.95]) if g.random() < 0.7 else f32([0.93, 0.85, 0.76])
    y = np.linspace(0, 1, _SIZE)[:, None, None]
    image = f32(np.where(y < horizon, sky * (1 - 0.15 * y), image * (1.1 - 0.4 * y)))
    base = f32(image[-1, 0])
    for _ in range(int(g.integers(25, 50))):
        centre = (int(g.uniform(0, _SIZE)), int(_SIZE * g.normal(horizon + 0.08, 0.12)))
        rgb = np.clip(base * g.uniform(0.5, 1.5), 0, 1)
        cv2.circle(image, centre, int(g.uniform(3, 13)), tuple(float(c) for c in rgb), -1)
    return image


def _bookshelf(g: np.random.Generator, image: Floats) -> Floats:
    """Rows of books in random colours between boards of the main colour."""
    image = f32(image * 0.55)
    shelf = g.uniform(0.22, 0.3)
    for row in range(5):
        top, x = row * shelf - g.uniform(0, 0.1), -0.02
        while x < 1:
            width = g.uniform(0.025, 0.07)
            rgb = f32(np.clip(g.uniform(0.1, 0.75) * (0.5 + g.random(3)), 0, 0.9))
            _box(image, (x, top + g.uniform(0.0, 0.06)), (x + width, top + shelf - 0.03), rgb)
            x += width + (0.1 if g.random() < 0.07 else 0.0)
        _box(image, (0, top + shelf - 0.03), (1, top + shelf), image[0, 0] * 1.6)
    return image


def _lights(g: np.random.Generator, image: Floats) -> Floats:
    """Out-of-focus lights over the main colour."""
    image = f32(_slope(g, image, 0.3) * 0.8)
    for _ in range(int(g.integers(10, 24))):
        spot = np.zeros_like(image)
        centre = (int(g.uniform(0, _SIZE)), int(g.uniform(0, _SIZE)))
        rgb = np.clip(g.uniform(0.4, 1.0) + g.normal(0, 0.15, 3), 0, 1)
        cv2.circle(spot, centre, int(g.uniform(3, 11)), tuple(float(c) for c in rgb), -1)
        image += 0.4 * spot
    return image
