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
from pathlib import Path
from typing import Final

import numpy as np
import torch
from torch import Generator, Tensor

from privbench_plugins.tiny_encoder import evaluate
from privbench_plugins.tiny_encoder import train as encoder
from privbench_plugins.tiny_encoder.augment import jitter, warp
from privbench_plugins.tiny_encoder.net import NetConfig
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

    margin = 0.2

    def __init__(self, args: argparse.Namespace) -> None:
        super().__init__(args, NETWORK)

    def views(self, images: Images, generator: Generator) -> Tensor:
        """(n, 3, side, side): one of each photo."""
        return make_batch(images, generator, NETWORK.side)


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
    facts = encoder.save_weights(training, views=1) | {
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
