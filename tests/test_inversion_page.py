"""Study pages tell what inversion attacks gave back, from `study.json` alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import privbench_leaderboard as lb
from privbench_leaderboard.curve_figures import plot_curves
from privbench_leaderboard.inversion_page import inversion_section
from privbench_leaderboard.studies import Shown, Study, reversal
from privbench_leaderboard.study_words import sentences
from test_studies import HOSTILE, number, result

STUDIES = Path(__file__).parents[1] / "docs" / "studies"
ROWS = {
    "nothing": ("control", 0.95), "nobody": ("control", 0.02), "canny": ("condition", 0.5),
    "depth": ("condition", 0.3), "blur": ("baseline", 0.9), "DP": ("baseline", 0.1),
}  # fmt: skip


def judged(name: str, released: float, inverted: float, half: float = 0.05) -> dict[str, Any]:
    """One judge's numbers."""
    return {
        "name": name,
        "released": number(released),
        "inverted": number(inverted),
        "gain": number(inverted - released, half, chance=0.0),
        "matched": number(0.4),
        "similarity": number(0.612, unit="score"),
        "similarity_others": number(0.1234, unit="score"),
        "similarity_released": number(0.5, unit="score"),
    }


def inversion(*judges: dict[str, Any], **more: Any) -> dict[str, Any]:
    """An attack's `inversion`; validation chose the first judge unless another is named."""
    return {
        "judge": judges[0]["name"], "judges": list(judges), "lpips": None,
        "psnr": number(24.13, unit="dB"), "psnr_released": number(18.06, unit="dB"),
        "ssim": number(0.8), "ssim_released": number(0.6),
    } | more  # fmt: skip


def curve(variant: str, *ranks: float, attack: str = "unet", released: float = 0.3) -> Any:
    """A curve over the budgets 64, 256, ..."""
    return {
        "variant": variant, "attack": attack, "setting": "queries",
        "points": [
            {"value": 64 * 4**i, "queries": min(64 * 4**i, 600), "judge": "own",
             "rank1": number(rank1), "released": number(released),
             "gain": number(rank1 - released)}
            for i, rank1 in enumerate(ranks)
        ],
    }  # fmt: skip


def inverted(found: dict[str, dict[str, Any]], **changes: Any) -> dict[str, Any]:
    """A study.json whose attack `unet` inverted the variants named."""
    body = result(ROWS)
    for variant in body["results"]["variants"]:
        if variant["label"] in found:
            (attack,) = variant["attacks"]
            own = {"attack": "unet", "inversion": found[variant["label"]]}
            variant["attacks"].append(attack | own)
    body["results"] |= changes
    return body


FOUND = {
    "nothing": inversion(judged("own", 0.9, 0.8), judged("dlib", 0.95, 0.7)),
    "nobody": inversion(judged("own", 0.02, 0.03), judged("dlib", 0.02, 0.01)),
    "canny": inversion(judged("own", 0.2, 0.5), judged("dlib", 0.1, 0.3)),
    "depth": inversion(judged("own", 0.3, 0.32), judged("dlib", 0.1, 0.2), judge="dlib"),
    "blur": inversion(judged("own", 0.9, 0.92), judged("dlib", 0.5, 0.8)),
    "DP": inversion(judged("own", 0.3, 0.1), judged("dlib", 0.3, 0.1)),
}


def study(body: dict[str, Any]) -> Study:
    """As the page reads it."""
    return Study.model_validate(body)


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.001, 0.2, "reversible"),
        (0.0, 0.2, "not shown"),
        (-0.2, 0.0, "not shown"),
        (-0.2, -0.001, "worse"),
        (None, None, "not shown"),
    ],
)
def test_a_reversal_needs_the_whole_interval(low: Any, high: Any, expected: str) -> None:
    """Only a gain wholly above or below 0 decides."""
    assert reversal(Shown(value=0.1, low=low, high=high)) == expected


def test_the_table_holds_the_chosen_judge_s_numbers() -> None:
    """One row per release and inverting attack; verdicts by the judge that validation chose."""
    _, table, judges, *_ = inversion_section(study(inverted(FOUND)))
    rows = {line.split("|")[1].strip(): [c.strip() for c in line.split("|")[2:-1]]
            for line in table.splitlines()[2:]}  # fmt: skip
    assert rows["depth"] == [
        "unet", "dlib", "0.100 [0.050, 0.150] → 0.200 [0.150, 0.250]", "+0.100 [+0.050, +0.150]",
        "0.400 [0.350, 0.450]", "0.500 → 0.612 (0.123)", "18.1 → 24.1", "0.600 → 0.800",
        "reversible",
    ]  # fmt: skip
    verdicts = {label: cells[-1] for label, cells in rows.items()}
    assert verdicts == {
        "nothing": "control", "nobody": "control", "canny": "reversible", "depth": "reversible",
        "blur": "not shown", "DP": "worse",
    }  # fmt: skip
    assert "LPIPS" not in table
    line = next(line for line in judges.splitlines() if line.startswith("| depth"))
    assert "| **+0.100 [+0.050, +0.150], to 0.200** |" in line
    assert "| +0.020 [-0.030, +0.070], to 0.320 " in line


def test_what_was_not_measured_is_blank() -> None:
    """LPIPS has a column where a backbone gave some; one judge needs no second table."""
    alone = inversion(
        judged("own", 0.2, 0.5) | {"matched": None}, psnr=None, psnr_released=None,
        lpips=number(0.2), lpips_released=number(0.4),
    )  # fmt: skip
    parts = inversion_section(study(inverted({"canny": alone})))
    assert "0.400 → 0.200" in parts[1]
    assert "?" not in parts[1]
    assert len(parts[1].splitlines()) == 2 + 1
    assert not any("each judge" in part for part in parts)


def test_the_words_count_releases_and_keep_controls_apart() -> None:
    """Who is reversible, by whom, and what the controls say: by rule."""
    text = "\n".join(sentences(study(inverted(FOUND))))
    assert (
        "**Given back.** 2 of 4 releases are at least partly reversible by some inversion: "
        "canny (+0.300 by unet) and depth (+0.100 by unet); every judge says so of canny. "
        "Not shown to be reversible: blur (+0.020 by unet). "
        "Recognised less often after every inversion than before: DP (-0.200 by unet)."
    ) in text
    assert (
        "inversions.** unet on nothing 0.800 [0.750, 0.850], above chance; unet on nobody" in text
    )
    assert "not as it should be" not in text
    bad = FOUND | {"nobody": inversion(judged("own", 0.02, 0.4))}
    assert "\n".join(sentences(study(inverted(bad)))).count("not as it should be") == 1


def test_the_best_of_several_inversions_counts() -> None:
    """A release is reversible if one of its inversions shows it, whatever the others say."""
    body = inverted({"canny": inversion(judged("own", 0.3, 0.1))})
    canny = next(v for v in body["results"]["variants"] if v["label"] == "canny")
    better = {"attack": "linear", "inversion": inversion(judged("own", 0.3, 0.4))}
    canny["attacks"].append(canny["attacks"][0] | better)
    text = "\n".join(sentences(study(body)))
    assert "1 of 1 releases is at least partly" in text
    assert "canny (+0.100 by linear)" in text
    assert "less often" not in text
    body = inverted({"canny": FOUND["blur"], "depth": FOUND["DP"]})
    text = "\n".join(sentences(study(body)))
    assert (
        "**Given back.** 0 of 2 releases are at least partly reversible by some inversion." in text
    )
    assert "says so of" not in text


def test_curves_are_drawn_tabled_and_told(tmp_path: Path) -> None:
    """The smallest budget that gains something; what was not asked for is told."""
    curves = [
        curve("canny", 0.31, 0.4, 0.6), curve("depth", 0.3, 0.31), curve("nobody", 0.9),
        curve("canny", 0.5, attack="linear"),
    ]  # fmt: skip
    found = study(inverted(FOUND, curves=curves))
    text = "\n".join(sentences(found))
    assert "unet, queries: canny 256 and depth none up to 256; linear, queries: canny 64." in text
    table = inversion_section(found)[-1]
    assert "| +0.300 [+0.250, +0.350] (own, 600 asked) |" in table
    out = tmp_path / "curves.png"
    assert plot_curves(found, out)
    first = out.read_bytes()
    plot_curves(found, out)
    assert out.read_bytes() == first
    with Image.open(out) as two:
        width = two.width
    assert plot_curves(study(inverted(FOUND, curves=curves[:3])), out)
    with Image.open(out) as one:
        assert one.width < width  # one panel per attack
    assert not plot_curves(study(inverted(FOUND)), tmp_path / "none.png")
    assert not (tmp_path / "none.png").exists()


def test_a_budget_of_all_photos_stands_where_it_was_asked(tmp_path: Path) -> None:
    """0 grants as much as the attacker has: the point lies at what was asked for."""
    granted = curve("canny", 0.5, 0.3, 0.31)
    granted["points"][0] |= {"value": 0, "queries": 744}
    found = study(inverted(FOUND, curves=[granted]))
    assert [p.place for p in found.results.curves[0].points] == [256, 744, 1024]
    assert plot_curves(found, tmp_path / "curves.png")
    assert "unet, queries: canny 744." in "\n".join(sentences(found))


def test_points_without_numbers_draw_nothing(tmp_path: Path) -> None:
    """A rank-1 that could not be computed is no 0."""
    empty = {"value": None, "low": None, "high": None}
    lost = curve("canny", 0.3, 0.4)
    lost["points"][1] |= {"rank1": empty, "released": empty, "gain": empty}
    found = study(inverted(FOUND, curves=[lost]))
    assert plot_curves(found, tmp_path / "curves.png")
    whole = curve("canny", 0.3)
    assert plot_curves(study(inverted(FOUND, curves=[whole])), tmp_path / "short.png")
    assert "none up to 256" in "\n".join(sentences(found))


def test_the_page_shows_pictures_where_there_are_some(tmp_path: Path) -> None:
    """The galleries and the plot are linked where they are beside the page."""
    (tmp_path / "study.json").write_text(json.dumps(inverted(FOUND, curves=[curve("canny", 0.4)])))
    page = lb.write_study(tmp_path).read_text(encoding="utf-8")
    assert "## Given back" in page
    assert "(curves.png)" in page
    assert "inversions.png" not in page
    Image.new("RGB", (4, 4)).save(tmp_path / "inversions.png")
    page = lb.write_study(tmp_path).read_text(encoding="utf-8")
    assert "(inversions.png)" in page


def test_hostile_names_are_inert(tmp_path: Path) -> None:
    """Labels, attacks and judges from a foreign study.json cannot break the tables."""

    def page(name: str) -> str:
        own = {"canny": inversion(judged(name, 0.2, 0.5), judged("dlib", 0.2, 0.3))}
        text = json.dumps(
            inverted(own, curves=[curve(name, 0.4, attack=name) | {"setting": name}])
        ).replace('"canny"', json.dumps(name)).replace('"unet"', json.dumps(name))  # fmt: skip
        (tmp_path / "study.json").write_text(text, encoding="utf-8")
        return lb.write_study(tmp_path).read_text(encoding="utf-8")

    quiet, text = page("x"), page(HOSTILE)
    assert [line.count("|") for line in text.splitlines()] == [
        line.count("|") for line in quiet.splitlines()
    ]
    for mark in ("<img", "](https", "https://", "www.", "*b*", "_i_", "@you", "\u202e"):
        assert mark not in text, mark


def test_a_judge_without_numbers_is_refused(tmp_path: Path) -> None:
    """The judge that validation chose must be among those listed."""
    odd = inversion(judged("own", 0.2, 0.5)) | {"judge": "other"}
    (tmp_path / "study.json").write_text(json.dumps(inverted({"canny": odd})))
    with pytest.raises(lb.LeaderboardError, match="'other' has no numbers"):
        lb.write_study(tmp_path)


@pytest.mark.parametrize("name", ["conditioning", "ladder", "ladder-orl"])
def test_committed_pages_are_what_their_numbers_give(name: str) -> None:
    """A study without inversions has the page that is committed, byte for byte."""
    folder = STUDIES / name
    there = {path.name for path in folder.iterdir()}
    page = lb.render_study(
        lb.load_study(folder / "study.json"),
        sweeps="sweeps.png" in there,
        front="frontier.png" in there,
        picture="people.jpg" in there,
        ladder="ladder.png" in there,
        det="det.png" in there,
    )
    assert page.encode() == (folder / "README.md").read_bytes()
