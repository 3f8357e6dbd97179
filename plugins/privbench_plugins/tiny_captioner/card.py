"""The model card of ``tiny-captioner``, written from its provenance."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_TEXT = """# tiny-captioner

The attributes of a rendered face in words: what `ldm-caption` tells the diffusion model about a
source. Trained on renders of identities that are in no shipped split; no photograph of a person
and no outside weights went into it.

- Network: five convolutions and one linear layer, {parameters:,} parameters, float16. Input RGB
  in [0, 1], resized to 96 px (`privbench_plugins/tiny_captioner/net.py`).
- Training: {images:,} renders of {identities:,} identities, {epochs} epochs, cross-entropy over
  all attributes; the weights are an average over the steps.
- Rebuild: `python -m privbench_plugins.synthfaces.build train --out build/train`, then
  `python -m privbench_plugins.tiny_captioner.train --data build/train --out FOLDER`.

Share of right answers on {held_out_images:,} renders of {held_out_identities:,} identities that
never trained, beside always naming the commonest value of the training set:

| attribute | values | accuracy | commonest value |
|---|---|---|---|
{rows}

Limits: it knows rendered heads only, and always names one of the values it knows. The words say
what a face looks like, wrong ones included; they are no ground truth. Licence: Apache-2.0; the
renders derive from CC0 assets.
"""


def model_card(record: Mapping[str, Any]) -> str:
    """The Markdown text.

    Args:
        record: the content of `provenance.json`.
    """
    rows = [
        f"| {name} | {r['values']} | {r['accuracy']:.3f} | {r['majority']:.3f} |"
        for name, r in record["held_out"].items()
    ]
    return _TEXT.format(**record, rows="\n".join(rows))
