"""The harness around inversion attacks: what they may see, who judges them, what is kept."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import spies
from privbench import plan as planning
from privbench.api import make_study, plan_study, run_study
from privbench.errors import ConfigError, DataError, PluginError
from privbench.plan import Choice, Study, find_judges, judge_name, make_plan
from privbench.record import Record
from privbench.session import Session
from privbench.spec import PluginSpec, Tags
from privbench.store import Store
from privbench.study import recompute, run_study_file
from privbench.studyfile import parse_study
from spies import CALLS, registry

JUDGES = ["spy-judge:pixels"]


def study(
    faces: Path,
    how: str = "release",
    judges: list[str] = JUDGES,
    metrics: tuple[str, ...] = ("identification",),
    anonymizer: str = "pixelate",
    **more: Any,
) -> Study:
    """The spy inverter on the small data set."""
    return make_study(
        [anonymizer], ["spy-inverter"], metrics, protocol="smoke", judges=judges,
        settings=[f"synthfaces.path={faces}", f"spy-inverter.how={how}"],
        registry=registry(), **more,
    )  # fmt: skip


def go(what: Study, tmp_path: Path) -> Any:
    """Run into the test's own store."""
    CALLS.clear()
    return run_study(
        what, registry=registry(), store=str(tmp_path / "store"), records=str(tmp_path / "records")
    )


def test_reconstructions_are_stored_judged_and_not_made_again(faces: Path, tmp_path: Path) -> None:
    """Another judge needs no other inverter, and a second run computes nothing."""
    (first,), failures = go(study(faces), tmp_path)
    assert not failures
    assert CALLS.count("train") == 2, "the inverter and the judge"
    assert CALLS.count("invert") == 4
    assert first.attack_report["judge"] == "pixels"
    assert first.oracle_queries == 8 * 3
    assert {t["stage"] for t in first.timing} >= {
        f"spy-inverter on pixelate: {what}" for what in ("training", "inverting", "judging")
    }
    (again,), _ = go(study(faces), tmp_path)
    assert CALLS == []
    assert again == first
    (other,), _ = go(study(faces, judges=["spy-judge:diagonal", *JUDGES]), tmp_path)
    assert "invert" not in CALLS
    assert [j["name"] for j in other.attack_report["judges"]] == ["pixels", "diagonal"]
    assert other.attack_report["judge"] == "pixels", "validation chooses, not the order given"
    assert other.hits == first.hits


def test_an_inverter_that_does_nothing_gains_nothing(faces: Path, tmp_path: Path) -> None:
    """Reconstructions equal to the releases get the releases' own scores."""
    (record,), _ = go(study(faces), tmp_path)
    step = plan_study(study(faces), registry()).cells[0].score
    arrays = {k: v for p in Store(str(tmp_path / "store")).read(
        Store(str(tmp_path / "store")).find(step.stage, step.plugin, step.key)  # type: ignore[arg-type]
    ) for k, v in p.items()}  # fmt: skip
    # The judge sees colours only, which a mirror image keeps.
    np.testing.assert_allclose(arrays["pixels/gallery"], arrays["pixels/released/gallery"], 1e-5)
    np.testing.assert_array_equal(arrays["gallery"], arrays["pixels/gallery"])
    assert record.estimate("identification", "rank-1").value > 0.125  # type: ignore[operator]


def test_what_is_exported_holds_every_judge(faces: Path, tmp_path: Path) -> None:
    """The file beside a record holds the scores of all judges, with and without inversion."""
    from safetensors.numpy import load_file

    (record,), _ = go(study(faces), tmp_path)
    arrays = load_file(tmp_path / "records" / record.scores["file"])
    assert {"gallery", "pixels/gallery", "pixels/released/gallery"} <= set(arrays)


def test_evaluation_is_out_of_reach_while_an_attack_trains_or_inverts(
    faces: Path, tmp_path: Path
) -> None:
    """Planted leaks: through the oracle's session, in training and in inverting."""
    for how in ("peek at probes", "peek at cross-gallery", "peek at non-mated", "peek later"):
        done, (failure,) = go(study(faces, how), tmp_path)
        assert not done
        assert isinstance(failure.error, PluginError)
        assert "no access" in str(failure.error)


def test_a_planted_leak_in_the_attackers_part_is_caught(
    faces: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An evaluation photo among the attacker's, and its mirror image under another identity."""
    whole = Session.part

    def with_identity(self: Session, name: str) -> Any:
        images = whole(self, name)
        return whole(self, "probes") if name == "attacker-train" else images

    def with_mirrored(self: Session, name: str) -> Any:
        images = whole(self, name)
        if name != "attacker-train":
            return images
        pixels = images.pixels.clone()
        pixels[1] = whole(self, "gallery").pixels[3].flip(2)
        return type(images)(pixels, images.subject, images.keys)

    for leak, said in ((with_identity, "identity-disjoint"), (with_mirrored, "mirror image")):
        with monkeypatch.context() as patched:
            patched.setattr(Session, "part", leak)
            done, (failure,) = go(study(faces), tmp_path)
        assert not done
        assert isinstance(failure.error, DataError)
        assert said in str(failure.error)
        assert "anonymize" not in CALLS, "before any work"
    assert go(study(faces), tmp_path)[0]


def test_the_noise_of_a_release_cannot_be_asked_for(faces: Path, tmp_path: Path) -> None:
    """Seeds follow sample ids: an own image under an evaluation id is refused."""
    plan = make_plan(study(faces, anonymizer="spy"), registry(), "cpu")
    spies.BORROWED[:] = [plan.data.keys[i] for i in plan.split.probes]
    done, (failure,) = go(study(faces, "borrow", anonymizer="spy"), tmp_path)
    assert not done
    assert "ids of your own" in str(failure.error)


def test_a_report_that_json_cannot_hold(faces: Path, tmp_path: Path) -> None:
    """What is not finite is unknown; what is no data is refused with a sentence."""
    (record,), _ = go(study(faces, "nan"), tmp_path)
    assert record.attack_report["loss"] is None
    assert record.attack_report["at"] == [None, 1]
    _, (failure,) = go(study(faces, "object"), tmp_path)
    assert "must be JSON-able facts" in str(failure.error)


def test_a_small_budget_of_real_queries(faces: Path, tmp_path: Path) -> None:
    """Where nobody on validation has a second photo, nothing can be said of ranks, and all runs."""
    asked = make_study(
        ["pixelate"], ["inversion-linear"], ["identification", "inversion"], protocol="smoke",
        judges=["naive-recogniser:tiny-recogniser"],
        settings=[f"synthfaces.path={faces}", "inversion-linear.queries=16",
                  "inversion-linear.side=32"],
    )  # fmt: skip
    (record,), failures = run_study(asked, store=str(tmp_path / "store"), records=None)
    assert not failures
    assert record.oracle_queries == 16


def test_what_inverts_must_be_adaptive() -> None:
    """The specification says so when it is made."""
    for tags in (Tags(inverts=True), Tags(inverts=True, knowledge="black-box")):
        with pytest.raises(ValueError, match="must be adaptive"):
            PluginSpec("attack", "x", 1, "x", spies.build_inverter, tags=tags)


def test_an_inverter_may_ask_about_candidates(faces: Path, tmp_path: Path) -> None:
    """The oracle answers while inverting, and counts: 24 in training, then one for each release."""
    (record,), _ = go(study(faces, "ask"), tmp_path)
    asked = record.attack_report["queries_while_inverting"]
    parts = ("probes", "non-mated", "attacker-validation")
    cross = 8  # one of each person
    assert asked == cross + sum(record.parts[p].images for p in parts)
    assert record.oracle_queries == 24 + asked


@pytest.mark.parametrize("how", ["type", "shape", "none", "dtype", "not a number", "range"])
def test_broken_reconstructions_are_refused(faces: Path, tmp_path: Path, how: str) -> None:
    """Before they become an artefact, and with a sentence."""
    _, (failure,) = go(study(faces, how), tmp_path)
    assert "must reconstruct a float tensor" in str(failure.error)


def test_a_judge_must_be_unseen_and_know_nothing(faces: Path) -> None:
    """Neither the attack's own weights, nor an attack that asks, nor two of one name."""
    with pytest.raises(ConfigError, match="uses the weights of seen"):
        make_plan(study(faces, judges=["spy-judge:seen"]), registry(), "cpu")
    with pytest.raises(ConfigError, match="knows nothing of the anonymizer"):
        make_plan(study(faces, judges=["spy-inverter"]), registry(), "cpu")
    with pytest.raises(ConfigError, match="knows nothing of the anonymizer"):
        make_plan(study(faces, judges=["random-guess"]), registry(), "cpu")
    idle = make_study(["none"], ["random-guess"], judges=["spy-inverter"], registry=registry())
    with pytest.raises(ConfigError, match="knows nothing of the anonymizer"):
        make_plan(idle, registry(), "cpu")
    usual = find_judges(registry(), ())
    assert set(usual) <= {"tiny-recogniser", "dlib"}
    for choice in (c for c in planning.JUDGES if judge_name(c.id) in usual):
        named = find_judges(registry(), [Choice(id=choice.id)])
        assert named[judge_name(choice.id)].ref() == usual[judge_name(choice.id)].ref()


def test_several_draws_reach_the_inverter(faces: Path, tmp_path: Path) -> None:
    """And the record says how many there were."""
    (record,), failures = go(study(faces, draws=2, anonymizer="spy"), tmp_path)
    assert isinstance(record, Record)
    assert not failures
    assert record.release["draws"] == 2


def test_a_study_has_curves_galleries_and_attacks_left_out(faces: Path, tmp_path: Path) -> None:
    """Points of a curve stand apart from the grid, and all is recomputed from the files alone."""
    asked: dict[str, Any] = {
        "title": "Small",
        "question": "Does it run?",
        "protocol": "smoke",
        "dataset": {"id": "synthfaces", "path": str(faces)},
        "attacks": [{"id": "spy-inverter", "how": "release"}, "random-guess"],
        "judges": JUDGES,
        "metrics": ["identification", "inversion", "ssim"],
        "people": 3,
        "variants": [
            {"label": "nothing", "group": "control", "anonymizer": "none"},
            {"label": "mosaic", "group": "baseline", "anonymizer": "pixelate",
             "without": ["random-guess"]},
        ],
        "curves": [
            {"attack": {"id": "spy-inverter", "how": "release"}, "setting": "level",
             "values": [1, 2], "variants": ["mosaic"]},
        ],
    }  # fmt: skip
    out = tmp_path / "out"
    outcomes = run_study_file(
        "small", parse_study(asked, "test"), out, store=str(tmp_path / "s"), registry=registry()
    )
    assert [[r.attack.id for r in o.records] for o in outcomes] == [
        ["spy-inverter", "random-guess"],
        ["spy-inverter"],
    ]
    body = json.loads((out / "study.json").read_text())
    (curve,) = body["results"]["curves"]
    assert [p["value"] for p in curve["points"]] == [1, 2]
    assert [p["gain"]["value"] for p in curve["points"]] == [0, 0]
    shown = body["results"]["variants"][1]["attacks"][0]["inversion"]
    assert shown["judge"] == "pixels"
    assert shown["judges"][0]["released"]["value"] == shown["judges"][0]["inverted"]["value"]
    before = (out / "study.json").read_bytes()
    recompute(out)
    assert (out / "study.json").read_bytes() == before
    with Image.open(out / "inversions.png") as picture:
        assert picture.height > 2 * 96, "a row for each inversion"
    typo = asked | {"curves": [asked["curves"][0] | {"variants": ["mosiac"]}]}
    with pytest.raises(ConfigError, match="Did you mean mosaic"):
        parse_study(typo, "test")
    typo = asked | {"variants": [asked["variants"][1] | {"without": ["random-gues"]}]}
    with pytest.raises(ConfigError, match="Did you mean random-guess"):
        parse_study(typo | {"curves": []}, "test")
    guess = asked | {"curves": [asked["curves"][0] | {"attack": "random-guess"}]}
    with pytest.raises(ConfigError, match="random-guess does not"):
        run_study_file("x", parse_study(guess, "test"), out, registry=registry())


def test_a_report_shows_faces_only_where_they_are_rendered(faces: Path, tmp_path: Path) -> None:
    """A folder of one's own is no rendered data set; a flag says otherwise."""
    page = tmp_path / "page.html"
    for flag in (False, True):
        run_study(
            study(faces), registry=registry(), store=str(tmp_path / "store"),
            records=str(tmp_path / "records"), report=str(page), own_images=flag,
        )  # fmt: skip
        assert ("data:image/png" in page.read_text()) == flag
        assert bool(list((tmp_path / "records").glob("*.png"))) == flag
