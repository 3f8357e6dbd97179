"""Score-level fusion: choices and weights from attacker-validation alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from privbench.api import make_study, run_study
from privbench.errors import ConfigError, PluginError
from privbench.types import ValidationScores
from privbench_plugins.attacks.ensemble import EnsembleConfig
from privbench_plugins.attacks.score_fusion import Ensemble

PEOPLE, PHOTOS = 12, 4
SUBJECT = np.repeat(np.arange(PEOPLE), PHOTOS)


def member(strength: float, seed: int, scale: float = 1.0) -> np.ndarray:
    """(V, V) scores: unit noise, raised for pairs of one person."""
    noise = np.random.default_rng(seed).normal(size=(len(SUBJECT), len(SUBJECT)))
    return scale * (noise + strength * (SUBJECT[:, None] == SUBJECT[None]))


def known(**scores: np.ndarray) -> dict[str, ValidationScores]:
    """As the harness hands them over."""
    return {name: ValidationScores(values, SUBJECT) for name, values in scores.items()}


def rank1(scores: np.ndarray, mated: np.ndarray) -> float:
    """Share of probes whose person comes first."""
    return float((scores.argmax(1) == mated).mean())


def test_independent_members_add_up() -> None:
    """Two attacks with independent errors make a better one, whatever their scales."""
    fusion = Ensemble(EnsembleConfig()).fit(known(a=member(1.5, 0), b=member(1.5, 1, scale=100)))
    mated = np.tile(np.arange(50), 20)
    rng = np.random.default_rng(2)
    a, b = rng.normal(size=(2, 1000, 50))
    a[np.arange(1000), mated] += 1.5
    b[np.arange(1000), mated] += 1.5
    fused = fusion.combine({"a": a, "b": 100 * b})
    assert fusion.report["rule"] in ("sum", "calibrated")
    assert rank1(fused, mated) > max(rank1(a, mated), rank1(b, mated)) + 0.1


def test_a_worthless_member_does_no_harm() -> None:
    """Noise gets no weight to speak of."""
    fusion = Ensemble(EnsembleConfig()).fit(known(good=member(3, 0), noise=member(0, 1)))
    rng = np.random.default_rng(2)
    mated = np.tile(np.arange(50), 20)
    good, noise = rng.normal(size=(2, 1000, 50))
    good[np.arange(1000), mated] += 3
    fused = fusion.combine({"good": good, "noise": noise})
    assert rank1(fused, mated) > rank1(good, mated) - 0.02


@pytest.mark.parametrize("rule", ["best", "max", "sum", "calibrated"])
def test_an_entry_depends_on_its_own_scores_alone(rule: str) -> None:
    """Blocks fuse as the whole does; the order of members does not matter."""
    config = EnsembleConfig(rule=rule)  # type: ignore[arg-type]
    fusion = Ensemble(config).fit(known(a=member(1, 0), b=member(2, 1)))
    a, b = np.random.default_rng(3).normal(size=(2, 6, 5))
    whole = fusion.combine({"b": b, "a": a})
    part = fusion.combine({"a": a[2:4, :3], "b": b[2:4, :3]})
    np.testing.assert_allclose(whole[2:4, :3], part)
    assert whole.shape == (6, 5)


def test_best_is_the_member_that_validation_likes() -> None:
    """Named by its weight."""
    fusion = Ensemble(EnsembleConfig(rule="best")).fit(known(a=member(1, 0), b=member(3, 1)))
    assert fusion.report["weights"] == {"a": 0.0, "b": 1.0}


def test_references_combine_as_validation_likes() -> None:
    """A person who looks like one of four photos only: the mean drowns it."""
    rng = np.random.default_rng(0)
    place = np.tile(np.arange(PHOTOS), PEOPLE)
    alike = (SUBJECT[:, None] == SUBJECT[None]) & (place[None] == (place[:, None] + 1) % PHOTOS)
    lonely = {n: rng.normal(size=alike.shape) + 4 * alike for n in ("a", "b")}
    fusion = Ensemble(EnsembleConfig()).fit(known(**lonely))
    judged = fusion.report["cross_validation"]
    assert fusion.fusion == "max"
    assert judged["sum/max"]["rank1"] > judged["sum/mean"]["rank1"]


def test_one_person_is_refused() -> None:
    """Nothing can be chosen where there is nobody to confuse."""
    one = ValidationScores(np.zeros((3, 3)), np.zeros(3, np.int64))
    with pytest.raises(PluginError, match="two attacker-validation people"):
        Ensemble(EnsembleConfig()).fit({"a": one, "b": one})


def test_an_ensemble_needs_members() -> None:
    """Alone, or beside a control only, it is refused before any work."""
    study = make_study(["none"], ["random-guess", "ensemble"], protocol="smoke")
    with pytest.raises(ConfigError, match="needs two at least"):
        run_study(study, records=None)


def test_an_ensemble_in_a_run(tmp_path: Path) -> None:
    """It takes the strongest threat model, the sum of the queries, and trains nobody again."""
    attacks = ["ensemble", "contrastive-reid", "edge-match", "random-guess"]
    settings = ["contrastive-reid.steps=2", "contrastive-reid.checkpoints=1"]
    study = make_study(
        ["pixelate"], attacks, ["identification", "verification"], protocol="smoke",
        settings=settings,
    )  # fmt: skip
    records, failures = run_study(study, store=str(tmp_path / "store"), records=None)
    assert not failures
    found = {record.attack.id: record for record in records}
    fused = found["ensemble"]
    assert fused.threat_model == "adaptive"
    assert fused.oracle_queries == found["contrastive-reid"].oracle_queries > 0
    assert fused.attack_report["members"] == ["contrastive-reid", "edge-match"]
    assert fused.attack_report["cross"]["members"] == ["contrastive-reid", "edge-match"]
    assert {"member:contrastive-reid", "member:edge-match"} <= set(fused.keys)
    again, _ = run_study(study, store=str(tmp_path / "store"), records=None)
    assert again == records
