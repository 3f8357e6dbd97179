"""The README's commands work, and what it shows is what the code gives."""

from __future__ import annotations

import os
import re
import runpy
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from privbench.ranking import rank_rows

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
SHELL = [line for block in re.findall(r"```sh\n(.*?)```", README, re.S)
         for line in block.splitlines() if line.startswith("privbench")]  # fmt: skip
MAIN = "privbench run --anonymizer controlnet-canny --attack contrastive-reid"


def in_copy(line: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a command line in a folder that has the committed leaderboard records."""
    link = folder / "leaderboard"
    if not link.exists():
        link.mkdir()
        (link / "records").symlink_to(ROOT / "leaderboard" / "records")
    words = [sys.executable, "-m", "privbench.cli", *shlex.split(line)[1:]]
    return subprocess.run(words, cwd=folder, capture_output=True, text=True)


@pytest.mark.parametrize("line", SHELL)
def test_commands_run(line: str, tmp_path: Path) -> None:
    """Every `privbench` line of the README ends well."""
    done = in_copy(line, tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout


def test_the_main_command_runs(tmp_path: Path) -> None:
    """The main command with a small protocol and few training steps: the real model and attack."""
    done = in_copy(f"{MAIN} --protocol smoke --set contrastive-reid.steps=10", tmp_path)
    assert done.returncode == 0, done.stderr
    assert "controlnet-canny under contrastive-reid" in done.stdout
    assert "full-ref+source" in done.stdout


LADDER = MAIN.replace(
    "contrastive-reid", "naive-recogniser edge-surrogate contrastive-reid ensemble"
)


def test_the_ladder_runs(tmp_path: Path) -> None:
    """All attackers on one release, at small scale: the ladder, its maximum and a verdict."""
    assert LADDER in README
    few = "edge-surrogate.steps=3 contrastive-reid.steps=3 naive-recogniser.doublings=0"
    done = in_copy(f"{LADDER} --protocol smoke --set {few}", tmp_path)
    assert done.returncode == 0, done.stderr
    table = done.stdout.partition("under all attacks")[2]
    for word in ("naive-recogniser", "edge-surrogate", "contrastive-reid", "ensemble",
                 "worst case", "k-anonymity: ", "No positive and no negative control"):  # fmt: skip
        assert word in table


INVERSION = (
    "privbench run --anonymizer gaussian-blur controlnet-canny ldm-unconditional "
    "--attack inversion-unet --report inversion.html"
)


def test_the_inversion_runs(tmp_path: Path) -> None:
    """An inverter on one release, at small scale: judged, and with a page that shows faces."""
    assert INVERSION in README
    line = INVERSION.replace("controlnet-canny ldm-unconditional ", "")
    few = "inversion-unet.steps=3 --judge naive-recogniser:tiny-recogniser"
    done = in_copy(f"{line} --protocol smoke --set {few}", tmp_path)
    assert done.returncode == 0, done.stderr
    assert "tiny-recogniser" in done.stdout
    assert "reversible" in done.stdout
    assert "data:image/png" in (tmp_path / "inversion.html").read_text(encoding="utf-8")


def test_real_photographs_run(tmp_path: Path) -> None:
    """The same command line on ORL: the split is made to fit."""
    words = "privbench run --anonymizer pixelate --attack edge-match random-guess --dataset orl"
    done = in_copy(words, tmp_path)
    assert done.returncode == 0, done.stderr
    assert "protocol fit v1: 80 probes of 16 people" in done.stdout
    assert "random-guess (control)" in done.stdout


def test_make_targets_are_what_the_readme_says() -> None:
    """`make run` runs the main command; `make test` runs pytest."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("MAKE")}
    for target, words in (("run", MAIN), ("test", "pytest")):
        done = subprocess.run(
            ["make", "-n", target], cwd=ROOT, capture_output=True, text=True, env=environment
        )
        assert done.returncode == 0, done.stderr
        assert words in done.stdout


def test_python_example_runs(tmp_path: Path) -> None:
    """The Python lines print an estimate."""
    (code,) = re.findall(r"```python\n(.*?)```", README, re.S)
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "Estimate" in done.stdout


def test_links_lead_somewhere() -> None:
    """Every relative link and picture exists."""
    for target in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (ROOT / target).exists(), target


def test_the_leaderboard_is_current(tmp_path: Path) -> None:
    """The committed table, and the copy in the README, are what the committed records give."""
    import privbench_leaderboard as board

    board.write(ROOT / "leaderboard" / "records", tmp_path / "LEADERBOARD.md", rank_rows)
    text = (tmp_path / "LEADERBOARD.md").read_text(encoding="utf-8")
    assert (ROOT / "leaderboard" / "LEADERBOARD.md").read_text(encoding="utf-8") == text
    assert _block("leaderboard") == _filler()["narrow"](text)


def test_what_the_studies_say_is_current() -> None:
    """The README quotes the committed pages of the studies, and something at all."""
    fill = _filler()
    quoted = fill["said"](fill["page_of"]("conditioning"))
    assert quoted.count("**") >= 6
    assert _block("study") == quoted
    climbed = fill["ladder"](fill["page_of"]("ladder"))
    assert climbed.count("|") > 20
    assert "**The strongest attack**" in climbed
    assert _block("ladder") == climbed
    given = fill["said"](fill["page_of"]("inversion"), fill["GIVEN"])
    assert given.count("**") == 6
    assert _block("inversion") == given
    seen = fill["said"](fill["page_of"]("face-mia"), fill["SEEN"])
    assert seen.count("**") == 8
    assert seen.count("\n- ") == 2
    assert _block("membership") == seen


def _block(marker: str) -> str:
    """What stands between a marker and the next end marker."""
    shown = README.partition(f"<!-- {marker} -->")[2].partition("<!-- end -->")[0]
    return shown.removeprefix("\n").removesuffix("\n")


def _filler() -> dict[str, Any]:
    """The functions that fill the README."""
    return runpy.run_path(str(ROOT / "docs" / "readme.py"))
