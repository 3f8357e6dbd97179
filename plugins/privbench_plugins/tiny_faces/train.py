"""Train ``tiny-faces`` from rendered faces.

    python -m privbench_plugins.tiny_faces.train --data DIR --out DIR

writes ``DIR/tiny-faces`` and a ``DIR/tiny-faces-GUIDE`` per ControlNet or adapter in diffusers
format (fp16), after each checkpoint (5 minutes) anew; ``--resume`` goes on after an
interruption. On a CUDA device the same command trains there, in bfloat16 as on the CPU.
"""

from __future__ import annotations

import argparse
import copy
import shutil
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch

from ..geometry import load_geometry
from ..synthfaces import RENDERER_VERSION
from . import TRAINER_VERSION
from .autoencoder import AutoencoderSettings, psnr, reconstruct, train_autoencoder
from .checkpoints import Progress
from .diffusion import (
    GUIDES,
    DiffusionSettings,
    LatentFaces,
    Nets,
    encode_faces,
    train_diffusion,
)
from .export import (
    BASE,
    Run,
    load_autoencoder,
    load_nets,
    load_tokenizer,
    read_runs,
    save_autoencoder,
    save_nets,
    save_tokenizer,
    write_provenance,
)
from .faces import Faces, load_faces, shard_count, split_faces
from .models import (
    COMMON_CAPTIONS,
    new_adapter,
    new_autoencoder,
    new_controlnet,
    new_scheduler,
    new_text_encoder,
    new_unet,
    token_ids,
    train_tokenizer,
)
from .workers import Workers, run_workers

STAGES: Final = ("autoencoder", "diffusion")
EXTRA_STAGE: Final = "decoder"
"""More training for the decoder alone, on the latents as they are; only on request."""


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    result = argparse.ArgumentParser(
        prog="python -m privbench_plugins.tiny_faces.train", description=__doc__
    )
    add = result.add_argument
    add("--data", type=Path, required=True, help="folder of the rendered shards")
    add("--out", type=Path, required=True, help="folder for the two model folders")
    add("--stage", choices=(*STAGES, EXTRA_STAGE), help="only this stage (default: the first two)")
    add("--hours", type=float, default=1.0, help="wall time of each stage")
    add("--steps", type=int, help="length of each stage in steps, instead of --hours")
    add("--threads", type=int, default=0, help="CPU threads (default: torch's choice)")
    add("--workers", type=int, default=1, help="CPU processes that share the work, one thread each")
    add("--resume", action="store_true", help="go on from the checkpoints in --out")
    add("--start", type=Path, help="start from the weights in this folder (such as the assets)")
    add("--guides", nargs="+", choices=sorted(GUIDES), help="train these guides only")
    add("--seed", type=int, default=0, help="seed of weights and samples")
    add("--batch", type=int, help="samples in a step")
    add("--rate", type=float, help="peak learning rate")
    add("--compile", action="store_true", help="compile the diffusion step")
    add("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="torch device")
    add("--held-out", type=int, default=20, help="one identity in this many never trains")
    return result


class Trainer:
    """The two stages with what they share: arguments, data, records of the runs."""

    def __init__(self, arguments: argparse.Namespace, workers: Workers) -> None:
        self.arguments = arguments
        self.workers = workers
        self.out: Path = arguments.out
        self.device = torch.device(arguments.device)
        self.shards = shard_count(arguments.data)
        self.faces, self.unseen = self._load()

    def autoencoder(self) -> None:
        """Train and export the autoencoder."""
        start = self.arguments.start
        self._train_autoencoder(
            "autoencoder", load_autoencoder(start) if start else new_autoencoder(), False
        )

    def decoder(self) -> None:
        """Go on training the decoder only; the UNet of --out stays valid."""
        self._train_autoencoder("decoder", load_autoencoder(self.arguments.start or self.out), True)

    def _train_autoencoder(self, stage: str, net: Any, frozen: bool) -> None:
        settings = AutoencoderSettings(**self._settings())
        progress = train_autoencoder(
            net,
            self._reload,
            settings,
            self._checkpoints(stage),
            self.device,
            self.arguments.seed,
            _say,
            self.workers,
            frozen,
        )
        if not self.workers.leads:
            return
        save_autoencoder(net, self.out)
        self._record(stage, progress, asdict(settings))
        if len(self.unseen):
            images = self.unseen.images
            quality = psnr(images, reconstruct(net, images, self.device))
            _say(f"{stage}: {quality.mean():.2f} dB on {len(images)} unseen faces")

    def diffusion(self) -> None:
        """Train and export UNet, guides and text encoder."""
        autoencoder = load_autoencoder(self.out).to(self.device)
        tokenizer = self._tokenizer()
        nets, scheduler = self._nets(tokenizer), new_scheduler()
        geometry = load_geometry()
        settings = DiffusionSettings(compiled=self.arguments.compile, **self._settings())
        folder = self._checkpoints("diffusion")

        def load(known: LatentFaces | None) -> LatentFaces:
            # Each worker encodes and trains on its share of the rows.
            rows = np.arange(self.workers.rank, len(self._reload()), self.workers.count)
            return encode_faces(
                autoencoder, tokenizer, geometry, self.faces[rows], self.device, known
            )

        def export(progress: Progress) -> None:
            save_nets(nets, scheduler, self.out)
            self._record("diffusion", progress, asdict(settings))
            _say(f"exported after {progress}")

        train_diffusion(
            nets,
            scheduler,
            token_ids(tokenizer, COMMON_CAPTIONS),
            load,
            settings,
            folder,
            self.device,
            self.arguments.seed,
            _say,
            export,
            self.workers,
        )

    def _settings(self) -> dict[str, Any]:
        given = {
            name: getattr(self.arguments, name) for name in ("hours", "steps", "batch", "rate")
        }
        return {name: value for name, value in given.items() if value is not None}

    def _load(self) -> tuple[Faces, Faces]:
        return split_faces(load_faces(self.arguments.data), self.arguments.held_out)

    def _reload(self) -> Faces:
        count = shard_count(self.arguments.data)
        if count != self.shards:
            self.shards = count
            self.faces, self.unseen = self._load()
        return self.faces

    def _checkpoints(self, stage: str) -> Path:
        return self.out / "checkpoints" / stage

    def _tokenizer(self) -> Any:
        source = self.arguments.start or (self.out if self.arguments.resume else None)
        if source is not None and (source / BASE / "tokenizer").exists():
            tokenizer = load_tokenizer(source)
        else:
            tokenizer = train_tokenizer(self.faces.captions)
        if self.workers.leads:
            save_tokenizer(tokenizer, self.out)
        return tokenizer

    def _nets(self, tokenizer: Any) -> Nets:
        """Networks to start from; a guide that is missing there starts anew, from canny's."""
        if self.arguments.start:
            nets = load_nets(self.arguments.start)
        else:
            unet = new_unet()
            nets = Nets(unet, new_text_encoder(tokenizer), {"canny": new_controlnet(unet)})
        guides = {
            guide: nets.guides.get(guide) or _new_guide(guide, nets)
            for guide in self.arguments.guides or GUIDES
        }
        return Nets(nets.unet, nets.text_encoder, guides)

    def _record(self, stage: str, progress: Progress, settings: dict[str, Any]) -> None:
        """Add this run to the provenance, in the place of its own earlier record."""
        start = "the run before" if stage == EXTRA_STAGE else "random weights"
        if self.arguments.start:
            start = str(self.arguments.start.name)
        mine = (stage, start, progress.seed)
        runs = [r for r in read_runs(self.out) if (r.stage, r.start, r.seed) != mine]
        hours = round(progress.seconds / 3600, 3)
        identities, images = len(np.unique(self.faces.subjects)), len(self.faces)
        runs.append(
            Run(
                stage,
                start,
                progress.seed,
                progress.step,
                progress.samples,
                hours,
                identities,
                images,
                settings,
            )
        )
        write_provenance(self.out, runs, self._data())

    def _data(self) -> dict[str, Any]:
        return {
            "trainer_version": TRAINER_VERSION,
            "renderer_version": RENDERER_VERSION,
            "shards": self.shards,
            "held_out": f"one identity in {self.arguments.held_out}",
        }


def _new_guide(guide: str, nets: Nets) -> Any:
    if guide.startswith("t2i"):
        return new_adapter(nets.unet)
    return copy.deepcopy(nets.guides["canny"])


def _say(text: str) -> None:
    print(text, flush=True)


def main(argv: list[str] | None = None) -> None:
    """Run the stages that the command line asks for."""
    arguments = parser().parse_args(argv)
    stages = [arguments.stage] if arguments.stage else list(STAGES)
    if not arguments.resume:
        for stage in stages:
            shutil.rmtree(arguments.out / "checkpoints" / stage, ignore_errors=True)
    run_workers(partial(_work, arguments, stages), arguments.workers)


def _work(arguments: argparse.Namespace, stages: list[str], workers: Workers) -> None:
    """What one worker does: the stages, one after the other."""
    threads = 1 if workers.count > 1 else arguments.threads
    if threads:
        torch.set_num_threads(threads)
    torch.manual_seed(arguments.seed)
    trainer = Trainer(arguments, workers)
    for stage in stages:
        getattr(trainer, stage)()
        if workers.count > 1:
            torch.distributed.barrier()


if __name__ == "__main__":
    main()
