"""Train `tiny-encoder` on background renders.

    python -m privbench_plugins.tiny_encoder.train --data build/train --out FOLDER

The shards (``NAME-images.npy``, (n, 128, 128, 3) uint8, and ``NAME.jsonl`` with ``subject``)
are read again from time to time, so training may start while they are still being rendered.
The last 5 % of the identities are never trained on; the report is about them. The learning
rate rises briefly, stays, and falls to zero over the last ``--cooldown`` steps: raise
``--steps`` and ``--resume`` to train on.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Generator, Tensor, nn

from privbench_plugins.attacks.losses import contrastive_loss, margin_softmax
from privbench_plugins.conditions import CANNY_HIGH, CANNY_LOW, canny
from privbench_plugins.tiny_encoder import evaluate, styles
from privbench_plugins.tiny_encoder.augment import warp
from privbench_plugins.tiny_encoder.card import write_card
from privbench_plugins.tiny_encoder.ema import Ema
from privbench_plugins.tiny_encoder.net import NetConfig, TinyEncoder, save

Images = npt.NDArray[np.uint8]
Subjects = npt.NDArray[np.int64]

FIRST_VIEW = (0.70, 0.00, 0.15, 0.15)
SECOND_VIEW = (0.10, 0.50, 0.25, 0.15)
"""Shares of photo, drawing, re-coloured and degraded among first and second views."""


def arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(prog="tiny_encoder.train", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of training shards")
    parser.add_argument("--out", type=Path, required=True, help="folder of the released weights")
    parser.add_argument("--work", type=Path, default=Path("build/tiny-encoder"), help="checkpoint")
    parser.add_argument("--resume", action="store_true", help="continue from --work")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--steps", type=int, default=8000)
    parser.add_argument("--cooldown", type=int, default=1500)
    parser.add_argument("--people", type=int, default=32, help="identities per step")
    parser.add_argument("--identities", type=int, default=2000, help="identities of the data")
    parser.add_argument("--rate", type=float, default=2e-3, help="peak learning rate")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--dtype", choices=("auto", "float32", "bfloat16"), default="auto")
    parser.add_argument("--log-every", type=int, default=100)
    parser.add_argument("--reload-every", type=int, default=200)
    parser.add_argument("--report-every", type=int, default=1000)
    return parser.parse_args(argv)


def shards(folder: Path) -> list[Path]:
    """The complete shards that exist by now (their label files)."""
    paths = sorted(folder.glob("*.jsonl"))
    if not paths:
        raise FileNotFoundError(f"No shard (*.jsonl) of training renders in {folder}.")
    return paths


def read_shards(paths: Sequence[Path]) -> tuple[Images, Subjects]:
    """All images and subjects of some shards."""
    images, subjects = [], []
    for path in paths:
        images.append(np.load(path.with_name(f"{path.stem}-images.npy"), allow_pickle=False))
        lines = path.read_text(encoding="utf-8").splitlines()
        subjects.append(np.array([json.loads(line)["subject"] for line in lines], np.int64))
    return np.concatenate(images), np.concatenate(subjects)


def choose(generator: Generator, subjects: Subjects, people: int) -> npt.NDArray[np.int64]:
    """Rows of two photos each of `people` random identities (fewer if there are fewer)."""
    order = np.argsort(subjects, kind="stable")
    first = np.flatnonzero(np.r_[True, np.diff(subjects[order]) > 0])
    count = np.diff(np.r_[first, len(order)])
    first, count = first[count > 1], count[count > 1]
    who = torch.randperm(len(first), generator=generator)[:people].numpy()
    draw = torch.rand((2, len(who)), generator=generator, dtype=torch.float64).numpy()
    one = (draw[0] * count[who]).astype(np.int64)
    step = 1 + (draw[1] * (count[who] - 1)).astype(np.int64)
    return order[np.r_[first[who] + one, first[who] + (one + step) % count[who]]]


def random_edges(images: Images, hit: npt.NDArray[np.bool_], generator: Generator) -> Tensor:
    """(n, 1, H, W) canny maps in [0, 1] at random thresholds where `hit`, else zeros.

    A third of the maps uses the default thresholds.
    """
    maps = np.zeros(images.shape[:3], np.uint8)
    draws = torch.rand((len(images), 3), generator=generator).tolist()
    for row in np.flatnonzero(hit):
        usual, a, b = draws[row]
        low = CANNY_LOW if usual < 1 / 3 else 12 + 60 * a
        high = CANNY_HIGH if usual < 1 / 3 else low * (1.5 + 1.5 * b)
        maps[row] = canny(images[row : row + 1], low, high)[0]
    return torch.from_numpy(maps)[:, None].float() / 255


def make_batch(images: Images, generator: Generator, side: int) -> Tensor:
    """(2n, 3, side, side): a first and a second view of n photos."""
    n = len(images)
    kinds = torch.cat(
        [
            torch.multinomial(torch.tensor(share), n, replacement=True, generator=generator)
            for share in (FIRST_VIEW, SECOND_VIEW)
        ]
    )
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
    halves = []
    for drawn in (kinds == 1).numpy().reshape(2, n):
        edges = random_edges(images, drawn, generator)
        halves.append(warp(torch.cat([pixels, edges], 1), generator, side))
    warped = torch.cat(halves)
    return styles.views(warped[:, :3].clamp(0, 1), warped[:, 3:].clamp(0, 1), generator, kinds)


def rate_at(step: int, args: argparse.Namespace) -> float:
    """Learning rate of a step: short warm-up, plateau, linear fall."""
    rise = min(1.0, (step + 1) / 100)
    fall = min(1.0, (args.steps - step) / max(1, args.cooldown))
    return float(args.rate * min(rise, fall))


class Classes(nn.Module):
    """One centre per training identity."""

    def __init__(self, count: int, dim: int) -> None:
        super().__init__()
        self.centres = nn.Parameter(torch.randn(count, dim) * 0.05)

    def forward(self, embeddings: Tensor) -> Tensor:
        """(N, D) to (N, classes) cosines."""
        return F.linear(embeddings, F.normalize(self.centres, dim=1))


class Training:
    """Model, optimiser and average, with their checkpoint.

    Attributes:
        margin: of the softmax.
    """

    margin = 0.15

    def __init__(self, args: argparse.Namespace, network: NetConfig | None = None) -> None:
        torch.manual_seed(args.seed)
        self.args = args
        self.model = TinyEncoder(network)
        self.classes = Classes(args.identities, self.model.config.dim)
        self.both = nn.ModuleList([self.model, self.classes])
        self.optimizer = torch.optim.AdamW(
            self.both.parameters(), lr=args.rate, weight_decay=0.05, betas=(0.9, 0.99)
        )
        self.ema = Ema(self.model, 0.998)
        self.step, self.seconds = 0, 0.0
        if args.dtype == "auto":
            self.half = bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
        else:
            self.half = args.dtype == "bfloat16"

    def views(self, images: Images, generator: Generator) -> Tensor:
        """(k n, 3, side, side): k views of each of n photos, all first ones before the second."""
        return make_batch(images, generator, self.model.config.side)

    def update(self, images: Images, subjects: Subjects) -> float:
        """One step; returns the loss."""
        generator = Generator().manual_seed(self.args.seed * 1_000_003 + self.step)
        rows = choose(generator, subjects, self.args.people)
        pixels = self.views(images[rows], generator)
        labels = torch.from_numpy(subjects[rows]).repeat(len(pixels) // len(rows))
        for group in self.optimizer.param_groups:
            group["lr"] = rate_at(self.step, self.args)
        self.both.train()
        with torch.autocast("cpu", torch.bfloat16, enabled=self.half):
            embeddings = self.model(pixels)
        loss = contrastive_loss(embeddings, labels[:, None] == labels[None], 0.1)
        loss = loss + margin_softmax(self.classes(embeddings), labels, 16.0, self.margin)
        self.optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(self.both.parameters(), 5.0)
        self.optimizer.step()
        self.ema.update()
        self.step += 1
        return float(loss.detach())

    def averaged(self) -> TinyEncoder:
        """A copy of the model with averaged weights, in evaluation mode."""
        copy = TinyEncoder(self.model.config)
        self.ema.copy_to(copy)
        return copy.eval()

    def write(self) -> None:
        """Write the checkpoint; a crash leaves the old one."""
        self.args.work.mkdir(parents=True, exist_ok=True)
        tensors = {f"model/{key}": value for key, value in self.both.state_dict().items()}
        tensors |= {f"ema/{key}": value for key, value in self.ema.average.items()}
        for index, parameter in enumerate(self.both.parameters()):
            for key, value in self.optimizer.state[parameter].items():
                tensors[f"optimizer/{index}/{key}"] = value
        counters = {"step": str(self.step), "seconds": str(self.seconds)}
        new = self.args.work / "state.new"
        save_file({k: v.contiguous().clone() for k, v in tensors.items()}, new, metadata=counters)
        new.replace(self.args.work / "state.safetensors")

    def read(self) -> None:
        """Continue from the checkpoint."""
        from safetensors import safe_open

        path = self.args.work / "state.safetensors"
        with safe_open(path, "pt") as opened:
            counters = opened.metadata()
        tensors = load_file(path)
        self.step, self.seconds = int(counters["step"]), float(counters["seconds"])
        self.both.load_state_dict(_below(tensors, "model/"))
        self.ema.restore(_below(tensors, "ema/"), self.step)
        for index, parameter in enumerate(self.both.parameters()):
            self.optimizer.state[parameter] = dict(_below(tensors, f"optimizer/{index}/"))


def _below(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): v for key, v in tensors.items() if key.startswith(prefix)}


def split(images: Images, subjects: Subjects, identities: int) -> tuple[Subjects, Subjects]:
    """(training rows, held-out rows): the last 5 % of the identity numbers are held out."""
    held_out = subjects >= identities - identities // 20
    return np.flatnonzero(~held_out), np.flatnonzero(held_out)


def save_weights(training: Training, views: int) -> dict[str, object]:
    """Write the averaged weights; return what is to be told of how they came about.

    Args:
        views: of each photo.
    """
    args = training.args
    save(training.averaged(), args.out)
    digest = sha256((args.out / "model.safetensors").read_bytes()).hexdigest()
    return {
        "model.safetensors": {"sha256": digest},
        "steps": training.step,
        "seconds": round(training.seconds),
        "views_per_step": 2 * views * args.people,
        "seed": args.seed,
        "torch": torch.__version__,
        "dtype": "bfloat16" if training.half else "float32",
    }


def release(training: Training, images: Images, subjects: Subjects) -> dict[str, object]:
    """Write the averaged weights and their provenance; return the provenance."""
    args = training.args
    train, held_out = split(images, subjects, args.identities)
    facts = save_weights(training, views=2) | {
        "training": {
            "images": len(train),
            "identities": len(np.unique(subjects[train])),
            "source": "synthfaces background renders (no shipped identity)",
        },
    }
    if len(held_out):
        results = evaluate.report(training.averaged(), images[held_out], subjects[held_out])
        facts["held_out"] = {name: asdict(result) for name, result in results.items()}
    text = json.dumps(facts, indent=2)
    (args.out / "provenance.json").write_text(text + "\n", encoding="utf-8")
    write_card(args.out, sum(p.numel() for p in training.model.parameters()))
    return facts


def main(argv: Sequence[str] | None = None) -> None:
    """Train, with a line of progress now and then, and write the weights."""
    args = arguments(argv)
    torch.set_num_threads(args.threads)
    training = Training(args)
    if args.resume:
        training.read()
    known = shards(args.data)
    images, subjects = read_shards(known)
    train, _ = split(images, subjects, args.identities)
    losses: list[float] = []
    while training.step < args.steps:
        start = time.monotonic()
        losses.append(training.update(images[train], subjects[train]))
        training.seconds += time.monotonic() - start
        if training.step % args.log_every == 0:
            print(
                f"step {training.step} loss {np.mean(losses[-args.log_every :]):.3f} "
                f"{training.seconds:.0f} s, {len(train)} images",
                flush=True,
            )
        if training.step % args.reload_every == 0 and shards(args.data) != known:
            known = shards(args.data)
            images, subjects = read_shards(known)
            train, _ = split(images, subjects, args.identities)
        if training.step % args.report_every == 0:
            training.write()
            print(json.dumps(release(training, images, subjects).get("held_out")), flush=True)
    training.write()
    print(json.dumps(release(training, images, subjects), indent=2))


if __name__ == "__main__":
    main()
