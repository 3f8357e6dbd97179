"""Membership by how like a query the target's answers to its caption are (Pang and Wang,
NDSS 2025, "Black-box membership inference attacks against fine-tuned diffusion models")."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from privbench.errors import PluginError
from privbench.membership import MembershipView
from privbench.progress import Reporter
from privbench.types import ImageSet
from privbench_plugins.anonymizers._ldm.estimators import CAPTIONER, find_captioner
from privbench_plugins.anonymizers._ldm.vision import EmbeddedCaptioner, load_captioner
from privbench_plugins.attacks.membership._blocks import image_seed
from privbench_plugins.attacks.membership._embedders import Space, load_embedding
from privbench_plugins.attacks.membership.regeneration import CAPTION, RegenerationConfig
from privbench_plugins.models import resolve
from privbench_plugins.tiny_captioner import net

QUERIES = 64
"""Queries whose answers are in memory at once."""


class Captioner(Protocol):
    """Says what images show."""

    def captions(self, pixels: NDArray[np.uint8]) -> list[str]:
        """(N, H, W, 3) uint8 RGB to N texts, each from its image alone."""
        ...


Generate = Callable[[Sequence[str], Sequence[int]], ImageSet]


class Regeneration:
    """See `RegenerationConfig`."""

    def __init__(self, config: RegenerationConfig) -> None:
        self.config = config

    def train(self, view: MembershipView) -> TrainedRegeneration:
        """Load the networks; nothing is learnt.

        Raises:
            PluginError: the target answers no prompts.
            ModelError: a network cannot be read.
        """
        if view.generate is None:
            raise PluginError(
                "mia-regeneration asks the target to paint what its captions say, and here are "
                "only released images. Audit a model, or choose another attack, such as "
                "mia-nearest."
            )
        config = self.config
        return TrainedRegeneration(
            {"answers": config.answers, "prompt": config.prompt},
            config,
            load_captions(config.captioner, view.device),
            view.generate,
            load_embedding(config.backbone, config.batch, view.device),
            view.seed,
            view.reporter,
        )


@dataclass(slots=True, eq=False)
class TrainedRegeneration:
    """Questions to the target.

    Attributes:
        report: what each query costs.
        config: of the attack.
        captioner: names what queries show.
        generate: answers.
        space: embeds queries and answers.
        seed: of the run.
        reporter: progress.
    """

    report: Mapping[str, Any]
    config: RegenerationConfig
    captioner: Captioner
    generate: Generate
    space: Space
    seed: int
    reporter: Reporter

    def score(self, images: ImageSet) -> Tensor:
        """(N,) cosine of each query with its answers, their mean or maximum."""
        found = []
        with self.reporter.task("mia-regeneration: asking", len(images)) as task:
            for block in torch.split(images.pixels, QUERIES) if len(images) else ():
                found.append(self._likeness(block))
                task.advance(len(block))
        rows = torch.cat(found) if found else torch.zeros(0, self.config.answers)
        return rows.amax(1) if self.config.similarity == "max" else rows.mean(1)

    def _likeness(self, pixels: Tensor) -> Tensor:
        """(n, answers) cosines of (n, 3, H, W) uint8 queries."""
        count = self.config.answers
        captions = self.captioner.captions(np.ascontiguousarray(pixels.permute(0, 2, 3, 1).numpy()))
        prompts = [self.config.prompt.replace(CAPTION, caption) for caption in captions]
        seeds = [image_seed(image, k, self.seed) for image in pixels for k in range(count)]
        asked = [prompt for prompt in prompts for _ in range(count)]
        answers = self.space(self.generate(asked, seeds).pixels)
        queries = self.space(pixels)
        return (queries[:, None] * answers.view(len(pixels), count, -1)).sum(2)


def load_captions(name: str, device: torch.device) -> Captioner:
    """The embedded captioner, or BLIP.

    Raises:
        ModelError: it cannot be loaded.
    """
    if name == CAPTIONER:
        return EmbeddedCaptioner(net.load(resolve(CAPTIONER)))
    return load_captioner(find_captioner(name)).to(device)
