"""Small plugins that watch the harness."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import torch
from pydantic import Field

from privbench.registry import Registered, Registry, load_registry
from privbench.spec import Config, PluginSpec, Tags
from privbench.types import AttackerView, ImageBatch, ImageSet

CALLS: list[str] = []


class SpyConfig(Config):
    """Settings of the spies."""

    batch_size: int = Field(3, description="batch")
    output: str = Field("seeded", description="what to return")


@dataclass
class SpyAnonymizer:
    """Noise from each image's seed, or something that breaks the contract."""

    config: SpyConfig

    def anonymize(self, batch: ImageBatch, seeds: Sequence[int]) -> torch.Tensor:
        """See `SpyConfig.output`."""
        CALLS.append("anonymize")
        assert len(batch) == self.config.batch_size, "the batch shape is fixed"
        assert (batch.subject == -1).all(), "the subject is withheld"
        if self.config.output == "shape":
            return batch.pixels[:, :1]
        if self.config.output == "nan":
            return batch.pixels * float("nan")
        if self.config.output == "range":
            return batch.pixels * 255
        if self.config.output == "raise":
            raise RuntimeError("out of ideas")
        noise = [torch.rand(3, 1, 1, generator=torch.Generator().manual_seed(s)) for s in seeds]
        return (batch.pixels + torch.stack(noise)) / 2


@dataclass
class SpyAttack:
    """Scores by something the harness must not let it know, or asks for what it may not see."""

    how: str
    fusion: str = "max"
    report: dict[str, Any] = field(default_factory=dict)

    def train(self, view: AttackerView) -> SpyAttack:
        """Remember what was seen."""
        CALLS.append("train")
        CALLS.append(f"draws={view.draws}")
        if view.oracle is not None and self.how != "quiet":
            answers = view.oracle(view.train)
            assert not torch.equal(answers.pixels, view.train.pixels)
            again = view.oracle(view.train.take([1, 0]))
            assert torch.equal(again.pixels, answers.pixels[[1, 0]])
            other = view.oracle(view.train.take([0, 1]), draw=max(1, view.draws - 1))
            assert not torch.equal(other.pixels, answers.pixels[:2])
        return self

    def enroll(self, gallery: ImageSet, anonymized: bool) -> Any:
        """Keep the gallery."""
        kind = _DrawScorer if self.how == "draws" else _SpyScorer
        return kind(self.how, gallery)


@dataclass
class _SpyScorer:
    how: str
    gallery: ImageSet

    def score(self, probes: ImageSet) -> torch.Tensor:
        n, g = len(probes), len(self.gallery)
        if self.how == "diagonal":
            return torch.eye(n, g)
        if self.how == "order":
            return -(torch.arange(n)[:, None] / n - torch.arange(g)[None] / g).abs()
        if self.how == "labels":
            people = int(self.gallery.subject.max()) + 1
            guess = torch.arange(n)[:, None] * people / n
            return -(guess - torch.from_numpy(self.gallery.subject)[None]).abs()
        if self.how == "shape":
            return torch.zeros(n, g + 1)
        if self.how == "nan":
            return torch.full((n, g), float("nan"))
        a = probes.pixels.float().mean((2, 3))
        b = self.gallery.pixels.float().mean((2, 3))
        return -torch.cdist(a, b)


@dataclass
class _DrawScorer(_SpyScorer):
    """Compares the mean image of all draws."""

    def score_draws(self, draws: Sequence[ImageSet]) -> torch.Tensor:
        CALLS.append(f"score_draws={len(draws)}")
        assert all(d.keys == draws[0].keys for d in draws), "one order for all draws"
        mean = torch.stack([d.pixels.float() for d in draws]).mean(0)
        whole = ImageSet(mean.round().to(torch.uint8), draws[0].subject, draws[0].keys)
        return self.score(whole)


@dataclass
class SpyInverter:
    """Undoes the spy's noise from pairs, or something that an inverter must not do."""

    how: str
    report: dict[str, Any] = field(default_factory=dict)
    oracle: Any = None

    def train(self, view: AttackerView) -> SpyInverter:
        """Ask about own photos; or reach for evaluation."""
        CALLS.append("train")
        assert view.oracle is not None
        assert len(view.oracle(view.train)) == len(view.train)
        if self.how.startswith("peek at "):
            view.oracle._session.part(self.how[8:])  # type: ignore[attr-defined]
        if self.how == "borrow":
            taken = tuple(f"{key}" for key in BORROWED)[: len(view.train)]
            view.oracle(
                ImageSet(view.train.pixels[: len(taken)], view.train.subject[: len(taken)], taken)
            )
        if self.how == "nan":
            return SpyInverter("release", {"loss": float("nan"), "at": [float("inf"), 1]})
        if self.how == "object":
            return SpyInverter("release", {"view": view})
        return SpyInverter(self.how, {"how": self.how}, view.oracle)

    def invert(self, draws: Sequence[ImageSet]) -> torch.Tensor:
        """(N, 2, 3, H, W): what `how` says, and its mirror image."""
        CALLS.append("invert")
        images = draws[0]
        assert (images.subject == -1).all(), "the subject is withheld"
        assert not any(key.startswith("p") for key in images.keys), "keys tell nothing"
        made = images.pixels.float() / 255
        if self.how == "peek later":
            self.oracle._session.part("gallery")
        if self.how == "ask":
            self.oracle(ImageSet(images.pixels ^ 1, images.subject, images.keys))
        if self.how == "grey":
            made = torch.full_like(made, 0.5)
        broken = {
            "type": images,
            "shape": made,
            "none": made[:, None][:, :0],
            "dtype": images.pixels[:, None],
            "not a number": made[:, None] * float("nan"),
            "range": made[:, None] * 255,
        }
        return broken.get(self.how, torch.stack([made, made.flip(3)], 1))  # type: ignore[return-value]


BORROWED: list[str] = []
"""Sample ids of evaluation."""


class SpyAttackConfig(Config):
    """Settings of the spy attack."""

    how: str = Field("pixels", description="what to score by")
    level: int = Field(0, description="changes nothing")


def build_anonymizer(config: SpyConfig) -> SpyAnonymizer:
    """Build."""
    return SpyAnonymizer(config)


def build_attack(config: SpyAttackConfig) -> SpyAttack:
    """Build."""
    return SpyAttack(config.how)


def build_inverter(config: SpyAttackConfig) -> SpyInverter:
    """Build."""
    return SpyInverter(config.how)


def registry(knowledge: str = "adaptive") -> Registry:
    """The installed plugins and the spies."""
    spies = (
        PluginSpec(
            "anonymizer", "spy", 1, "spy", build_anonymizer, SpyConfig, tags=Tags(stochastic=True)
        ),
        PluginSpec(
            "attack", "spy-attack", 1, "spy", build_attack, SpyAttackConfig,
            tags=Tags(knowledge=knowledge),  # type: ignore[arg-type]
        ),
        PluginSpec(
            "attack", "spy-inverter", 1, "spy", build_inverter, SpyAttackConfig,
            weights=lambda config: {"own.safetensors": "1" * 64},
            tags=Tags(knowledge="adaptive", inverts=True),
        ),
        PluginSpec(
            "attack", "spy-judge", 1, "spy", build_attack, SpyAttackConfig,
            weights=lambda config: {"seen.safetensors": "1" * 64} if config.how == "seen" else {},
            tags=Tags(knowledge="none"), argument="how",
        ),
    )  # fmt: skip
    known = dict(load_registry().plugins)
    known |= {(s.kind, s.id): Registered(s, "tests 0") for s in spies}
    return Registry(MappingProxyType(known), MappingProxyType({}))
