"""The model card of the released weights, written from their provenance."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

_PAIRS = {
    "clear-clear": "clear photo against clear photos",
    "edges-clear": "canny map against clear photos",
    "edges-edges": "canny map against canny maps",
}

_TEXT = """# tiny-encoder

A small face embedder: the start that the attack `contrastive-reid` adapts to an anonymizer.
It is trained on rendered heads that occur in no shipped split; no photograph of a person and
no outside weights went into it.

- Network: residual, {parameters:,} parameters, {megabytes:.2f} MB as float16. Input RGB in
  [0, 1], resized to {side} px; output {dim} numbers of length one
  (`privbench_plugins/tiny_encoder/net.py`).
- Training: {images:,} renders of {identities:,} identities; {steps:,} steps of
  {views_per_step} views, seed {seed}, {dtype}. Supervised contrastive loss and margin softmax
  over views that imitate anonymizers: canny maps at random thresholds in many drawing styles,
  re-coloured faces, blur, pixelation, noise, grey (`tiny_encoder/styles.py`).
- Digest and counters: `provenance.json`.
- Rebuild: `python -m privbench_plugins.synthfaces.build train --out build/train`, then
  `python -m privbench_plugins.tiny_encoder.train --data build/train --out FOLDER`. The released
  training was stopped and resumed, so a rebuild gives weights that are as good, not equal.

Identification across photos on the last 5 % of the identities, which were held out: each probe
among all people, by its mean cosine with their other photos (image and mirror averaged, no
adaptation, no choice made on these numbers but when to stop).

| probe and gallery | rank-1 | mAP | probes | people | chance |
|---|---|---|---|---|---|
{rows}

Limits: it knows rendered heads only and has never seen a real face. It is a start for an
attack, not a recogniser. Licence: Apache-2.0; the renders derive from CC0 assets.
"""


def model_card(facts: dict[str, Any], config: dict[str, Any], parameters: int, size: int) -> str:
    """The Markdown text.

    Args:
        facts: the provenance.
        config: the network's configuration.
        parameters: of the network.
        size: of the weights, bytes.
    """
    rows = [
        f"| {_PAIRS[name]} | {r['rank1']:.3f} | {r['mean_average_precision']:.3f} "
        f"| {r['probes']} | {r['people']} | {r['chance']:.2f} |"
        for name, r in facts.get("held_out", {}).items()
    ]
    numbers = {"parameters": parameters, "megabytes": size / 1e6, "rows": "\n".join(rows)}
    return _TEXT.format(**(config | facts | facts["training"] | numbers))


def write_card(folder: Path, parameters: int) -> None:
    """Write `README.md` beside the weights, from `provenance.json` and `config.json`."""
    facts, config = (
        json.loads((folder / name).read_text(encoding="utf-8"))
        for name in ("provenance.json", "config.json")
    )
    size = (folder / "model.safetensors").stat().st_size
    text = model_card(facts, config, parameters, size)
    (folder / "README.md").write_text(text, encoding="utf-8")
