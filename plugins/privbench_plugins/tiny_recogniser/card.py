"""The model card of the released weights, written from their provenance."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

_TEXT = """# tiny-recogniser

A small recogniser of clear faces. It judges what inversion attacks reconstruct; no attack trains
on it, chooses by it or starts from it. `naive-recogniser` takes it by name, and `auto` leaves
it out.

- Network: residual, {parameters:,} parameters, {megabytes:.2f} MB as float16. Input RGB in
  [0, 1], resized to {side} px; output {dim} numbers of length one
  (`privbench_plugins/tiny_encoder/net.py`: the architecture of `tiny-encoder`, narrower, with
  weights of its own).
- Training: {images:,} renders of {identities:,} identities; {steps:,} steps of
  {views_per_step} views, seed {seed}, {dtype}. Supervised contrastive loss and margin softmax over
  clear photographs, a little moved, turned, mirrored, brightened or grey: no edges, blur,
  pixelation or other imitation of an anonymizer.
- Identities: numbers {first} to {last} of the background, {first_unseen} to {last_unseen} held out.
  `tiny-encoder` and the `tiny-faces` models were trained on numbers below 2000; no shipped split
  has any of them.
- Digest and counters: `provenance.json`.
- Rebuild: `python -m privbench_plugins.synthfaces.build train --first 2000 --identities 1000
  --images 4 --out build/judge`, then
  `python -m privbench_plugins.tiny_recogniser.train --data build/judge --out FOLDER`.

Identification across clear photos of the identities held out: each probe among all people, by its
mean cosine with their other photos (image and mirror averaged; no choice made on these numbers but
when to stop).

| rank-1 | mAP | probes | people | chance |
|---|---|---|---|---|
| {rank1:.3f} | {mean_average_precision:.3f} | {probes} | {people} | {chance:.2f} |

Limits: it knows rendered heads only and has never seen a real face: on photographs, judge by a
recogniser that was trained on them. It shares renderer and architecture with `tiny-encoder`, so
the two err alike more often than two recognisers of different origin. It takes the image as it is
and detects nothing. Licence: Apache-2.0; the renders derive from CC0 assets.
"""


def model_card(facts: dict[str, Any], config: dict[str, Any], parameters: int, size: int) -> str:
    """The Markdown text.

    Args:
        facts: the provenance.
        config: the network's configuration.
        parameters: of the network.
        size: of the weights, bytes.
    """
    first, last = facts["training"]["numbers"]
    first_unseen, last_unseen = facts["held_out"]["numbers"]
    numbers = {
        "parameters": parameters, "megabytes": size / 1e6, "first": first, "last": last,
        "first_unseen": first_unseen, "last_unseen": last_unseen,
    }  # fmt: skip
    return _TEXT.format(**(config | facts | facts["training"] | facts["held_out"] | numbers))


def write_card(folder: Path, parameters: int) -> None:
    """Write `README.md` beside the weights, from `provenance.json` and `config.json`."""
    facts, config = (
        json.loads((folder / name).read_text(encoding="utf-8"))
        for name in ("provenance.json", "config.json")
    )
    size = (folder / "model.safetensors").stat().st_size
    text = model_card(facts, config, parameters, size)
    (folder / "README.md").write_text(text, encoding="utf-8")
