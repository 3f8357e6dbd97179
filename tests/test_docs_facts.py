"""What the pages claim is compared with the source."""

from __future__ import annotations

import re
from dataclasses import asdict

import pytest

from docs_kit import DOCS, ROOT, anchors, pages
from privbench.data import PROTOCOLS, trials
from privbench.record import read_record
from privbench.registry import load_registry
from privbench.spec import Kind

EXAMPLE = ROOT / "examples" / "privbench-noise"


def test_the_table_of_presets_is_the_code_s() -> None:
    """docs/protocol.md lists every preset with exactly its numbers."""
    text = (DOCS / "protocol.md").read_text(encoding="utf-8")
    lines = text[text.index("| preset |") :].split("\n\n")[0].splitlines()
    header, _, *rows = [[c.strip() for c in line.strip("|").split("|")] for line in lines]
    names = ["name", *(h.replace(" ", "_").replace("-", "_") for h in header[1:])]
    found = [dict(zip(names, row, strict=True)) for row in rows]
    expected = [
        {k: str(v) for k, v in asdict(p).items() if k != "populations"} for p in PROTOCOLS.values()
    ]
    assert found == expected


def test_every_trial_is_described() -> None:
    """docs/protocol.md names each reference protocol."""
    text = (DOCS / "protocol.md").read_text(encoding="utf-8")
    for trial in trials(PROTOCOLS["quick"]):
        assert f"`{trial.name}`" in text


@pytest.mark.parametrize(
    ("kind", "page"),
    [("anonymizer", "anonymizers"), ("attack", "attacks"), ("metric", "metrics"),
     ("dataset", "datasets"), ("detector", "datasets")],
)  # fmt: skip
def test_every_plugin_is_described(kind: Kind, page: str) -> None:
    """Each built-in plugin is named on the page of its kind."""
    text = (DOCS / f"{page}.md").read_text(encoding="utf-8")
    ours = [p for p in load_registry().of_kind(kind) if p.distribution.startswith("privbench ")]
    missing = [p.spec.id for p in ours if not re.search(f"`{p.spec.id}[`:]", text)]
    assert not missing


def test_every_study_is_described() -> None:
    """docs/studies.md names each installed study."""
    text = (DOCS / "studies.md").read_text(encoding="utf-8")
    assert all(f"`{name}`" in text for name in load_registry().studies)


@pytest.mark.parametrize(
    "name", ["pyproject.toml", "privbench_noise.py", "tests/test_anonymizer.py"]
)
def test_the_tutorial_prints_the_example_as_it_is(name: str) -> None:
    """Whoever types the tutorial in gets the package that our tests install."""
    text = (DOCS / "plugin-tutorial.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```\w+\n(.*?)```", text, flags=re.DOTALL)
    assert (EXAMPLE / name).read_text(encoding="utf-8") in blocks


def test_links_between_pages_lead_somewhere() -> None:
    """No relative link of a page is broken, and where it names a heading there is one."""
    followed = 0
    for page in pages():
        for target in re.findall(r"\]\(([^):]+)\)", page.read_text(encoding="utf-8")):
            path, _, anchor = target.partition("#")
            found = page.parent / path if path else page
            assert found.exists(), f"{page.name}: {target}"
            if anchor:
                followed += 1
                assert anchor in anchors(found.read_text(encoding="utf-8")), (
                    f"{page.name}: {target}"
                )
    assert followed > 50


def test_every_page_is_in_the_index() -> None:
    """docs/README.md leads to all pages, studies and decisions."""
    text = (DOCS / "README.md").read_text(encoding="utf-8")
    linked = {(DOCS / t).resolve() for t in re.findall(r"\]\(([^)#:]+)\)", text)}
    missing = [p for p in DOCS.rglob("*.md") if p.resolve() not in linked | {DOCS / "README.md"}]
    assert not missing


@pytest.mark.parametrize(
    ("title", "anchor"),
    [("`a` and `b`", "a-and-b"), ("What's *new*, in 1.5?", "whats-new-in-15"), ("A_b-c", "a_b-c")],
)
def test_anchors_are_those_of_github(title: str, anchor: str) -> None:
    """Letters, digits, hyphens and underscores stay; a repeated title is numbered."""
    assert anchors(f"# {title}\n\n```sh\n# no title\n```\n## {title}\n") == [anchor, f"{anchor}-1"]


def test_the_quick_start_shows_a_committed_result() -> None:
    """The numbers that docs/quick-start.md explains are those of the board's record."""
    (path,) = (ROOT / "leaderboard" / "records").glob(
        "pixelate--contrastive-reid--quick--*.json.gz"
    )
    record = read_record(path)
    text = (DOCS / "quick-start.md").read_text(encoding="utf-8")
    _, _, table = text.partition("<!-- output: pixelate -->")
    lines = table.partition("```text\n")[2].partition("```")[0].splitlines()[1:]
    rows = {name: shown for name, *shown in (re.split(r" {2,}", line.strip()) for line in lines)}
    chance = rows.pop("chance")
    for trial, shown in rows.items():
        numbers = [
            record.estimate(*which, trial)
            for which in (("identification", "rank-1"), ("identification", "rank-10"),
                          ("identification", "mAP"), ("verification", "auc"))
        ]  # fmt: skip
        assert shown == [f"{n.value:.3f} [{n.low:.3f}, {n.high:.3f}]" for n in numbers]
        assert chance == [f"{n.chance:.3f}" for n in numbers]
    assert record.primary_trial in rows
