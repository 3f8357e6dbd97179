"""Draw the README's picture from the current code and weights: `python docs/pictures.py`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from privbench.api import make_study, plan_study
from privbench.data import load_part
from privbench.keys import sample_seed
from privbench.types import UNKNOWN, ImageBatch

PEOPLE = 8
OUT = Path(__file__).parent / "images" / "controlnet-canny.png"


def main() -> None:
    """Source, edges, two seeds of `controlnet-canny`, `ldm-unconditional`; one person a column.

    The people are of the background part: nothing shown is anybody's evaluation data.
    """
    plan = plan_study(make_study(["controlnet-canny", "ldm-unconditional"], ["random-guess"]))
    canny, unconditional = (
        cell.anonymizer.registered.spec.build(cell.anonymizer.config) for cell in plan.cells
    )
    rows = plan.split.background[:: plan.preset.train_images][:PEOPLE]
    images = load_part(plan.data, rows)
    batch = ImageBatch(images.floats(), np.full(PEOPLE, UNKNOWN), images.keys)
    seeds = [[sample_seed(0, key, draw) for key in images.keys] for draw in (0, 1)]
    with torch.inference_mode():
        strips = [
            batch.pixels,
            canny.condition(batch).expand_as(batch.pixels),
            canny.anonymize(batch, seeds[0]),
            canny.anonymize(batch, seeds[1]),
            unconditional.anonymize(batch, seeds[0]),
        ]
    sheet = torch.cat([torch.cat(list(strip), -1) for strip in strips], -2)
    pixels = sheet.clamp(0, 1).mul(255).round().to(torch.uint8).permute(1, 2, 0).numpy()
    OUT.parent.mkdir(exist_ok=True)
    Image.fromarray(pixels).save(OUT, optimize=True)


if __name__ == "__main__":
    main()
