"""The contract kit: honest plugins pass, and each broken promise is found by its check."""

from __future__ import annotations

import types
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from pydantic import Field

from privbench import testing as kit
from privbench.errors import PluginError
from privbench.registry import load_registry
from privbench.spec import Config, NoConfig, PluginSpec, Tags
from privbench.testing import anonymizer, describe
from privbench.types import ImageBatch, ImageSet

FROM_HERE = ["light_import"]
Run = Callable[[ImageBatch, Sequence[int]], Any]

BUILT_IN = [r.spec for r in load_registry().of_kind("anonymizer") if not r.unavailable]


@kit.parametrize_with_checks(BUILT_IN)
def test_built_in_anonymizers_keep_the_contract(check: kit.Check) -> None:
    """Every installed anonymizer passes every check that its tags call for."""
    check()


class Plugin:
    """An anonymizer made of one function."""

    def __init__(self, run: Run) -> None:
        self.run = run

    def anonymize(self, batch: ImageBatch, seeds: Sequence[int]) -> Any:
        """Whatever the function does."""
        return self.run(batch, seeds)


def build(config: object) -> Plugin:
    """An honest anonymizer: the negative."""
    return Plugin(lambda batch, _: 1 - batch.pixels)


def spec(run: Run | None = None, **changes: Any) -> PluginSpec:
    """A specification, of an honest plugin unless `run` says otherwise."""
    fields: dict[str, Any] = {
        "kind": "anonymizer",
        "id": "kit/negative",
        "version": 1,
        "summary": "The negative.",
        "build": build if run is None else lambda _: Plugin(run),
    }
    return PluginSpec(**fields | changes)


def noise(seed: int, batch: ImageBatch) -> torch.Tensor:
    """Noise for one image."""
    return torch.rand(batch.pixels.shape[1:], generator=torch.Generator().manual_seed(seed))


def honest_noise(batch: ImageBatch, seeds: Sequence[int]) -> torch.Tensor:
    """Noise from each image's own seed."""
    return torch.stack([noise(seed, batch) for seed in seeds])


def in_place(batch: ImageBatch, seeds: Sequence[int]) -> torch.Tensor:
    """Writes to its input."""
    return batch.pixels.mul_(0.5)


def one_generator(batch: ImageBatch, seeds: Sequence[int]) -> torch.Tensor:
    """One generator for the batch: the commonest mistake."""
    return torch.rand(batch.pixels.shape, generator=torch.Generator().manual_seed(seeds[0]))


def minus_batch_mean(batch: ImageBatch, seeds: Sequence[int]) -> torch.Tensor:
    """Lets the images of a batch see one another."""
    return (batch.pixels - batch.pixels.mean(0) + 0.5).clamp(0, 1)


def by_place(batch: ImageBatch, seeds: Sequence[int]) -> torch.Tensor:
    """Treats the first image differently."""
    weights = torch.linspace(0, 1, len(batch))[:, None, None, None]
    return batch.pixels * weights


def by_subject(batch: ImageBatch, seeds: Sequence[int]) -> torch.Tensor:
    """Uses who it is."""
    return torch.full_like(batch.pixels, 0.1) * float(batch.subject[0] == 0)


BROKEN = [
    (describe.check_description, spec(id="negative"), "distribution/name"),
    (describe.check_description, spec(summary="two\nlines"), "one line"),
    (describe.check_description, spec(summary="x" * 101), "longer than 100"),
    (describe.check_description, spec(honest_noise), "top of its module"),
    (describe.check_description, spec(tags=Tags(knowledge="none")), "Tags.knowledge belongs"),
    (describe.check_light_import, spec(), "imports numpy, torch; move that"),
    (describe.check_weights, spec(weights=lambda _: {"a": "feed"}), "SHA-256"),
    (describe.check_weights, spec(weights=lambda _: {"a": "0" * 64}), "licence"),
    (anonymizer.check_fit, spec(tags=Tags(fit_on="release")), "there is no `fit`"),
    (anonymizer.check_output, spec(lambda b, _: b.pixels.numpy()), "expected a tensor"),
    (anonymizer.check_output, spec(lambda b, _: b.pixels[:, :, ::2, ::2]), "expected shape"),
    (anonymizer.check_output, spec(lambda b, _: (b.pixels * 255).byte()), "expected floats"),
    (anonymizer.check_output, spec(lambda b, _: b.pixels / 0), "NaN or infinity"),
    (anonymizer.check_output, spec(lambda b, _: b.pixels + 1), r"values in \[0, 1\]"),
    (anonymizer.check_source_hidden, spec(lambda b, _: b.pixels.clone()), "4 of 4 released images are"),
    (anonymizer.check_input_unchanged, spec(in_place), "changed the pixels"),
    (anonymizer.check_repeatable, spec(lambda b, _: torch.rand_like(b.pixels)), "called again"),
    (anonymizer.check_order, spec(one_generator), "order was reversed"),
    (anonymizer.check_order, spec(by_place), "order was reversed"),
    (anonymizer.check_companions, spec(minus_batch_mean), "among other images"),
    (anonymizer.check_batch_shape, spec(minus_batch_mean), "an image alone differs"),
    (anonymizer.check_identity_withheld, spec(by_subject), "known subjects"),
    (anonymizer.check_seed_of_each_image, spec(lambda b, s: honest_noise(b, [sum(s) % 2**62] * len(s))),
     "only another image's seed"),
    (anonymizer.check_stochastic, spec(tags=Tags(stochastic=True)), "other seeds change nothing"),
    (anonymizer.check_stochastic, spec(lambda b, s: honest_noise(b, [s[0]] * len(s))),
     "one image with two seeds"),
    (anonymizer.check_deterministic, spec(honest_noise), "tag it stochastic"),
]  # fmt: skip


@pytest.mark.parametrize(("check", "defect", "message"), BROKEN)
def test_a_broken_promise_is_found(
    check: Callable[[anonymizer.AnonymizerBench], None], defect: PluginSpec, message: str
) -> None:
    """Each check fails on a plugin that breaks just what it checks, and says how."""
    with pytest.raises(PluginError, match=message) as caught:
        check(anonymizer.AnonymizerBench(defect))
    assert str(caught.value).startswith(defect.id)


def broken(plugin: PluginSpec) -> list[kit.Finding]:
    """Promises that a plugin breaks."""
    return [found for found in kit.check_plugin(plugin) if found.broken]


class Undescribed(Config):
    """A setting without a description."""

    strength: float = 1.0


class Required(Config):
    """A setting without a default."""

    strength: float = Field(description="How much.")


@pytest.mark.parametrize(
    ("config", "message"),
    [(Undescribed, "strength must have a description"), (Required, "must have a default")],
)
def test_settings_must_be_described_and_defaulted(config: type[Config], message: str) -> None:
    """`privbench describe` and a plain run rely on both."""
    with pytest.raises(PluginError, match=message):
        describe.check_config(anonymizer.AnonymizerBench(spec(config=config)))


def test_findings_name_the_check_and_a_crash_is_one_of_them() -> None:
    """An exception inside a plugin is reported like any other broken promise."""
    findings = broken(spec(lambda b, _: b.nothing))  # type: ignore[attr-defined]
    assert {f.check for f in findings} >= {"output", "order"}
    assert "AttributeError" in next(f.problem for f in findings if f.check == "output")


def test_an_honest_plugin_has_only_the_finding_that_this_module_imports_torch() -> None:
    """The kit raises no false alarm."""
    assert [f.check for f in broken(spec())] == FROM_HERE


class Swapper(Plugin):
    """Fitted on the release: gives everyone the same face, the mean."""

    def __init__(self) -> None:
        super().__init__(lambda batch, _: batch.pixels)

    def fit(self, reference: ImageSet) -> Plugin:
        """Learn the mean."""
        mean = reference.floats().mean(0)
        return Plugin(lambda batch, _: mean.expand(len(batch), -1, -1, -1).clone())


def build_swapper(config: NoConfig) -> Swapper:
    """Build it."""
    return Swapper()


def test_a_fitted_anonymizer_is_fitted_before_it_is_checked() -> None:
    """The tag fit_on makes the kit call `fit` first; without the tag a `fit` is a finding."""
    fitted = spec(build=build_swapper, tags=Tags(fit_on="release"))
    assert [f.check for f in broken(fitted)] == FROM_HERE
    with pytest.raises(PluginError, match="fit_on must say"):
        anonymizer.check_fit(anonymizer.AnonymizerBench(spec(build=build_swapper)))


def test_collecting_the_checks_builds_nothing() -> None:
    """A plugin is built when its first check runs, not when pytest collects."""
    never = spec(build=types.SimpleNamespace)
    assert len(kit.checks_of(never)) > 10
