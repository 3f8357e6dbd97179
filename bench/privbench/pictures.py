"""Pictures of a run: what was released, and what inversion attacks made of it."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from privbench.errors import RecordError
from privbench.plan import Cell, Plan
from privbench.store import Store

SIDE, LABEL, GAP, FONT = 96, 190, 2, 15
TITLE, SPACE, QUALITY = 24, 14, 88
CASES = ("best", "median", "worst")


def write_grid(
    plan: Plan, store: Store, rows: Sequence[tuple[str, Cell]], people: int, path: Path
) -> None:
    """Write the sources and, below them, what each cell released for the same photographs.

    Args:
        rows: label and cell; a cell's released probes must be in the store.
        people: columns; the first probe of people spread evenly over the evaluation identities.
        path: JPEG file.

    Raises:
        RecordError: the store no longer holds the images, or the file cannot be written.
    """
    probes = plan.split.probes
    first = np.arange(0, len(probes), plan.preset.probes)
    chosen = first[np.linspace(0, len(first) - 1, min(people, len(first))).round().astype(int)]
    strips = [("source", plan.data.pixels(probes[chosen]).numpy())]
    strips += [(label, _released(store, cell)[chosen]) for label, cell in rows]
    write_bytes(path, strips_jpeg(strips))


def strips_jpeg(strips: Sequence[tuple[str, np.ndarray]]) -> bytes:
    """Labelled rows of pictures as a JPEG file.

    Args:
        strips: label and (n, 3, H, W) uint8; n is the same for all.
    """
    columns, height = len(strips[0][1]), len(strips) * (SIDE + GAP)
    sheet = Image.new("RGB", (LABEL + columns * (SIDE + GAP), height), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(FONT)
    for i, (label, pixels) in enumerate(strips):
        top = i * (SIDE + GAP)
        draw.text((4, top + SIDE / 2), _wrapped(label, font), "black", font, anchor="lm")
        for j, image in enumerate(pixels):
            sheet.paste(_small(image), (LABEL + j * (SIDE + GAP), top))
    buffer = io.BytesIO()
    sheet.save(buffer, "JPEG", quality=QUALITY)
    return buffer.getvalue()


def write_inversions(
    plan: Plan, store: Store, rows: Sequence[tuple[str, Cell]], path: Path
) -> None:
    """Write galleries: one row per cell; the best, the median and the worst reconstruction, each
    as source, release and reconstruction.

    Best is by the chosen judge's similarity of the reconstruction to its source photograph.

    Args:
        rows: label and cell of an inversion attack; its steps must be in the store.
        path: PNG file.

    Raises:
        RecordError: the store no longer holds an artefact, or the file cannot be written.
    """
    write_bytes(path, inversion_gallery(plan, store, rows))


def inversion_gallery(plan: Plan, store: Store, rows: Sequence[tuple[str, Cell]]) -> bytes:
    """The picture that `write_inversions` writes, as PNG."""
    font = ImageFont.load_default(FONT)
    triple = 3 * (SIDE + GAP)
    width, height = LABEL + len(CASES) * (triple + SPACE), TITLE + len(rows) * (SIDE + GAP)
    sheet = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(sheet)
    for place, case in enumerate(CASES):
        left = LABEL + place * (triple + SPACE)
        title = f"{case}: source, release, reconstruction"
        draw.text((left, TITLE / 2), title, "black", ImageFont.load_default(FONT - 2), anchor="lm")
    for i, (label, cell) in enumerate(rows):
        top = TITLE + i * (SIDE + GAP)
        draw.text((4, top + SIDE / 2), _wrapped(label, font), "black", font, anchor="lm")
        inverted, likeness = _inverted(store, cell)
        order = np.argsort(-likeness, kind="stable")
        chosen = order[[0, len(order) // 2, len(order) - 1]]
        sources = plan.data.pixels(plan.split.probes[chosen]).numpy()
        released = _released(store, cell)
        for place, row in enumerate(chosen):
            left = LABEL + place * (triple + SPACE)
            for j, image in enumerate((sources[place], released[row], inverted[row])):
                sheet.paste(_small(image), (left + j * (SIDE + GAP), top))
    buffer = io.BytesIO()
    sheet.quantize(256).save(buffer, "PNG", optimize=True)  # a third of the size
    return buffer.getvalue()


def _small(image: np.ndarray) -> Image.Image:
    """(3, H, W) uint8 as a picture of `SIDE` pixels."""
    whole = Image.fromarray(np.ascontiguousarray(image.transpose(1, 2, 0)))
    return whole.resize((SIDE, SIDE), Image.Resampling.LANCZOS)


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file and its folder.

    Raises:
        RecordError: it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    except OSError as error:
        raise RecordError(f"Cannot write {path}: {error}") from error


def _inverted(store: Store, cell: Cell) -> tuple[np.ndarray, np.ndarray]:
    """(N, 3, H, W) first reconstructions of the probes, (N,) likeness to their sources."""
    found = [store.find(s.stage, s.plugin, s.key) for s in (cell.invert, cell.score) if s]
    if len(found) != 2 or found[0] is None or found[1] is None:
        raise RecordError(
            f"The store no longer holds the reconstructions of {cell.score.label}, which the "
            "gallery shows. Use the store that ran it."
        )
    pixels: np.ndarray = next(iter(store.read(found[0])))["pixels"][:, 0]
    return pixels, next(iter(store.read(found[1])))["source"]


def _released(store: Store, cell: Cell) -> np.ndarray:
    step = cell.anonymize["probes"]
    found = store.find(step.stage, step.plugin, step.key)
    if found is None:
        raise RecordError(
            f"The store no longer holds the images of {step.label}, which the picture grid shows. "
            "Use the store that ran the study, or set `people = 0` in the study file."
        )
    return np.concatenate([part["pixels"] for part in store.read(found)])


def _wrapped(label: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
    """The label on as many lines as its column needs."""
    lines = [""]
    for word in label.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and font.getlength(longer) > LABEL - 8:
            lines.append(word)
        else:
            lines[-1] = longer
    return "\n".join(lines)
