"""Train ``tiny-captioner`` on rendered faces whose attributes are known.

    python -m privbench_plugins.tiny_captioner.train --data build/train --out FOLDER

Every twentieth identity is held out; the accuracy on them goes to ``provenance.json`` and into
the model card, beside that of always naming the commonest value. Colours are left as they are:
they are among the attributes.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from privbench_plugins.synthfaces import RENDERER_VERSION
from privbench_plugins.synthfaces.identity import BEARDS, HAIR_STYLES
from privbench_plugins.synthfaces.palette import BACKGROUND_COLORS, CLOTH_COLORS, HAIR_COLORS
from privbench_plugins.synthfaces.scene import CLOTHES, EXPRESSIONS, SETTINGS
from privbench_plugins.tiny_captioner import TRAINER_VERSION
from privbench_plugins.tiny_captioner.card import model_card
from privbench_plugins.tiny_captioner.net import NetConfig, TinyCaptioner, load, save
from privbench_plugins.tiny_faces.checkpoints import Ema

LABELS: Mapping[str, tuple[str, ...]] = {
    "age_group": ("young", "middle-aged", "older"),
    "sex": ("woman", "man"),
    "hair": HAIR_STYLES,
    "hair_color": tuple(HAIR_COLORS),
    "beard": BEARDS,
    "glasses": ("no", "yes"),
    "expression": EXPRESSIONS,
    "clothing": CLOTHES,
    "clothing_color": tuple(CLOTH_COLORS),
    "striped": ("no", "yes"),
    "setting": SETTINGS,
    "background": tuple(BACKGROUND_COLORS),
}
"""Attributes of a caption and their values."""

_HELD_OUT = 20
_NOTHING = -1
"""Label of what an image does not have: the hair colour of a bald head."""


@dataclass(frozen=True)
class Labelled:
    """Renders and their attributes; row i of everything is one face.

    images: (N, 3, S, S) uint8. labels: (N, attributes) int64, -1 where there is none.
    subjects: (N,).
    """

    images: Tensor
    labels: Tensor
    subjects: Tensor

    def take(self, rows: Tensor) -> Labelled:
        """The faces at `rows`."""
        return Labelled(self.images[rows], self.labels[rows], self.subjects[rows])


def read(folder: Path, side: int) -> Labelled:
    """Read all shards of `folder`; images shrink to `side` pixels.

    Raises:
        FileNotFoundError: no complete shard.
    """
    images: list[Any] = []
    labels, subjects = [], []
    for path in sorted(folder.glob("*.jsonl")):
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        full = np.load(path.with_name(f"{path.stem}-images.npy"), allow_pickle=False)
        images += [cv2.resize(x, (side, side), interpolation=cv2.INTER_AREA) for x in full]
        labels += [_numbers(row) for row in rows]
        subjects += [int(row["subject"]) for row in rows]
    if not images:
        raise FileNotFoundError(f"No complete shard (*.jsonl) of training renders in {folder}.")
    pixels = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous()
    return Labelled(pixels, torch.tensor(labels), torch.tensor(subjects))


def _numbers(row: Mapping[str, Any]) -> list[int]:
    words = {name: str(value) for name, value in row.items()}
    words["glasses"] = "yes" if row["glasses"] else "no"
    words["striped"] = "yes" if " striped " in row["caption"] else "no"
    return [
        _NOTHING if words[name] == "none" and "none" not in values else values.index(words[name])
        for name, values in LABELS.items()
    ]


def split(faces: Labelled) -> tuple[Labelled, Labelled]:
    """(training, held out): each twentieth identity never trains."""
    held_out = faces.subjects % _HELD_OUT == _HELD_OUT - 1
    return faces.take((~held_out).nonzero()[:, 0]), faces.take(held_out.nonzero()[:, 0])


def augment(images: Tensor, rng: torch.Generator) -> Tensor:
    """(N, 3, S, S) uint8 to float in [0, 1]; mirrored, shifted and scaled a little."""
    n = len(images)
    scale = 1 + 0.05 * torch.randn(n, generator=rng)
    flip = torch.where(torch.rand(n, generator=rng) < 0.5, -1.0, 1.0)
    zero = torch.zeros(n)
    shift = 0.05 * torch.randn((2, n), generator=rng)
    rows = [torch.stack([scale * flip, zero, shift[0]], 1), torch.stack([zero, scale, shift[1]], 1)]
    grid = F.affine_grid(torch.stack(rows, 1), list(images.shape), align_corners=False)
    return F.grid_sample(images.float() / 255, grid, padding_mode="border", align_corners=False)


def train(faces: Labelled, epochs: int, batch: int = 64, rate: float = 4e-3) -> TinyCaptioner:
    """Fit the network: mean cross-entropy over the attributes, AdamW, one cycle, averaged."""
    torch.manual_seed(0)
    rng = torch.Generator().manual_seed(0)
    net = TinyCaptioner(NetConfig(LABELS, side=faces.images.shape[-1])).train()
    optimiser = torch.optim.AdamW(net.parameters(), weight_decay=0.02)
    steps = epochs * (len(faces.images) // batch)
    cycle = torch.optim.lr_scheduler.OneCycleLR(optimiser, rate, total_steps=steps, pct_start=0.2)
    average = Ema(list(net.parameters()), 0.998)
    started = time.monotonic()
    for step in range(steps):
        if step % (steps // epochs) == 0:
            order = torch.randperm(len(faces.images), generator=rng)
            print(f"step {step} of {steps}, {time.monotonic() - started:.0f} s", flush=True)
        at = step % (len(faces.images) // batch) * batch
        part = faces.take(order[at : at + batch])
        scores = net(augment(part.images, rng), dropout=0.2)
        losses = [
            F.cross_entropy(s, y, ignore_index=_NOTHING)
            for s, y in zip(scores, part.labels.T, strict=True)
        ]
        optimiser.zero_grad()
        torch.stack(losses).mean().backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        cycle.step()
        average.update(step)
    average.swap()
    return net.eval()


@torch.inference_mode()
def accuracies(net: TinyCaptioner, trained: Labelled, tested: Labelled) -> dict[str, Any]:
    """Per attribute: share right on `tested`, and that of the commonest value in `trained`."""
    parts = [net(x.float() / 255) for x in torch.split(tested.images, 256)]
    found = [torch.cat(scores).argmax(1) for scores in zip(*parts, strict=True)]
    common = [column[column != _NOTHING].mode().values for column in trained.labels.T]
    right, naive = (
        [_share(f, y) for f, y in zip(guess, tested.labels.T, strict=True)]
        for guess in (found, common)
    )
    return {
        name: {"accuracy": round(a, 4), "majority": round(b, 4), "values": len(LABELS[name])}
        for name, a, b in zip(LABELS, right, naive, strict=True)
    }


def _share(found: Tensor, truth: Tensor) -> float:
    """Share of right answers among the images that have the attribute."""
    known = truth != _NOTHING
    return float((truth == found)[known].double().mean())


def main() -> None:
    """Train, test, write the folder."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--epochs", type=int, default=16)
    options = parser.parse_args()
    torch.set_num_threads(1)
    trained, tested = split(read(options.data, NetConfig(LABELS).side))
    save(train(trained, options.epochs), options.out)
    net = load(options.out)  # what is measured is what ships: weights rounded to float16
    record = {
        "trainer": TRAINER_VERSION,
        "renderer": RENDERER_VERSION,
        "images": len(trained.images),
        "identities": len(set(trained.subjects.tolist())),
        "held_out_images": len(tested.images),
        "held_out_identities": len(set(tested.subjects.tolist())),
        "epochs": options.epochs,
        "parameters": sum(p.numel() for p in net.parameters()),
        "sha256": sha256((options.out / "model.safetensors").read_bytes()).hexdigest(),
        "held_out": accuracies(net, trained, tested),
    }
    text = json.dumps(record, indent=2) + "\n"
    (options.out / "provenance.json").write_text(text, encoding="utf-8")
    (options.out / "README.md").write_text(model_card(record), encoding="utf-8")


if __name__ == "__main__":
    main()
