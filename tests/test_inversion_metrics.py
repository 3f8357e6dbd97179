"""Metrics of inversion against independent computations, and what the command line says of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from sklearn.metrics import confusion_matrix, top_k_accuracy_score
from torchmetrics.functional.image import (
    peak_signal_noise_ratio,
    structural_similarity_index_measure,
)

from privbench import api, audit, show
from privbench.api import make_study, plan_study, run_study
from privbench.cli import main
from privbench.errors import ConfigError, DataError, PluginError
from privbench.ladder import judged, reversal, reversal_in_words, reversal_of
from privbench.record import Record
from privbench.registry import Registered, Registry, load_registry
from privbench.spec import NoConfig, PluginSpec, Tags
from privbench.stats import bootstrap, paired_difference
from privbench.types import (
    AttackerView,
    Estimate,
    Evidence,
    Floats,
    Identification,
    ImageBatch,
    ImageSet,
    Inversion,
    Judgement,
    Metric,
    Output,
    Release,
)
from privbench_plugins.metrics import inversion, perceptual
from privbench_plugins.metrics._common import exceedance
from privbench_plugins.metrics._lpips import trunk
from spies import registry as spies

pytestmark = pytest.mark.usefixtures("one_thread")

RECOGNITION, RECONSTRUCTION = (spec.build(spec.config()) for spec in inversion.SPECS[:2])
METRICS: list[Metric] = [RECOGNITION, RECONSTRUCTION]
PEOPLE, SHOTS, SIDE = 20, 3, 16
NAMES = ("rank-1", "rank-1-released", "gain", "matched@fmr=0.01",
         "similarity", "similarity-others", "similarity-released")  # fmt: skip


def trial(rng: np.random.Generator, shift: float, impostors: int = 3312) -> Identification:
    """Noise, raised by `shift` for the true person, with ties."""
    mated = np.repeat(np.arange(PEOPLE), SHOTS)
    scores = rng.normal(size=(len(mated), PEOPLE))
    scores[np.arange(len(mated)), mated] += shift
    return Identification(scores.round(1), mated, mated, rng.normal(size=impostors))


def judgement(name: str, seed: int, before: float = 0.3, after: float = 1.5) -> Judgement:
    """A judge that names people better from reconstructions, by default."""
    rng = np.random.default_rng(seed)
    released, inverted = trial(rng, before), trial(rng, after)
    own = rng.normal(size=(2, PEOPLE * SHOTS))
    return Judgement(name, released, inverted, *own)


def images(seed: int, side: int = SIDE) -> ImageSet:
    """Noise."""
    rng = np.random.default_rng(seed)
    pixels = torch.from_numpy(rng.integers(0, 256, (PEOPLE * SHOTS, 3, side, side), dtype=np.uint8))
    subject = np.repeat(np.arange(PEOPLE), SHOTS)
    return ImageSet(pixels, subject, tuple(f"k{i}" for i in range(len(subject))))


def evidence(*judgements: Judgement) -> Inversion:
    """Three sets of noise, and what judges say."""
    found = judgements or (judgement("a", 1), judgement("b", 2))
    return Inversion(images(0), images(1), images(2), images(0).subject, found)


def part(whole: Inversion, rows: Sequence[int]) -> Inversion:
    """The same evidence of some probes."""

    def some(of: Identification) -> Identification:
        return Identification(of.scores[rows], of.mated[rows], of.subject[rows], of.impostors)

    return Inversion(
        whole.source.take(rows), whole.released.take(rows), whole.inverted.take(rows),
        whole.subject[rows],
        tuple(
            Judgement(j.judge, some(j.released), some(j.inverted),
                      j.released_source[rows], j.inverted_source[rows])
            for j in whole.judgements
        ),
    )  # fmt: skip


def numbers(metric: Metric, of: Evidence) -> dict[str, float]:
    """The point estimates by name."""
    rows = metric.rows(of)
    values = metric.reduce(rows, np.ones((1, len(rows))))[0]
    return dict(zip((o.name for o in metric.outputs(of)), values.tolist(), strict=True))


def estimates(metric: Metric, of: Inversion, seed: int = 3) -> dict[str, Estimate]:
    """The numbers with their intervals."""
    found = bootstrap(
        metric, metric.rows(of), of.subject, metric.outputs(of), metric.chance(of), 400, seed
    )
    return {e.name: e for e in found}


# --- recognition ---------------------------------------------------------------------------


def test_outputs_and_their_chance() -> None:
    """Judge by judge, in the documented order; every number has a chance or says that none is."""
    whole = evidence()
    outputs = RECOGNITION.outputs(whole)
    assert [o.name for o in outputs] == [f"{judge}/{name}" for judge in "ab" for name in NAMES]
    assert {(o.protects, o.worst) for o in outputs} == {("lower", 1.0)}
    one = [1 / PEOPLE, 1 / PEOPLE, 0, exceedance(3312, 0.01), np.nan, np.nan, np.nan]
    np.testing.assert_array_equal(RECOGNITION.chance(whole), one * 2)
    alone = evidence(whole.judgements[1])
    np.testing.assert_array_equal(RECOGNITION.rows(alone), RECOGNITION.rows(whole)[:, 7:])


def test_numbers_are_those_of_scikit_learn_and_loops() -> None:
    """Rank-1 without ties is top-1 accuracy; matches are a confusion matrix at the threshold that
    one in a hundred validation impostors passes; similarities are means."""
    rng = np.random.default_rng(5)
    mated = np.repeat(np.arange(PEOPLE), SHOTS)
    before, after = (rng.normal(size=(len(mated), PEOPLE)) for _ in range(2))
    after[np.arange(len(mated)), mated] += 1.5
    impostors = rng.normal(size=3300)
    own = rng.normal(size=(2, len(mated)))
    whole = evidence(
        Judgement("j", Identification(before, mated, mated, rng.normal(size=3300)),
                  Identification(after, mated, mated, impostors), own[0], own[1])
    )  # fmt: skip
    found = numbers(RECOGNITION, whole)
    top = partial(top_k_accuracy_score, mated, k=1, labels=np.arange(PEOPLE))
    assert found["j/rank-1"] == pytest.approx(top(after))
    assert found["j/rank-1-released"] == pytest.approx(top(before))
    assert found["j/gain"] == pytest.approx(top(after) - top(before))
    threshold = np.sort(impostors)[-34]  # 33 of 3,300 lie above it
    true = after[np.arange(len(mated)), mated]
    ((_, _), (_, hits)) = confusion_matrix(np.ones_like(mated), true > threshold, labels=[0, 1])
    assert found["j/matched@fmr=0.01"] == pytest.approx(hits / len(mated))
    assert found["j/similarity"] == pytest.approx(own[1].mean())
    assert found["j/similarity-released"] == pytest.approx(own[0].mean())
    others = [np.mean([s for j, s in enumerate(after[i]) if j != m]) for i, m in enumerate(mated)]
    assert found["j/similarity-others"] == pytest.approx(np.mean(others))


def test_ties_are_shared() -> None:
    """The chance to be named first among equals, probe by probe."""
    whole = evidence(judgement("j", 4))
    inverted = whole.judgements[0].inverted
    wanted = [
        (row[m] == row.max()) / (row == row.max()).sum()
        for row, m in zip(inverted.scores, inverted.mated, strict=True)
    ]
    assert any(0 < x < 1 for x in wanted), "the scores must have ties at the top"
    np.testing.assert_allclose(RECOGNITION.rows(whole)[:, 0], wanted)


def test_a_tie_with_the_threshold_is_no_match() -> None:
    """So that no more than one validation impostor in a hundred would be one."""
    mated = np.repeat(np.arange(PEOPLE), SHOTS)
    side = Identification(np.ones((len(mated), PEOPLE)), mated, mated, np.ones(3312))
    tied = replace(judgement("j", 4), inverted=side)
    assert numbers(RECOGNITION, evidence(tied))["j/matched@fmr=0.01"] == 0
    below = replace(tied, inverted=replace(side, impostors=np.full(3312, 0.9)))
    assert numbers(RECOGNITION, evidence(below))["j/matched@fmr=0.01"] == 1


def test_the_gain_has_the_interval_of_a_paired_difference() -> None:
    """The same resamples on both sides, so what they share cancels; people are the unit."""
    whole = evidence()
    rows = RECOGNITION.rows(whole)
    found = estimates(RECOGNITION, whole)["a/gain"]
    output = Output("a/gain", "lower", 1.0, unit="difference")
    (paired,) = paired_difference(
        RECOGNITION, rows[:, [0]], rows[:, [1]], whole.subject, [output], 400, 3
    )
    assert paired.low is not None
    assert (found.value, found.low, found.high) == pytest.approx(
        (paired.value, paired.low, paired.high)
    )
    assert reversal_of(found) == "reversible"


def test_reconstructions_that_are_the_releases_gain_exactly_nothing() -> None:
    """The null: 0 for every probe, whatever the judge; and nothing is shown."""
    same = judgement("j", 6)
    same = replace(same, inverted=same.released, inverted_source=same.released_source)
    whole = evidence(same)
    assert not RECOGNITION.rows(whole)[:, 2].any()
    gain = estimates(RECOGNITION, whole)["j/gain"]
    assert gain.value == 0
    assert reversal_of(gain) == "not shown"


def test_permuted_people_are_at_chance() -> None:
    """With the names of the gallery dealt anew, the mean over deals is 1 / S, and the gain 0."""
    base = judgement("j", 7)
    rng = np.random.default_rng(0)
    found = []
    for _ in range(200):
        names = rng.permutation(PEOPLE)
        sides = [
            Identification(s.scores, names[s.mated], s.subject, s.impostors)
            for s in (base.released, base.inverted)
        ]
        dealt = Judgement("j", sides[0], sides[1], base.released_source, base.inverted_source)
        found.append(list(numbers(RECOGNITION, evidence(dealt)).values())[:3])
    mean, error = np.mean(found, axis=0), np.std(found, axis=0) / np.sqrt(len(found))
    assert np.all(np.abs(mean - [1 / PEOPLE, 1 / PEOPLE, 0]) < 4 * error)
    assert np.all(error < 0.005)


@pytest.mark.parametrize("metric", METRICS)
def test_rows_depend_on_their_probe_alone(metric: Metric) -> None:
    """Neither order nor company changes a row, whole or in parts."""
    whole = evidence()
    rows = metric.rows(whole)
    order = np.random.default_rng(0).permutation(len(rows)).tolist()
    np.testing.assert_array_equal(metric.rows(part(whole, order)), rows[order])
    shards = [metric.rows(part(whole, s)) for s in (range(1), range(1, 37), range(37, len(rows)))]
    np.testing.assert_array_equal(np.concatenate(shards), rows)


@pytest.mark.parametrize("metric", METRICS)
def test_weights_are_repetitions(metric: Metric) -> None:
    """Many weightings at once are the rows physically repeated; no weight is undefined."""
    rows = metric.rows(evidence())
    weights = np.random.default_rng(0).integers(0, 3, (5, len(rows)))
    wanted = [np.repeat(rows, times, axis=0).mean(axis=0) for times in weights]
    np.testing.assert_allclose(metric.reduce(rows, weights.astype(np.float64)), wanted)
    assert np.isnan(metric.reduce(rows, np.zeros((1, len(rows))))).all()


def test_what_cannot_be_said_is_blank() -> None:
    """Too few impostors: no matches. One enrolled person: nobody else to be like."""
    rng = np.random.default_rng(0)
    few = replace(judgement("j", 8), inverted=trial(rng, 1.0, impostors=900))
    found = numbers(RECOGNITION, evidence(few))
    assert [name for name, value in found.items() if np.isnan(value)] == ["j/matched@fmr=0.01"]
    side = Identification(np.ones((60, 1)), np.zeros(60, np.int64), images(0).subject)
    lonely = replace(judgement("j", 8), released=side, inverted=side)
    assert np.isnan(numbers(RECOGNITION, evidence(lonely))["j/similarity-others"])


def test_bad_evidence_is_refused() -> None:
    """Another kind of evidence, and scores that would pass as lowest."""
    for metric in METRICS:
        with pytest.raises(PluginError, match="Expected reconstructions; got Release"):
            metric.rows(Release(images(0), images(1), images(0).subject))
    broken = judgement("j", 9)
    broken.inverted.scores[0, 0] = np.nan
    with pytest.raises(DataError, match="NaN"):
        RECOGNITION.rows(evidence(broken))


# --- fidelity ------------------------------------------------------------------------------


def test_fidelity_is_torchmetrics() -> None:
    """PSNR and SSIM of each side, image by image; lower protects."""
    whole = evidence()
    outputs = RECONSTRUCTION.outputs(whole)
    assert [(o.name, o.protects, o.worst) for o in outputs] == [
        ("psnr", "lower", 100.0), ("ssim", "lower", 1.0),
        ("psnr-released", "lower", 100.0), ("ssim-released", "lower", 1.0),
    ]  # fmt: skip
    source = whole.source.floats()
    columns: list[Floats] = []
    for side in (whole.inverted.floats(), whole.released.floats()):
        psnr = peak_signal_noise_ratio(side, source, 1.0, reduction="none", dim=(1, 2, 3))
        ssim = structural_similarity_index_measure(side, source, data_range=1.0, reduction="none")
        assert isinstance(ssim, torch.Tensor)
        columns += [psnr.double().numpy(), ssim.double().numpy()]
    np.testing.assert_allclose(RECONSTRUCTION.rows(whole), np.stack(columns, 1), atol=1e-4)
    perfect = replace(whole, inverted=whole.source)
    assert numbers(RECONSTRUCTION, perfect)["psnr"] == 100
    assert numbers(RECONSTRUCTION, perfect)["ssim"] == pytest.approx(1)
    assert np.isnan(RECONSTRUCTION.chance(whole)).all()


def test_lpips_is_that_of_the_release_metric(tmp_path: Path) -> None:
    """On both sides, with the same file; without one the message names this metric's setting."""
    torch.manual_seed(0)
    path = tmp_path / "backbone.safetensors"
    weights = trunk("squeeze").state_dict()
    save_file({f"features.{name}": value for name, value in weights.items()}, path)
    config = perceptual.LpipsConfig(net="squeeze", backbone=str(path))
    spec = inversion.SPECS[2]
    whole = part(
        replace(evidence(), source=images(0, 64), released=images(1, 64), inverted=images(2, 64)),
        range(4),
    )
    made, plain = spec.build(config), perceptual.SPECS[0].build(config)
    assert [o.name for o in made.outputs(whole)] == ["lpips", "lpips-released"]
    assert {(o.protects, o.worst) for o in made.outputs(whole)} == {("higher", 0.0)}
    for column, side in enumerate((whole.inverted, whole.released)):
        wanted = plain.rows(Release(whole.source, side, whole.subject))
        assert wanted.min() > 0
        np.testing.assert_array_equal(made.rows(whole)[:, [column]], wanted)
    assert spec.weights is not None
    assert spec.weights(config) == perceptual.weights(config)
    for call in (spec.weights, spec.build):
        with pytest.raises(ConfigError, match=r"--set reconstruction-lpips\.backbone=FILE"):
            call(perceptual.LpipsConfig())


# --- verdicts ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "low", "high", "verdict", "words"),
    [
        (0.254, 0.01, 0.4, "reversible", "reversible: J identifies reconstructions +.25 more"),
        (1.0, 0.9, 1.0, "reversible", "reversible: J identifies reconstructions +1.00 more"),
        (0.254, 0.0, 0.4, "not shown", "not shown to be reversible: J does not"),
        (0.0, None, None, "not shown", "not shown to be reversible: J does not"),
        (-0.3, -0.4, 0.0, "not shown", "not shown to be reversible: J does not"),
        (-0.3, -0.4, -0.1, "worse",
         "not shown to be reversible: J identifies reconstructions .30 less often"),
    ],
)  # fmt: skip
def test_a_release_is_reversible_only_by_the_lower_bound(
    value: float, low: float | None, high: float | None, verdict: str, words: str
) -> None:
    """A gain is believed where its whole interval lies on one side of 0."""
    gain = Estimate("gain", value, low, high, 60, 20)
    assert reversal_of(gain) == verdict
    assert reversal_in_words("J", gain).startswith(words)


# --- in a run ------------------------------------------------------------------------------


class Negative:
    """Reversible by anyone, and unlike its source to a judge that compares colours."""

    def anonymize(self, batch: ImageBatch, seeds: Sequence[int]) -> torch.Tensor:
        """The negative of each image."""
        return 1 - batch.pixels


@dataclass
class Undo:
    """The inverter that knows the anonymizer, unless `blind`: then all become one grey."""

    blind: bool
    report: dict[str, Any] = field(default_factory=dict)

    def train(self, view: AttackerView) -> Undo:
        """Nothing to learn."""
        return self

    def invert(self, draws: Sequence[ImageSet]) -> torch.Tensor:
        """(N, 1, 3, H, W)."""
        made = 1 - draws[0].pixels[:, None].float() / 255
        return torch.full_like(made, 0.5) if self.blind else made


def registry() -> Registry:
    """Installed plugins, spies, and two that are known to work."""
    adaptive = Tags(knowledge="adaptive", inverts=True)
    mine = (
        PluginSpec("anonymizer", "negative", 1, "negative", lambda _: Negative(), NoConfig),
        PluginSpec("attack", "undo", 1, "undo", lambda _: Undo(False), NoConfig, tags=adaptive),
        PluginSpec("attack", "grey", 1, "grey", lambda _: Undo(True), NoConfig, tags=adaptive),
    )
    known = dict(spies().plugins) | {(s.kind, s.id): Registered(s, "tests 0") for s in mine}
    return Registry(known, {})


@pytest.fixture(scope="module")
def records(faces: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], Record]:
    """Both attacks on what can be undone and on what need not be, and one that inverts nothing."""
    study = make_study(
        ["negative", "none"], ["undo", "grey", "random-guess"], protocol="smoke",
        metrics=["identification", "inversion", "reconstruction"],
        judges=["spy-judge:order", "spy-judge:pixels"], settings=[f"synthfaces.path={faces}"],
        registry=registry(),
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("inversion")
    done, failures = run_study(study, registry=registry(), store=str(folder), records=None)
    assert not failures
    return {(r.anonymizer.id, r.attack.id): r for r in done}


def test_a_record_says_what_an_inversion_gains(records: dict[tuple[str, str], Record]) -> None:
    """Undoing the negative names everyone, grey names no one; validation's judge decides."""
    undone = records["negative", "undo"]
    assert undone.attack_report["judge"] == "pixels"
    assert list(judged(undone)) == ["pixels", "order"]
    numbers = judged(undone)["pixels"]
    assert tuple(numbers) == NAMES
    assert numbers["rank-1"].value == undone.estimate("identification", "rank-1").value
    assert numbers["rank-1"].value == pytest.approx(1)
    assert numbers["matched@fmr=0.01"].value is None, "smoke has too few impostors"
    assert {e.name: e.value for e in undone.inversion["reconstruction"]}["psnr"] == 100
    assert reversal(undone) == "reversible"
    assert reversal(records["none", "grey"]) == "worse"
    assert {reversal(records[a, "random-guess"]) for a in ("none", "negative")} == {None}
    assert not records["none", "random-guess"].inversion


def test_the_command_line_prints_the_inversion(
    records: dict[tuple[str, str], Record], capsys: pytest.CaptureFixture[str]
) -> None:
    """Judges with both rank-1 and the signed gain, fidelity on both sides, and one verdict."""
    show.results([records["negative", "undo"]])
    out = capsys.readouterr().out
    assert "1.000 [0.631, 1.000]   +1.000 [+0.261, +1.000]" in out
    assert out.index("pixels ") < out.index("order ")
    assert "released PSNR 6.8 dB, SSIM -0.419; " in out
    assert "reconstructed PSNR 100.0 dB, SSIM 1.000" in out
    assert out.count("reversible") == 1
    assert "\nreversible: pixels identifies reconstructions +1.00 more often" in out
    assert max(map(len, out.splitlines())) <= 120
    show.results([records["none", "grey"]])
    out = capsys.readouterr().out
    assert "-0.875 [-1.000, -0.500]" in out
    assert "-60.48, -58.94" in out
    assert "not shown to be reversible: pixels identifies reconstructions .88 less often" in out
    show.results([records["none", "random-guess"]])
    assert "reversible" not in capsys.readouterr().out


def test_judges_are_named_as_they_are(
    records: dict[tuple[str, str], Record], capsys: pytest.CaptureFixture[str]
) -> None:
    """A slash or a bracket in a judge's name is neither a separator nor markup."""
    record, name = records["negative", "undo"], "a/[red]b"
    renamed = [
        replace(e, name=e.name.replace("pixels", name)) for e in record.inversion["inversion"]
    ]
    other = record.model_copy(
        update={
            "inversion": {"inversion": renamed},
            "attack_report": {**record.attack_report, "judge": name},
        }
    )
    assert reversal(other) == "reversible"
    show.results([other])
    assert capsys.readouterr().out.count(name) == 2


def test_a_run_of_the_command_line_says_so(
    faces: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """From the flags to the sentence."""
    for module in (api, audit):
        monkeypatch.setattr(module, "load_registry", registry)
    with pytest.raises(SystemExit) as stop:
        main(
            ["run", "--anonymizer", "negative", "--attack", "undo", "--judge", "spy-judge:pixels",
             "--metric", "inversion", "--protocol", "smoke", "--set", f"synthfaces.path={faces}",
             "--store", str(tmp_path / "store"), "--records", str(tmp_path / "records"),
             "--in-process"]
        )  # fmt: skip
    assert stop.value.code == 0
    out = capsys.readouterr().out
    assert "reversible: pixels identifies reconstructions +" in out
    assert "PSNR" not in out, "not asked for"


def test_the_default_set_waits_for_an_inverter(faces: Path) -> None:
    """Both metrics run where an attack inverts, without a file; LPIPS waits to be named."""
    study = make_study(
        ["none"], ["undo", "random-guess"], protocol="smoke", judges=["spy-judge:pixels"],
        settings=[f"synthfaces.path={faces}"], registry=registry(),
    )  # fmt: skip
    undo, guess = plan_study(study, registry()).cells
    assert set(undo.inversion) == {"inversion", "reconstruction"}
    assert not guess.inversion
    assert ("metric", "reconstruction-lpips") in load_registry().plugins
