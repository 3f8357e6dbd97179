"""The one place where bytes from outside become pixels.

What cannot be read is refused with a sentence that names it; nothing is guessed.
"""

from __future__ import annotations

import io
import os
import warnings
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Final, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from privbench.errors import DataError

FORMATS: Final = ("JPEG", "PNG", "WEBP", "PPM", "BMP", "GIF", "TIFF", "JPEG2000")
"""Formats that are read: those in which photographs come. No format that runs a program."""

MOST_PIXELS: Final = 64_000_000
"""Largest image that is decoded, by its header."""

LEAST_SIDE: Final = 16
"""A face needs so many pixels."""

LONGEST: Final = 1024
"""Longest side in pixels of what `decode` returns; larger images are reduced."""

_T = TypeVar("_T")
_R = TypeVar("_R")


def decode(name: str, data: bytes, longest: int = LONGEST) -> NDArray[np.uint8]:
    """(H, W, 3) uint8 RGB of the first frame, upright as its EXIF says.

    16-bit greys are scaled to 8; what is transparent is laid on white; what is larger than
    `longest` is averaged over whole blocks of pixels, JPEGs while they are decoded.

    Args:
        name: for the message.
        data: the encoded image.
        longest: largest height or width.

    Raises:
        DataError: empty, of no known format, damaged, too large or too small.
    """
    if not data:
        raise DataError(f"{name} is empty.")
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            _check_size(name, *image.size)
            less = _factor(image, longest)
            image.draft(None, (image.width // less, image.height // less))
            ImageOps.exif_transpose(image, in_place=True)
            rgb = _rgb(name, image)
            less = _factor(rgb, longest)
            return np.asarray(rgb.reduce(less) if less > 1 else rgb)
    except DataError:
        raise
    except UnidentifiedImageError:
        raise DataError(
            f"{name} is no image of a format that is read here ({', '.join(FORMATS)})."
        ) from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise DataError(f"{name} has more than {MOST_PIXELS:,} pixels.") from None
    except Exception as error:  # on damaged files decoders raise almost anything
        raise DataError(f"{name} is damaged ({error}).") from error


def each(function: Callable[[_T], _R], items: Iterable[_T]) -> list[_R]:
    """`function` of each item in order, on all cores: decoders release the interpreter's lock."""
    with _judged_warnings(), ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(function, items))


def _check_size(name: str, width: int, height: int) -> None:
    if width * height > MOST_PIXELS:
        raise DataError(f"{name} has more than {MOST_PIXELS:,} pixels.")
    if min(width, height) < LEAST_SIDE:
        raise DataError(f"{name} is {width}x{height}; a face needs {LEAST_SIDE} pixels a side.")


def _factor(image: Image.Image, longest: int) -> int:
    """The least whole number that brings both sides to at most `longest` pixels."""
    return -(-max(image.size) // longest)


def _rgb(name: str, image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):
        grey = np.asarray(image)
        if grey.min() < 0 or grey.max() > 65535:
            raise DataError(f"{name} holds greys beyond 16 bits.")
        return Image.fromarray(np.rint(grey / 257).astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        raise DataError(f"{name} holds floats, whose range is unknown; save it with 8 bits.")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


@contextmanager
def _judged_warnings() -> Iterator[None]:
    """Pillow only warns of huge headers, which is an error here; damaged EXIF data costs an image
    its orientation and no more. Filters belong to the process: set them outside the threads.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield
