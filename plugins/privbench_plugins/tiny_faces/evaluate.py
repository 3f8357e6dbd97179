"""Measure ``tiny-faces``: the numbers of its model card, and a sheet of samples.

    python -m privbench_plugins.tiny_faces.evaluate --model DIR --data DIR --sheet FILE.png

prints JSON. The faces are those of the training renderer whose identities never trained.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
import numpy.typing as npt
import torch

from ..conditions import canny
from ..geometry import Geometry, load_geometry
from .autoencoder import psnr, reconstruct
from .card import write_cards
from .diffusion import GUIDES, condition_maps
from .export import folder_of, guided, load_autoencoder, load_base, load_guide
from .faces import Faces, load_faces, split_faces

Images = npt.NDArray[np.uint8]
TOLERANCE: Final = 2
DEFAULT_STEPS: Final = 10
DEFAULT_GUIDANCE: Final = 1.0


def sample(
    pipeline: Any,
    captions: Sequence[str],
    seeds: Sequence[int],
    maps: Images | None = None,
    steps: int = DEFAULT_STEPS,
    guidance: float = DEFAULT_GUIDANCE,
) -> Images:
    """Draw one image per caption and seed; with `maps` (N, H, W) the pipeline must be a guide's.

    Returns (N, 128, 128, 3) uint8.
    """
    blocks = []
    for start in range(0, len(captions), 32):
        part = slice(start, start + 32)
        inputs: dict[str, Any] = {}
        if maps is not None:
            grey = torch.from_numpy(maps[part])[:, None].float() / 255
            inputs["image"] = grey.expand(-1, 3, -1, -1)
        result = pipeline(
            list(captions[part]),
            generator=[torch.Generator().manual_seed(seed) for seed in seeds[part]],
            num_inference_steps=steps,
            guidance_scale=guidance,
            output_type="np",
            **inputs,
        )
        blocks.append((result.images * 255).round().astype(np.uint8))
    return np.concatenate(blocks)


def edge_agreement(found: Images, wanted: Images, tolerance: int = TOLERANCE) -> Any:
    """(3,) mean precision, recall and F of edge maps, each (N, H, W), within `tolerance` px."""
    size = 2 * tolerance + 1
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (size, size))
    scores = []
    for a, b in zip(found, wanted, strict=True):
        precision = _share(a, cv2.dilate(b, disc))
        recall = _share(b, cv2.dilate(a, disc))
        total = precision + recall
        scores.append((precision, recall, 2 * precision * recall / total if total else 0.0))
    return np.mean(scores, 0)


def _share(edges: Images, region: Images) -> float:
    """Share of the pixels of `edges` that lie in `region`; of no pixels, all."""
    count = int((edges > 0).sum())
    return float(((edges > 0) & (region > 0)).sum() / count) if count else 1.0


def detection_rate(images: Images) -> float | None:
    """Share of images in which dlib's HOG detector finds a face; None without dlib."""
    if find_spec("dlib") is None:
        return None
    import dlib

    detector = dlib.get_frontal_face_detector()
    # The detector's smallest face is 80 pixels: one doubling is what dlib itself advises.
    return float(np.mean([len(detector(np.ascontiguousarray(x), 1)) > 0 for x in images]))


def colour_distance(a: Images, b: Images) -> float:
    """Mean absolute difference, in grey levels (0-255), after blurring away the lines."""
    small = [
        np.stack([cv2.resize(x, (8, 8), interpolation=cv2.INTER_AREA) for x in y]) for y in (a, b)
    ]
    return float(np.abs(small[0].astype(np.float64) - small[1]).mean())


def pixel_distance(a: Images, b: Images) -> float:
    """Mean absolute difference of pixels, in grey levels (0-255)."""
    return float(np.abs(a.astype(np.float64) - b).mean())


def measure(model: Path, unseen: Faces, count: int = 96) -> dict[str, Any]:
    """Return the numbers of the card; `unseen` are faces whose identities never trained."""
    rows = np.linspace(0, len(unseen) - 1, min(count, len(unseen))).astype(np.int64)
    faces = unseen[rows]
    n = len(faces)
    geometry = load_geometry()
    maps = condition_maps(faces.images, geometry)
    base = load_base(model)
    decoded = reconstruct(load_autoencoder(model), faces.images, _CPU)
    free = sample(base, [""] * n, range(n), steps=25)
    texts = sample(base, faces.captions, range(n), steps=25)
    other = np.roll(np.arange(n), n // 2)
    return {
        "faces": n,
        "autoencoder_psnr_db": _round(psnr(faces.images, decoded).mean()),
        "detected": {
            "renders": detection_rate(faces.images),
            "reconstructed": detection_rate(decoded),
            "caption_only": detection_rate(texts),
            "unconditional": detection_rate(free),
        },
        "agreement_of_reconstructed": agreement("canny", decoded, maps, geometry),
        "agreement_of_renders": agreement("canny", faces.images, maps, geometry),
        "distance_of_two_people": _distances(faces.images, faces.images[other]),
        "guides": {
            guide: measure_guide(guide, model, base, faces, maps, geometry)
            for guide in GUIDES
            if folder_of(guide, model).is_dir()
        },
    }


def measure_guide(
    guide: str, model: Path, base: Any, faces: Faces, maps: Mapping[str, Images], geometry: Geometry
) -> dict[str, Any]:
    """How far samples are faces, follow their condition, and differ where it leaves them free."""
    pipeline = guided(base, load_guide(guide, model))
    wanted = maps[GUIDES[guide]]
    n = len(faces)
    seeds, others = list(range(n)), list(range(10_000, 10_000 + n))
    first = sample(pipeline, faces.captions, seeds, wanted)
    captions = [faces.captions[i] for i in np.roll(np.arange(n), n // 2)]
    return {
        "detected": detection_rate(first),
        "agreement": agreement(GUIDES[guide], first, maps, geometry),
        "distance_pixels_colours": {
            "other_seed": _distances(first, sample(pipeline, faces.captions, others, wanted)),
            "other_caption": _distances(first, sample(pipeline, captions, seeds, wanted)),
            "source": _distances(first, faces.images),
        },
    }


def agreement(
    condition: str, images: Images, maps: Mapping[str, Images], geometry: Geometry
) -> dict[str, Any]:
    """How well images agree with their own condition and with another face's.

    Edges: precision, recall and F. Depth and soft edges: mean absolute difference in levels of
    255. Landmarks: the same of the drawn masks.
    """
    wanted = maps[condition]
    found = condition_maps(images, geometry)[condition]
    other = np.roll(wanted, len(wanted) // 2, 0)
    score = edge_agreement if condition == "canny" else pixel_distance
    return {"own": _round(score(found, wanted)), "another_face": _round(score(found, other))}


_CPU: Final = torch.device("cpu")


def _distances(a: Images, b: Images) -> list[float]:
    return [_round(pixel_distance(a, b)), _round(colour_distance(a, b))]


def _round(value: Any) -> Any:
    return np.round(value, 3).tolist()


def scheduler_variants(pipeline: Any) -> dict[str, Any]:
    """Samplers to compare, all on the training schedule."""
    from diffusers import DDIMScheduler, DPMSolverMultistepScheduler, UniPCMultistepScheduler

    config = pipeline.scheduler.config
    return {
        "ddim": DDIMScheduler.from_config(config),
        "dpmpp": DPMSolverMultistepScheduler.from_config(config, final_sigmas_type="zero"),
        "unipc": UniPCMultistepScheduler.from_config(config, final_sigmas_type="zero"),
    }


def compare_settings(
    model: Path,
    unseen: Faces,
    steps: Sequence[int] = (8, 10, 15, 20),
    guidances: Sequence[float] = (1.0, 2.0),
    count: int = 32,
    dtype: torch.dtype = torch.bfloat16,
    report: Callable[[str], None] = print,
) -> list[dict[str, Any]]:
    """Speed, edge agreement and detector rate of each sampler, step count and guidance."""
    rows = np.linspace(0, len(unseen) - 1, min(count, len(unseen))).astype(np.int64)
    faces = unseen[rows]
    edges = canny(faces.images)
    pipeline = guided(load_base(model, dtype), load_guide("canny", model, dtype))
    variants = scheduler_variants(pipeline)
    results = []
    for name, scheduler in variants.items():
        pipeline.scheduler = scheduler
        for guidance in guidances:
            for number in steps:
                start, busy = time.perf_counter(), time.process_time()
                images = sample(
                    pipeline, faces.captions, range(len(faces)), edges, number, guidance
                )
                seconds = time.perf_counter() - start
                row = {
                    "scheduler": name,
                    "steps": number,
                    "guidance": guidance,
                    "images_per_s": _round(len(faces) / seconds),
                    "images_per_cpu_s": _round(len(faces) / (time.process_time() - busy)),
                    "edge_f": _round(edge_agreement(canny(images), edges)[2]),
                    "detected": detection_rate(images),
                }
                results.append(row)
                report(json.dumps(row))
    return results


def sheet(model: Path, unseen: Faces, columns: int = 10) -> Images:
    """Rows: source; each guide's condition and two samples; caption alone; nothing."""
    rows = np.linspace(0, len(unseen) - 1, columns).astype(np.int64)
    faces = unseen[rows]
    maps = condition_maps(faces.images, load_geometry())
    base = load_base(model)
    bands = [faces.images]
    for guide, condition in GUIDES.items():
        pipeline = guided(base, load_guide(guide, model))
        bands.append(np.repeat(maps[condition][..., None], 3, -1))
        bands += [sample(pipeline, faces.captions, [k] * columns, maps[condition]) for k in (0, 1)]
    bands.append(sample(base, faces.captions, range(columns), steps=25, guidance=2.0))
    bands.append(sample(base, [""] * columns, range(columns), steps=25))
    return np.concatenate([np.concatenate(list(band), 1) for band in bands], 0)


def main(argv: list[str] | None = None) -> None:
    """Print the numbers as JSON and write the sheet."""
    parser = argparse.ArgumentParser(
        prog="python -m privbench_plugins.tiny_faces.evaluate", description=__doc__
    )
    assets = Path(__file__).resolve().parents[1] / "assets"
    add = parser.add_argument
    add("--model", type=Path, default=assets, help="folder of the model folders")
    add("--data", type=Path, required=True, help="folder of the rendered shards")
    add("--sheet", type=Path, help="write the sheet of samples to this PNG")
    add("--held-out", type=int, default=20, help="one identity in this many is unseen")
    add("--count", type=int, default=96, help="unseen faces to measure on")
    add("--threads", type=int, default=0, help="CPU threads (default: torch's choice)")
    add("--cards", action="store_true", help="write the model cards from what was measured")
    add("--compare", action="store_true", help="compare samplers instead")
    arguments = parser.parse_args(argv)
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    _, unseen = split_faces(load_faces(arguments.data), arguments.held_out)
    if arguments.sheet:
        image = sheet(arguments.model, unseen)
        cv2.imwrite(str(arguments.sheet), cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    elif arguments.compare:
        compare_settings(arguments.model, unseen)
    else:
        measured = measure(arguments.model, unseen, arguments.count)
        print(json.dumps(measured, indent=1))
        if arguments.cards:
            write_cards(arguments.model, measured, DEFAULT_STEPS)


if __name__ == "__main__":
    main()
