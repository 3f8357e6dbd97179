"""The committed records are what they say."""

from __future__ import annotations

from pathlib import Path

import pytest

from privbench import bundle
from privbench.audit_publication import read_result
from privbench.grades import Grades, Withdrawals, read, stem
from privbench.record import unpacked
from privbench.registry import Registry, load_registry
from privbench.verify import verify

BOARD = Path(__file__).parents[1] / "leaderboard"
RECORDS = sorted((BOARD / "records").glob("*.json.gz"))
SAMPLE = RECORDS[::11]
"""Recomputed in every test run; the others by `pytest -m study tests/test_committed_records.py`."""


@pytest.fixture(scope="module")
def registry() -> Registry:
    """The installed plugins."""
    return load_registry()


def test_every_record_has_a_grade_of_these_very_bytes() -> None:
    """No record is only claimed, no grade is of another file, and none lacks its evidence."""
    grades = read(Grades, BOARD / "grades.json").grades
    assert set(grades) == {stem(path) for path in RECORDS}
    for path in RECORDS:
        grade, record = grades[stem(path)], read_result(path)
        assert grade.sha256 == bundle.sha256(unpacked(path)), path.name
        assert grade.grade in ("recomputed", "re-run"), path.name
        evidence = (path.parent / record.scores["file"]).read_bytes()
        assert record.scores["sha256"] == bundle.sha256(evidence), path.name


def test_nothing_is_left_over() -> None:
    """Every file beside the records belongs to one, and withdrawn ones are there."""
    named = {f"{stem(path)}{end}" for path in RECORDS for end in (".json.gz", bundle.SUFFIX)}
    assert {path.name for path in (BOARD / "records").iterdir()} == named
    shown = {getattr(read_result(path), "gallery", {}).get("file") for path in RECORDS} - {None}
    assert {path.name for path in (BOARD / "galleries").iterdir()} == shown
    withdrawn = read(Withdrawals, BOARD / "withdrawn.json").withdrawn
    assert {w.record for w in withdrawn} <= {stem(path) for path in RECORDS}


@pytest.mark.parametrize(
    "path",
    [
        pytest.param(p, id=stem(p), marks=[] if p in SAMPLE else [pytest.mark.study])
        for p in RECORDS
    ],
)
def test_it_is_recomputed(path: Path, registry: Registry) -> None:
    """Every number follows from the committed evidence, with the code as it is now."""
    verdict = verify(path, registry=registry)
    assert verdict.problems == ()
    assert verdict.grade is not None
    assert verdict.grade.grade == "recomputed"
