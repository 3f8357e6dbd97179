"""What a change of records changes on the board."""

from __future__ import annotations

import gzip
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from privbench.cli import main
from privbench_leaderboard import LeaderboardError, changed_files, compare
from privbench_leaderboard.change import MOST_CHARACTERS

RECORDS = Path(__file__).parents[1] / "leaderboard" / "records"
KEPT = (
    "none--contrastive",
    "pixelate--contrastive",
    "pixelate--inversion-linear",
    "dp-pix--contrastive",
    "gaussian-blur--edge-match",
)


@pytest.fixture
def sides(tmp_path: Path) -> tuple[Path, Path]:
    """Two equal folders of five records."""
    folders = (tmp_path / "old" / "records", tmp_path / "new" / "records")
    for folder in folders:
        folder.mkdir(parents=True)
        for name in KEPT:
            (path,) = RECORDS.glob(f"{name}*.json.gz")
            shutil.copy(path, folder)
    return folders


def one(folder: Path, name: str) -> Path:
    """The record file that begins so."""
    (path,) = folder.glob(f"{name}*.json.gz")
    return path


def edit(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change a record's JSON in place."""
    body = json.loads(gzip.decompress(path.read_bytes()))
    change(body)
    path.write_bytes(gzip.compress(json.dumps(body).encode()))


def told(sides: tuple[Path, Path], verdicts: str = "") -> str:
    """The comment, of records that make a board."""
    text, sound = compare(*sides, verdicts=verdicts)
    assert sound
    return text


def test_equal_folders_change_nothing(sides: tuple[Path, Path]) -> None:
    """No row, no record, and no file is listed."""
    text = told(sides)
    assert "No row of the board changes." in text
    assert "Records" not in text
    assert changed_files(*sides) == []


def test_a_row_is_new_gone_or_changed(sides: tuple[Path, Path]) -> None:
    """An added anonymizer, a removed one, and one whose worst attack was not known before."""
    old, new = sides
    one(old, "dp-pix").unlink()
    one(old, "pixelate--contrastive").unlink()
    one(new, "gaussian").unlink()
    rows = {
        line.split("|")[1].strip(): line for line in told(sides).splitlines() if line[:2] == "| "
    }
    assert "| new " in rows["dp-pix"]
    assert "| gone " in rows["gaussian-blur"]
    assert "| changed " in rows["pixelate"]
    assert "inversion-linear (1) → contrastive-reid (2)" in rows["pixelate"]
    assert " → 0.940 [0.890, 0.970]" in rows["pixelate"]
    assert "none" not in rows


def test_records_are_listed(sides: tuple[Path, Path]) -> None:
    """Added, changed, removed and withdrawn ones by name, the last with the reason."""
    old, new = sides
    one(old, "dp-pix").unlink()
    one(new, "gaussian").unlink()
    edit(one(new, "none"), lambda body: body.update(created="2026-01-01T00:00:00+00:00"))
    gone = one(new, "pixelate--inversion").name.removesuffix(".json.gz")
    listed = {"record": gone, "date": "2026-11-22", "reason": "Wrong seed."}
    (new.parent / "withdrawn.json").write_text(
        json.dumps({"schema_version": 1, "withdrawn": [listed]})
    )
    text = told(sides)
    for word in ("- Added: dp-pix--", "- Removed: gaussian-blur--", "- Changed: none--",
                 f"- Withdrawn: {gone}: Wrong seed."):  # fmt: skip
        assert word in text
    assert {path.name[:6] for path in changed_files(old, new)} == {"dp-pix", "none--"}


def test_audits_are_compared(sides: tuple[Path, Path]) -> None:
    """Records of membership have rows of their own, which become new and change like others."""
    folder = RECORDS.parents[1] / "docs" / "studies" / "face-mia" / "records"
    loss = min(folder.glob("ldm-finetune--mia-loss--full--*.json.gz"))
    shutil.copy(loss, sides[1])
    text = told(sides)
    assert "### Membership: full v1 on synthfaces" in text
    row = next(line for line in text.splitlines() if "in-distribution" in line)
    assert "| new " in row
    assert "mia-loss" in row
    shutil.copy(loss, sides[0])
    assert "No row of the board changes." in told(sides)
    edit(sides[1] / loss.name, _better)
    assert "| changed " in told(sides)
    assert "→ 0.999" in told(sides)


def _better(body: dict[str, Any]) -> None:
    """A higher AUC in every trial."""
    for metrics in body["estimates"].values():
        next(e for e in metrics["membership"] if e["name"] == "auc").update(value=0.999)


def test_an_edited_grade_is_told(sides: tuple[Path, Path]) -> None:
    """A proposal that grades itself is noticed."""
    (sides[1].parent / "grades.json").write_text('{"schema_version": 1, "grades": {}}')
    assert "only maintainers should" in told(sides)


def test_other_evidence_is_a_change(sides: tuple[Path, Path]) -> None:
    """A record is verified again if only the file beside it differs."""
    path = one(sides[1], "none")
    path.with_name(path.name.replace(".json.gz", ".evidence.safetensors.xz")).write_bytes(b"x")
    assert changed_files(*sides) == [path]


def test_nothing_from_a_record_is_live(sides: tuple[Path, Path]) -> None:
    """Markup in ids, reasons and verdicts arrives as text."""
    evil = "<img src=x> [a](http://x.org) @all `|` www.x.org"
    edit(one(sides[1], "dp-pix"), lambda body: body["anonymizer"].update(id=evil))
    text = told(sides, verdicts=f"{evil}: refused\n  {evil}\n")
    assert text.count("&#60;img src=x&#62;") >= 3
    for live in ("<img", "](", "@all", "://", "www.x"):
        assert live not in text


def test_a_comment_has_an_end(sides: tuple[Path, Path]) -> None:
    """However long the verdicts, the text fits, ends at a line and says that it was cut."""
    text = told(sides, verdicts="a verdict of a record\n" * 10_000)
    assert len(text) <= MOST_CHARACTERS
    assert text.endswith("too long for a comment.\n")


def test_a_first_board_and_a_broken_one(
    sides: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    """Without old records all rows are new; records that make no board are told, with code 2."""
    old, new = sides
    shutil.rmtree(old)
    with pytest.raises(LeaderboardError, match="There is no folder"):
        compare(old, new)
    with pytest.raises(LeaderboardError, match="There is no folder"):
        changed_files(old, new)
    old.mkdir()
    assert told(sides).count("| new ") == 4
    edit(one(new, "none"), lambda body: body.pop("estimates"))
    with pytest.raises(SystemExit) as ended:
        main(["compare", str(old), str(new)])
    assert ended.value.code == 2
    assert "No board can be made of these records" in capsys.readouterr().out
    with pytest.raises(LeaderboardError, match="is not a record"):
        compare(new, old)


def test_a_file_name_of_two_lines_is_refused(sides: tuple[Path, Path]) -> None:
    """A list with one file a line cannot be led astray."""
    shutil.copy(one(sides[1], "none"), sides[1] / "a\nb.json.gz")
    with pytest.raises(LeaderboardError, match="printable"):
        changed_files(*sides)
