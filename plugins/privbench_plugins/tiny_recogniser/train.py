"""Train `tiny-recogniser`, the judge of reconstructions, on background renders of its own.

    python -m privbench_plugins.synthfaces.build train --first 2000 --identities 1000 --images 4 \
        --out build/judge
    python -m privbench_plugins.tiny_recogniser.train --data build/judge --out FOLDER

A judge must know nothing of the attacks that it judges: its identities are others than those
that `tiny-encoder` and `tiny-faces` were trained on (numbers below 2000), and it sees clear
photographs only, so that it has adapted to no anonymizer. The last 5 % of the identities are
never trained on; the report is about them.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path
from typing import Final

import numpy as np
import torch
from torch import Generator, Tensor, nn

from privbench_plugins.attacks.losses import contrastive_loss, margin_softmax
from privbench_plugins.tiny_encoder import evaluate
from privbench_plugins.tiny_encoder import train as encoder
from privbench_plugins.tiny_encoder.augment import jitter, warp
from privbench_plugins.tiny_encoder.ema import Ema
from privbench_plugins.tiny_encoder.net import NetConfig, TinyEncoder, save
from privbench_plugins.tiny_encoder.train import Images, Subjects
from privbench_plugins.tiny_recogniser.card import write_card

NETWORK: Final = NetConfig(widths=(32, 64, 80), squeeze=16)


def arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(prog="tiny_recogniser.train", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of training shards")
    parser.add_argument("--out", type=Path, required=True, help="folder of the released weights")
    parser.add_argument("--work", type=Path, default=Path("build/tiny-recogniser"))
    parser.add_argument("--resume", action="store_true", help="continue from --work")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--cooldown", type=int, default=700)
    parser.add_argument("--people", type=int, default=64, help="identities per step")
    parser.add_argument("--first", type=int, default=2000, help="lowest identity number")
    parser.add_argument("--identities", type=int, default=1000, help="identities of the data")
    parser.add_argument("--rate", type=float, default=2e-3, help="peak learning rate")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--dtype", choices=("auto", "float32", "bfloat16"), default="auto")
    parser.add_argument("--log-every", type=int, default=100)
    parser.add_argument("--report-every", type=int, default=500)
    return parser.parse_args(argv)


def make_batch(images: Images, generator: Generator, side: int) -> Tensor:
    """(n, 3, side, side): a view of each photo, as another clear photo might show it."""
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
    moved = warp(pixels, generator, side).clamp(0, 1)
    return jitter(moved, generator, strength=0.3, grey_share=0.1)


class Training(encoder.Training):
    """As for `tiny-encoder`, with a smaller network and one clear view of each photo."""

    def __init__(self, args: argparse.Namespace) -> None:
        torch.manual_seed(args.seed)
        self.args = args
        self.model = TinyEncoder(NETWORK)
        self.classes = encoder.Classes(args.identities, NETWORK.dim)
        self.both = nn.ModuleList([self.model, self.classes])
        self.optimizer = torch.optim.AdamW(
            self.both.parameters(), lr=args.rate, weight_decay=0.05, betas=(0.9, 0.99)
        )
        self.ema = Ema(self.model, 0.998)
        self.step, self.seconds = 0, 0.0
        native = bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
        self.half = native if args.dtype == "auto" else args.dtype == "bfloat16"

    def update(self, images: Images, subjects: Subjects) -> float:
        """One step; returns the loss. `subjects` count from 0."""
        generator = Generator().manual_seed(self.args.seed * 1_000_003 + self.step)
        rows = encoder.choose(generator, subjects, self.args.people)
        pixels = make_batch(images[rows], generator, NETWORK.side)
        labels = torch.from_numpy(subjects[rows])
        for group in self.optimizer.param_groups:
            group["lr"] = encoder.rate_at(self.step, self.args)
        self.both.train()
        with torch.autocast("cpu", torch.bfloat16, enabled=self.half):
            embeddings = self.model(pixels)
        loss = contrastive_loss(embeddings, labels[:, None] == labels[None], 0.1)
        loss = loss + margin_softmax(self.classes(embeddings), labels, scale=16.0, margin=0.2)
        self.optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(self.both.parameters(), 5.0)
        self.optimizer.step()
        self.ema.update()
        self.step += 1
        return float(loss.detach())


def held_out(training: Training, images: Images, subjects: Subjects) -> evaluate.Rank1:
    """Identification across clear photos of some people."""
    rows = evaluate.embed(training.averaged(), images)
    return evaluate.cross_photo(rows, rows, subjects)


def release(training: Training, images: Images, subjects: Subjects) -> dict[str, object]:
    """Write the averaged weights, their provenance and their card; return the provenance.

    Args:
        training: at any step.
        images: all, held-out ones too.
        subjects: counted from 0.
    """
    args = training.args
    train, unseen = encoder.split(images, subjects, args.identities)
    save(training.averaged(), args.out)
    digest = sha256((args.out / "model.safetensors").read_bytes()).hexdigest()
    facts: dict[str, object] = {
        "model.safetensors": {"sha256": digest},
        "steps": training.step,
        "seconds": round(training.seconds),
        "views_per_step": 2 * args.people,
        "seed": args.seed,
        "torch": torch.__version__,
        "dtype": "bfloat16" if training.half else "float32",
        "training": {
            "images": len(train),
            "identities": len(np.unique(subjects[train])),
            "numbers": _numbers(subjects[train], args.first),
            "source": "synthfaces background renders (no shipped identity)",
        },
        "held_out": asdict(held_out(training, images[unseen], subjects[unseen]))
        | {"numbers": _numbers(subjects[unseen], args.first)},
    }
    text = json.dumps(facts, indent=2)
    (args.out / "provenance.json").write_text(text + "\n", encoding="utf-8")
    write_card(args.out, sum(p.numel() for p in training.model.parameters()))
    return facts


def _numbers(subjects: Subjects, first: int) -> list[int]:
    """Lowest and highest identity number."""
    return [first + int(subjects.min()), first + int(subjects.max())]


def main(argv: Sequence[str] | None = None) -> None:
    """Train, with a line of progress now and then, and write the weights."""
    args = arguments(argv)
    torch.set_num_threads(args.threads)
    training = Training(args)
    if args.resume:
        training.read()
    images, numbers = encoder.read_shards(encoder.shards(args.data))
    subjects = numbers - args.first
    train, unseen = encoder.split(images, subjects, args.identities)
    losses: list[float] = []
    while training.step < args.steps:
        start = time.monotonic()
        losses.append(training.update(images[train], subjects[train]))
        training.seconds += time.monotonic() - start
        if training.step % args.log_every == 0:
            mean = np.mean(losses[-args.log_every :])
            print(f"step {training.step} loss {mean:.3f} {training.seconds:.0f} s", flush=True)
        if training.step % args.report_every == 0:
            training.write()
            print(held_out(training, images[unseen], subjects[unseen]), flush=True)
    training.write()
    print(json.dumps(release(training, images, subjects), indent=2))


if __name__ == "__main__":
    main()
