"""The page of a study about membership tells what `study.json` holds, and nothing else."""

from __future__ import annotations

import copy
import json
import re
import shutil
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import privbench_leaderboard as lb
from privbench import audit_study
from privbench.audit_numbers import AtRate, SetResult
from privbench.audit_plan import PRIMARY, Target
from privbench.audit_record import MembershipRecord
from privbench.audit_studyfile import AuditStudyFile, Row, parse_audit_study
from privbench.audit_summary import summarise
from privbench.populations import MEMBERSHIP_PROTOCOLS
from privbench.record import Part, PluginRef
from privbench.settest import refusal, rejections
from privbench.types import Estimate
from privbench_leaderboard.markdown import escape
from privbench_leaderboard.membership_figures import (
    plot_epochs,
    plot_guidance,
    plot_power,
    plot_rows,
)
from privbench_leaderboard.membership_phrases import against_chance, compared
from privbench_leaderboard.membership_study import MembershipStudy
from privbench_leaderboard.membership_words import sentences
from privbench_leaderboard.studies import Shown
from test_studies import HOSTILE

FILE = Path(__file__).parents[1] / "plugins" / "privbench_plugins" / "studies" / "face-mia.toml"
PROTOCOL = MEMBERSHIP_PROTOCOLS["full"]
CONTROLS: dict[str, Any] = {"mia-random": "negative", "mia-blind": "diagnostic"}
GRAY = ("mia-loss", "mia-secmi", "mia-pia", "mia-cdi")
AUCS = {
    "2": 0.7, "2b": 0.6, "4a": 0.8, "4b": 0.82, "g0": 0.7, "g8": 0.88, "g16": 0.59, "7": 0.9,
    "8": 0.52, "9": 0.66, "11": 0.99, "11b": 0.51, "11c": 0.9, "13": 0.75, "p0": 0.5,
}  # fmt: skip
"""AUC of the paper's rows and controls; elsewhere it grows with the epochs."""

Rule = Callable[[Row, str], float]


PEERS = ("mia-blind", "mia-random", "mia-generated", "mia-nearest", *GRAY)


def definition() -> AuditStudyFile:
    """A study like the one that is shipped, with fewer rows."""
    three = {"targets": ["a", "a-1", "a-2"]}
    real = [{"id": "mia-generated", "negatives": "real", "seeds": 1}]
    foreign, alone = {"trial": "other-population"}, {"trial": PRIMARY}
    rows = [
        row("2", "paper", "wild", **three, attacks=real, reported=".71 ± .02"),
        row("2b", "control", **three, **foreign, attacks=real),
        row("4a", "paper", **foreign, settings={"released_epoch": 10}, reported=".86 ± .02"),
        row("4b", "paper", **three, **foreign, reported=".82 ± .01", quick_settings={}),
        *(
            row(f"g{x}", "guidance", **foreign, x=x, settings={"guidance_scale": x}, reported=r)
            for x, r in ((0, ".70"), (8, ".89"), (16, ".58"))
        ),
        row("7", "paper", "wild", **three, reported=".89 ± .04"),
        row("8", "paper", **three, **alone, reported=".53 ± .00", quick_settings={}),
        row("9", "paper", **foreign, targets=["base"], reported=".66 ± .03"),
        row("11", "paper", "mark", targets=["marked"], reported="1.00 ± .00"),
        row("13", "paper", **foreign, targets=["mix"], reported=".83 ± .02"),
        row("11b", "control", "mark-on-both", targets=["marked"]),
        row("11c", "control", "mark"),
        row("p10", "epochs", **alone, x=10, settings={"released_epoch": 10}, attacks=GRAY),
        row("p20", "peer", **three, **alone, x=20, attacks=PEERS, quick_settings={}),
        row("p80", "peer", **alone, x=80, settings={"released_epoch": 80}, attacks=PEERS[1:]),
        row("p0", "control", **alone, targets=["base"], attacks=GRAY),
    ]
    trials = [{"name": PRIMARY}, {"name": "wild", "others": "wild"},
              {"name": "other-population", "others": "foreign"},
              {"name": "mark", "mark": "watermark-visible", "others": "foreign"},
              {"name": "mark-on-both", "mark": "watermark-visible",
               "mark_others": True}]  # fmt: skip
    targets = [{"name": "a", "quick_settings": {}}, {"name": "a-1", "fold": 1},
               {"name": "a-2", "fold": 2}, {"name": "base", "settings": {"epochs": 0}},
               {"name": "marked", "mark": "watermark-visible"},
               {"name": "mix", "trained_on": ["seen", "wild"]}]  # fmt: skip
    study = {"title": "Who was there?", "question": "Is it told?", "notes": ["A `note`."],
             "settings": {"epochs": 20}, "attacks": ["mia-generated", "mia-zero-shot"],
             "dataset": {"id": "synthfaces", "path": "build/portraits"}, "protocol": "full",
             "trials": trials, "targets": targets, "rows": rows}  # fmt: skip
    return parse_audit_study(study, "study")


def row(name: str, group: str, trial: str = "", reported: str = "", **entries: Any) -> Any:
    """A row of the study file."""
    return {
        "id": name, "group": group, "what": f"question {name}", "targets": ["a"],
        "reported": {"mia-generated": reported, "mia-zero-shot": ".6"} if reported else {},
    } | ({"trial": trial} if trial else {}) | entries  # fmt: skip


def auc_of(row: Row, attack: str) -> float:
    """Plausible AUCs: gray boxes see more, and more after more epochs."""
    if attack in CONTROLS:
        return 0.5
    if row.id in AUCS:
        return AUCS[row.id] if attack == "mia-generated" else 0.5 + (AUCS[row.id] - 0.5) / 4
    return 0.5 + (0.0012 if attack in GRAY else 0.0002) * (row.x or 0)


def estimates(name: str, value: float, half: float) -> Estimate:
    """A number of 2,000 images of as many people."""
    return Estimate(name, value, max(value - half, 0), min(value + half, 1), 2000, 2000)


def sets(trained: bool, effect: float, learns: bool) -> SetResult:
    """A set test: its power follows from the effect on single images."""
    sizes = (10, 50, 100, 500, 1000)

    def curve(contamination: float) -> dict[str, Any]:
        seen = (1 - contamination) * effect
        share = {n: float(np.clip(0.05 + seen * np.sqrt(n), 0, 1)) for n in sizes}
        left_out = {"1000": "needs 1,000 unpublished; there are 500"} if contamination else {}
        return {
            "contamination": contamination,
            "points": {str(n): {"share": s} for n, s in share.items() if str(n) not in left_out},
            "disjoint": {str(n): 1000 // n for n in sizes if str(n) not in left_out},
            "left_out": left_out,
        }

    suspect = {"p": 0.0002 if trained and effect > 0.03 else 0.4, "n_suspect": 1000.0,
               "n_unpublished": 1500.0, "difference": effect, "low": 0.0, "high": 0.2}  # fmt: skip
    tests = asdict(rejections(np.array([0.01] + [0.5] * 29)))
    return SetResult(
        learns=learns,
        suspect=suspect,
        groups=tests,
        null={"disjoint": tests, "overlapping": tests},
        power=[curve(c) for c in (0.0, 0.25, 0.5)],
        size=25,
    )


def record(study: AuditStudyFile, one: Target, rows: Sequence[Row], rule: Rule) -> Any:
    """A record as the harness would make it, for all rows that share it."""
    (attack,), settings = one.attacks, one.anonymizer.settings
    epochs = settings.get("released_epoch") or settings["epochs"]
    trained = "seen" in one.trained_on and bool(epochs)
    first = {row.trial: row for row in reversed(rows)}
    trials = [t for t in study.trials if t.name in first]
    aucs = {name: rule(row, attack.id) + 0.004 * one.folds[0] for name, row in first.items()}
    negatives = {"negatives": "generated"} if attack.id == "mia-generated" else {}
    plugin: dict[str, Any] = {"version": 1, "summary": "", "distribution": "privbench", "code": "0",
              "weights": {}, "licence": "MIT"}  # fmt: skip
    alone = aucs.get(PRIMARY)
    return MembershipRecord(
        created="2026-01-01T00:00:00+00:00",
        privbench="0",
        anonymizer=PluginRef(id="ldm-finetune", config=settings, **plugin),
        attack=PluginRef(
            id=attack.id, config=negatives | attack.settings, control=CONTROLS.get(attack.id),
            **plugin,
        ),
        threat_model="gray-box" if attack.id in GRAY else "black-box",
        answers=1000,
        predictions=20000 if attack.id in GRAY else 0,
        dataset={"id": "synthfaces", "version": "1", "digest": "ab" * 32, "licence": "MIT"},
        dataset_facts={},
        protocol={"name": PROTOCOL.name, "version": 1, "target": "campus-a",
                  "auxiliary": "campus-b", "wild": "wild", "people": dict(PROTOCOL.people),
                  "images": 1, "resamples": 2000},
        primary_trial=PRIMARY,
        fold=one.folds[0],
        seed=0,
        dtype="float32",
        seen="trained" if trained else "never",
        target={"trained_on": list(one.trained_on), "mark": one.mark, "epochs": epochs,
                "training": {"images_per_second": 41.7}},
        parts={name: Part(identities=n, images=n) for name, n in PROTOCOL.people.items()},
        pairs={trial.name: trial.sides() for trial in trials},
        estimates={name: {"membership": numbers(auc)} for name, auc in aucs.items()},
        exact={name: rates(auc, 1000 if name == PRIMARY else 800) for name, auc in aucs.items()},
        sets=sets(trained, alone - 0.5, attack.id == "mia-cdi")
        if alone is not None and attack.id != "mia-blind"
        else None,
        attack_report={},
        metrics={},
        timing=[{"stage": "fine-tuning", "summary": {"images_per_second": 41.7},
                 "device": {"name": "some processor", "threads": "2"}}],
        packages={},
        keys={"record": sha256(one.model_dump_json().encode()).hexdigest()},
    )  # fmt: skip


def numbers(auc: float) -> list[Estimate]:
    """AUC, and the rates at the attacker's own threshold."""
    return [
        estimates("auc", auc, 0.02),
        estimates("tpr@calibrated=0.01", 0.0321, 0.01),
        estimates("fpr@calibrated=0.01", 0.0123, 0.005),
    ]


def rates(auc: float, others: int) -> list[AtRate]:
    """TPR at 1 % and 0.1 %, refused where the harness refuses it."""
    return [
        AtRate(rate=rate, refused=reason)
        if (reason := refusal(rate, others))
        else AtRate(rate=rate, fpr=rate, tpr=auc / 20, low=auc / 30, high=auc / 10)
        for rate in (0.01, 0.001)
    ]


def result(
    rule: Rule = auc_of,
    errors: Mapping[str, str] | None = None,
    quick: bool = False,
    study: AuditStudyFile | None = None,
) -> dict[str, Any]:
    """`study.json` of a study; a row with an error has no results."""
    study, failed = audit_study.selected(study or definition(), quick), errors or {}
    rows = {row.id: row for row in study.rows}
    made, places = audit_study.asked(study, "cpu")
    done: dict[str, dict[str, list[MembershipRecord]]] = {}
    for one, wanted in zip(made.targets, places, strict=True):
        (attack,) = one.attacks
        found = record(study, one, [rows[name] for name, _ in wanted], rule)
        for name, _ in wanted:
            if name not in failed:
                done.setdefault(name, {}).setdefault(attack.id, []).append(found)
    body = {
        "schema_version": 1,
        "task": "membership",
        "name": "face-mia",
        "quick": quick,
        "definition": study.model_dump(mode="json"),
        "results": summarise(study, done, failed),
    }
    written: dict[str, Any] = json.loads(json.dumps(body, sort_keys=True))  # as in the file
    return written


@pytest.fixture(scope="module")
def whole() -> dict[str, Any]:
    """The whole study."""
    return result()


def page(body: dict[str, Any]) -> str:
    """The page of a study.json, without plots."""
    return lb.render_membership(MembershipStudy.model_validate(body))


def written(body: dict[str, Any], folder: Path) -> str:
    """The page and its plots in a folder."""
    folder.mkdir(exist_ok=True)
    (folder / "study.json").write_text(json.dumps(body, sort_keys=True), encoding="utf-8")
    return lb.write_membership(folder).read_text(encoding="utf-8")


def words(body: dict[str, Any]) -> str:
    """What the page says."""
    return "\n".join(sentences(MembershipStudy.model_validate(body)))


def paragraph(body: dict[str, Any], title: str) -> str:
    """The sentences under a title."""
    return next(line for line in words(body).splitlines() if line.startswith(f"**{title}"))


def cells(text: str, first: str = "") -> list[list[str]]:
    """Tables' rows, or those that begin with a cell, as cells."""
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines()
            if line.startswith("|")]  # fmt: skip
    return [found for found in rows if found[0] == first or not first]


def changed(**aucs: float) -> dict[str, Any]:
    """The study with other AUCs under the paper's attack; `row_9=.5` changes row 9."""
    other = {name.removeprefix("row_"): value for name, value in aucs.items()}

    def rule(row: Row, attack: str) -> float:
        own = attack == "mia-generated" and row.id in other
        return other[row.id] if own else auc_of(row, attack)

    return result(rule)


def test_every_row_is_printed_with_its_numbers(whole: dict[str, Any]) -> None:
    """The paper's table holds each row's AUCs beside the paper's figures; controls stand below."""
    text = page(whole)
    table = text[text.index("## The paper's table") : text.index("## Membership alone")]
    rows = [line.split("|")[1].strip() for line in table.splitlines() if line.startswith("|")][2:]
    assert rows == ["2", "2b", "4a", "4b", "g0", "g8", "g16", "7", "**8**", "**9**",
                    "11", "11b", "11c", "13"]  # fmt: skip
    for row in whole["results"]["rows"]:
        for found in cells(table, row["id"]):
            assert found[1].removesuffix(" (control)") == escape(row["what"])
            for i, attack in enumerate(("mia-generated", "mia-zero-shot")):
                there = row["results"].get(attack)
                assert found[5 + 2 * i] == (shown(there["auc"]) if there else "")
                assert found[6 + 2 * i] == row["reported"].get(attack, "")
            assert found[3:5] == [str(len(row["targets"])), "2,000"]
    assert "beside rows 8 and 9**" in table
    assert cells(table, "**9**")[0][2] == "**seen (no members) / foreign**"
    assert cells(table, "11b")[0][2] == "seen + watermark-visible / unseen + watermark-visible"
    assert cells(table, "11c")[0][2] == "seen + watermark-visible / foreign"


def test_fewer_attack_models_are_told(whole: dict[str, Any]) -> None:
    """Where rows differ in seeds of the attack model, the table's legend says so."""
    body = copy.deepcopy(whole)
    assert "(seeds)" not in page(body)
    for row in body["results"]["rows"]:
        if found := row["results"].get("mia-generated"):
            found["config"]["seeds"] = 1 if row["id"] == "7" else 3
    assert "Attack models (seeds) by row: 1 in 7; 3 in 2, 2b, 4a," in page(body)


def shown(auc: Mapping[str, float]) -> str:
    """A value and its interval as the page prints them."""
    return f"{auc['value']:.3f} [{auc['low']:.3f}, {auc['high']:.3f}]"


def test_membership_alone_shows_every_attack(whole: dict[str, Any]) -> None:
    """Each row has a table with its attacks in the study's order; rates are the record's."""
    text = page(whole)
    alone = text[text.index("## Membership alone") : text.index("## Whole sets")]
    sections = {part.splitlines()[0]: part for part in alone.split("### ")[1:]}
    listed = {row.id: [a.id for a in row.attacks] for row in definition().rows
              if row.group in ("peer", "epochs") or row.id == "p0"}  # fmt: skip
    assert len(sections) == len(listed)
    for row in whole["results"]["rows"]:
        if row["id"] not in listed:
            continue
        (part,) = [p for title, p in sections.items() if title.endswith(f"(row {row['id']})")]
        lines = [line.split("|")[1:-1] for line in part.splitlines() if line.startswith("| mia-")]
        names = [line[0].strip().removesuffix(" (control)") for line in lines]
        assert sorted(names) == sorted(listed[row["id"]])
        for name, line in zip(names, lines, strict=True):
            found = row["results"][name]
            assert line[3].strip() == shown(found["auc"])
            exact = [{"value": e["tpr"], **e} for e in found["exact"]]
            assert [line[4].strip(), line[5].strip()] == [shown(e) for e in exact]
            assert line[6].strip() == "0.032 [0.022, 0.042] / 0.012 [0.007, 0.017]"
            assert line[0].strip().endswith("(control)") == (name in CONTROLS)
        assert ("Nobody here is a member" in part) == (row["id"] == "p0")
    longest = max(sections.values(), key=len)
    assert [line.split("|")[1].split()[0] for line in longest.splitlines()
            if line.startswith("| mia-")] == max(listed.values(), key=len)  # fmt: skip


def test_a_refused_rate_is_explained(whole: dict[str, Any]) -> None:
    """Without enough non-members there is the reason, and no number."""
    body = copy.deepcopy(whole)
    for row in body["results"]["rows"]:
        for found in row["results"].values():
            found["exact"][1] = {"rate": 0.001, "refused": refusal(0.001, 225)}
    text = page(body)
    assert "needs 1,000 non-members; there are 225." in text
    assert cells(text, "mia-loss")[0][5] == "refused"
    assert "refused" not in page(whole)


def test_membership_and_distribution_follow_their_rows() -> None:
    """What is membership and what is not changes with the intervals, in both directions."""
    usual = changed()
    assert "mia-generated 0.524 [0.502, 0.546], above chance" in paragraph(usual, "What is memb")
    text = paragraph(usual, "What is only distribution")
    assert "AUC 0.824 [0.802, 0.846] (row 4b)" in text
    assert "(row 9) it has 0.660 [0.640, 0.680], above chance: without a single member" in text
    assert "(row 8) it has 0.524 [0.502, 0.546]: what row 4b has above that is the look" in text
    flipped = changed(row_8=0.82, row_9=0.505)
    assert "0.824 [0.802, 0.846], above chance" in paragraph(flipped, "What is membership")
    text = paragraph(flipped, "What is only distribution")
    assert "not told from chance: the difference comes with fine-tuning" in text
    assert "not shown to differ from the first" in text
    below = paragraph(changed(row_8=0.3), "What is membership")
    assert "0.304 [0.282, 0.326], below chance" in below
    low = paragraph(changed(row_4b=0.5, row_9=0.5, row_8=0.9), "What is only distribution")
    assert "the first is not shown to be higher" in low
    assert "membership shows more there" in low


def test_thresholds_are_told_as_attained(whole: dict[str, Any]) -> None:
    """Whether the attacker's threshold keeps its FPR on the members' population."""
    text = paragraph(whole, "Thresholds")
    assert "(row 8): mia-generated attains an FPR of 0.012 [0.007, 0.017], as meant, with" in text
    body = copy.deepcopy(whole)
    found = next(row for row in body["results"]["rows"] if row["id"] == "8")["results"]
    fpr = found["mia-generated"]["numbers"]["fpr@calibrated=0.01"]
    fpr |= {"value": 0.9, "low": 0.8, "high": 0.95}
    assert "0.900 [0.800, 0.950], higher, with" in paragraph(body, "Thresholds")


def test_guidance_is_told_as_it_is() -> None:
    """Whether strong guidance weakens the attack depends on its interval, not on the paper."""
    usual = paragraph(changed(), "Does guidance protect")
    assert "Against foreign, mia-generated does best at guidance 8, 0.880 [0.860, 0.900]" in usual
    assert "16 weakens it (0.590 [0.570, 0.610])" in usual
    assert "The paper's attack does best at 8 (0.89), and has 0.58 at 16." in usual
    same = paragraph(changed(row_g16=0.87), "Does guidance protect")
    assert "16 is not shown to weaken it (0.870 [0.850, 0.890])" in same
    best = paragraph(changed(row_g16=0.95), "Does guidance protect")
    assert "does best at guidance 16, 0.950 [0.930, 0.970]; beside that, 0 weakens it" in best


def test_watermarks_and_negatives_are_told_as_they_are() -> None:
    """A mark helps the attacker, hinders it or neither; so do real negatives."""
    usual = changed()
    text = paragraph(usual, "Question 11")
    assert "(row 11): 0.990 [0.970, 1.000], easier for the attacker" in text
    assert "(row 11b): 0.510 [0.490, 0.530], not told from chance: nothing but the mark" in text
    assert "(row 11c): 0.900 [0.880, 0.920], easier for the attacker" in text
    assert "(row 11c): 0.830 [0.810, 0.850], not shown to differ from no mark" in words(
        changed(row_11c=0.83)
    )
    other = changed(row_11=0.6, row_11b=0.7, row_2=0.99)
    text = paragraph(other, "Question 11")
    assert "0.600 [0.580, 0.620], harder for the attacker" in text
    assert "above chance: more than the mark is recognised" in text
    assert "(row 7) are better than real ones" in paragraph(usual, "What the attack model")
    assert "(row 7) are worse than real ones" in paragraph(other, "What the attack model")


def test_epochs_and_other_releases_are_told_as_they_are() -> None:
    """More epochs give more away only if the intervals say so."""
    usual = paragraph(changed(), "Do fewer epochs")
    assert (
        "mia-loss 0.512 [0.492, 0.532] (p = 0.400) after 10, 0.596 [0.576, 0.616] (p < .001) "
        "after 80, which is more" in usual
    )
    flat = result(lambda row, attack: 0.5)
    assert "no difference shown" in paragraph(flat, "Do fewer epochs")
    assert "Lower: question 13 0.750 [0.730, 0.770] (row 13)" in paragraph(
        changed(), "What else changes"
    )
    text = paragraph(changed(row_13=0.95), "What else changes")
    assert re.search(r"Higher: question 13 0\.950", text)


def test_the_paper_s_figures_are_held_or_not() -> None:
    """A figure outside our interval is named, with the side."""
    held = paragraph(changed(), "Against the paper")
    assert "holds 12 of its 21 figures" in held
    text = words(changed(row_g0=0.6, row_8=0.9))
    assert "holds 10 of its 21 figures" in text
    assert "- mia-generated, ours higher: row 8 (0.904 [0.882, 0.926], paper .53 ± .00)." in text
    assert "ours lower: rows 4a (0.800 [0.780, 0.820], paper .86 ± .02); g0 (0.600 [" in text


def test_sets_are_told_with_their_p_and_power(whole: dict[str, Any]) -> None:
    """p of every target, powers by size and contamination, sizes left out with the reason."""
    text = page(whole)
    for entry in whole["results"]["sets"]:
        if entry["row"] == "8":  # the other attack's records are those of p20
            told = {found[1] for found in cells(text, "question 8 (row 8)")}
            assert told == {"mia-zero-shot"}
            continue
        name = f"{entry['what']} (row {entry['row']})"
        rows = [r for r in cells(text, escape(name))
                if r[1].split(",")[0].removesuffix(" (control)") == entry["attack"]]  # fmt: skip
        tests, *powers = rows
        assert [p for p in tests[4:] if p] == [
            "**< .001**" if p < 0.001 else f"{p:.3f}" for p in entry["p"]
        ]
        if entry["seen"] == "trained":
            points = [curve["points"] for curve in entry["power"]]
            assert powers[0][2] == " / ".join(f"{p['10']:.2f}" for p in points)
            assert powers[0][6] == f"{points[0]['1000']:.2f}\\* / – / –"
    reason = "needs 1,000 unpublished; there are 500"
    assert f"(–): n = 1,000 at 25 %: {reason}; n = 1,000 at 50 %: {reason}." in text


def test_false_alarms_are_marked(whole: dict[str, Any]) -> None:
    """A detection is bold, unless nobody is a member or the attack guesses."""
    body = copy.deepcopy(whole)
    assert "(false alarm)" not in page(body)
    assert words(body).count("5 % is within the interval of each") == 2
    assert "0 of 4 tests reject, p = 0.400." in words(body)
    for entry in body["results"]["sets"]:
        if entry["seen"] == "never" or entry["attack"] == "mia-random":
            entry["p"] = [0.02] * len(entry["p"])
    for entry in body["results"]["null"]:
        if (entry["row"], entry["attack"], entry["kind"]) == ("p0", "mia-pia", "strangers"):
            entry |= {"share": 0.3, "low": 0.2, "high": 0.4, "nominal_within": False}
    text = page(body)
    wrong = sum(len(e["p"]) for e in body["results"]["sets"]
                if e["seen"] == "never" or e["attack"] == "mia-random")  # fmt: skip
    assert text.count("0.020 (false alarm)") == wrong
    assert "**0.020**" not in text
    assert "4 of 4 tests reject, p = 0.020." in text
    assert (
        "the most rejections by mia-pia, 0.300 [0.200, 0.400]; 5 % is not within the interval "
        "of mia-pia on question p0 (0.300 [0.200, 0.400])." in text
    )
    assert [found[2] for found in cells(text) if found[-1] == "**no**"] == ["mia-pia"]


def test_sets_in_words_follow_p(whole: dict[str, Any]) -> None:
    """An attack that detects the set on some targets is not said to detect it on all."""
    body = copy.deepcopy(whole)
    row = next(r["id"] for r in body["results"]["rows"] if len(r["targets"]) == 3
               and r["group"] == "peer")  # fmt: skip
    entry = next(e for e in body["results"]["sets"] if (e["row"], e["attack"]) == (row, "mia-pia"))
    for p, expected in (
        ([0.01, 0.02, 0.04], "mia-pia (p = 0.010 to 0.040; "),
        ([0.01, 0.02, 0.4], "mia-pia (p = 0.010 to 0.400; 2 of 3 targets; "),
        ([0.3, 0.2, 0.4], "mia-pia (p = 0.200 to 0.400)"),
    ):
        entry["p"] = p
        assert expected in words(body)


def test_missing_rows_are_listed_and_blank() -> None:
    """An unfinished row is named with its reason; its cells are empty and its words left out."""
    text = page(result(errors={"9": "It broke.", "11": "", "g16": "It broke, too."}))
    missing = text[text.index("## What is missing") :]
    assert "- not finished: row 9, question 9: It broke." in missing
    assert "- not finished: row 11, question 11\n" in missing
    assert cells(text, "g16")[0][3:] == ["", "", "", ".58", "", ".6"]
    assert "**Question 11**" not in text
    assert "16 weakens" not in text


def test_a_quick_study_says_so(tmp_path: Path) -> None:
    """The short form has a caveat, fewer rows, and no plot without points."""
    text = written(result(quick=True), tmp_path)
    assert "**This is the quick form**" in text
    assert "`privbench study face-mia --quick`. Do not edit" in text
    assert not (tmp_path / "guidance.png").exists()
    assert "guidance.png" not in text


def test_plots_show_the_numbers(whole: dict[str, Any], tmp_path: Path) -> None:
    """Each plot is a small image that changes with its numbers."""
    usual = MembershipStudy.model_validate(whole)
    other = MembershipStudy.model_validate(
        result(lambda row, attack: auc_of(row, attack) + 0.1 * (attack == "mia-cdi"))
    )
    weaker = MembershipStudy.model_validate(changed(row_g8=0.6))
    for plot, differs in (
        (plot_rows, MembershipStudy.model_validate(changed(row_8=0.6))),
        (plot_guidance, weaker),
        (plot_epochs, other),
        (plot_power, other),
    ):
        first, second = tmp_path / "first.png", tmp_path / "second.png"
        assert plot(usual, first)
        assert plot(differs, second)
        assert first.read_bytes() != second.read_bytes()
        assert first.stat().st_size < 50_000
        with Image.open(first) as image:
            assert image.mode == "P"
            assert image.width < 800


def test_a_plot_needs_points(whole: dict[str, Any], tmp_path: Path) -> None:
    """Nothing is drawn of one point; a repeated plot has the same bytes."""
    study = MembershipStudy.model_validate(whole)
    assert plot_guidance(study, tmp_path / "a.png")
    assert plot_guidance(study, tmp_path / "b.png")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    bare = study.results.model_copy(update={"rows": (), "sets": ()})
    bare_study = study.model_copy(update={"results": bare})
    for plot in (plot_rows, plot_guidance, plot_epochs, plot_power):
        assert not plot(bare_study, tmp_path / "c.png")
    assert not (tmp_path / "c.png").exists()


def test_the_page_shows_its_plots(whole: dict[str, Any], tmp_path: Path) -> None:
    """All plots lie beside the page that shows them."""
    text = written(whole, tmp_path)
    for name in ("rows.png", "guidance.png", "epochs.png", "power.png"):
        assert f"]({name})" in text
        assert (tmp_path / name).is_file()


def test_pictures_are_shown_where_there_are_some(tmp_path: Path) -> None:
    """Samples have their section, once they are beside the page."""
    body = result(quick=True)
    assert "samples.jpg" not in written(body, tmp_path)
    Image.new("RGB", (4, 4)).save(tmp_path / "samples.jpg")
    assert "](samples.jpg)" in written(body, tmp_path)


def test_settings_can_be_repeated(whole: dict[str, Any]) -> None:
    """Parts, seed, cost and commands are there."""
    text = page(whole)
    assert cells(text, "seen")[0][1:3] == ["1,000", "1,000"]
    for expected in ("41.7 images/s on some processor", "`privbench study face-mia`", "Seed 0",
                     "portraits --out build/portraits`", "(../../membership.md)"):  # fmt: skip
        assert expected in text
    parts = [found[0] for found in cells(text) if found[0] in PROTOCOL.people]
    assert parts == list(PROTOCOL.people)


def test_hostile_names_are_inert(tmp_path: Path) -> None:
    """Whatever stands in a foreign study.json cannot break the page or a plot."""
    names = ("mia-loss", "question p20", "question 11", "question 13", "It broke.", "face-mia",
             "synthfaces", ".83 ± .02", "fine-tuning", "some processor", "other-population",
             "black-box", "11c", "needs 1,000 unpublished; there are 500")  # fmt: skip
    text = json.dumps(result(errors={"11b": "It broke."}), ensure_ascii=False)

    def named(name: str) -> str:
        body = text
        for found in names:
            body = body.replace(json.dumps(found, ensure_ascii=False), json.dumps(name))
        studied = json.loads(body)
        studied["definition"] |= {"title": name, "question": name, "notes": [name]}
        return written(studied, tmp_path)

    quiet, loud = named("x"), named(HOSTILE)
    assert [line.count("|") for line in loud.splitlines()] == [
        line.count("|") for line in quiet.splitlines()
    ]
    for mark in ("<img", "](https", "https://", "www.", "*b*", "_i_", "@you", "\u202e"):
        assert mark not in loud, mark


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not a study"),
        ("[]", "not a study"),
        ('{"schema_version": 2, "task": "membership"}', "schema 2"),
        ('{"schema_version": 1}', "about None; expected 'membership'"),
        ('{"schema_version": 1, "task": "identification"}', "about 'identification'"),
        ('{"schema_version": 1, "task": "membership"}', "Field required"),
    ],
)
def test_an_unreadable_result_is_a_clear_error(text: str, message: str, tmp_path: Path) -> None:
    """A study of another kind is refused; no page is written."""
    (tmp_path / "study.json").write_text(text)
    with pytest.raises(lb.LeaderboardError, match=message):
        lb.write_membership(tmp_path)
    assert not (tmp_path / "README.md").exists()


def test_a_missing_file_is_a_clear_error(tmp_path: Path) -> None:
    """A folder without a study is named."""
    with pytest.raises(lb.LeaderboardError, match="Cannot read the study"):
        lb.write_membership(tmp_path)


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.501, 0.6, "above chance"),
        (0.5, 0.6, "not told from chance"),
        (0.4, 0.5, "not told from chance"),
        (0.4, 0.499, "below chance"),
        (None, None, "not told from chance"),
    ],
)
def test_chance_needs_the_whole_interval(low: Any, high: Any, expected: str) -> None:
    """Only an interval wholly on one side of .5 decides."""
    assert against_chance(Shown(value=0.5, low=low, high=high)) == expected


def test_two_numbers_differ_where_intervals_are_apart() -> None:
    """Touching intervals show nothing."""
    one = Shown(value=0.6, low=0.55, high=0.65)
    assert compared(one, Shown(value=0.7, low=0.66, high=0.8)) == "lower"
    assert compared(one, Shown(value=0.5, low=0.4, high=0.54)) == "higher"
    assert compared(one, Shown(value=0.7, low=0.65, high=0.8)) == "not apart"
    assert compared(one, Shown(value=0.7, low=None, high=None)) == "not apart"


def test_the_shipped_study_has_a_page() -> None:
    """Every row of the study file is printed, once it has results."""
    study = parse_audit_study(tomllib.loads(FILE.read_text(encoding="utf-8")), "face-mia")
    text = page(result(study=study))
    for asked in study.rows:
        found = any(row[0].strip("*") == asked.id for row in cells(text))
        assert found or f"### {escape(asked.what)} (row {asked.id})" in text, asked.id
    assert "## What is missing" not in text


def test_the_committed_study_is_what_its_records_give(tmp_path: Path) -> None:
    """Numbers and page are made anew from the committed records alone, byte for byte."""
    committed = Path(__file__).parents[1] / "docs" / "studies" / "face-mia"
    folder = tmp_path / "face-mia"
    shutil.copytree(committed, folder)
    (folder / "README.md").unlink()
    audit_study.recompute_audit(folder)
    assert (folder / "study.json").read_bytes() == (committed / "study.json").read_bytes()
    lb.write_membership(folder)
    assert (folder / "README.md").read_bytes() == (committed / "README.md").read_bytes()
    listed = {
        name
        for row in json.loads((folder / "study.json").read_text())["rows"]
        for names in row["records"].values()
        for name in names
    }
    assert {path.name for path in (folder / "records").iterdir()} == listed
