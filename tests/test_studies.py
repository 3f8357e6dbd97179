"""Studies end to end on small data: run, resume, fail, recompute, render."""

from __future__ import annotations

import itertools
import json
import random
import shutil
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

import privbench_leaderboard as lb
from privbench.errors import ConfigError, RecordError
from privbench.registry import load_registry
from privbench.study import Outcome, recompute, run_study_file
from privbench.studyfile import StudyFile, load_study_file, parse_study, select
from privbench.summary import verdict
from privbench_leaderboard.frontier import pareto
from privbench_leaderboard.studies import Study
from privbench_leaderboard.study_words import sentences
from spies import CALLS, registry


def body(faces: Path, **changes: Any) -> dict[str, Any]:
    """A study as TOML would give it: two baselines, a control, a sweep."""
    return {
        "title": "Small",
        "question": "Does it run?",
        "protocol": "smoke",
        "dataset": {"id": "synthfaces", "path": str(faces)},
        "attacks": [{"id": "spy-attack", "how": "quiet"}],
        "metrics": ["identification", "verification", "ssim", "nonesuch"],
        "references": ["mosaic"],
        "people": 3,
        "variants": [
            {"label": "nothing", "group": "control", "anonymizer": "none", "quick": True},
            {"label": "mosaic", "group": "baseline", "anonymizer": "pixelate"},
            {"label": "blur", "group": "baseline", "anonymizer": "gaussian-blur", "quick": True},
        ],
        "sweeps": [{"variant": "mosaic", "setting": "cells", "values": [1, 4]}],
    } | changes


def go(what: dict[str, Any], tmp_path: Path, **more: Any) -> list[Outcome]:
    """Run into the test's own store and folder, and make the page."""
    CALLS.clear()
    out = tmp_path / "out"
    study = parse_study(what, "test")
    found = run_study_file(
        "small", study, out, store=str(tmp_path / "store"), registry=registry(), **more
    )
    lb.write_study(out)
    return found


@pytest.fixture(scope="module")
def finished(faces: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the store and the files of the small study; tests work on copies."""
    folder = tmp_path_factory.mktemp("finished")
    go(body(faces), folder)
    assert CALLS
    return folder


@pytest.fixture
def done(finished: Path, tmp_path: Path) -> Path:
    """The test's own copy of the finished study."""
    return Path(shutil.copytree(finished, tmp_path, dirs_exist_ok=True))


def files(folder: Path) -> dict[str, bytes]:
    """Every file with its content."""
    return {
        str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()
    }


def with_spy(faces: Path, output: str) -> dict[str, Any]:
    """The small study with a variant that may break."""
    what = body(faces, sweeps=[])
    what["variants"].append(
        {
            "label": "spy",
            "group": "condition",
            "anonymizer": "spy",
            "settings": {"output": output},
        }
    )
    return what


def test_a_study_writes_its_numbers_plots_and_pictures(faces: Path, done: Path) -> None:
    """Records, hits, numbers, page, plots and grid are there, and agree with each other."""
    outcomes = go(body(faces), done)
    out = done / "out"
    labels = ["nothing", "mosaic", "blur", "mosaic (cells 1)", "mosaic (cells 4)"]
    assert [o.variant.label for o in outcomes] == labels
    assert {p.name for p in out.iterdir()} == {
        "README.md", "study.json", "hits.parquet", "records", "people.jpg", "sweeps.png",
        "frontier.png",
    }  # fmt: skip
    results = json.loads((out / "study.json").read_text())["results"]
    hits = pq.read_table(out / "hits.parquet").to_pandas()
    full = hits[hits.trial == "full-ref"].set_index(["variant", "probe"]).hit
    for variant, outcome in zip(results["variants"], outcomes, strict=True):
        (attack,) = variant["attacks"]
        (record,) = outcome.records
        rank1 = record.estimate("identification", "rank-1")
        shown = attack["trials"]["full-ref"]
        assert (shown["value"], shown["low"]) == (rank1.value, rank1.low)
        assert full[variant["label"]].mean() == pytest.approx(rank1.value)
        assert attack["record"] in {p.name for p in (out / "records").iterdir()}
        if variant["label"] != "mosaic":
            found = attack["differences"]["mosaic"]
            expected = (full[variant["label"]] - full["mosaic"]).mean()
            assert found["value"] == pytest.approx(expected)
            assert found["p_holm"] >= found["p"]
    assert results["tests"]["count"] == 4
    (sweep,) = results["sweeps"]
    assert [p["value"] for p in sweep["points"]] == [1, 4, 16]
    page = (out / "README.md").read_text(encoding="utf-8")
    assert "metrics that are not installed: nonesuch" in page
    with Image.open(out / "people.jpg") as grid:
        assert grid.height // 98 == 1 + 3  # sources, and the three that are no sweep


def test_a_second_run_computes_nothing_and_writes_the_same_bytes(faces: Path, done: Path) -> None:
    """With everything in the store, all files are made again, byte for byte."""
    before, store = files(done / "out"), files(done / "store")
    shutil.rmtree(done / "out")
    go(body(faces), done)
    assert CALLS == []
    assert files(done / "out") == before
    assert files(done / "store") == store


def test_committed_files_are_enough(done: Path) -> None:
    """Without the store, numbers, page and plots come out of records and hits as they were."""
    out = done / "out"
    before = files(out)
    shutil.rmtree(done / "store")
    result = json.loads(before["study.json"])
    result["results"] = {}
    (out / "study.json").write_text(json.dumps(result))
    for name in ("README.md", "sweeps.png", "frontier.png"):
        (out / name).unlink()
    recompute(out)
    lb.write_study(out)
    assert files(out) == before


def test_changed_hits_change_the_differences(done: Path) -> None:
    """Differences are computed from the per-probe hits, not copied."""
    path = done / "out" / "hits.parquet"
    table = pq.read_table(path)
    hit = np.where(np.array(table["variant"].to_pylist()) == "blur", 0.0, 1.0)
    pq.write_table(table.set_column(table.schema.get_field_index("hit"), "hit", [hit]), path)
    recompute(done / "out")
    result = json.loads((done / "out" / "study.json").read_text())["results"]
    blur = next(v for v in result["variants"] if v["label"] == "blur")
    assert blur["attacks"][0]["differences"]["mosaic"]["value"] == -1


def test_a_failing_variant_takes_no_other_with_it(faces: Path, tmp_path: Path) -> None:
    """A plugin that raises and an id that does not exist are named; the rest has its numbers.
    Once mended, only what was missing is computed."""
    what = with_spy(faces, "raise")
    what["variants"].append({"label": "typo", "group": "condition", "anonymizer": "pixellate"})
    outcomes = go(what, tmp_path)
    errors = {o.variant.label: o.error for o in outcomes if o.error}
    assert set(errors) == {"spy", "typo"}
    assert "out of ideas" in errors["spy"]
    assert "Did you mean pixelate" in errors["typo"]
    assert sum(len(o.records) for o in outcomes) == 3
    page = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert "- typo: There is no anonymizer" in page
    assert page.count("not finished") == 2
    store = files(tmp_path / "store")
    mended = go(with_spy(faces, "seeded"), tmp_path)
    assert not any(o.error for o in mended)
    assert CALLS.count("train") == 1
    assert store.items() <= files(tmp_path / "store").items()


def test_nothing_to_run_is_an_error(faces: Path, tmp_path: Path) -> None:
    """If every variant fails, no files are written over good ones."""
    what = body(faces, references=[], sweeps=[])
    what["variants"] = [{"label": "typo", "group": "condition", "anonymizer": "pixellate"}]
    with pytest.raises(ConfigError, match=r"typo.*pixelate"):
        go(what, tmp_path)
    assert not (tmp_path / "out").exists()


def test_the_quick_form_runs_the_marked_variants(faces: Path, tmp_path: Path) -> None:
    """Only `quick` variants run; a reference that is not among them is left out."""
    outcomes = go(body(faces), tmp_path, quick=True)
    assert [o.variant.label for o in outcomes] == ["nothing", "blur"]
    assert "quick form" in (tmp_path / "out" / "README.md").read_text(encoding="utf-8")


def test_old_records_of_the_study_go_and_other_files_stay(faces: Path, done: Path) -> None:
    """A smaller study leaves no stale record behind, and touches nothing that is not its own."""
    records = done / "out" / "records"
    (records / "mine.json").write_text("{}")
    go(body(faces, sweeps=[]), done)
    assert len(list(records.iterdir())) == 3 + 1
    assert (records / "mine.json").exists()


@pytest.mark.parametrize("damage", ["missing", "text", "probes"])
def test_damaged_hits_are_refused(damage: str, done: Path) -> None:
    """Hits that are missing, no Parquet, or of different probes stop with the file's name."""
    path = done / "out" / "hits.parquet"
    if damage == "missing":
        path.unlink()
    elif damage == "text":
        path.write_text("no")
    else:
        table = pq.read_table(path)
        pq.write_table(table.slice(0, len(table) - 50), path)
    with pytest.raises(RecordError, match=r"hits\.parquet"):
        recompute(done / "out")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"referenzes": []}, "referenzes"),
        ({"references": ["mosaik"]}, "Did you mean mosaic"),
        ({"sweeps": [{"variant": "blurr", "setting": "x", "values": [1]}]}, "Did you mean blur"),
        (
            {"sweeps": [{"variant": "blur", "setting": "x", "values": [1], "quick": [2]}]},
            "not among its values",
        ),
        ({"k": 1}, "greater than or equal to 2"),
        ({"attacks": []}, "at least 1"),
    ],
)
def test_a_bad_study_file_says_what_is_wrong(
    change: dict[str, Any], message: str, faces: Path
) -> None:
    """Each mistake is named, with the nearest right word where there is one."""
    with pytest.raises(ConfigError, match=message):
        parse_study(body(faces) | change, "x.toml")


def test_labels_are_distinct(faces: Path) -> None:
    """Two variants of one label could not be told apart in a table."""
    what = body(faces)
    what["variants"].append(what["variants"][0])
    with pytest.raises(ConfigError, match="nothing"):
        parse_study(what, "x.toml")


def test_studies_are_found_by_name_or_path(tmp_path: Path) -> None:
    """An unknown name suggests the nearest; a path that is not TOML says so."""
    known = load_registry().studies
    with pytest.raises(ConfigError, match="Did you mean conditioning"):
        load_study_file("conditionning", known)
    bad = tmp_path / "bad.toml"
    bad.write_text("title = ")
    with pytest.raises(ConfigError, match="not valid TOML"):
        load_study_file(str(bad), known)
    with pytest.raises(ConfigError, match="Cannot read"):
        load_study_file(str(tmp_path / "none.toml"), known)


def test_the_conditioning_study_is_whole() -> None:
    """Both controls, both references and the default's points of the sweeps are in both forms."""
    name, study = load_study_file("conditioning", load_registry().studies)
    assert name == "conditioning"
    full, quick = select(study, quick=False), select(study, quick=True)
    assert len(full) >= 30
    assert {v.label for v in quick} < {v.label for v in full}
    for chosen in (full, quick):
        labels = {v.label for v in chosen}
        assert {"no anonymization", "unconditional", *study.references} <= labels
        assert {v.group for v in chosen} >= {"condition", "baseline", "control", "diagnostic"}
    scales = {v.settings["conditioning_scale"] for v in full if "conditioning_scale" in v.settings}
    assert scales == {0, 0.25, 0.5, 0.75, 1.5}


@pytest.mark.parametrize(
    ("bounds", "people", "expected"),
    [
        ((0.21, 0.4), 100, "violates"),
        ((0.2, 0.4), 100, "undecided"),
        ((0.0, 0.2), 100, "undecided"),
        ((0.0, 0.19), 100, "within"),
        ((0.3, 0.4), 4, "undecided"),
        ((None, None), 100, "undecided"),
    ],
)
def test_a_verdict_needs_the_whole_interval(
    bounds: tuple[Any, Any], people: int, expected: str
) -> None:
    """Only an interval wholly above or below 1 / k decides, and only with k people or more."""
    assert verdict(*bounds, people, 5) == expected


def number(value: float, half: float = 0.05, **more: Any) -> dict[str, Any]:
    """An estimate as study.json holds it."""
    return {"value": value, "low": value - half, "high": value + half, "chance": 0.01} | more


def result(rows: dict[str, tuple[str, float]], **changes: Any) -> dict[str, Any]:
    """A study.json: label -> (group, rank-1)."""
    k = changes.pop("k", 5)
    variants = [
        {
            "label": label, "group": group, "anonymizer": "a", "error": "",
            "control": {"nothing": "positive", "nobody": "negative"}.get(label),
            "attacks": [{
                "attack": "reid", "control": None, "config": {"steps": 7}, "auc": None,
                "trials": {"full-ref": number(
                    rank1, verdict=verdict(rank1 - 0.05, rank1 + 0.05, 100, k))},
                "worst": "violates", "ms_per_image": 2.5, "device": {},
                "utility": [{"metric": "ssim", "name": "ssim"}
                            | number(1 - rank1 / 2, protects="higher", unit="index")],
                "differences": {"ref": number(rank1 - 0.3) | {"p": 0.01, "p_holm": 0.02}}
                if label != "ref" else {},
            }],
        }
        for label, (group, rank1) in rows.items()
    ]  # fmt: skip
    points = [{"value": i / 2, "variant": v} for i, v in enumerate(rows) if "sweep" in rows[v]]
    return {
        "schema_version": 1, "name": "x", "quick": False, "absent_metrics": [],
        "definition": {"title": "T", "question": "Q?", "references": ["ref"], "k": k,
                       "utility": [], "frontier": ["ssim"], "notes": [], "reported": []},
        "results": {
            "protocol": {"name": "quick", "version": 1, "resamples": 2000},
            "primary_trial": "full-ref", "dataset": {"id": "d", "digest": "ab" * 32},
            "people": 100, "probes": 200, "variants": variants,
            "sweeps": [{"variant": "ref", "setting": "s_cale", "points": points}],
            "tests": {"count": 3, "flips": 20000},
        },
    } | changes  # fmt: skip


ROWS = {
    "nothing": ("control", 0.95), "nobody": ("control", 0.02), "ref": ("condition", 0.5),
    "thin": ("condition", 0.1), "half": ("condition", 0.22), "s0": ("sweep", 0.03),
    "s1": ("sweep", 0.6),
}  # fmt: skip


def test_the_words_follow_the_numbers() -> None:
    """Who keeps k-anonymity, who does not, what differs: by rule, and nothing else."""
    text = "\n".join(sentences(Study.model_validate(result(ROWS))))
    assert (
        "**Conditions.** Does not keep it: ref (0.500); keeps it: thin (0.100); "
        "undecided: half (0.220)." in text
    )
    assert "**ref, s cale.** Does not keep it at 3; keeps it at 2.5." in text
    assert "identified less often: nobody (-0.280), thin (-0.200) and half (-0.080)" in text
    assert "identified more often: nothing (+0.650)." in text
    assert "nobody 0.020 [-0.030, 0.070], at chance" in text
    assert "not as it should be" not in text
    assert "quick form" not in text
    swapped = ROWS | {"nothing": ("control", 0.03), "nobody": ("control", 0.4)}
    text = "\n".join(sentences(Study.model_validate(result(swapped))))
    assert text.count("not as it should be") == 2


HOSTILE = "a|b`\n# <img src=x onerror=1> [l](https://e.org) www.e.org *b* _i_ @you $x_{ \u202e"


def test_nothing_in_a_result_can_break_the_page(tmp_path: Path) -> None:
    """Labels, errors, notes and titles are inert, and plots survive TeX in them."""
    found = result(ROWS | {HOSTILE: ("condition", 0.3)}, name=HOSTILE, absent_metrics=[HOSTILE])
    found["definition"] |= {
        "title": HOSTILE, "question": HOSTILE, "notes": [HOSTILE],
        "reported": [{"value": 0.5, "what": HOSTILE, "source": HOSTILE, "caveats": [HOSTILE]}],
    }  # fmt: skip
    found["results"]["variants"][0]["error"] = HOSTILE
    found["results"]["dataset"]["id"] = HOSTILE
    (tmp_path / "study.json").write_text(json.dumps(found), encoding="utf-8")
    text = lb.write_study(tmp_path).read_text(encoding="utf-8")
    plain = json.dumps(found).replace(json.dumps(HOSTILE), '"x"')
    other = tmp_path / "plain"
    other.mkdir()
    (other / "study.json").write_text(plain, encoding="utf-8")
    quiet = lb.write_study(other).read_text(encoding="utf-8")
    assert len(text.splitlines()) == len(quiet.splitlines())
    assert [line.count("|") for line in text.splitlines()] == [
        line.count("|") for line in quiet.splitlines()
    ]
    for mark in ("<img", "](https", "https://", "www.", "*b*", "_i_", "@you", "\u202e"):
        assert mark not in text, mark


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not a study"),
        ("[]", "not a study"),
        ('{"schema_version": 2}', "schema 2"),
        ('{"schema_version": 1}', "Field required"),
    ],
)
def test_an_unreadable_result_is_a_clear_error(text: str, message: str, tmp_path: Path) -> None:
    """A damaged study.json is named; no page is written."""
    (tmp_path / "study.json").write_text(text)
    with pytest.raises(lb.LeaderboardError, match=message):
        lb.write_study(tmp_path)
    assert not (tmp_path / "README.md").exists()


@pytest.mark.parametrize("better", ["higher", "lower"])
def test_the_front_is_what_nothing_beats(better: Any) -> None:
    """Against the definition, pair by pair, with ties."""
    rng = random.Random(0)
    sign = 1 if better == "higher" else -1
    for _ in range(50):
        points = [(rng.randrange(6) / 5, rng.randrange(6) / 5) for _ in range(12)]
        beaten = {
            i
            for (i, a), (_, b) in itertools.permutations(enumerate(points), 2)
            if a != b and sign * b[0] >= sign * a[0] and b[1] <= a[1]
        }
        assert set(pareto(points, better)) == set(range(12)) - beaten


def test_the_command_lists_studies_and_refuses_unknown_ones(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Without a name the studies are listed; an unknown one ends with code 2 and a hint."""
    from privbench.cli import main

    with pytest.raises(SystemExit) as done:
        main(["study"])
    assert done.value.code == 0
    assert "conditioning" in capsys.readouterr().out
    with pytest.raises(SystemExit) as done:
        main(["study", "condition"])
    assert done.value.code == 2
    assert "conditioning" in capsys.readouterr().err


def test_the_command_runs_a_file_and_names_what_failed(
    faces: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A study file by its path: page written, the bad variant on stderr, exit code 2; then
    --committed makes the page again without the store."""
    from privbench.cli import main

    path = tmp_path / "mine.toml"
    path.write_text(
        'title = "Mine"\nquestion = "?"\nprotocol = "smoke"\nattacks = ["random-guess"]\n'
        f'dataset = {{ id = "synthfaces", path = "{faces}" }}\n'
        '[[variants]]\nlabel = "a"\ngroup = "baseline"\nanonymizer = "pixelate"\n'
        '[[variants]]\nlabel = "b"\ngroup = "baseline"\nanonymizer = "pixelatte"\n'
    )
    out, store = tmp_path / "out", tmp_path / "store"
    with pytest.raises(SystemExit) as done:
        main(["study", str(path), "--out", str(out), "--store", str(store), "--in-process"])
    assert done.value.code == 2
    printed = capsys.readouterr()
    assert str(out / "README.md") in printed.out
    assert "b: There is no anonymizer" in printed.err
    before = (out / "README.md").read_bytes()
    shutil.rmtree(store)
    with pytest.raises(SystemExit):
        main(["study", str(path), "--out", str(out), "--store", str(store), "--committed"])
    assert (out / "README.md").read_bytes() == before
    assert not store.exists()


def test_a_definition_survives_json(faces: Path) -> None:
    """What study.json keeps of the study file reads back as the same study."""
    study = parse_study(body(faces), "x")
    again = parse_study(json.loads(study.model_dump_json()), "y")
    assert again == study
    assert isinstance(again, StudyFile)


def test_the_page_s_example_is_a_study() -> None:
    """The study file in docs/studies.md is complete as it stands."""
    text = (Path(__file__).parents[1] / "docs" / "studies.md").read_text(encoding="utf-8")
    example = text.partition("```toml\n")[2].partition("```")[0]
    study = parse_study(tomllib.loads(example), "docs/studies.md")
    assert [v.label for v in select(study, quick=True)] == ["no anonymization", "blur 4"]
    assert len(select(study, quick=False)) == 5


def test_several_attacks_make_a_ladder(faces: Path, tmp_path: Path) -> None:
    """Weakest first, controls last and outside the worst case; drawn, and said in words; variants
    that never ask share one training; draws and a shared seed are variants of their own."""
    variants: list[dict[str, Any]] = [
        {"label": "nothing", "group": "control", "anonymizer": "none"},
        {"label": "mosaic", "group": "baseline", "anonymizer": "pixelate"},
        {"label": "noise", "group": "baseline", "anonymizer": "spy"},
        {"label": "noise, 2 draws", "group": "baseline", "anonymizer": "spy", "draws": 2},
        {"label": "noise, one seed", "group": "baseline", "anonymizer": "spy", "fixed_seed": True},
    ]
    attacks = [{"id": "spy-attack", "how": "quiet"}, "random-guess"]
    metrics = ["identification", "verification", "open-set", "linkability", "det"]
    study = parse_study(
        body(faces, attacks=attacks, metrics=metrics, variants=variants, sweeps=[], people=0,
             references=["noise"]),
        "test",
    )  # fmt: skip
    CALLS.clear()
    out = tmp_path / "out"
    found = run_study_file(
        "ladder", study, out, store=str(tmp_path / "store"), registry=registry("black-box")
    )
    assert not any(o.error for o in found)
    assert CALLS.count("train") == 2  # two draws are another training
    releases = [o.records[0].release for o in found]
    assert [r["draws"] for r in releases] == [1, 1, 1, 2, 1]
    assert [r["fixed_seed"] for r in releases] == [False, False, False, False, True]
    page = lb.write_study(out).read_text(encoding="utf-8")
    assert (out / "ladder.png").stat().st_size > 10_000
    assert (out / "det.png").stat().st_size > 10_000
    read = lb.load_study(out / "study.json")
    assert read.ladder == ("spy-attack", "random-guess")
    (row,) = [v for v in read.results.variants if v.label == "mosaic"]
    assert row.worst_case is not None
    assert row.worst_case.value == row.attacks[0].trials["full-ref"].value
    assert "| Rank-1 ↓ under" in page
    assert "random-guess (none, a control: no part of the worst case)" in page
    assert "minus noise under spy-attack" in page
    assert "**The strongest attack** is spy-attack on" in page


def test_variants_are_compared_under_one_attack() -> None:
    """The hardest on the reference, not the hardest on each variant."""
    found = result(ROWS)
    other = number(-0.25) | {"p": 0.5, "p_holm": 0.5}
    for variant in found["results"]["variants"]:
        (weaker,) = variant["attacks"]
        stronger = weaker | {"attack": "stronger", "differences": {"ref": other}}
        variant["attacks"].append(stronger | {"trials": dict(weaker["trials"])})
        if variant["label"] == "ref":
            lower = {"value": 0.0, "low": 0.0, "high": 0.1}
            weaker["trials"]["full-ref"] = weaker["trials"]["full-ref"] | lower
    study = Study.model_validate(found)
    assert study.judge("ref") == "stronger"
    for variant in study.results.variants:
        difference = study.difference(variant, "ref")
        assert difference is not None
        assert difference.value == -0.25
