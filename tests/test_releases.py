"""What is released and to whom it is shown: draws, shared seeds, strangers, and held-out people."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file

from privbench.api import make_study, plan_study, run_study
from privbench.data import trials
from privbench.errors import ConfigError
from privbench.evidence import impostors
from privbench.execute import Session
from privbench.ladder import in_words, ladders, verdict
from privbench.plan import Plan, Study, load_study, status
from privbench.progress import Silent
from privbench.record import Record
from privbench.release import anonymize, released_set
from privbench.results import scores_of
from privbench.store import Store
from privbench.timing import pick_device
from privbench.types import Estimate
from spies import CALLS, registry

METRICS = ["identification", "open-set", "operating-point"]


def study(faces: Path, *settings: str, **more: Any) -> Study:
    """The spies on the small data set."""
    options = {"anonymizers": ["spy"], "attacks": ["spy-attack"], "metrics": METRICS} | more
    return make_study(
        protocol="smoke", settings=[f"synthfaces.path={faces}", *settings], registry=registry(),
        **options,
    )  # fmt: skip


def go(what: Study, tmp_path: Path, knowledge: str = "adaptive") -> tuple[list[Record], Plan]:
    """Records and plan of a run that must succeed."""
    CALLS.clear()
    known = registry(knowledge)
    found, failures = run_study(
        what, store=str(tmp_path / "store"), records=str(tmp_path / "records"), registry=known
    )
    assert not failures
    return found, plan_study(what, known)


def pixels(plan: Plan, tmp_path: Path, part: str, draw: int = 0) -> np.ndarray:
    """What a run released, from its store."""
    store = Store(str(tmp_path / "store"))
    session, cell = Session(plan, store, pick_device("cpu"), Silent()), plan.cells[0]
    released = {name: anonymize(session, cell, name) for name in cell.anonymize}
    return released_set(session, released, part, draw).pixels.numpy()


def noise(plan: Plan, tmp_path: Path, part: str, draw: int = 0) -> np.ndarray:
    """(N, 3) what the spy anonymizer added to each image."""
    source = plan.data.pixels(plan.split.parts()[part]).numpy()
    added = 2 * pixels(plan, tmp_path, part, draw).astype(float) - source
    return np.median(added, axis=(2, 3))


@pytest.mark.parametrize("how", ["draws", "pixels"])
def test_several_draws_are_released_and_used(how: str, faces: Path, tmp_path: Path) -> None:
    """Every draw is another image; an attack may combine them, else scores are averaged."""
    what = study(faces, f"spy-attack.how={how}", draws=3)
    (record,), plan = go(what, tmp_path)
    assert record.release == {"draws": 3, "fixed_seed": False}
    assert "draws=3" in CALLS
    assert ("score_draws=3" in CALLS) == (how == "draws")
    for part in ("probes", "non-mated", "attacker-train"):
        first, second = (pixels(plan, tmp_path, part, draw) for draw in (0, 2))
        assert (first != second).any(axis=(1, 2, 3)).all()


def test_draws_of_an_anonymizer_without_chance_are_one(faces: Path, tmp_path: Path) -> None:
    """A second draw of a deterministic anonymizer would be the first."""
    what = study(faces, "spy-attack.how=quiet", anonymizers=["pixelate"], draws=3)
    (record,), plan = go(what, tmp_path)
    assert record.release["draws"] == 1
    assert not any("#" in name for name in plan.cells[0].anonymize)


def test_a_shared_seed_is_the_same_for_all_images(faces: Path, tmp_path: Path) -> None:
    """The ablation: one noise for everybody; without it, one for each image."""
    _, fresh = go(study(faces), tmp_path)
    own = noise(fresh, tmp_path, "probes")
    (record,), fixed = go(study(faces, "spy-attack.how=quiet", fixed_seed=True), tmp_path)
    shared = noise(fixed, tmp_path, "probes")
    assert record.release["fixed_seed"]
    assert np.ptp(shared, axis=0).max() <= 4  # rounding, twice
    assert np.ptp(own, axis=0).min() > 50
    np.testing.assert_allclose(shared[0], noise(fixed, tmp_path, "cross-gallery")[0], atol=4)


@pytest.mark.parametrize("knowledge", ["adaptive", "black-box"])
def test_strangers_and_held_out_people_are_scored(
    knowledge: str, faces: Path, tmp_path: Path
) -> None:
    """Non-mated probes and attacker-validation photos; clear ones too for who may not ask."""
    (record,), plan = go(study(faces), tmp_path, knowledge)
    scores = load_file(tmp_path / "records" / record.scores["file"])
    split, preset = plan.split, plan.preset
    people, photos = preset.evaluation, len(split.attacker_validation)
    assert scores["non-mated"].shape == (len(split.non_mated), people * preset.references)
    assert scores["non-mated-cross"].shape == (len(split.non_mated), people)
    assert scores["validation"].shape == scores["validation-cross"].shape == (photos, photos)
    assert ("validation-clear" in scores) == (knowledge == "black-box")
    strangers = set(scores["non_mated_subject"].tolist())
    assert not strangers & set(scores["gallery_subject"].tolist())
    assert {"open-set", "operating-point"} <= set(record.estimates["full-ref"])


def test_an_attack_that_never_asks_is_trained_once(faces: Path, tmp_path: Path) -> None:
    """It serves every anonymizer of the run; an adaptive one is trained for each."""
    both = ["pixelate", "spy"]
    go(study(faces, anonymizers=both), tmp_path / "a", "black-box")
    assert CALLS.count("train") == 1
    go(study(faces, "spy-attack.how=quiet", anonymizers=both), tmp_path / "b")
    assert CALLS.count("train") == 2


def test_a_data_set_may_be_named_with_its_path(faces: Path) -> None:
    """`id:VALUE` fills in the setting that the plugin names; others refuse it."""
    what = make_study(["none"], ["random-guess"], dataset=f"folder:{faces}", settings=["side=64"])
    assert what.dataset.id == f"folder:{faces}"
    assert what.dataset.settings == {"side": "64"}
    with pytest.raises(ConfigError, match=r"synthfaces takes no value after a colon"):
        plan_study(make_study(["none"], ["random-guess"], dataset="synthfaces:x"))


@pytest.mark.parametrize("draws", [0, 65])
def test_draws_have_limits(draws: int) -> None:
    """Said before anything is planned."""
    with pytest.raises(ConfigError, match=f"draws must be from 1 to 64; got {draws}"):
        make_study(["none"], ["random-guess"], draws=draws)


def test_only_anonymizers_are_drawn(tmp_path: Path) -> None:
    """In a study's TOML, `draws` of an attack is a setting like any other: unknown."""
    path = tmp_path / "study.toml"
    path.write_text('anonymizers = ["none"]\nattacks = [{ id = "random-guess", draws = 5 }]\n')
    with pytest.raises(ConfigError, match="no setting 'draws'"):
        plan_study(load_study(path))


def test_a_shared_seed_of_an_anonymizer_without_chance_is_none(faces: Path, tmp_path: Path) -> None:
    """The release is the same, so the record is, too."""
    plain = study(faces, "spy-attack.how=quiet", anonymizers=["pixelate"])
    shared = study(faces, "spy-attack.how=quiet", anonymizers=["pixelate"], fixed_seed=True)
    (first,), _ = go(shared, tmp_path)
    (second,), _ = go(plain, tmp_path)
    assert first.release == second.release == {"draws": 1, "fixed_seed": False}


def test_no_impostor_of_a_real_split_is_of_the_same_person(faces: Path) -> None:
    """Whatever the order in which the split draws people."""
    plan = plan_study(study(faces), registry())
    subject, split = plan.data.subject, plan.split

    def same(one: np.ndarray, other: np.ndarray) -> np.ndarray:
        return (subject[one][:, None] == subject[other][None]).astype(np.float32)

    held_out = same(split.attacker_validation, split.attacker_validation)
    arrays = {"validation": held_out, "validation-cross": held_out}
    scores = scores_of(plan, arrays, "max")
    assert (np.diff(scores.held_out) < 0).any()  # else the order would not matter
    for trial in trials(plan.preset):
        found = impostors(trial, scores)
        assert len(found) == len(held_out) * (plan.preset.attacker_validation - 1)
        assert not found.any()


def test_k_same_sees_a_whole_release(faces: Path, tmp_path: Path) -> None:
    """Mated and non-mated probes are released together, as are all of the attacker's photos: four
    validation people alone would be too few for k = 5."""
    what = study(faces, "spy-attack.how=quiet", anonymizers=["k-same-pixel"])
    (record,), _ = go(what, tmp_path)
    assert record.parts["attacker-validation"].identities == 4
    assert record.anonymizer.config["k"] == 5


def test_training_that_serves_all_is_timed_once(faces: Path, tmp_path: Path) -> None:
    """Both records give the seconds that it took, not those of looking it up."""
    records, _ = go(study(faces, anonymizers=["pixelate", "spy"]), tmp_path, "black-box")
    seconds = [t["seconds"] for r in records for t in r.timing if t["stage"].endswith("training")]
    assert len(seconds) == 2
    assert seconds[0] == seconds[1]


def test_a_record_says_what_is_left_out_now(tmp_path: Path) -> None:
    """A file that cannot be used changes the record, and no image, attack or row."""
    root = tmp_path / "people"
    rng = np.random.default_rng(0)
    for person in range(12):
        (root / f"p{person}").mkdir(parents=True)
        for shot in range(2):
            image = Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8))
            image.save(root / f"p{person}" / f"{shot}.png")
    (root / "p0" / "broken.jpg").write_bytes(b"")
    what = make_study(["none"], ["random-guess"], ["identification"], dataset=f"folder:{root}")
    options: dict[str, Any] = {"store": str(tmp_path / "store"), "records": None}
    (before,), _ = run_study(what, **options)
    (root / "p0" / "broken.jpg").unlink()
    missed = {s.step.stage for s in status(plan_study(what), Store(options["store"])) if not s.hit}
    (after,), _ = run_study(what, **options)
    assert missed == {"record"}
    assert before.dataset_facts["left_out"]["files"] == 1
    assert after.dataset_facts["left_out"]["files"] == 0


def test_a_ladder_goes_from_weak_to_strong(faces: Path, tmp_path: Path) -> None:
    """Controls stand last and outside the maximum; the worst case is at least each attack's."""
    attacks = ["random-guess", "spy-attack"]
    what = study(faces, "spy-attack.how=quiet", attacks=attacks, anonymizers=["none", "spy"])
    records, _ = go(what, tmp_path)
    first, second = ladders(records)
    assert [r.attack.id for r in first.records] == ["spy-attack", "random-guess"]
    assert [r.anonymizer.id for r in second.records] == ["spy", "spy"]
    for ladder in (first, second):
        strongest = ladder.records[0].estimate("identification", "rank-1")
        assert ladder.worst is not None
        assert ladder.worst.value == pytest.approx(strongest.value)


def test_k_anonymity_in_words() -> None:
    """More than people enrolled is nothing to speak of; fewer than k people decide nothing."""
    number = Estimate("rank-1", 0.15, 0.11, 0.18, 100, 50)
    assert in_words(number, people=15) == (
        "k-anonymity: violated for k = 10; compatible with k = 2, 5"
    )
    assert verdict(0.9, 1.0, people=4, k=5) == "undecided"
