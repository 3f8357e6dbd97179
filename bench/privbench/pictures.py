"""A grid of released images: one row per method, one column per person."""

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
    height = len(strips) * (SIDE + GAP)
    sheet = Image.new("RGB", (LABEL + len(chosen) * (SIDE + GAP), height), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(FONT)
    for i, (label, pixels) in enumerate(strips):
        top = i * (SIDE + GAP)
        draw.text((4, top + SIDE / 2), _wrapped(label, font), "black", font, anchor="lm")
        for j, image in enumerate(pixels.transpose(0, 2, 3, 1)):
            small = Image.fromarray(image).resize((SIDE, SIDE), Image.Resampling.LANCZOS)
            sheet.paste(small, (LABEL + j * (SIDE + GAP), top))
    buffer = io.BytesIO()
    sheet.save(buffer, "JPEG", quality=88)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(buffer.getvalue())
    except OSError as error:
        raise RecordError(f"Cannot write the pictures {path}: {error}") from error


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
